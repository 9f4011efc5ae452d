"""Free-form answers of a personalised decoder: sampled texts, and their likelihood for given users."""

from collections.abc import Sequence
from typing import Any

import torch

from training.decoder import head_of, last_states
from training.injection import CrossAttentionInjection, SoftPrompt
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


def line_ends(tokenizer: Any) -> torch.Tensor:
    """Tokens that end an answer: the decoder's end, which comes first, and all that break the line."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    end = tokenizer.eos_token_id
    return torch.tensor([end, *(token for token, text in enumerate(texts) if "\n" in text and token != end)])


@torch.no_grad()
def sampled(
    model: PersonalisedDecoder, users: torch.Tensor | None, ids: torch.Tensor, mask: torch.Tensor, *,
    new_tokens: int, temperature: float, ends: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """What the decoder writes [B, n] after prompts [B, L], in the voice of user tokens [B, …] (None: nobody's).

    An answer ends with one of `ends`, and is filled up with the first. By torch's global generator. What the decoder's
    own generation_config.json would change of the distribution is off: `answer_log_likelihoods` knows nothing of it.
    """
    options: dict[str, Any] = {
        "max_new_tokens": new_tokens, "do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0,
        "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_p": None, "typical_p": 1.0, "bad_words_ids": None,
        "suppress_tokens": None, "begin_suppress_tokens": None, "forced_eos_token_id": None,
        "pad_token_id": int(ends[0]), "eos_token_id": ends.tolist(),
    }  # fmt: skip
    if users is None:
        with model.bare() as decoder:
            return decoder.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    if isinstance(model.speaking, SoftPrompt):
        embedded = model.decoder.get_input_embeddings()(ids)
        prompt = model.speaking.tokens(users).to(embedded.dtype)
        inputs = torch.cat([prompt, embedded], dim=1)
        seen = torch.cat([mask.new_ones(prompt.shape[:2]), mask], dim=1)
        return model.decoder.generate(inputs_embeds=inputs, attention_mask=seen, **options)
    with model.written_for(users, speaking=True) as decoder:
        return decoder.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]


def written(answers: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Which tokens [B, n] of sampled answers were chosen: up to the first of `ends`, which was too."""
    last = torch.isin(answers, ends.to(answers.device))
    return last.cumsum(1) - last.long() == 0


@torch.no_grad()
def answer_states(
    model: PersonalisedDecoder, ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor
) -> torch.Tensor | None:
    """What the decoder's last layer says [B, n, D] where each token of the answers is predicted, whoever the user is.

    None where a user's tokens are read below that layer, or adapters change it.
    """
    if not model.is_late or model.is_adapted:
        return None
    whole, seen = _whole(ids, mask, answers)
    states = last_states(model.decoder, whole, attention_mask=seen, position_ids=_places(seen))
    return states[:, -answers.shape[1] - 1 : -1]


def answer_log_likelihoods(
    model: PersonalisedDecoder, users: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor,
    temperature: float, states: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """log p [B, n] of each token of the answers [B, n] after prompts `ids` [B, L] with `mask`, for user tokens.

    p is what `sampled` draws from at this temperature. `states`: as of `answer_states`, if they are known.
    """
    n, (whole, seen), voice = answers.shape[1], _whole(ids, mask, answers), model.speaking
    if states is not None and isinstance(voice, CrossAttentionInjection):
        logits = head_of(model.decoder)(voice.last(states, voice.tokens(users)))
    elif isinstance(voice, SoftPrompt):
        embedded = model.decoder.get_input_embeddings()(whole)
        prompt = voice.tokens(users).to(embedded.dtype)
        inputs = torch.cat([prompt, embedded], dim=1)
        seen = torch.cat([seen.new_ones(prompt.shape[:2]), seen], dim=1)
        logits = model.decoder(inputs_embeds=inputs, attention_mask=seen, position_ids=_places(seen)).logits
        logits = logits[:, -n - 1 : -1]
    else:
        with model.written_for(users, speaking=True) as decoder:
            logits = decoder(input_ids=whole, attention_mask=seen, position_ids=_places(seen)).logits[:, -n - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(2, answers[:, :, None]).squeeze(2)


def _whole(ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and answers [B, L + n] as one, and their mask."""
    return torch.cat([ids, answers], dim=1), torch.cat([mask, torch.ones_like(answers)], dim=1)


def _places(seen: torch.Tensor) -> torch.Tensor:
    """Positions as generation counts them: padding takes none."""
    return (seen.cumsum(1) - 1).clamp(min=0)
