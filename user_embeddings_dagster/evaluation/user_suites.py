"""Evaluation suites of user embeddings: the same person found again, and users with little history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import Predictions, own_past
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import CHANCE, expected_at_random, full_ranks, metrics, sampled
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet, Task, Values

HISTORY_LENGTHS = (0, 1, 2, 5, 10)
LONG_HALF = 10
"""Chunks of the first half from which on a user counts as one with a long history."""
SAME_CONVERSATION = 20 * 60
"""Seconds between chunks below which they belong to one conversation."""


@dataclass(frozen=True)
class Halves:
    """First and second half of each history, in time; row h of both is the same person.

    `histories` [n_users]: which history it is. Left out are those that are too short, or whose second half is all
    one conversation with the first.
    """

    first: Histories
    second: Histories
    histories: np.ndarray


@dataclass(frozen=True)
class UserModel:
    """A model's user embeddings of the two halves [n_users, d] each."""

    first: np.ndarray
    second: np.ndarray
    version: str


def temporal_halves(histories: Histories, min_chunks: int = 2, separation: float = SAME_CONVERSATION) -> Halves:
    """Cut each history with at least 2 × `min_chunks` chunks in the middle.

    Chunks of the second half that start less than `separation` seconds after the first half ended, counted
    through an unbroken conversation, are left out: alternating or touching halves would match the conversation,
    not the person.
    """
    middle = histories.offsets[:-1] + histories.lengths // 2
    starts = _after_conversation(histories, middle, separation)
    kept = np.flatnonzero((histories.lengths // 2 >= min_chunks) & (histories.offsets[1:] - starts >= min_chunks))
    return Halves(
        histories.ranges(histories.offsets[:-1][kept], middle[kept], kept),
        histories.ranges(starts[kept], histories.offsets[1:][kept], kept),
        kept,
    )


def _after_conversation(histories: Histories, middle: np.ndarray, separation: float) -> np.ndarray:
    """First row at or after `middle[h]` that begins a new conversation (the history's end if none does)."""
    n = len(histories.vectors)
    ended = np.full(n, np.iinfo(np.int64).min)
    ended[1:] = histories.ended[:-1]
    fresh = np.where((histories.started - separation >= ended) | (histories.positions == 0), np.arange(n), n)
    following = np.append(np.minimum.accumulate(fresh[::-1])[::-1], n)
    return np.minimum(following[middle], histories.offsets[1:])


def user_models(
    halves: Halves, pools: Mapping[str, Callable[[Histories], np.ndarray]], version: str = "baseline"
) -> dict[str, UserModel]:
    """User embeddings of both halves by every function of histories."""
    return {name: UserModel(pool(halves.first), pool(halves.second), version) for name, pool in pools.items()}


def user_matching_scores(
    scope: Scope,
    halves: Halves,
    models: Mapping[str, UserModel],
    *,
    reference: str = "whitened_mean",
    max_queries: int | None = None,
) -> pl.DataFrame:
    """Half a history finds the other half among all users' second halves: Recall@1, @10 and MRR.

    Slices by the chunks of the first half: `all`, `half<10`, `half>=10`. At most `max_queries` users ask (a seeded
    sample); the candidates stay all. Every model gets the paired difference to `reference`.
    """
    sheet = ScoreSheet(scope)
    n = halves.first.n_histories
    asked = sampled(np.arange(n), max_queries, scope.seed)
    users, lengths = halves.first.user_ids[asked], halves.first.lengths[asked]
    slices = {
        "all": np.ones(len(asked), dtype=bool),
        f"half<{LONG_HALF}": lengths < LONG_HALF,
        f"half>={LONG_HALF}": lengths >= LONG_HALF,
    }
    measured: dict[str, dict[str, Values]] = {}
    for name, model in models.items():
        ranks = full_ranks(model.first[asked], model.second, asked)
        for key, found in ((name, metrics(ranks, (1, 10))), (CHANCE, expected_at_random(ranks, (1, 10)))):
            measured[key] = {s: {metric: row[mask] for metric, row in found.items()} for s, mask in slices.items()}
    tasks = {slice_: (f"full:{n}", users[mask]) for slice_, mask in slices.items()}
    versions = {name: model.version for name, model in models.items()} | {CHANCE: "exact"}
    compared = [name for name in models if name != reference and reference in models]
    sheet.write(measured, tasks, versions, [(name, reference) for name in compared])
    return sheet.frame()


@dataclass(frozen=True)
class SparseCases:
    """Chunks to be predicted, `gold` [n_cases] (rows of `histories`), each from the `length` chunks before it."""

    histories: Histories
    gold: np.ndarray
    length: int

    @property
    def case_histories(self) -> np.ndarray:
        """History of each case [n_cases]."""
        return self.histories.history_of_row[self.gold]

    @property
    def known(self) -> Histories:
        """One history of exactly `length` chunks per case (all of them empty for 0)."""
        return self.histories.ranges(self.gold - self.length, self.gold, self.case_histories)


@dataclass(frozen=True)
class SparseModel:
    """Queries [n_cases, d] by slice, and candidates [n_chunks, d] row by row of the cases' histories."""

    queries: Mapping[str, np.ndarray]
    candidates: np.ndarray
    version: str


def sparse_cases(
    histories: Histories,
    lengths: Sequence[int] = HISTORY_LENGTHS,
    targets_per_user: int = 5,
    max_queries: int | None = None,
    seed: int = 0,
) -> dict[str, SparseCases]:
    """Cases by slice, two for each length k; at most `max_queries` of each (a seeded sample).

    `start=k`: the chunk after a person's first k, of everybody who has as many: what a new user gets. Other people
    at each k. `history=k`: up to `targets_per_user` later chunks of each user, evenly spaced, with the longest of
    `lengths` before them, from the last k alone: the same targets at each k, so that only the amount varies.
    """
    longest = max(lengths)
    usable = np.maximum(histories.lengths - longest, 0)
    taken = np.minimum(usable, targets_per_user)
    which = np.repeat(np.arange(histories.n_histories), taken)
    index = np.arange(len(which)) - np.repeat(np.cumsum(taken) - taken, taken)
    # Evenly spaced places in the usable part: the k-th of t targets of u usable chunks is chunk k·u // t.
    later = histories.offsets[:-1][which] + longest + index * usable[which] // np.maximum(taken[which], 1)
    later = sampled(later, max_queries, seed)
    cases = {f"history={length}": SparseCases(histories, later, length) for length in sorted(lengths)}
    for length in sorted(lengths):
        first = sampled(np.flatnonzero(histories.positions == length), max_queries, seed)
        cases[f"start={length}"] = SparseCases(histories, first, length)
    return cases


def sparse_model(cases: Mapping[str, SparseCases], predict: Callable[[Histories], Predictions]) -> SparseModel:
    """Answers of a model that is a function of histories: the last row of each known history, or its prior."""
    everything = predict(next(iter(cases.values())).histories)
    prior = everything.prior
    if prior is None:
        raise ValueError("a model needs a population prior for users without history")
    queries = {}
    for slice_, case in cases.items():
        if case.length == 0:
            queries[slice_] = np.broadcast_to(prior, (len(case.gold), len(prior)))
        else:
            known = case.known
            queries[slice_] = predict(known).queries[known.last_rows]
    return SparseModel(queries, everything.candidates, everything.version)


def sparse_user_scores(
    scope: Scope,
    cases: Mapping[str, SparseCases],
    models: Mapping[str, SparseModel],
    *,
    reference: str = "whitened_decayed_mean_tuned",
    baseline_names: frozenset[str] | set[str] = frozenset(),
) -> pl.DataFrame:
    """Recall@1, @5, @10 and MRR by slice of `cases`; models beside `baseline_names` get the difference to `reference`.

    The user's chunks before the target, seen or not, are no candidates, so that every length ranks the same set.
    """
    sheet = ScoreSheet(scope)
    tasks: dict[str, Task] = {}
    measured: dict[str, dict[str, Values]] = {name: {} for name in models}
    for slice_, case in cases.items():
        histories, gold = case.histories, case.gold
        past = own_past(histories, gold)
        tasks[slice_] = (f"full:{len(histories.vectors)}", histories.user_ids[case.case_histories])
        for name, model in models.items():
            ranks = full_ranks(model.queries[slice_], model.candidates, gold, excluded=past)
            measured[name][slice_] = metrics(ranks)
    versions = {name: model.version for name, model in models.items()}
    compared = [name for name in models if name not in baseline_names | {reference} and reference in models]
    sheet.write(measured, tasks, versions, [(name, reference) for name in compared])
    return sheet.frame()
