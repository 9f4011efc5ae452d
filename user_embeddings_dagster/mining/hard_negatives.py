"""Hard negatives: summaries near a training chunk that do not say the same as its own summary.

Positive-aware mining (NV-Retriever, Moreira et al. 2024, arXiv:2407.15831, section 3, TopK-PercPos): a
candidate whose similarity exceeds a share `margin` of the positive's similarity is taken for a false
negative and rejected. The paper compares the candidate with the query. Here, by default, it is compared
with the query's own summary (`criterion="summary"`): two chunks in which different people ask the same
thing have the same summary and must never be each other's negative, however different their chunks are.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from user_embeddings_dagster.mining.nearest import EXACT_ROWS, nearest_summaries, training_corpus
from user_embeddings_dagster.schema import HARD_NEGATIVES
from user_embeddings_dagster.storage.lance_tables import LanceTables

VERSION = "1"


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
    together. The query is the chunk's vector, the candidates are the `candidates` nearest summaries (see
    `nearest_summaries`). Raises ValueError if a training chunk has no vector, or if there are more than
    `exact_rows` and no `tables`.
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin {margin} is not in (0, 1]")
    corpus = training_corpus(pairs)
    found, method = nearest_summaries(corpus, candidates, tables, summary_table=summary_table, exact_rows=exact_rows)
    own = corpus.own
    query, candidate = found["query"].to_numpy(), found["candidate"].to_numpy()
    found = found.with_columns(
        similarity=pl.Series(corpus.similarities(query, candidate), dtype=pl.Float32),
        limit=pl.Series(margin * own[query], dtype=pl.Float32),
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
        method=method,
    )


def _ranked(accepted: pl.DataFrame, chunk_ids: pl.Series, k: int) -> pl.DataFrame:
    """The `k` accepted candidates nearest to each query, as HARD_NEGATIVES; ties by chunk_id."""
    ordered = accepted.sort("query", "score", "candidate", descending=[False, True, False])
    names = pl.lit(chunk_ids)
    ranked = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("query"))
    frame = ranked.filter(pl.col("rank") <= k).with_columns(
        chunk_id=names.gather(pl.col("query")), negative_chunk_id=names.gather(pl.col("candidate"))
    )
    return HARD_NEGATIVES.conform(frame).sort("chunk_id", "rank")
