"""What kinds of positives and negatives are worth to the item encoder, on held-out users (C29).

Every kind is trained with several seeds: another seed alone moves the scores by as much as kinds do, so that is in the
intervals too (`bootstrap.means_over_trainings`). A chunk's own summary is what trainings on own positives
practise; trainings on relabelled ones are also judged by the next chunk, which none of them practises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import DECAY, Predictions, decayed_mean, next_chunk_queries
from user_embeddings_dagster.evaluation.bootstrap import Estimate, means_over_trainings
from user_embeddings_dagster.evaluation.histories import Histories, histories_of
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.ranking import full_ranks, group_ranks, metrics
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.evaluation.suites import next_chunk_ranks
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.storage.lance_tables import stacked

IN_BATCH, HARD, RELABELLED, RELABELLED_HARD = "in_batch", "hard", "relabelled", "relabelled_hard"
KINDS: Mapping[str, Mapping[str, object]] = {
    IN_BATCH: {"pairs": "own", "negatives": 0},
    HARD: {"pairs": "own"},
    RELABELLED: {"pairs": "relabelled", "negatives": 0},
    RELABELLED_HARD: {"pairs": "relabelled"},
}
"""Settings of the item encoder by kind; without `negatives` there are as many as it has by default."""
COMPARED = ((HARD, IN_BATCH), (RELABELLED, IN_BATCH), (RELABELLED_HARD, IN_BATCH), (RELABELLED_HARD, HARD))
UNTUNED = "untuned"


def sampled_histories(snapshot: pl.DataFrame, split: str, chunks_per_user: int) -> pl.DataFrame:
    """The latest `chunks_per_user` chunks of every user of a split in each DataDAO, by chunk_id."""
    mine = snapshot.filter(split=split)
    last = pl.col("position").rank("ordinal", descending=True).over("datadao", "user_id") <= chunks_per_user
    return mine.filter(last).sort("chunk_id")


def measure_negatives(
    inputs: EvaluationInputs,
    summaries: pl.DataFrame,
    sample: pl.DataFrame,
    models: Mapping[str, Sequence[np.ndarray]],
    versions: Mapping[str, Sequence[str]],
    split: str = "test",
) -> pl.DataFrame:
    """SCORES of the kinds, over all DataDAOs and within each.

    `summaries`: chunk_id and summary_vector of every snapshot chunk; `sample`: the snapshot rows whose chunks were
    encoded, all of one split; `models`: by kind one matrix [len(sample), d] for each training, `versions` likewise.
    """
    everything = inputs.snapshot.join(summaries, on="chunk_id", validate="1:1").sort("chunk_id")
    parts = []
    for datadao in ("all", *inputs.held_out(split)):
        rows = everything if datadao == "all" else everything.filter(datadao=datadao)
        mine = np.ones(sample.height, dtype=bool) if datadao == "all" else (sample["datadao"] == datadao).to_numpy()
        vectors = {name: np.stack([matrix[mine] for matrix in trained]) for name, trained in models.items()}
        scope = inputs.scope("negative_ablation_scores", datadao)
        parts.append(_scores(scope, rows, sample.filter(mine), vectors, versions, split))
    return pl.concat(parts)


def _scores(
    scope: Scope,
    rows: pl.DataFrame,
    sample: pl.DataFrame,
    models: Mapping[str, np.ndarray],
    versions: Mapping[str, Sequence[str]],
    split: str,
) -> pl.DataFrame:
    """`models`: [trainings, len(sample), d] by kind."""
    tasks = [_OwnSummary(rows, sample, split), _RightSubject(rows, sample), _NextChunk(sample)]
    sheet = ScoreSheet(scope)
    for task in tasks:
        values = {name: np.stack([task.values(vectors) for vectors in trained]) for name, trained in models.items()}
        labels = {"slice_": task.slice, "candidates": task.candidates}
        for name, table in values.items():
            made_by = content_id(*versions[name]) if len(table) > 1 else versions[name][0]
            _add(sheet, name, task.metrics, table, task.users, labels, made_by)
            for number, one in enumerate(table if len(table) > 1 else ()):
                _add(
                    sheet, f"{name}, seed {number}", task.metrics, one[None], task.users, labels, versions[name][number]
                )
        for name, base in COMPARED:
            differences = tuple(f"{metric}_difference" for metric in task.metrics)
            made_by = content_id(*versions[name])
            _add(sheet, f"{name} - {base}", differences, values[name] - values[base], task.users, labels, made_by)
    return sheet.frame()


def _add(
    sheet: ScoreSheet,
    model: str,
    names: Sequence[str],
    values: np.ndarray,
    users: np.ndarray,
    labels: Mapping[str, str],
    version: str,
) -> None:
    for name, estimate in zip(names, means_over_trainings(values, users, seed=sheet.scope.seed), strict=True):
        sheet.add(model, name, within_bounds(name, estimate), version=version, **labels)


def within_bounds(metric: str, estimate: Estimate) -> Estimate:
    """The estimate of a recall or an MRR with its interval cut at 0 and 1; a difference as it is.

    Student's t knows no bounds: of few trainings its interval may leave them.
    """
    if metric.endswith("_difference") or estimate.low is None or estimate.high is None:
        return estimate
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))


class _OwnSummary:
    """A chunk finds its own summary among all summaries of the split."""

    slice, metrics = "all", ("recall@1", "recall@10", "mrr")

    def __init__(self, rows: pl.DataFrame, sample: pl.DataFrame, split: str) -> None:
        held_out = rows.filter(split=split)
        self.summaries = stacked(held_out["summary_vector"])
        self.gold = _places(held_out, sample)
        self.users = sample["user_id"].to_numpy()
        self.candidates = f"full:{held_out.height}"

    def values(self, vectors: np.ndarray) -> np.ndarray:
        """Metrics by query [n, 3]."""
        return _table(metrics(full_ranks(vectors, self.summaries, self.gold), (1, 10)), self.metrics)


class _RightSubject:
    """A chunk finds its own summary among those of its window, which differ in SUBJECT alone."""

    slice, metrics = "same_window", ("recall@1",)

    def __init__(self, rows: pl.DataFrame, sample: pl.DataFrame) -> None:
        shared = rows.filter(pl.len().over("window_id") > 1)
        self.asked = sample["chunk_id"].is_in(shared["chunk_id"].implode()).to_numpy()
        self.windows, self.summaries = rows["window_id"], stacked(rows["summary_vector"])
        self.gold = _places(rows, sample.filter(self.asked))
        self.users = sample.filter(self.asked)["user_id"].to_numpy()
        sizes = rows.select("chunk_id", n=pl.len().over("window_id"))["n"].to_numpy()[self.gold]
        self.candidates = f"window:{sizes.mean():.1f}" if len(sizes) else "window:0"

    def values(self, vectors: np.ndarray) -> np.ndarray:
        """Metrics by query [n, 1]."""
        return _table(
            metrics(group_ranks(vectors[self.asked], self.summaries, self.gold, self.windows), (1,)), self.metrics
        )


class _NextChunk:
    """The decayed mean of a user's chunks so far finds the next one among all of the sample but their own past."""

    slice, metrics = "next_chunk", ("mrr",)

    def __init__(self, sample: pl.DataFrame) -> None:
        self.sample = sample
        histories = self._histories(np.zeros((sample.height, 1)))
        self.gold = next_chunk_queries(histories)
        self.users = histories.user_ids[histories.history_of_row[self.gold]]
        self.candidates = f"full:{sample.height}"

    def _histories(self, vectors: np.ndarray) -> Histories:
        return histories_of(self.sample, self.sample["chunk_id"], vectors)

    def values(self, vectors: np.ndarray) -> np.ndarray:
        """Metrics by query [n, 1]."""
        histories = self._histories(vectors)
        prediction = Predictions(decayed_mean(histories, DECAY), histories.vectors)
        return _table(metrics(next_chunk_ranks(histories, prediction, self.gold), ()), self.metrics)


def _places(rows: pl.DataFrame, sample: pl.DataFrame) -> np.ndarray:
    """Row of each chunk of `sample` in `rows`. Both are sorted by chunk_id."""
    return rows["chunk_id"].search_sorted(sample["chunk_id"]).to_numpy()


def _table(values: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.stack([values[name] for name in names], axis=1)
