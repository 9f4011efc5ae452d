"""DataDAO against DataDAO at an equal sample budget: the same number of users, chunks, queries and candidates.

A larger DataDAO would otherwise look worse (more candidates) or better (longer histories) for its size alone.
Intervals resample users and keep the drawn candidates. Between random halves of one corpus, differences of next-chunk
scores left out zero in 8 to 12% of draws instead of 5%: read a difference at the edge of its interval as none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import (
    Predictions,
    TrainStatistics,
    next_chunk_queries,
    train_statistics,
    user_pools,
    whitened_decayed,
)
from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import full_ranks, metrics, unit
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet, Values
from user_embeddings_dagster.evaluation.suites import ItemModel, next_chunk_ranks
from user_embeddings_dagster.evaluation.user_suites import UserModel, temporal_halves, user_models

CHUNKS_PER_USER = 20
MIN_CHUNKS_PER_USER = 4
TOO_FEW = f"fewer than {MIN_USERS} held-out users of {MIN_CHUNKS_PER_USER} chunks"
NEXT_CHUNK, CHUNK_TO_SUMMARY, SAME_USER, GEOMETRY = "next_chunk", "chunk_to_summary", "same_user", "geometry"


@dataclass(frozen=True)
class Budget:
    """What every DataDAO of a comparison is measured on; `omitted` DataDAOs have too few users for any budget."""

    users: int
    chunks_per_user: int
    omitted: tuple[str, ...]


def common_budget(histories: Mapping[str, Histories], chunks_per_user: int = CHUNKS_PER_USER) -> Budget:
    """The longest histories, up to `chunks_per_user`, that `MIN_USERS` people of every DataDAO have.

    DataDAOs without `MIN_USERS` people of `MIN_CHUNKS_PER_USER` chunks are omitted.
    """

    def people(name: str, chunks: int) -> int:
        return int((histories[name].lengths >= chunks).sum())

    compared = [name for name in histories if people(name, MIN_CHUNKS_PER_USER) >= MIN_USERS]
    omitted = tuple(sorted(set(histories) - set(compared)))
    for chunks in range(chunks_per_user, MIN_CHUNKS_PER_USER - 1, -1):
        users = min((people(name, chunks) for name in compared), default=0)
        if users >= MIN_USERS:
            return Budget(users, chunks, omitted)
    return Budget(0, 0, omitted)


def equal_samples(histories: Mapping[str, Histories], budget: Budget, seed: int) -> dict[str, Histories]:
    """Per compared DataDAO, the latest chunks of a seeded draw of users: `budget.users` × `budget.chunks_per_user`."""
    samples = {}
    for name in sorted(set(histories) - set(budget.omitted)):
        history = histories[name]
        eligible = np.flatnonzero(history.lengths >= budget.chunks_per_user)
        rng = np.random.default_rng([seed, *name.encode()])
        drawn = np.sort(rng.choice(eligible, budget.users, replace=False)) if budget.users else eligible[:0]
        ends = history.offsets[1:][drawn]
        samples[name] = history.ranges(ends - budget.chunks_per_user, ends, drawn)
    return samples


def equal_statistics(training: Mapping[str, np.ndarray], seed: int) -> dict[str, TrainStatistics]:
    """Whitening of each DataDAO from equally many training vectors [n, d], drawn with the seed."""
    fewest = min((len(vectors) for vectors in training.values()), default=0)
    statistics = {}
    for name in sorted(training):
        rng = np.random.default_rng([seed, *name.encode()])
        rows = np.sort(rng.choice(len(training[name]), fewest, replace=False))
        statistics[name] = train_statistics(training[name][rows])
    return statistics


def transfer_models(
    statistics: Mapping[str, TrainStatistics],
) -> dict[str, Callable[[Histories], Predictions]]:
    """The whitened baseline as fitted on each DataDAO, by name `whitened_decayed_mean@<fitted on>`."""

    def fitted(statistic: TrainStatistics) -> Callable[[Histories], Predictions]:
        return lambda histories: whitened_decayed(histories, statistic)

    return {f"whitened_decayed_mean@{name}": fitted(statistics[name]) for name in sorted(statistics)}


@dataclass(frozen=True)
class Measured:
    """What one DataDAO's sample gave: values per query by (task, model), users of the queries, candidates."""

    values: dict[tuple[str, str], Values]
    users: dict[str, np.ndarray]
    candidates: dict[str, str]
    versions: dict[tuple[str, str], str]


def datadao_comparison(
    scope: Scope,
    samples: Mapping[str, Histories],
    predictions: Mapping[str, Mapping[str, Predictions]],
    *,
    statistics: Mapping[str, TrainStatistics],
    items: Mapping[str, Mapping[str, ItemModel]] | None = None,
    omitted: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Scores of each DataDAO on `samples` (see `equal_samples`) and the differences between every two of them.

    `predictions` {datadao: {model: …}} made on the samples, models fitted on other DataDAOs included; `items`
    {datadao: {item model: …}} row by row of the samples. Slices are tasks: `next_chunk`, `chunk_to_summary`,
    `same_user` (half a history finds the other half), `geometry` (cosines inside and across users). Differences
    are rows of DataDAO `all` with slice `<task>:<a>-<b>`. Omitted DataDAOs get an explicit row without a value.
    """
    sheet = ScoreSheet(scope)
    measured = {
        name: _measure(samples[name], predictions.get(name, {}), statistics.get(name), (items or {}).get(name, {}))
        for name in sorted(samples)
    }
    for name, part in measured.items():
        for (task, model), values in part.values.items():
            sheet.means(
                model, values, part.users[task], slice_=task, candidates=part.candidates[task],
                version=part.versions[task, model], datadao=name,
            )  # fmt: skip
    for a, b in combinations(sorted(measured), 2):
        for task, model in sorted(measured[a].values.keys() & measured[b].values.keys()):
            sheet.contrasts(
                model, measured[a].values[task, model], measured[a].users[task],
                measured[b].values[task, model], measured[b].users[task],
                slice_=f"{task}:{a}-{b}", candidates=_both(measured[a].candidates[task], measured[b].candidates[task]),
                version=measured[a].versions[task, model],
            )  # fmt: skip
    for name in omitted:
        sheet.omit("none", "mrr", reason=TOO_FEW, slice_=NEXT_CHUNK, version="none", datadao=name)
    return sheet.frame()


def differences(scores: pl.DataFrame, task: str) -> pl.DataFrame:
    """The rows of a comparison about two DataDAOs, `<a>-<b>` in the column datadao; without baselines that were fitted
    on one of them (`<model>@<datadao>`)."""
    rows = scores.filter(pl.col("slice").str.starts_with(f"{task}:"), ~pl.col("model").str.contains("@"))
    return rows.with_columns(datadao=pl.col("slice").str.strip_prefix(f"{task}:"))


def _both(a: str, b: str) -> str:
    """Candidate sets of the two sides of a contrast, once if they are equal in size."""
    return a if a == b else f"{a}|{b}"


def _measure(
    sample: Histories,
    predictions: Mapping[str, Predictions],
    statistics: TrainStatistics | None,
    items: Mapping[str, ItemModel],
) -> Measured:
    gold = next_chunk_queries(sample)
    of_row = sample.user_ids[sample.history_of_row]
    n = len(sample.vectors)
    out = Measured(
        {},
        {NEXT_CHUNK: of_row[gold], CHUNK_TO_SUMMARY: of_row, GEOMETRY: sample.user_ids},
        {NEXT_CHUNK: f"full:{n}", CHUNK_TO_SUMMARY: f"full:{n}", GEOMETRY: "pairs"},
        {},
    )
    for name, prediction in predictions.items():
        out.values[NEXT_CHUNK, name] = metrics(next_chunk_ranks(sample, prediction, gold))
        out.versions[NEXT_CHUNK, name] = prediction.version
    for name, model in items.items():
        ranks = full_ranks(model.chunk_vectors, model.summary_vectors, np.arange(n))
        out.values[CHUNK_TO_SUMMARY, name] = metrics(ranks, (1, 10))
        out.versions[CHUNK_TO_SUMMARY, name] = model.version
    _measure_users(sample, statistics, out)
    return out


def _measure_users(sample: Histories, statistics: TrainStatistics | None, out: Measured) -> None:
    halves = temporal_halves(sample)
    out.users[SAME_USER] = halves.first.user_ids
    out.candidates[SAME_USER] = f"full:{halves.first.n_histories}"
    models: Mapping[str, UserModel] = {} if statistics is None else user_models(halves, user_pools(statistics))
    for name, model in models.items():
        ranks = full_ranks(model.first, model.second, np.arange(halves.first.n_histories))
        out.values[SAME_USER, name] = metrics(ranks, (1, 10))
        out.versions[SAME_USER, name] = model.version
    out.values[GEOMETRY, "item_embeddings"] = cosines(sample)
    out.versions[GEOMETRY, "item_embeddings"] = "baseline"


def cosines(histories: Histories) -> dict[str, np.ndarray]:
    """Per history, mean cosine between two of its chunks and between one of its chunks and another user's.

    From sums of unit vectors: the mean over all pairs of an n × n block is |sum|², without forming the block.
    The second is an average over pairs of users, whose standard error is twice that of the users' averages
    (Hoeffding 1948, U-statistics of degree 2): their deviations are doubled, so that the bootstrap is right.
    """
    rows = unit(histories.vectors).astype(np.float64)
    sums = np.zeros((histories.n_histories, rows.shape[1]))
    np.add.at(sums, histories.history_of_row, rows)
    n = histories.lengths.astype(np.float64)
    total, n_total = sums.sum(axis=0), n.sum()
    inside = ((sums**2).sum(axis=1) - n) / np.maximum(n * (n - 1), 1)
    across = (sums * (total - sums)).sum(axis=1) / np.maximum(n * (n_total - n), 1)
    doubled = 2 * across - across.mean() if len(across) else across
    return {"within_user_cosine": inside, "between_user_cosine": doubled}
