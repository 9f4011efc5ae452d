"""Hard negatives: summaries near a training chunk that do not say the same as its own summary.

Positive-aware mining (NV-Retriever, Moreira et al. 2024, arXiv:2407.15831, section 3, TopK-PercPos): a
candidate whose similarity exceeds a share `margin` of the positive's similarity is taken for a false
negative and rejected. The paper compares the candidate with the query. Here, by default, it is compared
with the query's own summary (`criterion="summary"`): two chunks in which different people ask the same
thing have the same summary and must never be each other's negative, however different their chunks are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from user_embeddings_dagster.schema import HARD_NEGATIVES
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked

VERSION = "1"
EXACT_ROWS = 50_000  # up to here every pair is compared: 2 TFLOP at 384 dimensions; above, the index
BLOCK_ROWS = 512
_FRAME = pl.Schema({"query": pl.Int64(), "candidate": pl.Int64(), "score": pl.Float32()})


@dataclass(frozen=True)
class MiningResult:
    """Mined negatives and what was weighed: `considered` candidates were near, `rejected` of them too near.

    `negatives` has the columns of HARD_NEGATIVES. `positive_similarity` is the mean cosine of a training
    chunk to its own summary, `starved` the number of training chunks with fewer than k negatives.
    """

    negatives: pl.DataFrame
    queries: int
    considered: int
    rejected: int
    starved: int
    positive_similarity: float
    method: str

    @property
    def stats(self) -> dict[str, float]:
        """The counts and rates, for metadata."""
        return {
            "queries": self.queries,
            "considered": self.considered,
            "rejected": self.rejected,
            "rejection_rate": self.rejection_rate,
            "starved": self.starved,
            "positive_similarity": self.positive_similarity,
        }

    @property
    def rejection_rate(self) -> float:
        """Share of the considered candidates that were rejected as false negatives."""
        return self.rejected / self.considered if self.considered else 0.0


@dataclass(frozen=True)
class _Corpus:
    """Training pairs by chunk_id, with row-aligned unit vectors [n, d] of chunks and of their summaries."""

    pairs: pl.DataFrame
    chunks: np.ndarray
    summaries: np.ndarray


def mine(
    pairs: pl.DataFrame,
    tables: LanceTables | None = None,
    *,
    k: int = 4,
    margin: float = 0.95,
    candidates: int = 50,
    criterion: Literal["summary", "query"] = "summary",
    summary_table: str = "summary_embeddings",
    exact_rows: int = EXACT_ROWS,
) -> MiningResult:
    """Up to `k` negatives for every training chunk of `pairs`, nearest first.

    `pairs` has chunk_id, datadao, user_id, split, window_id and the unit vectors chunk_vector and
    summary_vector; only rows with split "train" take part, as query or as candidate, over all DataDAOs
    together. The query is the chunk's vector, the candidates are the `candidates` nearest summaries: by
    comparing all pairs, or, above `exact_rows` training rows, by search in the `summary_table` (keyed by
    chunk_id) of every DataDAO in `tables`. A summary of the same user in the same window is no candidate.
    Raises ValueError if a training chunk has no vector, or if there are more than `exact_rows` and no
    `tables`.
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin {margin} is not in (0, 1]")
    corpus = _corpus(pairs)
    exact = corpus.pairs.height <= exact_rows
    if exact:
        found = _exact(corpus, candidates)
    elif tables is not None:
        found = _indexed(corpus, tables, summary_table, candidates)
    else:
        raise ValueError(f"{corpus.pairs.height} training rows need tables to search (exact up to {exact_rows})")
    found = _without_own(found, corpus.pairs)
    own = np.einsum("nd,nd->n", corpus.chunks, corpus.summaries)
    found = found.with_columns(
        similarity=pl.Series(_paired_cosines(corpus.summaries, found), dtype=pl.Float32),
        limit=pl.Series(margin * own[found["query"].to_numpy()], dtype=pl.Float32),
    )
    compared = "similarity" if criterion == "summary" else "score"
    accepted = found.filter(pl.col(compared) <= pl.col("limit"))
    negatives = _ranked(accepted, corpus.pairs["chunk_id"], k)
    per_query = negatives.group_by("chunk_id").len()
    return MiningResult(
        negatives=negatives,
        queries=corpus.pairs.height,
        considered=found.height,
        rejected=found.height - accepted.height,
        starved=corpus.pairs.height - per_query.filter(pl.col("len") >= k).height,
        positive_similarity=float(own.mean()) if len(own) else 0.0,
        method="exact" if exact else "index",
    )


def _corpus(pairs: pl.DataFrame) -> _Corpus:
    train = pairs.filter(pl.col("split") == "train").sort("chunk_id")
    vectors = ("chunk_vector", "summary_vector")
    absent = {name: count for name in vectors if (count := train[name].null_count())}
    if absent:
        raise ValueError(f"of {train.height} training chunks have no vector: {absent}")
    return _Corpus(train.drop(vectors), stacked(train["chunk_vector"]), stacked(train["summary_vector"]))


def _exact(corpus: _Corpus, candidates: int) -> pl.DataFrame:
    """The nearest summaries of every chunk by comparing all pairs, in blocks of rows."""
    return pl.concat([pl.DataFrame(schema=_FRAME), *_blocks(corpus, candidates)])


def _blocks(corpus: _Corpus, candidates: int) -> Iterator[pl.DataFrame]:
    n = corpus.pairs.height
    k = min(candidates + 1, n)  # its own summary is among the nearest and falls away later
    for start in range(0, n, BLOCK_ROWS):
        scores = corpus.chunks[start : start + BLOCK_ROWS] @ corpus.summaries.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        yield pl.DataFrame(
            {
                "query": np.repeat(np.arange(start, start + len(scores)), k),
                "candidate": nearest.ravel(),
                "score": np.take_along_axis(scores, nearest, axis=1).ravel(),
            },
            schema=_FRAME,
        )


def _indexed(corpus: _Corpus, tables: LanceTables, table: str, candidates: int) -> pl.DataFrame:
    """The nearest summaries by LanceDB search in every DataDAO's table; summaries of other splits fall
    away."""
    place = corpus.pairs.select("chunk_id").with_row_index("candidate").cast({"candidate": pl.Int64})
    parts = [pl.DataFrame(schema=_FRAME)]
    for datadao in corpus.pairs["datadao"].unique().sort():
        for start in range(0, corpus.pairs.height, BLOCK_ROWS):
            queries = corpus.chunks[start : start + BLOCK_ROWS]
            # Twice as many, since the table also holds the summaries of validation and test users.
            found = tables.search(datadao, table, queries, 2 * candidates + 1)
            found = found.join(place, left_on="id", right_on="chunk_id", how="inner")
            parts.append(found.select(pl.col("query") + start, "candidate", score="similarity"))
    ordered = pl.concat(parts).sort("query", "score", "candidate", descending=[False, True, False])
    return ordered.group_by("query", maintain_order=True).head(candidates + 1)


def _without_own(found: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Candidates but the query's own and those of the same user in the same window."""
    users = pairs["user_id"].rank("dense").to_numpy()
    windows = pairs["window_id"].rank("dense").to_numpy()
    query, candidate = found["query"].to_numpy(), found["candidate"].to_numpy()
    same = (users[query] == users[candidate]) & (windows[query] == windows[candidate])
    return found.filter(~same & (query != candidate))


def _paired_cosines(summaries: np.ndarray, found: pl.DataFrame) -> np.ndarray:
    """Cosine of the query's own summary to each candidate's summary, one per row of `found`."""
    query, candidate = found["query"].to_numpy(), found["candidate"].to_numpy()
    result = np.empty(len(query), dtype=np.float32)
    step = 100_000  # rows gathered at once: 2 x 150 MB at 384 dimensions
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        result[rows] = np.einsum("nd,nd->n", summaries[query[rows]], summaries[candidate[rows]])
    return result


def _ranked(accepted: pl.DataFrame, chunk_ids: pl.Series, k: int) -> pl.DataFrame:
    """The `k` accepted candidates nearest to each query, as HARD_NEGATIVES; ties by chunk_id."""
    ordered = accepted.sort("query", "score", "candidate", descending=[False, True, False])
    names = pl.lit(chunk_ids)
    ranked = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("query"))
    frame = ranked.filter(pl.col("rank") <= k).with_columns(
        chunk_id=names.gather(pl.col("query")), negative_chunk_id=names.gather(pl.col("candidate"))
    )
    return HARD_NEGATIVES.conform(frame).sort("chunk_id", "rank")
