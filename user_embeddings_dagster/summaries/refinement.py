"""Refinement of the summarising program: better instructions, measured on contributors it was not refined on (C24).

Three sets of examples, no contributor in two of them. Those that a reflection model reads and those that choose
between candidates are halves of the training examples (GEPA's D_feedback and D_pareto, arXiv:2507.19457, section
3); the development examples score the shipped and the refined program once each, so that the figures that are
reported did not choose what they report on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from user_embeddings_dagster.evaluation.bootstrap import NOTHING, Estimate, bootstrap_means, paired_difference
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import BudgetSpent, LanguageModel, Usage
from user_embeddings_dagster.storage.models import Models
from user_embeddings_dagster.summaries.adherence import Adherence, Example, Scored
from user_embeddings_dagster.summaries.constraints import SUMMARY_RULES, count
from user_embeddings_dagster.summaries.extractive import SUMMARISER
from user_embeddings_dagster.summaries.gepa_search import PERFECT, Search, StoppedBy, search
from user_embeddings_dagster.summaries.subject import SubjectSummary, summarise_subject

RESERVE = 1.5
"""Share of what scoring the shipped program cost that is kept for the refined one, whose prompt is longer."""
MINIBATCH = 3
MAX_ROUNDS = 1_000
NO_USAGE = Usage()
ARTIFACT, PROGRAM_FILE = "summary_program", "program.json"
VERSION = "1"
"""Changes when the same examples and model would give another program."""


@dataclass(frozen=True)
class Refinement:
    """What a refinement gave.

    `program` is what to use: the refined program if it is `adopted`, else the one that it started from. `before`,
    `after` and `difference` are mean adherence on the development examples, with 95% intervals over contributors;
    `after` is that of the best program found, adopted or not. `usage` is what all answers cost, `paid` what those
    cost that came from no cache.
    """

    program: Program
    adopted: bool
    reason: str
    stopped_by: StoppedBy
    before: Estimate
    after: Estimate
    difference: Estimate
    violations_before: Mapping[int, int]
    violations_after: Mapping[int, int]
    usage: Usage
    paid: Usage
    search: Search

    @property
    def cut_short(self) -> bool:
        """Whether a budget ended it before it was done."""
        return self.stopped_by in ("max_calls", "max_usd", "model_budget")


def refine(
    program: Program,
    train: Sequence[Example],
    development: Sequence[Example],
    model: LanguageModel,
    reflection_model: LanguageModel,
    *,
    seed: int = 0,
    max_calls: int | None,
    max_usd: float | None = None,
    attempts: int = 1,
    max_rounds: int = MAX_ROUNDS,
    minibatch: int = MINIBATCH,
) -> Refinement:
    """Refine the instructions of `program` within a budget; `attempts`: calls that one request may take at most.

    The refined program is adopted if the 95% interval of its paired difference on the development examples is
    above 0. A spent budget is no error: the best program so far is scored from what is reserved for it. Raises
    ValueError if the examples are of too few contributors or share one; ModelRefused and ModelUnavailable as they
    come.
    """
    reflected, selection = _halves(train)
    if shared := {example.owner for example in train} & {example.owner for example in development}:
        raise ValueError(f"{len(shared)} contributors are in both the training and the development examples")
    if not development:
        raise ValueError("no development examples")
    purse = _Purse(model, max_calls, max_usd, attempts)
    first = purse.open()
    adherence = Adherence(first)
    try:
        before = adherence.scored(program, development)
    except BudgetSpent:
        return _unmeasured(program, first.spent or "model_budget", purse)
    if all(each.score >= PERFECT for each in before):
        return _compared(program, program, before, before, Search(program.instructions, 1.0, "perfect"), purse, seed)
    second = purse.open(reserve=first.usage)
    found = search(
        program, reflected, selection, adherence.by(second), second.sharing(reflection_model),
        seed=seed, max_rounds=max_rounds, minibatch=minibatch,
    )  # fmt: skip
    if found.stopped_by == "model_budget":
        found.stopped_by = second.spent or "model_budget"
    best = program.with_instructions(found.instructions)
    try:
        after = adherence.by(purse.open()).scored(best, development)
    except BudgetSpent:
        after = None
    return _compared(program, best, before, after, found, purse, seed)


class _Purse:
    """One cap on calls and one on money, spent in stages."""

    def __init__(self, model: LanguageModel, max_calls: int | None, max_usd: float | None, attempts: int) -> None:
        self._model, self._attempts = model, attempts
        self._max_calls, self._max_usd = max_calls, max_usd
        self._opened: list[Budgeted] = []

    def open(self, reserve: Usage = NO_USAGE) -> Budgeted:
        """The model with what is left, less RESERVE times `reserve`, for the next stage."""
        calls, usd = math.ceil(RESERVE * reserve.calls), RESERVE * reserve.usd
        budgeted = Budgeted(
            self._model,
            None if self._max_calls is None else max(0, self._max_calls - self.usage.calls - calls),
            None if self._max_usd is None else max(0.0, self._max_usd - self.usage.usd - usd),
            attempts=self._attempts,
        )
        self._opened.append(budgeted)
        return budgeted

    @property
    def usage(self) -> Usage:
        return sum((stage.usage for stage in self._opened), NO_USAGE)

    @property
    def paid(self) -> Usage:
        return sum((stage.paid for stage in self._opened), NO_USAGE)


def current_program(models: Models) -> Program[SubjectSummary]:
    """The program that asks a model for summaries: the promoted artifact's, or the shipped one if it holds none.

    Raises ValueError on an artifact written for another shape of program.
    """
    try:
        text = (models.current(ARTIFACT).output / PROGRAM_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return summarise_subject()
    if json.loads(text)["name"] == SUMMARISER:
        return summarise_subject()
    try:
        return Program.from_json(text, SubjectSummary)
    except ValueError as error:
        raise ValueError(f"{ARTIFACT}: {error}; materialise it again") from None


def _halves(train: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The examples of every other contributor, in the order of their hashes, and the rest."""
    owners = sorted({example.owner for example in train}, key=content_id)
    if len(owners) < 2:
        raise ValueError(f"training examples of {len(owners)} contributors: needs at least 2")
    first = set(owners[::2])
    return [e for e in train if e.owner in first], [e for e in train if e.owner not in first]


def _unmeasured(program: Program, stopped_by: StoppedBy, purse: _Purse) -> Refinement:
    reason = "the budget was spent before the shipped program was scored"
    none = dict.fromkeys(SUMMARY_RULES, 0)
    return Refinement(
        program, False, reason, stopped_by, NOTHING, NOTHING, NOTHING, none, none, purse.usage, purse.paid,
        Search(program.instructions),
    )  # fmt: skip


def _compared(
    program: Program,
    best: Program,
    before: Sequence[Scored],
    after: Sequence[Scored] | None,
    found: Search,
    purse: _Purse,
    seed: int,
) -> Refinement:
    owners = np.array([each.example.owner for each in before])
    a = np.array([[each.score] for each in before])
    (was,) = bootstrap_means(a, owners, seed=seed)
    now = difference = NOTHING
    if after is not None:
        b = np.array([[each.score] for each in after])
        (now,), (difference,) = bootstrap_means(b, owners, seed=seed), paired_difference(b, a, owners, seed=seed)
    adopted, reason = _verdict(program, best, difference, measured=after is not None)
    return Refinement(
        program=best if adopted else program,
        adopted=adopted,
        reason=reason,
        stopped_by=found.stopped_by,
        before=was,
        after=now,
        difference=difference,
        violations_before=count((each.violated for each in before), SUMMARY_RULES),
        violations_after=count((each.violated for each in after or ()), SUMMARY_RULES),
        usage=purse.usage,
        paid=purse.paid,
        search=found,
    )


def _verdict(program: Program, best: Program, difference: Estimate, *, measured: bool) -> tuple[bool, str]:
    if best.version == program.version:
        return False, "no better instructions were found"
    if not measured:
        return False, "the budget was spent before the refined program was scored"
    if difference.low is None:
        return False, f"{difference.n_users} development contributors are too few for an interval"
    if difference.low <= 0:
        return False, "the refined program is not better by its paired interval"
    return True, "the refined program is better by its paired interval"
