"""Likelihood-ratio attack with shadow models (LiRA): Carlini et al. 2022, arXiv:2112.03570, algorithm 1.

Every shadow model is trained on a random half of the units. For a target model, each unit's losses under the other
models that had it, and under those that had not, are fitted by a normal distribution each; the score is the logarithm
of the ratio of their densities at the target's loss.
"""

import numpy as np

MIN_SPREAD = 1e-6


def likelihood_ratios(losses: np.ndarray, included: np.ndarray, target: int) -> np.ndarray:
    """Scores [n] of each unit under model `target`, by the other models; higher for members.

    `losses` [models, n], `included` [models, n] bool. With few shadow models one variance for all units is better than
    one each (section VI.C): in and out have each their own. A unit that no other model had, or that all had, is scored
    by its loss against all of them.
    """
    others = np.arange(len(losses)) != target
    inside, outside = _fit(losses[others], included[others]), _fit(losses[others], ~included[others])
    return _log_density(losses[target], *inside) - _log_density(losses[target], *outside)


def _fit(losses: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of each unit's chosen losses [n], and the standard deviation around it, over all units."""
    counts = chosen.sum(axis=0)
    sums = np.where(chosen, losses, 0.0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), losses.mean(axis=0))
    squares = np.where(chosen, (losses - mean) ** 2, 0.0).sum()
    freedom = max(1, int(np.maximum(counts - 1, 0).sum()))
    return mean, max(float(np.sqrt(squares / freedom)), MIN_SPREAD)


def _log_density(losses: np.ndarray, mean: np.ndarray, spread: float) -> np.ndarray:
    return -(((losses - mean) / spread) ** 2) / 2 - np.log(spread)
