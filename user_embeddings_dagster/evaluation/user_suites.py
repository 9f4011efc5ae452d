"""Evaluation suites of user embeddings: the same person found again, and users with little history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import Predictions, TrainStatistics, running_mean
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import expected_at_random, full_ranks, metrics
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet

HISTORY_LENGTHS = (0, 1, 2, 5, 10)
SAME_CONVERSATION = 20 * 60
"""Seconds between chunks below which they belong to one conversation."""


@dataclass(frozen=True)
class Halves:
    """First and second half of each history, in time; row h of both is the same person.

    `n_omitted`: histories that are too short, or whose second half is all one conversation with the first.
    """

    first: Histories
    second: Histories
    n_omitted: int


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
        histories.n_histories - len(kept),
    )


def _after_conversation(histories: Histories, middle: np.ndarray, separation: float) -> np.ndarray:
    """First row at or after `middle[h]` that begins a new conversation (the history's end if none does)."""
    n = len(histories.vectors)
    ended = np.full(n, np.iinfo(np.int64).min)
    ended[1:] = histories.ended[:-1]
    fresh = np.where((histories.started - separation >= ended) | (histories.positions == 0), np.arange(n), n)
    following = np.append(np.minimum.accumulate(fresh[::-1])[::-1], n)
    return np.minimum(following[middle], histories.offsets[1:])


def user_baselines(halves: Halves, statistics: TrainStatistics) -> dict[str, UserModel]:
    """`mean_pool` and `whitened_mean` of the two halves."""

    def last_rows(histories: Histories) -> np.ndarray:
        return running_mean(histories)[histories.offsets[1:] - 1]

    def whitened(histories: Histories) -> Histories:
        return histories.with_vectors(statistics.whitened(histories.vectors))

    return {
        "mean_pool": UserModel(last_rows(halves.first), last_rows(halves.second), "baseline"),
        "whitened_mean": UserModel(last_rows(whitened(halves.first)), last_rows(whitened(halves.second)), "baseline"),
    }


def user_matching_scores(
    scope: Scope, halves: Halves, models: Mapping[str, UserModel], *, reference: str = "whitened_mean"
) -> pl.DataFrame:
    """Half a history finds the other half among all users' second halves: Recall@1, @10 and MRR."""
    sheet = ScoreSheet(scope)
    n = halves.first.n_histories
    users = halves.first.user_ids
    measured: dict[str, dict[str, np.ndarray]] = {}
    for name, model in models.items():
        ranks = full_ranks(model.first, model.second, np.arange(n))
        measured[name] = metrics(ranks, (1, 10))
        measured["chance"] = expected_at_random(ranks, (1, 10))
    for name, values in measured.items():
        version = models[name].version if name in models else "exact"
        sheet.means(name, values, users, slice_="all", candidates=f"full:{n}", version=version)
    for name, model in models.items():
        if reference in models and name not in (reference, "mean_pool"):
            sheet.differences(
                f"{name} - {reference}", measured[name], measured[reference], users,
                slice_="all", candidates=f"full:{n}", version=model.version,
            )  # fmt: skip
    return sheet.frame()


@dataclass(frozen=True)
class SparseCases:
    """Fixed later chunks to be predicted, from ever shorter histories of the same user.

    `gold` [n_cases]: row of the chunk in `histories`. Case i with length k is the k chunks just before it, so
    that only the amount of history varies, not how old it is.
    """

    histories: Histories
    gold: np.ndarray
    lengths: tuple[int, ...]

    @property
    def case_histories(self) -> np.ndarray:
        """History of each case [n_cases]."""
        return self.histories.history_of_row[self.gold]

    def truncated(self, length: int) -> Histories:
        """One history of exactly `length` chunks per case (all of them empty for 0)."""
        return self.histories.ranges(self.gold - length, self.gold, self.case_histories)


@dataclass(frozen=True)
class SparseModel:
    """Queries [n_cases, d] by history length, and candidates [n_chunks, d] row by row of the cases' histories."""

    queries: Mapping[int, np.ndarray]
    candidates: np.ndarray
    version: str


def sparse_cases(
    histories: Histories, lengths: Sequence[int] = HISTORY_LENGTHS, targets_per_user: int = 5
) -> SparseCases:
    """Up to `targets_per_user` chunks of each user, evenly spaced, with the longest of `lengths` before them."""
    longest = max(lengths)
    usable = np.maximum(histories.lengths - longest, 0)
    taken = np.minimum(usable, targets_per_user)
    which = np.repeat(np.arange(histories.n_histories), taken)
    index = np.arange(len(which)) - np.repeat(np.cumsum(taken) - taken, taken)
    # Evenly spaced places in the usable part: the k-th of t targets of u usable chunks is chunk k·u // t.
    gold = histories.offsets[:-1][which] + longest + index * usable[which] // np.maximum(taken[which], 1)
    return SparseCases(histories, gold, tuple(sorted(lengths)))


def sparse_model(cases: SparseCases, predict: Callable[[Histories], Predictions]) -> SparseModel:
    """Answers of a model that is a function of histories: the last row of each truncated history, or its prior."""
    everything = predict(cases.histories)
    prior = everything.prior
    if prior is None:
        raise ValueError("a model needs a population prior for users without history")
    queries = {}
    for length in cases.lengths:
        if length == 0:
            queries[0] = np.broadcast_to(prior, (len(cases.gold), len(prior)))
        else:
            part = cases.truncated(length)
            queries[length] = predict(part).queries[part.offsets[1:] - 1]
    return SparseModel(queries, everything.candidates, everything.version)


def sparse_user_scores(scope: Scope, cases: SparseCases, models: Mapping[str, SparseModel]) -> pl.DataFrame:
    """Recall@1, @5, @10 and MRR of the same targets by history length (slices `history=0`, …).

    The user's chunks before the target, seen or not, are no candidates, so that every length ranks the same set.
    """
    sheet = ScoreSheet(scope)
    histories, gold = cases.histories, cases.gold
    past = np.stack([histories.offsets[cases.case_histories], gold], axis=1)
    users = histories.user_ids[cases.case_histories]
    for name, model in models.items():
        for length in cases.lengths:
            values = metrics(full_ranks(model.queries[length], model.candidates, gold, excluded=past))
            sheet.means(
                name, values, users, slice_=f"history={length}", candidates=f"full:{len(histories.vectors)}",
                version=model.version,
            )  # fmt: skip
    return sheet.frame()
