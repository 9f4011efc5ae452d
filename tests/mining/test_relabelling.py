"""Relabelling: the fused ranking decides positive and negative; what is doubtful is left out and counted."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.mining.pairs import with_negatives
from user_embeddings_dagster.mining.rankers import CandidateLists, FrozenRanker, Rankings, ranks
from user_embeddings_dagster.mining.relabelling import relabel
from user_embeddings_dagster.schema import RELABELLED_PAIRS
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
        "text": [f"SUBJECT: word{i}" for i in range(n)],
    }
    return pl.DataFrame({**defaults, **columns}).with_columns(
        chunk_vector=pl.Series(unit(chunks)).cast(pl.List(pl.Float32)),
        summary_vector=pl.Series(unit(summaries)).cast(pl.List(pl.Float32)),
    )


def texts_of(pairs: pl.DataFrame) -> pl.DataFrame:
    said = pl.col("text").str.strip_prefix("SUBJECT: ")
    return pairs.filter(split="train").select(
        "chunk_id", "user_id", speakers=pl.concat_list(pl.lit("SUBJECT")), turns=pl.concat_list(said), summary=said
    )


def random_pairs(n: int = 60, **columns) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    summaries = unit(generator.normal(size=(n, 12)))
    return pairs_of(summaries + 0.2 * generator.normal(size=(n, 12)), summaries, **columns)


class Table:
    """Scores of candidate for query by two tables [n, n]; NaN: unranked."""

    name = "table"

    def __init__(self, likelihood: np.ndarray, relevance: np.ndarray) -> None:
        self.tables = np.asarray(likelihood, dtype=float), np.asarray(relevance, dtype=float)

    def rank(self, lists: CandidateLists) -> Rankings:
        query, candidate = (lists.found[name].to_numpy() for name in ("query", "candidate"))
        found = [
            np.where(np.isnan(t[query, candidate]), np.nan, ranks(query, t[query, candidate])) for t in self.tables
        ]
        missing = int(np.isnan(self.tables[0]).all(axis=1).sum())
        return Rankings(*found, unranked={"timeout": missing} if missing else {}, stats={"to_ask_again": missing})


IDENTITY = np.eye(4)
# By query: candidates from best to worst. Row 0 prefers summary 1 in both, row 3 differs between the two.
LIKELIHOOD = np.array([[3, 4, 2, 1], [2, 4, 3, 1], [1, 2, 4, 3], [4, 1, 3, 2]])
RELEVANCE = np.array([[3, 4, 2, 1], [3, 4, 2, 1], [2, 1, 4, 3], [1, 2, 4, 3]])


def test_relabelled_by_hand() -> None:
    """C29: ranks 2, 1, 3, 4 in both rankings of chunk 0: its positive is summary 1, its negative summary 3.

    Chunk 3: likelihood ranks 1, 4, 2, 3, relevance 4, 3, 1, 2: R = 1.25, .583, 1.5, .833: positive 2, own third.
    Chunk 2: the summaries 0 and 1 are tied last: by chunk_id.
    """
    pairs = pairs_of(IDENTITY, IDENTITY)
    result = relabel(pairs, texts_of(pairs), Table(LIKELIHOOD, RELEVANCE), candidates=4)
    rows = {row["chunk_id"]: row for row in result.pairs.iter_rows(named=True)}
    assert [rows[f"c00{i}"]["positive_chunk_id"] for i in range(4)] == ["c001", "c001", "c002", "c002"]
    assert [rows[f"c00{i}"]["negative_chunk_id"] for i in range(4)] == ["c003", "c003", "c001", "c001"]
    assert [rows[f"c00{i}"]["own_rank"] for i in range(4)] == [2, 1, 1, 3]
    assert rows["c003"]["positive_score"] == pytest.approx(1 / 2 + 1 / 1)
    assert rows["c003"]["own_score"] == pytest.approx(1 / 3 + 1 / 2)
    assert set(result.pairs["ranker"]) == {"table"}
    assert result.pairs.schema == RELABELLED_PAIRS.schema
    stats = result.stats
    assert (stats["queries"], stats["weighed"], stats["kept"], stats["relabelled"]) == (4, 16, 4, 2)
    assert stats["relabel_rate"] == 0.5
    assert (stats["own_rank_1_share"], stats["own_rank_2_to_5_share"]) == (0.5, 0.5)


def test_cormacks_constant_prefers_the_middle_of_both() -> None:
    """Ranks 1 and 4 beat 2 and 3 by 1/r (1.25 to .833), not by 1/(60 + r), which is nearly the sum of ranks."""
    likelihood, relevance = np.tile([4, 3, 2, 1], (4, 1)), np.tile([1, 3, 2, 4], (4, 1))
    pairs = pairs_of(IDENTITY, IDENTITY)

    def positive(constant: float) -> set[str]:
        found = relabel(pairs, texts_of(pairs), Table(likelihood, relevance), candidates=4, constant=constant)
        return set(found.pairs["positive_chunk_id"])

    assert "c001" in positive(60.0) and "c001" not in positive(0.0)


def test_the_doubtful_is_left_out_and_counted() -> None:
    """Tied: two say different things at rank 1. Unranked: no answer. Starved: rank k does not exist."""
    likelihood, relevance = LIKELIHOOD.astype(float), RELEVANCE.astype(float)
    likelihood[0], relevance[0] = [4, 3, 2, 1], [3, 4, 2, 1]  # 1 + 1/2 for both of summary 0 and 1
    likelihood[1], relevance[1] = np.nan, np.nan
    pairs = pairs_of(IDENTITY, IDENTITY, window_id=["w0", "w1", "x", "x"], user_id=["a", "b", "c", "d"])
    result = relabel(pairs, texts_of(pairs), Table(likelihood, relevance), candidates=4)
    stats = result.stats
    assert (stats["dropped_tied"], stats["dropped_unranked"], stats["dropped_starved"]) == (1, 1, 2)
    assert stats["unranked_timeout"] == 1 and stats["to_ask_again"] == 1
    assert (stats["kept"], result.pairs.height, stats["relabel_rate"]) == (0, 0, 0.0)
    assert stats["queries"] == sum(int(v) for k, v in stats.items() if k.startswith("dropped_"))
    nearly = np.array([[1, 0.01, 0, 0], [1, -0.01, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    same = relabel(pairs_of(nearly, nearly), texts_of(pairs), Table(likelihood, relevance), candidates=4)
    assert same.stats["dropped_tied"] == 0  # they say the same: the own summary stays
    assert same.pairs.row(0, named=True)["positive_chunk_id"] == "c000"


def test_a_negative_that_says_the_same_is_no_negative() -> None:
    """C30: summaries 0 and 1 say the same. Ranked last for chunk 0, whose positive is another, 1 is no negative."""
    summaries = np.array([[1, 0.02, 0, 0], [1, -0.02, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    pairs = pairs_of(summaries, summaries)
    worst_for_0 = np.tile([2.0, 1, 4, 3], (4, 1))
    kept = relabel(pairs, texts_of(pairs), Table(worst_for_0, worst_for_0), candidates=4)
    assert not set(kept.pairs.select("chunk_id", "negative_chunk_id").rows()) & {("c000", "c001"), ("c001", "c000")}
    assert kept.stats["dropped_false_negative"] == 2
    twin = relabel(pairs, texts_of(pairs), Table(worst_for_0, worst_for_0), candidates=4, margin=1.0)
    assert ("c000", "c001") in twin.pairs.select("chunk_id", "negative_chunk_id").rows()


def test_candidates_are_training_summaries_of_other_windows_and_the_own() -> None:
    seen: list[pl.DataFrame] = []

    class Watching(FrozenRanker):
        def rank(self, lists: CandidateLists) -> Rankings:
            seen.append(lists.found)
            return super().rank(lists)

    windows = [f"w{i // 3}" for i in range(60)]
    pairs = random_pairs(split=["train", "valid", "train"] * 20, window_id=windows)
    result = relabel(pairs, texts_of(pairs), Watching(), candidates=8)
    train = pairs.filter(split="train").sort("chunk_id")
    [found] = seen
    assert found.group_by("query").len()["len"].to_list() == [8] * 40
    other = found.filter(pl.col("query") != pl.col("candidate"))
    own_window = train["window_id"].gather(other["query"]) == train["window_id"].gather(other["candidate"])
    assert found.height - other.height == 40 and not own_window.any()
    named = result.pairs.select("chunk_id", "positive_chunk_id", "negative_chunk_id").unpivot()["value"]
    assert set(named) <= set(train["chunk_id"])


def test_searching_the_index_finds_what_comparing_all_finds(tmp_path: Path) -> None:
    pairs = random_pairs(90, datadao=["left", "right"] * 45, split=["train", "train", "valid"] * 30)
    tables = LanceTables(tmp_path)
    for (datadao,), rows in pairs.group_by(["datadao"]):
        stored = rows.select(id="chunk_id", version=pl.lit("v"), vector="summary_vector")
        tables.upsert(str(datadao), "summary_embeddings", stored)
    exact = relabel(pairs, texts_of(pairs), FrozenRanker(), tables, candidates=10)
    searched = relabel(pairs, texts_of(pairs), FrozenRanker(), tables, candidates=10, exact_rows=10)
    assert (exact.stats["method"], searched.stats["method"]) == ("exact", "index")
    assert exact.pairs.height > 20
    assert exact.pairs.equals(searched.pairs)


def test_same_rows_in_any_order() -> None:
    pairs = random_pairs()
    shuffled = pairs.sample(fraction=1, shuffle=True, seed=3)
    found, again = (relabel(p, texts_of(p), FrozenRanker()) for p in (pairs, shuffled))
    assert found.pairs.height and found.pairs.equals(again.pairs) and found.stats == again.stats


def test_no_training_chunk_and_what_raises() -> None:
    none = random_pairs(3, split=["test"] * 3)
    result = relabel(none, texts_of(none), FrozenRanker())
    assert (result.pairs.height, result.stats["relabel_rate"], result.stats["own_rank_mean"]) == (0, 0.0, 0.0)
    pairs = random_pairs(3)
    with pytest.raises(ValueError, match="margin"):
        relabel(pairs, texts_of(pairs), FrozenRanker(), margin=1.5)
    with pytest.raises(ValueError, match="negative_rank 1"):
        relabel(pairs, texts_of(pairs), FrozenRanker(), negative_rank=1)
    with pytest.raises(ValueError, match="negative_rank 21"):
        relabel(pairs, texts_of(pairs), FrozenRanker(), negative_rank=21)
    with pytest.raises(ValueError, match=r"of 3 training chunks have no text: \{'user_id': 1"):
        relabel(pairs, texts_of(pairs)[:2], FrozenRanker())


def test_pairs_to_train_on() -> None:
    """The positive chosen, its similarity, its negative before the mined ones; validation as it was; nobody of test."""
    pairs = random_pairs(6, split=["train"] * 3 + ["valid"] * 2 + ["test"])
    mined = pl.DataFrame({"chunk_id": ["c000", "c000"], "negative_chunk_id": ["c001", "c002"], "rank": [1, 2]})
    chosen = pl.DataFrame(
        {"chunk_id": ["c000", "c002"], "positive_chunk_id": ["c001", "c002"], "negative_chunk_id": ["c002", "c000"]}
    )
    own, relabelled = with_negatives(pairs, mined), with_negatives(pairs, mined, chosen)
    assert relabelled["chunk_id"].to_list() == own["chunk_id"].to_list() == [f"c00{i}" for i in range(5)]
    assert relabelled["positive"].to_list() == ["c001", None, "c002", "c003", "c004"]
    assert relabelled["negatives"].to_list() == [["c002", "c001"], [], ["c000"], [], []]
    assert relabelled["own_similarity"].equals(own["positive_similarity"], null_equal=True)
    expected = np.dot(pairs["chunk_vector"][0].to_numpy(), pairs["summary_vector"][1].to_numpy())
    assert relabelled["positive_similarity"][0] == pytest.approx(expected, abs=1e-6)
    assert relabelled["positive_similarity"][1:].to_list() == pytest.approx(own["positive_similarity"][1:].to_list())
    assert "positive" not in own.columns
