"""Texts that a decoder scores, as tokens: each once, whoever is asked about it."""

from collections.abc import Sequence
from typing import Any

import torch

from training.decoder import last_states, mean_log_likelihoods
from training.personalised_model import PersonalisedDecoder

ROWS = 64
"""Texts of one pass of the bare decoder."""


class OptionTexts:
    """`ids` [n, L + 1] begin with the decoder's first token, then prompt and text; `counted` [n, L] bool says which
    predictions are of the text; `bare` [n] is the bare decoder's mean log-likelihood of it, nats a token.

    `hidden` [n, L, D] is what its last layer says, kept in half precision where nothing else than the head comes after
    the injection and `cache_mb` suffices, else None.
    """

    def __init__(
        self, model: PersonalisedDecoder, tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], *,
        longest: int, cache_mb: int = 0, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.ids, self.counted = padded(tokenizer, prompts, texts, longest)
        size = self.counted.numel() * model.decoder.config.hidden_size * 2
        self.hidden: torch.Tensor | None = None
        if model.is_late and size <= cache_mb << 20:
            self.hidden = torch.zeros(*self.counted.shape, model.decoder.config.hidden_size, dtype=torch.bfloat16)
        self.bare = torch.zeros(len(self.ids))
        self._read(model.decoder, device)

    @torch.no_grad()
    def _read(self, decoder: Any, device: str) -> None:
        lengths = _lengths(self.counted)
        for rows in lengths.argsort(stable=True).split(ROWS):
            longest = int(lengths[rows].max())
            ids = self.ids[rows, : longest + 1].to(device)
            states, logits = last_states(decoder, ids[:, :-1])
            found = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            self.bare[rows] = mean_log_likelihoods(found, self.counted[rows, :longest].to(device)).cpu()
            if self.hidden is not None:
                self.hidden[rows, :longest] = states.to("cpu", torch.bfloat16)

    def scores(self, model: PersonalisedDecoder, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mean log-likelihood [B] of the texts `rows` [B] for user tokens [B, n, width], nats a token."""
        longest = int(_lengths(self.counted[rows]).max())
        device = users.device
        ids, counted = self.ids[rows, : longest + 1].to(device), self.counted[rows, :longest].to(device)
        if self.hidden is None:
            return mean_log_likelihoods(model.log_likelihoods(users, ids), counted)
        hidden = self.hidden[rows, :longest].to(device, torch.float32)
        return mean_log_likelihoods(model.late_log_likelihoods(users, hidden, ids, counted), counted)

    def gains(self, model: PersonalisedDecoder, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What knowing the user adds to the mean log-likelihood [B]: pointwise mutual information, nats a token.

        It ranks texts without favour for those that are likely whoever writes (Holtzman et al. 2021, section 3).
        """
        return self.scores(model, users, rows) - self.bare[rows].to(users.device)


def _lengths(counted: torch.Tensor) -> torch.Tensor:
    """Place after the last counted token [n]."""
    return (counted * torch.arange(1, counted.shape[1] + 1)).amax(1)


def padded(
    tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n, L + 1] of prompts, each followed by the first `longest` of its text, and which are the text's [n, L].

    A prompt keeps its last tokens. Raises ValueError on an empty text.
    """
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    options = {"add_special_tokens": False, "split_special_tokens": True}  # the texts' own "<|endoftext|>" is text
    asked = tokenizer(list(prompts), **options)["input_ids"] if prompts else []
    said = [ids[:longest] for ids in (tokenizer(list(texts), **options)["input_ids"] if texts else [])]
    if not all(said):
        raise ValueError("an empty text cannot be scored")
    length = max((len(a) + len(b) for a, b in zip(asked, said, strict=True)), default=1)
    ids = torch.full((len(said), length + 1), first, dtype=torch.long)
    counted = torch.zeros(len(said), length, dtype=torch.bool)
    for row, (prompt, text) in enumerate(zip(asked, said, strict=True)):
        ids[row, 1 : 1 + len(prompt) + len(text)] = torch.tensor([*prompt, *text])
        counted[row, len(prompt) : len(prompt) + len(text)] = True
    return ids, counted
