"""Percentile bootstrap over users: whole users are resampled, because one user's queries are not independent.

Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, with users as the sampled units.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000
CONFIDENCE = 0.95
MIN_USERS = 5
"""Below this many users no interval is given: resampling so few units gives one that is far too narrow."""
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """Mean over queries with its interval (None when there are fewer than `MIN_USERS` users), or no value at all."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_users: int


NOTHING = Estimate(None, None, None, 0, 0)


def bootstrap_means(
    values: np.ndarray, users: np.ndarray, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> list[Estimate]:
    """Mean of each column of `values` [n, m] over the queries, with an interval by resampling `users` [n].

    Columns share the resamples, so that figures of one call are comparable.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinite numbers")
    n, m = values.shape
    if n == 0:
        return [NOTHING] * m
    sums, counts = _per_user(values, users)
    draws = _resampled(sums, counts, np.random.default_rng(seed), resamples)
    return [_estimate(values[:, j].mean(), draws[:, j], n, len(counts), confidence) for j in range(m)]


def means_over_trainings(
    values: np.ndarray, users: np.ndarray, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> list[Estimate]:
    """Mean of each column of `values` [s, n, m], of s trainings on the same n queries, over trainings and queries.

    What another training seed would change is inside the interval: to each resample of `users` [n] it adds a draw of
    the error of the mean over trainings, their standard deviation / √s times Student's t with s − 1 degrees of freedom.
    (Resampling so few trainings themselves gives an interval that is far too narrow.) One training has no such error
    to show: its interval is `bootstrap_means`'.
    """
    values = np.asarray(values, dtype=np.float64)
    average = values.mean(axis=0)
    estimates = bootstrap_means(average, users, seed=seed, resamples=resamples, confidence=confidence)
    trainings, n, _ = values.shape
    if trainings == 1 or n == 0:
        return estimates
    by_user, by_training = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    sums, counts = _per_user(average, users)
    error = values.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(trainings)
    noise = by_training.standard_t(trainings - 1, resamples)[:, None] * error
    draws = _resampled(sums, counts, by_user, resamples) + noise
    return [_estimate(e.value or 0.0, draws[:, j], n, len(counts), confidence) for j, e in enumerate(estimates)]


def paired_difference(
    a: np.ndarray, b: np.ndarray, users: np.ndarray, *, seed: int, resamples: int = RESAMPLES
) -> list[Estimate]:
    """Mean of `a - b` [n, m] on the same queries: what `a` is better by, with its interval."""
    return bootstrap_means(np.asarray(a, dtype=np.float64) - b, users, seed=seed, resamples=resamples)


def unpaired_difference(
    a: np.ndarray,
    users_a: np.ndarray,
    b: np.ndarray,
    users_b: np.ndarray,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[Estimate]:
    """Mean of `a` [n, m] minus mean of `b` [k, m], two sets of users resampled independently (n is n + k)."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) == 0 or len(b) == 0:
        return [NOTHING] * a.shape[1]
    first, second = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    parts = [_per_user(a, users_a), _per_user(b, users_b)]
    draws = _resampled(*parts[0], first, resamples) - _resampled(*parts[1], second, resamples)
    n_users, fewest = sum(len(c) for _, c in parts), min(len(c) for _, c in parts)
    value = a.mean(axis=0) - b.mean(axis=0)
    return [
        _estimate(value[j], draws[:, j], len(a) + len(b), n_users, confidence, enough=fewest >= MIN_USERS)
        for j in range(a.shape[1])
    ]


def bootstrap_statistics(
    statistic: Callable[[np.ndarray], np.ndarray], users: np.ndarray, *, seed: int, resamples: int = RESAMPLES
) -> list[Estimate]:
    """Any statistics of a sample, with intervals by resampling `users` [n], one per row of the sample.

    `statistic` gives [r, m] values from [r, n] weights: how often each row was drawn (all 1: the sample itself).
    A draw in which a statistic is undefined (NaN; no row of some class) does not count for it.
    """
    if len(users) == 0:
        return [NOTHING] * statistic(np.ones((1, 0))).shape[1]
    names, code = np.unique(users, return_inverse=True)
    value = statistic(np.ones((1, len(users))))[0]
    if not np.isfinite(value).all():
        raise ValueError("a statistic of the whole sample is NaN or infinite")
    draws = []
    rng, step = np.random.default_rng(seed), max(1, _BLOCK_CELLS // len(users))
    for begin in range(0, resamples, step):
        draws.append(statistic(_drawn(rng, min(step, resamples - begin), len(names))[:, code]))
    table = np.concatenate(draws)
    return [
        _estimate(value[j], column[np.isfinite(column)], len(users), len(names), CONFIDENCE)
        for j, column in enumerate(table.T)
    ]


def _drawn(rng: np.random.Generator, resamples: int, n_users: int) -> np.ndarray:
    """How often each user is drawn, with replacement [resamples, n_users]."""
    return rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=resamples).astype(np.float64)


def _per_user(values: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values [u, m] and number of queries [u] of each user."""
    if len(users) != len(values):
        raise ValueError(f"{len(users)} users for {len(values)} values")
    _, code, counts = np.unique(users, return_inverse=True, return_counts=True)
    columns = [np.bincount(code, weights=column, minlength=len(counts)) for column in values.T]
    return np.stack(columns, axis=1), counts.astype(np.float64)


def _resampled(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means of `resamples` draws of users with replacement [resamples, m]."""
    n_users = len(counts)
    means = np.empty((resamples, sums.shape[1]))
    step = max(1, _BLOCK_CELLS // n_users)
    for begin in range(0, resamples, step):
        times = _drawn(rng, min(step, resamples - begin), n_users)
        means[begin : begin + len(times)] = (times @ sums) / (times @ counts)[:, None]
    return means


def _estimate(
    value: float, draws: np.ndarray, n: int, n_users: int, confidence: float, enough: bool | None = None
) -> Estimate:
    if not (n_users >= MIN_USERS if enough is None else enough):
        return Estimate(float(value), None, None, n, n_users)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    # A skewed statistic may put the value a rounding error outside its own percentiles.
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), n, n_users)
