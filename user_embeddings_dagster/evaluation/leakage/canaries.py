"""Canaries: histories that nobody lived, inserted into a training a known number of times (Carlini et al. 2019, "The
Secret Sharer", arXiv:1802.08232).

A canary is a few chunks of held-out people, drawn at random, followed by one more, also drawn at random: nothing but
having seen the canary can tell which. With rank r of the right one among the N that it could have been, its exposure is
log2 N - log2 r bits (definition 5). A model that has not seen it gives a uniform rank, and so log2 N - mean of log2 i
over i = 1 … N, which for large N is the integral of -log2 u over u from 0 to 1: 1 / ln 2 = 1.44 bits. The most that can
be measured is log2 N.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import Estimate
from user_embeddings_dagster.evaluation.ranking import CHANCE, TIE, unit
from user_embeddings_dagster.evaluation.scores import ScoreSheet

PREFIX = 3
REPEATS = (0, 1, 4, 16)
POOL = 4_096


@dataclass(frozen=True)
class Canaries:
    """`rows` [n, PREFIX + 1]: chunks of the pool, the last of which is the secret; `repeats` [n]: times inserted."""

    rows: np.ndarray
    repeats: np.ndarray

    @property
    def names(self) -> np.ndarray:
        """Of each canary [n]."""
        return np.char.mod("canary-%d", np.arange(len(self.rows)))


def too_few_chunks(pool: int) -> str | None:
    """What is wrong with a pool of so many chunks; None if canaries can be drawn from it."""
    return None if pool > PREFIX + 1 else f"{pool} chunks of held-out people are too few for a canary of {PREFIX + 1}"


def drawn_canaries(pool: int, each: int, repeats: Sequence[int], seed: int) -> Canaries:
    """`each` canaries for each number of insertions. Raises ValueError if the pool has too few chunks for one."""
    if reason := too_few_chunks(pool):
        raise ValueError(reason)
    rng = np.random.default_rng(seed)
    times = np.repeat(np.asarray(repeats, dtype=np.int64), each)
    rows = np.stack([rng.choice(pool, PREFIX + 1, replace=False) for _ in times])
    return Canaries(rows, times)


def canary_pool(sequences: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Chunks that canaries are made of, and that their secrets could have been: at most `POOL` of a frame of
    `mining.pairs.sequences` of people that no training sees."""
    order = np.random.default_rng(seed).permutation(sequences.height)[:POOL]
    return sequences[np.sort(order)]


def planted(sequences: pl.DataFrame, pool: pl.DataFrame, canaries: Canaries) -> pl.DataFrame:
    """`sequences` with each canary as a training user of its own as many times as it repeats.

    Copies share their windows, so that no copy is a negative of another; all stand in the largest DataDAO.
    """
    copies = np.repeat(np.arange(len(canaries.rows)), canaries.repeats)
    if len(copies) == 0:
        return sequences
    largest = sequences["datadao"].value_counts().sort("count", "datadao")["datadao"][-1]
    length = canaries.rows.shape[1]
    number = np.repeat(np.arange(len(copies)), length)
    canary, position = np.repeat(copies, length), np.tile(np.arange(length), len(copies))
    window = pl.Series(np.char.add(np.char.mod("canary-%d-", canary), np.char.mod("%d", position)))
    times = _times(pool, position, canary)
    rows = pool[canaries.rows[copies].ravel()].with_columns(
        datadao=pl.lit(largest),
        user_id=pl.Series(np.char.mod("canary-%d", number)),
        split=pl.lit("train"),
        position=pl.Series(position).cast(sequences.schema["position"]),
        started_at=times.cast(sequences.schema["started_at"]),
        ended_at=times.cast(sequences.schema["ended_at"]),
        chunk_id=pl.Series(np.char.mod("canary-chunk-%d", np.arange(len(number)))),
        window_id=window,
        thread_id=window,
    )
    return pl.concat([sequences, rows.select(sequences.columns)])


def prompts(pool: pl.DataFrame, canaries: Canaries) -> pl.DataFrame:
    """What the encoder is asked with: each canary without its secret; user_id, position, ended_at, vector, context."""
    rows = canaries.rows[:, :-1]
    position = np.tile(np.arange(rows.shape[1]), len(rows))
    times = _times(pool, position, np.zeros_like(position))
    return pool[rows.ravel()].select(
        user_id=pl.Series(np.char.mod("%06d", np.repeat(np.arange(len(rows)), rows.shape[1]))),
        position=pl.Series(position),
        ended_at=times.cast(pool.schema["ended_at"]),
        vector="vector",
        context="context",
    )


def exposures(queries: np.ndarray, candidates: np.ndarray, canaries: Canaries) -> tuple[np.ndarray, int]:
    """Exposure in bits of each canary [n], and N. queries [n, d], candidates [pool, d].

    A canary's own chunks but the secret are no candidates; candidates that tie with it share their ranks.
    """
    scores = unit(queries) @ unit(candidates).T
    own = np.take_along_axis(scores, canaries.rows[:, -1:], axis=1)
    np.put_along_axis(scores, canaries.rows[:, :-1], -np.inf, axis=1)
    ahead = (scores > own + TIE).sum(axis=1)
    tied = (np.abs(scores - own) <= TIE).sum(axis=1) - 1
    n = scores.shape[1] - PREFIX
    return np.log2(n) - np.log2(1 + ahead + tied / 2), n


def chance_exposure(n: int) -> float:
    """Expected exposure in bits of a secret that the model knows nothing of, among n."""
    return float(np.log2(n) - np.log2(np.arange(1, n + 1)).mean())


def add_exposures(sheet: ScoreSheet, model: str, found: np.ndarray, n: int, canaries: Canaries, version: str) -> None:
    """One row per number of insertions, with an interval over the canaries, and what chance has."""
    for times in np.unique(canaries.repeats):
        chosen, slice_ = canaries.repeats == times, f"inserted {times}"
        task = {"slice_": slice_, "candidates": f"alternatives:{n}"}
        sheet.means(model, {"exposure": found[chosen]}, canaries.names[chosen], version=version, **task)
        count = int(chosen.sum())
        sheet.add(CHANCE, "exposure", Estimate(chance_exposure(n), None, None, count, count), version="exact", **task)


def _times(pool: pl.DataFrame, days: np.ndarray, minutes: np.ndarray) -> pl.Series:
    """Days and minutes [n] after the first chunk of the pool."""
    offsets = pl.DataFrame({"days": days, "minutes": minutes})
    start = pl.lit(pool["ended_at"].min(), dtype=pool.schema["ended_at"])
    return offsets.select(start + pl.duration(days="days", minutes="minutes")).to_series()
