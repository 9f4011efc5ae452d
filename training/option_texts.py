"""Texts that a decoder scores, as tokens: each once, whoever is asked about it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.decoder import head_of, last_states, mean_log_likelihoods
from training.injection import CrossAttentionInjection
from training.personalised_model import PersonalisedDecoder

ROWS = 64
"""Texts of one pass of the bare decoder."""
NOT_KEPT = "the decoder's states are not kept: too many for cache_mb, or the injection is not late"


class OptionTexts:
    """`ids` [n, L + 1] begin with the decoder's first token, then prompt and text; `counted` [n, L] bool says which
    predictions are of the text; `bare` [n] is the bare decoder's mean log-likelihood of it, nats a token.

    Where nothing else than the head comes after the injection, the decoder has no adapters, and `cache_mb` suffices,
    `hidden` [n, L, D] is what the last layer says, and `slopes` [n, L, D] the gradient of the text's log-likelihood by
    it, in half precision; else both are None.
    """

    def __init__(
        self, model: PersonalisedDecoder, tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], *,
        longest: int, cache_mb: int = 0, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.ids, self.counted = padded(tokenizer, prompts, texts, longest)
        shape = (*self.counted.shape, model.decoder.config.hidden_size)
        kept = model.is_late and not model.is_adapted and 4 * shape[0] * shape[1] * shape[2] <= cache_mb << 20
        self.hidden = torch.zeros(shape, dtype=torch.bfloat16) if kept else None
        self.slopes = torch.zeros(shape, dtype=torch.bfloat16) if kept else None
        self.bare = torch.zeros(len(self.ids))
        lengths = _lengths(self.counted)
        order = lengths.argsort(stable=True)
        for rows in (order[begin : begin + ROWS] for begin in range(0, len(order), ROWS)):
            self._read(model, rows, int(lengths[rows].max()), device)

    @torch.no_grad()
    def _read(self, model: PersonalisedDecoder, rows: torch.Tensor, longest: int, device: str) -> None:
        ids, counted = self.ids[rows, : longest + 1].to(device), self.counted[rows, :longest].to(device)
        if self.hidden is None or self.slopes is None:
            self.bare[rows] = mean_log_likelihoods(model.log_likelihoods(None, ids), counted).cpu()
            return
        decoder = model.decoder
        states = last_states(decoder, ids[:, :-1]).to(torch.bfloat16)
        self.hidden[rows, :longest] = states.cpu()
        with torch.enable_grad():
            read = states[counted].float().requires_grad_(True)
            logits = head_of(decoder)(read.to(decoder.dtype)).float()
            values = -F.cross_entropy(logits, ids[:, 1:][counted], reduction="none")
            (slopes,) = torch.autograd.grad(values.sum(), read)
        found = torch.zeros(counted.shape, device=device).masked_scatter(counted, values.detach())
        self.bare[rows] = mean_log_likelihoods(found, counted).cpu()
        part = torch.zeros(*counted.shape, slopes.shape[-1], device=device)
        part[counted] = slopes
        self.slopes[rows, :longest] = part.to("cpu", torch.bfloat16)

    def scores(self, model: PersonalisedDecoder, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mean log-likelihood [B] of the texts `rows` [B] for user tokens [B, n, width], nats a token."""
        longest = int(_lengths(self.counted[rows]).max())
        device = users.device
        ids, counted = self.ids[rows, : longest + 1].to(device), self.counted[rows, :longest].to(device)
        if self.hidden is None:
            return mean_log_likelihoods(model.log_likelihoods(users, ids), counted)
        hidden = self.hidden[rows, :longest].to(device, model.decoder.dtype)
        return mean_log_likelihoods(model.late_log_likelihoods(users, hidden, ids, counted), counted)

    def gains(self, model: PersonalisedDecoder, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What knowing the user adds to the mean log-likelihood [B]: pointwise mutual information, nats a token.

        It ranks texts without favour for those that are likely whoever writes (Holtzman et al. 2021, section 3).
        """
        return self.scores(model, users, rows) - self.bare[rows].to(users.device)

    def linear_gains(
        self, model: PersonalisedDecoder, users: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """First order of `gains` [T, U] of the texts `rows` [T] for user tokens [T, U, n, width] in what is added to
        the last layer, and the mean square of that [T, U] relative to the stream.

        Costs no pass of the head: a hundredth of `gains`. Raises ValueError without kept slopes.
        """
        if self.hidden is None or self.slopes is None or not isinstance(model.injection, CrossAttentionInjection):
            raise ValueError(NOT_KEPT)
        longest, device = int(_lengths(self.counted[rows]).max()), users.device
        hidden, slopes = (part[rows, :longest].to(device, torch.float32) for part in (self.hidden, self.slopes))
        counted = self.counted[rows, :longest].to(device)
        gains, sizes = model.injection.last.first_order(hidden, slopes, model.injection.tokens(users))
        n = counted.sum(1)[:, None]
        return gains.sum(2) / n, (sizes * counted[:, None]).sum(2) / n

    def mean_slopes(self, model: PersonalisedDecoder, rows: torch.Tensor) -> torch.Tensor:
        """Slope [n, D] of the mean log-likelihood of each text of `rows` [n] by what is added to all of its stream, in
        units of rms(h). Raises ValueError without kept slopes."""
        if self.hidden is None or self.slopes is None or not isinstance(model.injection, CrossAttentionInjection):
            raise ValueError(NOT_KEPT)
        found = []
        for part in rows.split(ROWS):
            hidden, slopes = self.hidden[part].float(), self.slopes[part].float()
            found.append((model.injection.last.size(hidden) * slopes).sum(1) / self.counted[part].sum(1)[:, None])
        return torch.cat(found)


def _lengths(counted: torch.Tensor) -> torch.Tensor:
    """Place after the last counted token [n]."""
    return (counted * torch.arange(1, counted.shape[1] + 1)).amax(1)


def padded(
    tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n, L + 1] of prompts, each followed by the first `longest` of its text, and which are the text's [n, L].

    Prompts are never cut. Raises ValueError on an empty text.
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
