"""Hard negatives: near, but not the same thing said again; training users only."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.mining.hard_negatives import mine
from user_embeddings_dagster.schema import HARD_NEGATIVES
from user_embeddings_dagster.storage.lance_tables import LanceTables


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def pairs_of(chunks: np.ndarray, summaries: np.ndarray, **columns) -> pl.DataFrame:
    n = len(chunks)
    defaults = {
        "chunk_id": [f"c{i:03d}" for i in range(n)],
        "datadao": ["dao"] * n,
        "user_id": [f"u{i}" for i in range(n)],
        "window_id": [f"w{i}" for i in range(n)],
        "split": ["train"] * n,
    }
    return pl.DataFrame({**defaults, **columns}).with_columns(
        chunk_vector=pl.Series(unit(chunks)).cast(pl.List(pl.Float32)),
        summary_vector=pl.Series(unit(summaries)).cast(pl.List(pl.Float32)),
    )


def random_pairs(n: int = 60, **columns) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    summaries = unit(generator.normal(size=(n, 12)))
    return pairs_of(summaries + 0.2 * generator.normal(size=(n, 12)), summaries, **columns)


def test_mined_by_hand() -> None:
    """C29: a candidate more similar to the own summary than margin times the positive is rejected.

    Chunk c000 has its summary at cosine 1. Summary c001 is at cosine 0.96 to it (rejected at margin 0.95),
    c002 at 0.6, c003 at 0.
    """
    summaries = np.array([[1, 0], [0.96, 0.28], [0.6, 0.8], [0, 1]])
    result = mine(pairs_of(summaries, summaries), k=2, margin=0.95)
    own = result.negatives.filter(pl.col("chunk_id") == "c000")
    assert own["negative_chunk_id"].to_list() == ["c002", "c003"]
    np.testing.assert_allclose(own["similarity"].to_numpy(), [0.6, 0], atol=1e-6)
    assert own["rank"].to_list() == [1, 2]
    # c000 and c001 reject each other; c002 and c003 are at cosine 0.8.
    assert (result.considered, result.rejected) == (12, 2)
    assert result.rejection_rate == pytest.approx(2 / 12)
    assert mine(pairs_of(summaries, summaries), k=2, margin=1.0).rejected == 0


def test_two_who_ask_the_same_are_never_negatives() -> None:
    """C30: different threads and chunks, one meaning: their summaries are near-equal, their chunks are not."""
    summaries = np.array([[1, 0.02, 0], [1, -0.02, 0], [0.5, 0.8, 0.1], [0.4, 0.1, 0.9]])
    chunks = np.array([[0.9, 0.4, 0.1], [0.9, -0.1, 0.4], [0.5, 0.8, 0.1], [0.4, 0.1, 0.9]])
    pairs = pairs_of(chunks, summaries)
    fruit = {("c000", "c001"), ("c001", "c000")}

    def mined(margin: float) -> set[tuple]:
        return set(mine(pairs, k=3, margin=margin).negatives.select("chunk_id", "negative_chunk_id").rows())

    assert not mined(0.95) & fruit
    everything = {(a, b) for a in pairs["chunk_id"] for b in pairs["chunk_id"] if a != b}
    assert mined(0.95) == everything - fruit


def test_paper_criterion_compares_with_the_query() -> None:
    """NV-Retriever's own rule: a summary closer to the chunk than margin times the positive falls away."""
    summaries = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    chunks = np.array([[0.6, 0.79, 0.1], [0, 1, 0], [0, 0, 1]])
    rejected_by = {
        criterion: mine(pairs_of(chunks, summaries), criterion=criterion).rejected for criterion in ("summary", "query")
    }
    assert rejected_by == {"summary": 0, "query": 1}


def test_only_training_chunks_take_part() -> None:
    pairs = random_pairs(split=["train", "valid", "test"] * 20)
    train = set(pairs.filter(pl.col("split") == "train")["chunk_id"])
    result = mine(pairs, k=5)
    assert result.queries == 20
    assert set(result.negatives["chunk_id"]) == train
    assert set(result.negatives["negative_chunk_id"]) <= train


def test_same_users_same_window_is_no_candidate_but_others_in_it_are() -> None:
    generator = np.random.default_rng(1)
    summaries = generator.normal(size=(6, 12))
    pairs = pairs_of(summaries, summaries, user_id=["a", "a", "b", "b", "c", "c"], window_id=["w"] * 4 + ["v", "x"])
    found = set(mine(pairs, k=6).negatives.select("chunk_id", "negative_chunk_id").rows())
    assert ("c000", "c001") not in found
    assert {("c000", "c002"), ("c004", "c005")} <= found


def test_searching_the_index_finds_what_comparing_all_finds(tmp_path: Path) -> None:
    pairs = random_pairs(90, datadao=["left", "right"] * 45, split=["train", "train", "valid"] * 30)
    tables = LanceTables(tmp_path)
    for (datadao,), rows in pairs.group_by(["datadao"]):
        stored = rows.select(id="chunk_id", version=pl.lit("v"), vector="summary_vector")
        tables.upsert(str(datadao), "summary_embeddings", stored)
    exact = mine(pairs, tables, k=4, candidates=10)
    searched = mine(pairs, tables, k=4, candidates=10, exact_rows=10)
    assert (exact.method, searched.method) == ("exact", "index")
    columns = ["chunk_id", "negative_chunk_id", "rank"]
    assert exact.negatives.select(columns).equals(searched.negatives.select(columns))


def test_same_rows_in_any_order() -> None:
    pairs = random_pairs()
    assert mine(pairs).negatives.equals(mine(pairs.sample(fraction=1, shuffle=True, seed=3)).negatives)


def test_no_training_chunk() -> None:
    result = mine(random_pairs(3, split=["test"] * 3))
    assert result.negatives.schema == HARD_NEGATIVES.schema
    assert (result.negatives.height, result.rejection_rate) == (0, 0.0)


def test_missing_vector_and_impossible_margin_raise() -> None:
    pairs = random_pairs(3).with_columns(pl.when(pl.col("chunk_id") != "c001").then("chunk_vector"))
    with pytest.raises(ValueError, match=r"of 3 training chunks have no vector: \{'chunk_vector': 1\}"):
        mine(pairs)
    with pytest.raises(ValueError, match="margin"):
        mine(random_pairs(3), margin=1.5)
    with pytest.raises(ValueError, match="need tables"):
        mine(random_pairs(9), exact_rows=3)
