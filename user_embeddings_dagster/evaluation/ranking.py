"""Ranks of the right answer among candidates, by cosine, over the full set.

Ties count against the model: the right answer stands behind every candidate whose score is equal to its own
(within `TIE`), so a collapsed encoder, for which all candidates tie, gets the worst rank instead of the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

TIE = 1e-6
"""Cosines closer than this are a tie: float32 matrix products of equal rows differ by up to about 1e-7."""
CHANCE = "chance"
"""Name of the model that orders candidates at random."""
BLOCK_CELLS = 8_000_000
"""Cells of one block of the score matrix: 32 MB in float32."""


@dataclass(frozen=True)
class Ranks:
    """1-based rank of the right answer [n_queries] float64 and number of candidates of each query [n_queries]."""

    rank: np.ndarray
    n_candidates: np.ndarray

    def __len__(self) -> int:
        return len(self.rank)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def full_ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    gold: np.ndarray,
    *,
    excluded: np.ndarray | None = None,
    times: np.ndarray | None = None,
    within: float | None = None,
) -> Ranks:
    """Rank of candidate `gold[i]` for `queries[i]` among all candidates.

    queries [q, d], candidates [c, d], gold [q]. `excluded` [q, 2]: candidate rows from, to (exclusive) that do
    not take part (a user's own past; never the gold row). `times` [c] with `within`: only candidates at most
    `within` (same unit) before or after the gold one take part.
    """
    if excluded is not None and np.any((gold >= excluded[:, 0]) & (gold < excluded[:, 1])):
        raise ValueError("the right answer is among the excluded candidates")
    queries, candidates = unit(queries), unit(candidates)
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ValueError("queries or candidates hold NaN or infinite values")
    rank, taking_part = np.empty(len(gold)), np.empty(len(gold), dtype=np.int64)
    columns = np.arange(len(candidates))
    step = max(1, BLOCK_CELLS // max(1, len(candidates)))
    for begin in range(0, len(gold), step):
        part = slice(begin, begin + step)
        target = gold[part]
        scores = queries[part] @ candidates.T
        own = scores[np.arange(len(target)), target][:, None]
        allowed = np.ones(scores.shape, dtype=bool)
        if excluded is not None:
            allowed &= ~((columns >= excluded[part, :1]) & (columns < excluded[part, 1:]))
        if times is not None and within is not None:
            allowed &= np.abs(times[None, :] - times[target][:, None]) <= within
        ahead = ((scores > own + TIE) & allowed).sum(axis=1)
        tied = ((np.abs(scores - own) <= TIE) & allowed).sum(axis=1) - 1  # without the right answer itself
        rank[part] = 1 + ahead + tied
        taking_part[part] = allowed.sum(axis=1)
    return Ranks(rank, taking_part)


def group_ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    gold: np.ndarray,
    groups: pl.Series | Sequence[str] | np.ndarray,
) -> Ranks:
    """Rank of candidate `gold[i]` among the candidates of its own group (`groups` [c], such as the window)."""
    queries, candidates = unit(queries), unit(candidates)
    members = pl.DataFrame({"group": pl.Series(groups, dtype=pl.String), "candidate": np.arange(len(candidates))})
    asked = pl.DataFrame({"query": np.arange(len(gold)), "gold": gold}, schema={"query": pl.Int64, "gold": pl.Int64})
    pairs = asked.join(members, left_on="gold", right_on="candidate").join(members, on="group").sort("query")
    query, rival = pairs["query"].to_numpy(), pairs["candidate"].to_numpy()
    scores = np.empty(len(query), dtype=np.float32)
    step = max(1, BLOCK_CELLS // max(1, candidates.shape[1]))
    for begin in range(0, len(query), step):
        part = slice(begin, begin + step)
        scores[part] = np.einsum("nd,nd->n", queries[query[part]], candidates[rival[part]])
    own = np.empty(len(gold), dtype=np.float32)
    is_gold = rival == gold[query]
    own[query[is_gold]] = scores[is_gold]
    difference = scores - own[query]
    ahead = np.bincount(query[difference > TIE], minlength=len(gold))
    tied = np.bincount(query[(np.abs(difference) <= TIE) & ~is_gold], minlength=len(gold))
    return Ranks(1.0 + ahead + tied, np.bincount(query, minlength=len(gold)))


def sampled(rows: np.ndarray, at_most: int | None, seed: int) -> np.ndarray:
    """`rows`, or a seeded sample of `at_most` of them, in their order."""
    if at_most is None or len(rows) <= at_most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, at_most, replace=False))


def metrics(ranks: Ranks, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """Per query [n_queries]: `recall@k` (1 if the answer is among the first k) and `mrr` (1 / rank)."""
    values = {f"recall@{k}": (ranks.rank <= k).astype(np.float64) for k in cutoffs}
    return values | {"mrr": 1.0 / ranks.rank}


def expected_at_random(ranks: Ranks, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """Per query, what a uniformly random order of its candidates is expected to score."""
    n = ranks.n_candidates
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n.max(initial=0) + 1))])
    values = {f"recall@{k}": np.minimum(1.0, k / n) for k in cutoffs}
    return values | {"mrr": harmonic[n] / n}
