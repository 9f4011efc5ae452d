"""The ablation of positives and negatives: right values, seeds inside the intervals, every row complete."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.negatives import COMPARED, KINDS, UNTUNED, measure_negatives, sampled_histories
from user_embeddings_dagster.schema import SCORES

USERS, CHUNKS, D = 12, 6, 32


@pytest.fixture(scope="module")
def snapshot() -> pl.DataFrame:
    """Twelve users of two DataDAOs, one in training; two people share every window."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": f"c{user:02d}{place}",
            "datadao": "left" if user < USERS // 2 else "right",
            "user_id": f"u{user}",
            "split": "train" if user == 0 else "test",
            "position": place,
            "started_at": start + timedelta(hours=place, minutes=user),
            "ended_at": start + timedelta(hours=place, minutes=user + 1),
            "window_id": f"w{user // 2}{place}",
            "thread_id": "t",
        }
        for user in range(USERS)
        for place in range(CHUNKS)
    ]
    return pl.DataFrame(rows)


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def measured(snapshot: pl.DataFrame, chunks_per_user: int = 4) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores where hard negatives are worth much, relabelling nothing, and seeds differ."""
    rng = np.random.default_rng(0)
    summaries = unit(rng.normal(size=(snapshot.height, D)))
    frame = snapshot.select("chunk_id").sort("chunk_id")
    frame = frame.with_columns(summary_vector=pl.Series(summaries).cast(pl.List(pl.Float32)))
    sample = sampled_histories(snapshot, "test", chunks_per_user)
    own = np.stack(sample.join(frame, on="chunk_id", maintain_order="left")["summary_vector"].to_list())

    def noisy(noise: float, seed: int) -> np.ndarray:
        return unit(own + noise * np.random.default_rng(seed).normal(size=own.shape))

    models = {
        kind: [noisy(0.05 if kind == "hard" else 0.3 + 0.1 * seed, 10 * n + seed) for seed in range(3)]
        for n, kind in enumerate(KINDS)
    }
    models[UNTUNED] = [noisy(1.0, 99)]
    versions = {kind: [f"{kind}{n}" for n in range(len(found))] for kind, found in models.items()}
    inputs = EvaluationInputs(snapshot, frame["chunk_id"], np.zeros((0, 0)), 3)
    return measure_negatives(inputs, frame, sample, models, versions), sample


def value(scores: pl.DataFrame, model: str, metric: str, slice_: str = "all", column: str = "value") -> float:
    return scores.filter(datadao="all", model=model, metric=metric, slice=slice_)[column].item()


def test_sample_is_the_latest_chunks_of_held_out_users(snapshot: pl.DataFrame) -> None:
    sample = sampled_histories(snapshot, "test", 4)
    assert sample.group_by("user_id").agg(pl.col("position").sort())["position"].to_list() == [[2, 3, 4, 5]] * 11
    assert sample["chunk_id"].is_sorted()


def test_scores_of_every_kind_seed_and_difference(snapshot: pl.DataFrame) -> None:
    """C29, Law 6: values by hand, differences paired, candidates and users on every row."""
    scores, sample = measured(snapshot)
    assert scores.schema == SCORES.schema
    assert scores.select(SCORES.primary_key).is_unique().all()
    assert set(scores["datadao"]) == {"all", "left", "right"}
    assert value(scores, "hard", "recall@1") == 1.0 and value(scores, "hard", "mrr", "all") == 1.0
    by_seed = [value(scores, f"in_batch, seed {seed}", "recall@1") for seed in range(3)]
    assert value(scores, "in_batch", "recall@1") == pytest.approx(np.mean(by_seed)) and len(set(by_seed)) > 1
    for better, base in COMPARED:
        expected = value(scores, better, "mrr") - value(scores, base, "mrr")
        assert value(scores, f"{better} - {base}", "mrr_difference") == pytest.approx(expected)
    assert value(scores, "hard - in_batch", "recall@1_difference", column="ci_low") > 0
    bounded = scores.filter(~pl.col("metric").str.ends_with("_difference"))
    assert ((bounded["ci_low"] >= 0) & (bounded["ci_high"] <= 1)).all()
    assert value(scores, UNTUNED, "recall@1") < value(scores, "in_batch", "recall@1")
    assert scores.filter(slice="all", datadao="all")["candidate_set"].unique().to_list() == [f"full:{11 * CHUNKS}"]
    assert value(scores, "hard", "recall@1", column="n") == sample.height == 44
    # 3 queries for each of the 4 chunks of a user; user 1's rival in the window is the training user.
    assert value(scores, "hard", "mrr", "next_chunk", column="n") == 33
    assert value(scores, "hard", "recall@1", "same_window") == 1.0
    assert scores.filter(slice="same_window")["candidate_set"].unique().to_list() == ["window:2.0"]


def test_the_right_subject_is_told_from_the_windows_rival(snapshot: pl.DataFrame) -> None:
    """A model that finds the window and not SUBJECT is at one in two among the rivals."""
    summaries = snapshot.select("chunk_id", "window_id", "user_id").sort("chunk_id")
    window = summaries["window_id"].rank("dense").to_numpy() - 1
    base = (
        np.eye(D * 2)[window]
        + 0.1 * np.eye(D * 2)[-1] * (summaries["user_id"].str.slice(1).cast(int) % 2).to_numpy()[:, None]
    )
    frame = summaries.select("chunk_id").with_columns(summary_vector=pl.Series(unit(base)).cast(pl.List(pl.Float32)))
    sample = sampled_histories(snapshot, "test", CHUNKS)
    places = sample["window_id"].rank("dense").to_numpy() - 1
    blind = unit(np.eye(D * 2)[places])
    models = {kind: [blind] for kind in [*KINDS, UNTUNED]}
    inputs = EvaluationInputs(snapshot, frame["chunk_id"], np.zeros((0, 0)), 0)
    scores = measure_negatives(inputs, frame, sample, models, {kind: ["v"] for kind in models})
    # The summary without the extra axis wins in every window: that of the even users, 5 of 11.
    assert value(scores, "hard", "recall@1", "same_window") == pytest.approx(5 / 11)
    assert value(scores, "hard", "recall@10") == 1.0
