"""Two-covariance model of users: what stays the same between a person's chunks, against what varies within.

The Gaussian model of speaker verification (Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006;
Brümmer & de Villiers, "The speaker partitioning problem", Odyssey 2010): a chunk is x = m + u + e, with the
user's u ~ N(0, B) and the chunk's e ~ N(0, W). In the axes that make W the identity and B diagonal (λ), the
posterior mean of u after n chunks is λ·n / (λ·n + 1) times their mean, axis by axis.
"""

from dataclasses import dataclass

import numpy as np

from user_embeddings_dagster.evaluation.histories import Histories, NothingToFit
from user_embeddings_dagster.evaluation.ranking import unit


@dataclass(frozen=True)
class TwoCovariance:
    """`mean` [d]; `axes` [d, d], to the right of centred rows; `between` [d]: λ of each axis, descending.

    `prior` [d]: mean of the transformed training vectors at length 1 (see `TrainStatistics`).
    """

    mean: np.ndarray
    axes: np.ndarray
    between: np.ndarray
    prior: np.ndarray

    def transformed(self, vectors: np.ndarray) -> np.ndarray:
        """Rows in the model's axes [n, d]: variance 1 within a user, λ between users."""
        return ((vectors - self.mean) @ self.axes).astype(np.float32)

    def posterior(self, means: np.ndarray, n_chunks: np.ndarray) -> np.ndarray:
        """Expected u [n, d] after `n_chunks` [n] transformed chunks with these `means` [n, d]."""
        weight = self.between * n_chunks[:, None]
        return (weight / (weight + 1) * means).astype(np.float32)


def fit_two_covariance(training: Histories, ridge: float) -> TwoCovariance:
    """Moment estimates from users of two chunks or more: W pooled within users, B of their means less W / n.

    `ridge`: share of W's mean eigenvalue added to every eigenvalue. Raises NothingToFit without such users.
    """
    repeated = training.lengths >= 2
    if not repeated.any():
        raise NothingToFit("no training user has two chunks: nothing to fit a two-covariance model on")
    rows = repeated[training.history_of_row]
    n = training.lengths[repeated].astype(np.float64)
    mean = training.vectors.mean(axis=0, dtype=np.float64)
    centred = training.vectors[rows] - mean
    means = np.add.reduceat(centred, np.cumsum(n, dtype=np.int64) - n.astype(np.int64), axis=0) / n[:, None]
    residuals = centred - np.repeat(means, n.astype(np.int64), axis=0)
    within = residuals.T @ residuals / (n.sum() - len(n))
    between = means.T @ means / len(n) - within * np.mean(1 / n)
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(np.maximum(values, 0) + ridge * max(float(values.mean()), 1e-12))
    spread, rotation = np.linalg.eigh(whitening.T @ between @ whitening)
    axes = (whitening @ rotation)[:, ::-1]
    return TwoCovariance(
        mean=mean.astype(np.float32),
        axes=axes.astype(np.float32),
        between=np.maximum(spread[::-1], 0).astype(np.float32),
        prior=unit((training.vectors - mean) @ axes).mean(axis=0),
    )
