"""Relabelled pairs: which summary is a training chunk's positive, and which its hard negative, is decided by ranking.

Gecko (Lee et al. 2024, arXiv:2403.20327, section 3.2): the nearest N summaries of a chunk, its own among them, are
ranked by query likelihood and by relevance; the rankings are fused by reciprocal ranks, R = 1 / r_QL + 1 / r_RC
(appendix A: the rule of Cormack et al. 2009 without its constant of 60, here `constant`); the positive becomes rank 1,
the negative rank k (section 4.3: rank 20 of 20 was better than one drawn at random).

What the paper does not do: a chunk whose choice is doubtful is left out. `tied`: two summaries that say different
things share rank 1. `false_negative`: rank k says nearly the same as the positive or as the chunk's own summary (the
margin of positive-aware mining, see `hard_negatives`), so that two people who ask for the same thing are never each
other's negative. `starved`: fewer than k candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.mining.nearest import EXACT_ROWS, FOUND, Corpus, nearest_summaries, training_corpus
from user_embeddings_dagster.mining.rankers import CandidateLists, Ranker
from user_embeddings_dagster.schema import RELABELLED_PAIRS
from user_embeddings_dagster.storage.lance_tables import LanceTables

VERSION = "1"
DROPPED = ("unranked", "starved", "tied", "false_negative")


@dataclass(frozen=True)
class RelabellingResult:
    """`pairs` has the columns of RELABELLED_PAIRS; `stats` says how many were relabelled, left out and why."""

    pairs: pl.DataFrame
    stats: Mapping[str, float | str]


def relabel(
    pairs: pl.DataFrame,
    texts: pl.DataFrame,
    ranker: Ranker,
    tables: LanceTables | None = None,
    *,
    candidates: int = 20,
    negative_rank: int | None = None,
    margin: float = 0.95,
    constant: float = 0.0,
    exact_rows: int = EXACT_ROWS,
) -> RelabellingResult:
    """Positive and hard negative of every training chunk of `pairs` (columns as for `hard_negatives.mine`).

    `texts` has chunk_id, user_id, speakers, turns and summary of every training chunk. The `candidates` are the own
    summary and the nearest ones of other windows, of all DataDAOs; `negative_rank` by default is the last of them.
    Raises ValueError on a margin outside (0, 1], a rank that is no candidate's, or a training chunk without vector or
    text.
    """
    k = candidates if negative_rank is None else negative_rank
    if not 0 < margin <= 1:
        raise ValueError(f"margin {margin} is not in (0, 1]")
    if not 1 < k <= candidates:
        raise ValueError(f"negative_rank {k} is not in 2 … {candidates} candidates")
    corpus = training_corpus(pairs)
    found, method = _lists(corpus, tables, candidates, exact_rows)
    rankings = ranker.rank(CandidateLists(found, _aligned(texts, corpus)))
    fused = 1 / (constant + rankings.likelihood) + 1 / (constant + rankings.relevance)
    chosen = _chosen(found.with_columns(fused=pl.Series(fused)), corpus, k, margin)
    kept = chosen.filter(pl.col("outcome") == "kept")
    names = corpus.pairs["chunk_id"]
    frame = kept.select(
        chunk_id=pl.lit(names).gather(pl.col("query")),
        positive_chunk_id=pl.lit(names).gather(pl.col("positive")),
        negative_chunk_id=pl.lit(names).gather(pl.col("negative")),
        own_rank="own_rank",
        positive_score="positive_score",
        own_score="own_score",
        ranker=pl.lit(ranker.name),
    )
    stats = {
        **_stats(chosen, found.height),
        **{f"unranked_{reason}": count for reason, count in rankings.unranked.items()},
        **rankings.stats,
        "ranker": ranker.name,
        "method": method,
    }
    return RelabellingResult(RELABELLED_PAIRS.conform(frame).sort("chunk_id"), stats)


def _lists(corpus: Corpus, tables: LanceTables | None, candidates: int, exact_rows: int) -> tuple[pl.DataFrame, str]:
    """The own summary and the nearest others, up to `candidates` of a query; by query and candidate."""
    # Twice as many, since those of the own window fall away.
    found, method = nearest_summaries(corpus, 2 * candidates, tables, exact_rows=exact_rows, same_window=False)
    nearest = found.sort("query", "score", "candidate", descending=[False, True, False])
    nearest = nearest.group_by("query", maintain_order=True).head(candidates - 1).select(FOUND.names())
    rows = np.arange(corpus.pairs.height)
    own = pl.DataFrame({"query": rows, "candidate": rows, "score": corpus.own}, schema=FOUND)
    return pl.concat([nearest, own]).sort("query", "candidate"), method


def _aligned(texts: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    columns = ("chunk_id", "user_id", "speakers", "turns", "summary")
    rows = corpus.pairs.select("chunk_id").join(
        texts.select(columns), on="chunk_id", how="left", validate="1:1", maintain_order="left"
    )
    absent = {name: count for name in columns[1:] if (count := rows[name].null_count())}
    if absent:
        raise ValueError(f"of {rows.height} training chunks have no text: {absent}")
    return rows


def _chosen(found: pl.DataFrame, corpus: Corpus, k: int, margin: float) -> pl.DataFrame:
    """One row per query: positive, negative (corpus rows; null where there is none), own_rank, scores, outcome."""
    # Rounded: 1/2 + 1/3 and 1/3 + 1/2 are equal. Among equals the own summary is first, then by chunk_id.
    own = pl.col("query") == pl.col("candidate")
    ordered = found.with_columns(pl.col("fused").fill_nan(None).round(12), is_own=own).sort(
        "query", "fused", "is_own", "candidate", descending=[False, True, True, False], nulls_last=True
    )
    ordered = ordered.with_columns(
        place=pl.int_range(1, pl.len() + 1).over("query"),
        rank=pl.col("fused").rank("min", descending=True).over("query"),
    )
    rows = (
        ordered.filter(place=1)
        .select("query", positive="candidate", positive_score="fused", limit=margin * pl.col("score"))
        .join(ordered.filter("is_own").select("query", own_rank="rank", own_score="fused"), on="query")
        .join(ordered.filter(place=k).select("query", negative="candidate"), on="query", how="left")
        .join(_tied(ordered, corpus, margin), on="query", how="left")
        .sort("query")
    )
    return rows.with_columns(
        outcome=pl.when(pl.col("positive_score").is_null())
        .then(pl.lit("unranked"))
        .when(pl.col("negative").is_null())
        .then(pl.lit("starved"))
        .when(pl.col("tied"))
        .then(pl.lit("tied"))
        .when(_false_negatives(rows, corpus, margin))
        .then(pl.lit("false_negative"))
        .otherwise(pl.lit("kept"))
    )


def _tied(ordered: pl.DataFrame, corpus: Corpus, margin: float) -> pl.DataFrame:
    """Queries two of whose summaries share rank 1 and say different things: query, tied."""
    top = ordered.filter(rank=1)
    first = top.select(pl.col("candidate").first().over("query")).to_series().to_numpy()
    limit = top.select(margin * pl.col("score").first().over("query")).to_series().to_numpy()
    apart = corpus.similarities(top["candidate"].to_numpy(), first) <= limit
    return top.select("query", tied=pl.Series(apart & (top["candidate"].to_numpy() != first))).group_by("query").agg(
        pl.col("tied").any()
    )  # fmt: skip


def _false_negatives(rows: pl.DataFrame, corpus: Corpus, margin: float) -> pl.Series:
    """Whether the negative says nearly the same as the positive or as the query's own summary."""
    query, positive = rows["query"].to_numpy(), rows["positive"].to_numpy()
    negative = rows["negative"].fill_null(0).to_numpy()
    near = corpus.similarities(negative, positive) > rows["limit"].to_numpy()
    return pl.Series(near | (corpus.similarities(negative, query) > margin * corpus.own[query]))


def _stats(chosen: pl.DataFrame, weighed: int) -> dict[str, float]:
    """Counts by outcome; rates over the chunks that are kept; where the own summaries of ranked chunks stand."""
    kept = chosen.filter(outcome="kept")
    relabelled = kept.filter(pl.col("positive") != pl.col("query")).height
    own = chosen.drop_nulls("own_rank")["own_rank"]
    return {
        "queries": chosen.height,
        "weighed": weighed,
        "kept": kept.height,
        **{f"dropped_{name}": chosen.filter(outcome=name).height for name in DROPPED},
        "relabelled": relabelled,
        "relabel_rate": relabelled / kept.height if kept.height else 0.0,
        "own_rank_mean": _mean(own),
        "own_rank_1_share": _mean(own == 1),
        "own_rank_2_to_5_share": _mean(own.is_between(2, 5)),
        "own_rank_over_5_share": _mean(own > 5),
    }


def _mean(values: pl.Series) -> float:
    return float(np.mean(values.to_numpy())) if len(values) else 0.0
