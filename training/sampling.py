"""Free-form answers of a personalised decoder: sampled texts, and their likelihood for given users."""

from collections.abc import Sequence
from typing import Any

import torch

from training.injection import SoftPrompt
from training.personalised_model import PersonalisedDecoder


def questions_ids(tokenizer: Any, prompts: Sequence[str], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, L] of prompts, padded on the left, and their mask; of each the decoder's first token and its end."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    encoded = tokenizer(list(prompts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rows = [[first, *ids[-longest:]] for ids in encoded]
    length = max(map(len, rows))
    ids = torch.tensor([[first] * (length - len(row)) + row for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return ids, mask


@torch.no_grad()
def sampled(
    model: PersonalisedDecoder, users: torch.Tensor | None, ids: torch.Tensor, mask: torch.Tensor, *,
    new_tokens: int, temperature: float, end: int,
) -> torch.Tensor:  # fmt: skip
    """What the decoder writes [B, n] after prompts [B, L], for user tokens [B, …] (None: for nobody); ended by `end`.

    By torch's global generator.
    """
    options: dict[str, Any] = {
        "max_new_tokens": new_tokens, "do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0,
        "pad_token_id": end, "eos_token_id": end,
    }  # fmt: skip
    if users is None:
        return model.decoder.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    if isinstance(model.injection, SoftPrompt):
        embedded = model.decoder.get_input_embeddings()(ids)
        prompt = model.injection.tokens(users).to(embedded.dtype)
        inputs = torch.cat([prompt, embedded], dim=1)
        seen = torch.cat([mask.new_ones(prompt.shape[:2]), mask], dim=1)
        return model.decoder.generate(inputs_embeds=inputs, attention_mask=seen, **options)
    with model.written_for(users) as decoder:
        return decoder.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]


def written(answers: torch.Tensor, end: int) -> torch.Tensor:
    """Which tokens [B, n] of sampled answers were chosen: up to the first `end`, which was too."""
    ended = (answers == end).cumsum(1)
    return (ended == 0) | ((ended == 1) & (answers == end))


def answer_log_likelihoods(
    model: PersonalisedDecoder, users: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor
) -> torch.Tensor:
    """log p [B, n] of each token of the answers [B, n] after prompts `ids` [B, L] with `mask`, for user tokens."""
    whole = torch.cat([ids, answers], dim=1)
    seen = torch.cat([mask, torch.ones_like(answers)], dim=1)
    if isinstance(model.injection, SoftPrompt):
        embedded = model.decoder.get_input_embeddings()(whole)
        prompt = model.injection.tokens(users).to(embedded.dtype)
        inputs = torch.cat([prompt, embedded], dim=1)
        seen = torch.cat([seen.new_ones(prompt.shape[:2]), seen], dim=1)
        logits = model.decoder(inputs_embeds=inputs, attention_mask=seen, position_ids=_places(seen)).logits
    else:
        with model.written_for(users) as decoder:
            logits = decoder(input_ids=whole, attention_mask=seen, position_ids=_places(seen)).logits
    n = answers.shape[1]
    return logits[:, -n - 1 : -1].float().log_softmax(-1).gather(2, answers[:, :, None]).squeeze(2)


def _places(seen: torch.Tensor) -> torch.Tensor:
    """Positions as generation counts them: padding takes none."""
    return (seen.cumsum(1) - 1).clamp(min=0)
