"""Evaluation suites of the two encoders. Each returns a SCORES frame.

Row slices: `all` ranks among every candidate; `±30d` among those at most 30 days from the right answer; `gap…`
by the time since SUBJECT's previous chunk, because the next chunk within minutes is mostly the same conversation
and would pass for knowledge of the person; `after…` by the number of chunks that are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import Predictions, next_chunk_queries, own_past
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import (
    CHANCE,
    Ranks,
    expected_at_random,
    full_ranks,
    group_ranks,
    metrics,
    sampled,
)
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet, Task, Values

MINUTE, HOUR, DAY = 60, 3_600, 86_400
WITHIN_DAYS = 30
GAPS: tuple[tuple[str, float, float], ...] = (
    ("gap<20min", 0, 20 * MINUTE),
    ("gap 20min-6h", 20 * MINUTE, 6 * HOUR),
    ("gap 6h-7d", 6 * HOUR, 7 * DAY),
    ("gap>7d", 7 * DAY, float("inf")),
)
KNOWN: tuple[tuple[str, float, float], ...] = (
    ("after 1-2", 1, 3),
    ("after 3-9", 3, 10),
    ("after >=10", 10, float("inf")),
)


@dataclass(frozen=True)
class ItemModel:
    """An item encoder's vectors: of chunks [n, d] and of their summaries [n, d], row by row of the items frame."""

    chunk_vectors: np.ndarray
    summary_vectors: np.ndarray
    version: str


def item_encoder_scores(
    scope: Scope,
    items: pl.DataFrame,
    models: Mapping[str, ItemModel],
    *,
    base: str = "untuned",
    split: str = "test",
    max_queries: int | None = None,
) -> pl.DataFrame:
    """Chunk → own summary among all summaries of `split`, and the right SUBJECT among rivals of the same window.

    `items` (`chunk_id`, `user_id`, `window_id`, `split`) may hold rows of other splits or of none (null): they
    are rivals in their windows, never queries. Slice `same_window`: of the chunks that share a window, whose
    summary is this SUBJECT's. Every model but `base` also gets the paired difference to `base`. At most
    `max_queries` chunks ask (a seeded sample) in either task; the candidates stay all.
    """
    is_query = (items["split"] == split).fill_null(False).to_numpy()
    held_out = np.flatnonzero(is_query)
    asked = sampled(np.arange(len(held_out)), max_queries, scope.seed)
    users = items["user_id"].to_numpy()
    shared = (items.select(pl.len().over("window_id")).to_series() > 1).to_numpy()
    windows = items["window_id"]
    in_shared = sampled(np.flatnonzero(is_query & shared), max_queries, scope.seed)
    sheet = ScoreSheet(scope)
    measured: dict[str, dict[str, Values]] = {}
    tasks: dict[str, Task] = {}
    for name, model in models.items():
        everyone = full_ranks(model.chunk_vectors[held_out[asked]], model.summary_vectors[held_out], asked)
        rivals = group_ranks(model.chunk_vectors[in_shared], model.summary_vectors, in_shared, windows)
        measured[name] = {
            "all": metrics(everyone, (1, 10)),
            "same_window": {"recall@1": metrics(rivals, (1,))["recall@1"]},
        }
        mean_rivals = float(rivals.n_candidates.mean()) if len(rivals) else 0.0
        tasks = {
            "all": (f"full:{len(held_out)}", users[held_out[asked]]),
            "same_window": (f"window:{mean_rivals:.1f}", users[in_shared]),
        }
        chance = {"all": expected_at_random(everyone, (1, 10)), "same_window": {"recall@1": 1 / rivals.n_candidates}}
        measured[CHANCE] = chance
    versions = {name: model.version for name, model in models.items()} | {CHANCE: "exact"}
    sheet.write(measured, tasks, versions, [(name, base) for name in models if name != base and base in models])
    return sheet.frame()


def sequence_encoder_scores(
    scope: Scope,
    histories: Histories,
    predictions: Mapping[str, Predictions],
    *,
    references: Sequence[str] = ("whitened_decayed_mean",),
    baseline_names: frozenset[str] | set[str] = frozenset(),
    max_queries: int | None = None,
) -> pl.DataFrame:
    """Next-chunk prediction of every model on held-out `histories`, full ranking.

    A query is every chunk with a chunk before it (a seeded sample of `max_queries` if there are more); candidates
    are all chunks of `histories` but the user's own past. Models that are not in `baseline_names` also get the
    paired difference to each of `references` that is there.
    """
    gold = sampled(next_chunk_queries(histories), max_queries, scope.seed)
    gaps = np.maximum(histories.started[gold] - histories.ended[gold - 1], 0) if len(gold) else np.zeros(0)
    users = histories.user_ids[histories.history_of_row[gold]]
    masks = {"": np.ones(len(gold), dtype=bool)}
    masks |= {name: (gaps >= low) & (gaps < high) for name, low, high in GAPS}
    known = histories.positions[gold]
    everywhere = {name: (known >= low) & (known < high) for name, low, high in KNOWN}
    sheet = ScoreSheet(scope)
    measured: dict[str, dict[str, Values]] = {}
    tasks: dict[str, Task] = {}
    for name, prediction in predictions.items():
        measured[name] = {}
        for within in (None, WITHIN_DAYS):
            ranks = next_chunk_ranks(histories, prediction, gold, within)
            values = metrics(ranks)
            for slice_, mask in (masks if within else masks | everywhere).items():
                label = " ".join(filter(None, (slice_, within and f"±{within}d"))) or "all"
                measured[name][label] = {metric: column[mask] for metric, column in values.items()}
                tasks[label] = (_candidate_set(histories, ranks, mask, within), users[mask])
    versions = {name: prediction.version for name, prediction in predictions.items()}
    bases = [name for name in references if name in predictions]
    compared = [(name, base) for name in predictions if name not in baseline_names for base in bases if name != base]
    sheet.write(measured, tasks, versions, compared)
    return sheet.frame()


def next_chunk_ranks(
    histories: Histories, prediction: Predictions, gold: np.ndarray, within_days: float | None = None
) -> Ranks:
    """Rank of chunk `gold[i]` for the query made from the chunks before it."""
    for part in (prediction.queries, prediction.candidates):
        if len(part) != len(histories.vectors):
            raise ValueError(f"predictions have {len(part)} rows for {len(histories.vectors)} chunks")
    return full_ranks(
        prediction.queries[gold - 1],
        prediction.candidates,
        gold,
        excluded=own_past(histories, gold),
        times=None if within_days is None else histories.ended,
        within=None if within_days is None else within_days * DAY,
    )


def _candidate_set(histories: Histories, ranks: Ranks, mask: np.ndarray, within: float | None) -> str:
    if within is None:
        return f"full:{len(histories.vectors)}"
    n = ranks.n_candidates[mask]
    return f"±{within}d:{n.mean():.0f}" if len(n) else f"±{within}d:0"
