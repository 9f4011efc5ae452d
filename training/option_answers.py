"""Which option of a question a decoder gives, for many users at once: log-likelihoods after the question.

A question is read once per user and not once per option; questions of one length go in one batch, without padding.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from training.decoder import head_of, last_states
from training.injection import CrossAttentionInjection
from training.personalised_model import PersonalisedDecoder
from training.reading import Reader

ROWS = 256
"""Batch rows (users times questions) of one pass."""
Bind = Callable[[torch.Tensor], AbstractContextManager[Reader]]
"""From the user [B] of each batch row to a reader for them."""


@dataclass(frozen=True)
class Question:
    """Tokens of a question and of each of its options."""

    ids: list[int]
    options: list[list[int]]


def tokenised(tokenizer: Any, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[Question]:
    """Questions as a user's own line of a text that begins; an option follows after a space."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    start = [tokenizer.eos_token_id] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [
        Question(start + ids(f"SUBJECT: {question}"), [ids(f" {option}") for option in those])
        for question, those in zip(questions, options, strict=True)
    ]


@torch.no_grad()
def option_scores(bind: Bind, users: int, questions: Sequence[Question], device: str) -> torch.Tensor:
    """Mean log-likelihood [users, questions, options] of each option's tokens; nats. Every question has as many."""
    options = len(questions[0].options)
    scores = torch.zeros(users, len(questions), options)
    by_length: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        by_length.setdefault(len(question.ids), []).append(number)
    for numbers in by_length.values():
        places = torch.cartesian_prod(torch.arange(users), torch.tensor(numbers)).view(-1, 2)
        for part in places.split(ROWS):
            asked = [questions[number] for number in part[:, 1].tolist()]
            scores[part[:, 0], part[:, 1]] = _scored(bind, part[:, 0], asked, device).cpu()
    return scores


def _scored(bind: Bind, users: torch.Tensor, asked: list[Question], device: str) -> torch.Tensor:
    """Scores [B, options] of batch row b's question for user `users` [B][b]."""
    with bind(users) as reader:
        first, cache = reader.prompt(torch.tensor([question.ids for question in asked], device=device))
    lengths = torch.tensor([[len(option) for option in question.options] for question in asked])
    ids = torch.zeros(*lengths.shape, int(lengths.max()), dtype=torch.long)
    for row, question in enumerate(asked):
        for place, option in enumerate(question.options):
            ids[row, place, : len(option)] = torch.tensor(option)
    total = first.log_softmax(-1).gather(1, ids[:, :, 0].to(device))
    longer = (lengths > 1).nonzero()
    if len(longer):
        row, place = longer.unbind(1)
        cache.batch_select_indices(row.to(device))
        rest = ids[row, place].to(device)
        with bind(users[row]) as reader:
            logits = reader.following(rest[:, :-1], cache)
        found = logits.log_softmax(-1).gather(2, rest[:, 1:, None]).squeeze(2)
        counted = torch.arange(1, rest.shape[1]) < lengths[row, place][:, None]
        total[row, place] += (found * counted.to(device)).sum(1)
    return total / lengths.to(device)


@torch.no_grad()
def late_scores(
    model: PersonalisedDecoder, users: torch.Tensor, questions: Sequence[Question], device: str, speaking: bool = False
) -> torch.Tensor:
    """`option_scores` for user tokens [users, n, width] of a late injection, in their voice if `speaking`: what lies
    below it is the same for all of them and is read once. Raises ValueError for another injection."""
    injection = model.speaking if speaking else model.injection
    if not model.is_late or model.is_adapted or not isinstance(injection, CrossAttentionInjection):
        raise ValueError("what lies below the injection is not the same for all users")
    rows = [(len(question.ids), question.ids + option) for question in questions for option in question.options]
    length = max(len(ids) for _, ids in rows)
    ids, counted = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length - 1).bool()
    for row, (asked, those) in enumerate(rows):
        ids[row, : len(those)] = torch.tensor(those)
        counted[row, asked - 1 : len(those) - 1] = True
    parts = [
        last_states(model.decoder, ids[part, :-1].to(device))[counted[part].to(device)]
        for part in torch.arange(len(rows)).split(ROWS)
    ]
    states, next_ids = torch.cat(parts)[None], ids[:, 1:][counted].to(device)  # [1, P, D], [P]
    tokens, head = injection.tokens(users), head_of(model.decoder)
    of_row = counted.nonzero()[:, 0].to(device)
    totals = torch.zeros(len(users), len(rows), device=device)
    for user, total in enumerate(totals):
        logits = head(injection.last(states, tokens[user : user + 1]))[0].float()
        total.index_add_(0, of_row, -F.cross_entropy(logits, next_ids, reduction="none"))
    return (totals.cpu() / counted.sum(1)).view(len(users), len(questions), -1)


def answers(scores: torch.Tensor) -> torch.Tensor:
    """Distribution [..., options] over the options: their scores, normalised."""
    return scores.log_softmax(-1).exp()


def divergence(scores: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """KL of the answer distribution from another's: Σ p (log p − log q) [...], nats; both scores [..., options]."""
    log_p, log_q = scores.log_softmax(-1), base.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
