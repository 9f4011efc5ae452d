"""Validation of insight tasks: two answerers that see the past alone must find the gold, or the task is dropped.

One reads the whole history before the task, the other searches it. A task that neither the whole history nor a search
in it can answer asks for what cannot be known; one that only one of them answers is doubtful. Dropped tasks stay in the
table, with the reason as their status.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.personalisation.koai_tasks import ANSWER
from user_embeddings_dagster.personalisation.past import Past
from user_embeddings_dagster.schema import INSIGHT_TASKS

KEPT, CONTEXT_DISAGREES, SEARCH_DISAGREES, BOTH_DISAGREE = (
    "kept", "context_disagrees", "search_disagrees", "both_disagree",
)  # fmt: skip
NO_HISTORY, TOO_SHORT, GIVEN_AWAY, UNANSWERED = "no_history", "too_short", "given_away", "unanswered"
MIN_WORDS = 3
"""A free-form reference of fewer words ("yes", "lol thanks") says nothing that could be judged."""
MODEL_SPLITS = ("valid", "test")
"""What a language model validates: the tasks that figures are reported on. Training tasks are too many to pay for."""
DECAY = 0.7
"""Weight of a chunk relative to the one after it; .3 to .9 agree with the gold about as often (zig, valid users)."""
Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What the two answerers make of one task: the options that they choose (None: none, or free-form), and whether
    they agree with the gold (None: no verdict, because it was not asked or gave no valid answer)."""

    context: int | None = None
    search: int | None = None
    context_agrees: bool | None = None
    search_agrees: bool | None = None


class Validator(Protocol):
    """Two answerers; `name` is what rows record."""

    @property
    def name(self) -> str: ...

    def verdicts(self, tasks: pl.DataFrame) -> list[Verdict]:
        """One for each of `tasks` (columns of tasks.TASKS), all with history and, if free-form, a usable reference."""
        ...


@dataclass(frozen=True)
class Validation:
    """INSIGHT_TASKS, and figures for metadata."""

    tasks: pl.DataFrame
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SimilarityValidator:
    """Without a language model: the option nearest to the decayed mean of the history, and the one nearest to any
    chunk of it, by the frozen text encoder, both spaces centred. It cannot tell whether a free-form answer is right."""

    encode: Encode
    past: Past
    name: str = "similarity"

    def verdicts(self, tasks: pl.DataFrame) -> list[Verdict]:
        """Choices by similarity; free-form tasks without a verdict."""
        options = tasks["options"].explode().drop_nulls().unique().sort().to_list()
        if not options:
            return [Verdict()] * tasks.height
        raw = self.encode(options)
        vectors = dict(zip(options, unit(raw - raw.mean(axis=0)), strict=True))
        centre = np.concatenate(list(self.past.vectors.values())).mean(axis=0)
        found = []
        for user, n_history, offered, answer in tasks.select("user_id", "n_history", "options", "answer").iter_rows():
            if not offered:
                found.append(Verdict())
                continue
            similar = np.stack([vectors[text] for text in offered]) @ unit(self.past.before(user, n_history) - centre).T
            weights = DECAY ** np.arange(similar.shape[1])[::-1]
            context, search = int((similar @ weights).argmax()), int(similar.max(axis=1).argmax())
            found.append(Verdict(context, search, context == answer, search == answer))
        return found


def validate(tasks: pl.DataFrame, default: Validator, model: Validator | None = None) -> Validation:
    """`tasks` (columns of tasks.TASKS) with their status. `model` validates MODEL_SPLITS, if given, else `default`."""
    asked = (pl.col("split").is_in(MODEL_SPLITS)) & pl.lit(model is not None)
    parts = [(default, tasks.filter(~asked))]
    if model is not None:
        parts.append((model, tasks.filter(asked)))
    rows = pl.concat([_validated(part, validator) for validator, part in parts])
    rows = INSIGHT_TASKS.conform(rows).sort("task_id")
    return Validation(rows, figures(rows))


def _validated(tasks: pl.DataFrame, validator: Validator) -> pl.DataFrame:
    early = [_unfit(*row) for row in tasks.select("kind", "n_history", "question", "reference").iter_rows()]
    fit = tasks.filter(pl.Series([reason is None for reason in early], dtype=pl.Boolean))
    verdicts = iter(validator.verdicts(fit))
    found = [Verdict() if reason else next(verdicts) for reason in early]
    free = (tasks["kind"] == ANSWER).to_list()
    statuses = [
        reason or _status(verdict, not_judged=is_free and validator.name == SimilarityValidator.name)
        for reason, verdict, is_free in zip(early, found, free, strict=True)
    ]
    return tasks.with_columns(
        status=pl.Series(statuses, dtype=pl.String),
        context_answer=pl.Series([verdict.context for verdict in found], dtype=pl.Int64),
        search_answer=pl.Series([verdict.search for verdict in found], dtype=pl.Int64),
        validator=pl.lit(validator.name),
    )


def _unfit(kind: str, n_history: int, question: str, reference: str) -> str | None:
    """Why a task is dropped without asking anybody."""
    if kind == ANSWER:
        if len(reference.split()) < MIN_WORDS:
            return TOO_SHORT
        if " ".join(reference.casefold().split()) in " ".join(question.casefold().split()):
            return GIVEN_AWAY
    return NO_HISTORY if n_history == 0 else None


def _status(verdict: Verdict, *, not_judged: bool) -> str:
    agreed = (verdict.context_agrees, verdict.search_agrees)
    if not_judged:
        return KEPT
    if None in agreed:
        return UNANSWERED
    return {
        (True, True): KEPT,
        (False, True): CONTEXT_DISAGREES,
        (True, False): SEARCH_DISAGREES,
        (False, False): BOTH_DISAGREE,
    }[bool(agreed[0]), bool(agreed[1])]


def figures(tasks: pl.DataFrame) -> dict[str, Any]:
    """Of INSIGHT_TASKS: counts, shares dropped and how often each answerer chose the gold, by kind (chance: .25)."""
    asked = tasks.filter(pl.col("status").is_in([KEPT, CONTEXT_DISAGREES, SEARCH_DISAGREES, BOTH_DISAGREE]))
    choices = asked.filter(pl.col("answer") >= 0)
    return {
        "tasks_by_kind": _counts(tasks, "kind"),
        "tasks_by_split": _counts(tasks, "kind", "split"),
        "tasks_by_status": _counts(tasks, "kind", "status"),
        "dropped": _shares(tasks, pl.col("status") != KEPT),
        "context_agrees": _shares(choices, pl.col("context_answer") == pl.col("answer")),
        "search_agrees": _shares(choices, pl.col("search_answer") == pl.col("answer")),
        "to_ask_again": tasks.filter(pl.col("status") == UNANSWERED).height,
    }


def _counts(tasks: pl.DataFrame, *by: str) -> dict[str, int]:
    counted = tasks.group_by(pl.concat_str(by, separator=".").alias("name")).agg(n=pl.len()).sort("name")
    return dict(counted.iter_rows())


def _shares(tasks: pl.DataFrame, wanted: pl.Expr) -> dict[str, float]:
    """By kind, and by whether a language model validated."""
    by_model = pl.col("validator") != SimilarityValidator.name
    who = pl.when(by_model).then(pl.lit("model")).otherwise(pl.lit(SimilarityValidator.name))
    shares = tasks.group_by(pl.concat_str("kind", who, separator=".").alias("name")).agg(share=wanted.mean())
    return dict(shares.sort("name").iter_rows())
