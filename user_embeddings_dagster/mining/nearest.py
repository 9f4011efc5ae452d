"""The summaries nearest to each training chunk, over all DataDAOs: what mining and relabelling choose from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked

EXACT_ROWS = 50_000  # up to here every pair is compared: 2 TFLOP at 384 dimensions; above, the index
BLOCK_ROWS = 512
FOUND = pl.Schema({"query": pl.Int64(), "candidate": pl.Int64(), "score": pl.Float32()})


@dataclass(frozen=True)
class Corpus:
    """Training pairs by chunk_id, with row-aligned unit vectors [n, d] of chunks and of their summaries."""

    pairs: pl.DataFrame
    chunks: np.ndarray
    summaries: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """Cosine of each chunk to its own summary [n]."""
        return np.einsum("nd,nd->n", self.chunks, self.summaries)

    def similarities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Cosine of summary `left[i]` to summary `right[i]` [len(left)] float32."""
        result = np.empty(len(left), dtype=np.float32)
        step = 100_000  # rows gathered at once: 2 x 150 MB at 384 dimensions
        for start in range(0, len(left), step):
            rows = slice(start, start + step)
            result[rows] = np.einsum("nd,nd->n", self.summaries[left[rows]], self.summaries[right[rows]])
        return result


def training_corpus(pairs: pl.DataFrame) -> Corpus:
    """The rows of split "train"; ValueError if one has no vector."""
    train = pairs.filter(pl.col("split") == "train").sort("chunk_id")
    vectors = ("chunk_vector", "summary_vector")
    absent = {name: count for name in vectors if (count := train[name].null_count())}
    if absent:
        raise ValueError(f"of {train.height} training chunks have no vector: {absent}")
    return Corpus(train.drop(vectors), stacked(train["chunk_vector"]), stacked(train["summary_vector"]))


def nearest_summaries(
    corpus: Corpus,
    candidates: int,
    tables: LanceTables | None = None,
    *,
    summary_table: str = "summary_embeddings",
    exact_rows: int = EXACT_ROWS,
    same_window: bool = True,
) -> tuple[pl.DataFrame, str]:
    """The `candidates` summaries nearest to each chunk, and the method: "exact" or "index".

    Columns: query and candidate (rows of the corpus), score (cosine of the chunk to the summary). By comparing all
    pairs, or, above `exact_rows` rows, by search in the `summary_table` (keyed by chunk_id) of every DataDAO in
    `tables`. Neither the own summary nor one of the same user in the same window is a candidate, and, without
    `same_window`, none of that window at all; what so falls away is not made up for. Raises ValueError if there are
    more than `exact_rows` and no `tables`.
    """
    exact = corpus.pairs.height <= exact_rows
    if exact:
        found = pl.concat([pl.DataFrame(schema=FOUND), *_blocks(corpus, candidates)])
    elif tables is not None:
        found = _indexed(corpus, tables, summary_table, candidates)
    else:
        raise ValueError(f"{corpus.pairs.height} training rows need tables to search (exact up to {exact_rows})")
    return _others(found, corpus.pairs, same_window), "exact" if exact else "index"


def _blocks(corpus: Corpus, candidates: int) -> Iterator[pl.DataFrame]:
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
            schema=FOUND,
        )


def _indexed(corpus: Corpus, tables: LanceTables, table: str, candidates: int) -> pl.DataFrame:
    """By LanceDB search in every DataDAO's table; summaries of other splits fall away."""
    place = corpus.pairs.select("chunk_id").with_row_index("candidate").cast({"candidate": pl.Int64})
    parts = [pl.DataFrame(schema=FOUND)]
    for datadao in corpus.pairs["datadao"].unique().sort():
        for start in range(0, corpus.pairs.height, BLOCK_ROWS):
            queries = corpus.chunks[start : start + BLOCK_ROWS]
            # Twice as many, since the table also holds the summaries of validation and test users.
            found = tables.search(datadao, table, queries, 2 * candidates + 1)
            found = found.join(place, left_on="id", right_on="chunk_id", how="inner")
            parts.append(found.select(pl.col("query") + start, "candidate", score="similarity"))
    ordered = pl.concat(parts).sort("query", "score", "candidate", descending=[False, True, False])
    return ordered.group_by("query", maintain_order=True).head(candidates + 1)


def _others(found: pl.DataFrame, pairs: pl.DataFrame, same_window: bool) -> pl.DataFrame:
    """Candidates but the query's own, those of the same user in the same window, and, if so asked, of its window."""
    users = pairs["user_id"].rank("dense").to_numpy()
    windows = pairs["window_id"].rank("dense").to_numpy()
    query, candidate = found["query"].to_numpy(), found["candidate"].to_numpy()
    same = windows[query] == windows[candidate]
    if same_window:
        same &= users[query] == users[candidate]
    return found.filter(~same & (query != candidate))
