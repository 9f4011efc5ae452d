"""Next-chunk baselines on item vectors, none of them trained by gradient descent.

Whitening matters most: the space of sentence encoders is anisotropic (Su et al., "Whitening Sentence
Representations", arXiv:2103.15316), and an encoder that starts from the raw space loses to the whitened mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from user_embeddings_dagster.evaluation.histories import Histories, NothingToFit
from user_embeddings_dagster.evaluation.plda import TwoCovariance, fit_two_covariance
from user_embeddings_dagster.evaluation.ranking import full_ranks, unit

DECAY = 0.3
"""Weight of a chunk relative to the one after it."""
DECAYS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MEAN_WEIGHT = 1.0
MEAN_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
RIDGE = 0.1
"""Share of the mean eigenvalue added to every eigenvalue, so that directions seen by chance are not blown up."""


@dataclass(frozen=True)
class Predictions:
    """What a model expects next, row by row of a `Histories`.

    `queries` [n_chunks, d]: row i is made from its user's chunks up to and including i; `candidates`
    [n_chunks, d]: each chunk as something to be found; `prior` [d]: the query of a user without any chunk.
    """

    queries: np.ndarray
    candidates: np.ndarray
    prior: np.ndarray | None = None
    version: str = "baseline"


@dataclass(frozen=True)
class TrainStatistics:
    """Of the training users' item vectors: `mean` [d] and `whitening` [d, d] (to the right of centred rows).

    `centred_prior`, `whitened_prior` [d]: mean of the transformed training vectors at length 1, what to expect of
    somebody without history (not zero, because the lengths were different).
    """

    mean: np.ndarray
    whitening: np.ndarray
    centred_prior: np.ndarray
    whitened_prior: np.ndarray
    n: int

    def centred(self, vectors: np.ndarray) -> np.ndarray:
        """Rows minus the mean, at length 1."""
        return unit(vectors - self.mean)

    def whitened(self, vectors: np.ndarray) -> np.ndarray:
        """Rows with the training covariance taken out, at length 1."""
        return unit((vectors - self.mean) @ self.whitening)


@dataclass(frozen=True)
class Tuning:
    """Settings of the tuned baselines, chosen on validation users."""

    decay: float = DECAY
    whitened_decay: float = DECAY
    mean_weight: float = MEAN_WEIGHT
    in_context: tuple[float, float] = (DECAY, MEAN_WEIGHT)
    """Decay and mean weight of `whitened_in_context`."""


def train_statistics(vectors: np.ndarray, ridge: float = RIDGE) -> TrainStatistics:
    """Mean and PCA whitening of training vectors [n, d]. Raises NothingToFit if there are none."""
    if len(vectors) == 0:
        raise NothingToFit("no training user has a chunk to fit the baselines on")
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    values, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
    floor = ridge * max(float(values.mean()), 1e-12)
    whitening = axes / np.sqrt(np.maximum(values, 0) + floor)
    return TrainStatistics(
        mean=mean.astype(np.float32),
        whitening=whitening.astype(np.float32),
        centred_prior=unit(centred).mean(axis=0),
        whitened_prior=unit(centred @ whitening).mean(axis=0),
        n=len(vectors),
    )


def decayed_sum(histories: Histories, decay: float) -> np.ndarray:
    """Row i: sum over the user's chunks j ≤ i of decay^(i - j) · vector j [n_chunks, d].

    One step per position, over all users at once.
    """
    total = np.array(histories.vectors, dtype=np.float32)
    positions = histories.positions
    order = np.argsort(positions, kind="stable")
    bounds = np.searchsorted(positions[order], np.arange(positions.max(initial=-1) + 2))
    for begin, end in pairwise(bounds[1:]):
        rows = order[begin:end]
        total[rows] += decay * total[rows - 1]
    return total


def decayed_mean(histories: Histories, decay: float) -> np.ndarray:
    """`decayed_sum` at length 1 [n_chunks, d]. Decay 0 is the last item."""
    return unit(decayed_sum(histories, decay))


def running_mean(histories: Histories) -> np.ndarray:
    """Row i: mean of the user's chunks up to and including i, at length 1 [n_chunks, d]."""
    return decayed_mean(histories, 1.0)


def popularity(histories: Histories, statistics: TrainStatistics) -> Predictions:
    """The same query for everyone: the mean training vector, so what most people's chunks are close to."""
    queries = np.broadcast_to(statistics.mean, histories.vectors.shape)
    return Predictions(queries, histories.vectors, statistics.mean)


def last_item(histories: Histories, statistics: TrainStatistics) -> Predictions:
    """The user's latest chunk."""
    return Predictions(histories.vectors, histories.vectors, statistics.mean)


def mean_pool(histories: Histories, statistics: TrainStatistics) -> Predictions:
    """Mean of the user's chunks so far."""
    return Predictions(running_mean(histories), histories.vectors, statistics.mean)


def decayed(histories: Histories, statistics: TrainStatistics, decay: float = DECAY) -> Predictions:
    """Exponentially decayed mean of the user's chunks so far."""
    return Predictions(decayed_mean(histories, decay), histories.vectors, statistics.mean)


def centred_decayed(histories: Histories, statistics: TrainStatistics, decay: float = DECAY) -> Predictions:
    """Decayed mean after taking out the training mean."""
    centred = histories.with_vectors(statistics.centred(histories.vectors))
    return Predictions(decayed_mean(centred, decay), centred.vectors, statistics.centred_prior)


def whitened_decayed(
    histories: Histories, statistics: TrainStatistics, decay: float = DECAY, mean_weight: float = MEAN_WEIGHT
) -> Predictions:
    """Whitened decayed mean plus `mean_weight` times the whitened mean, both at length 1."""
    whitened = histories.with_vectors(statistics.whitened(histories.vectors))
    return Predictions(pooled(whitened, decay, mean_weight), whitened.vectors, statistics.whitened_prior)


def pooled(whitened: Histories, decay: float, mean_weight: float) -> np.ndarray:
    """Decayed mean plus `mean_weight` times the mean of the chunks so far, each at length 1 [n_chunks, d]."""
    return decayed_mean(whitened, decay) + mean_weight * running_mean(whitened)


def in_context(histories: Histories, items: TrainStatistics, contexts: TrainStatistics) -> Histories:
    """Histories of what SUBJECT says and what the conversation is about: whitened item vectors [n, d] beside whitened
    contexts [n, c], at equal weight, at length 1. Raises ValueError if the contexts are not known."""
    if histories.contexts is None:
        raise ValueError("the histories come without contexts")
    parts = [items.whitened(histories.vectors), contexts.whitened(histories.contexts)]
    return histories.with_vectors(unit(np.concatenate(parts, axis=1)))


def whitened_in_context(
    histories: Histories, items: TrainStatistics, contexts: TrainStatistics, decay: float, mean_weight: float
) -> Predictions:
    """As `whitened_decayed`, on item vectors and contexts side by side."""
    whitened = in_context(histories, items, contexts)
    prior = np.concatenate([items.whitened_prior, contexts.whitened_prior])
    return Predictions(pooled(whitened, decay, mean_weight), whitened.vectors, prior)


def plda_mean(histories: Histories, model: TwoCovariance) -> Predictions:
    """Posterior mean of the user under the two-covariance model; candidates in its axes, at length 1."""
    transformed = histories.with_vectors(model.transformed(histories.vectors))
    n = histories.positions + 1
    queries = model.posterior(decayed_sum(transformed, 1.0) / n[:, None], n)
    return Predictions(queries, unit(transformed.vectors), model.prior)


def random_order(histories: Histories, statistics: TrainStatistics, seed: int) -> Predictions:
    """Random queries: chance level."""
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal(histories.vectors.shape, dtype=np.float32)
    prior = rng.standard_normal(len(statistics.mean), dtype=np.float32)
    return Predictions(queries, histories.vectors, prior)


@dataclass(frozen=True)
class Fitted:
    """What the baselines learn from training users, `tuning` from validation users (None: no tuned baselines)."""

    statistics: TrainStatistics
    two_covariance: TwoCovariance
    tuning: Tuning | None = None
    contexts: TrainStatistics | None = None


def fit_baselines(training: Histories, valid: Histories | None = None) -> Fitted:
    """Fit on training users and tune on validation users. Raises NothingToFit where there is nothing to fit on."""
    statistics = train_statistics(training.vectors)
    contexts = None if training.contexts is None else train_statistics(training.contexts)
    tuning = None if valid is None else tune(valid, statistics, contexts)
    return Fitted(statistics, fit_two_covariance(training, RIDGE), tuning, contexts)


def baselines(fitted: Fitted, seed: int = 0) -> dict[str, Callable[[Histories], Predictions]]:
    """Every next-chunk baseline by name, as a function of histories."""
    statistics, tuning = fitted.statistics, fitted.tuning
    functions: dict[str, Callable[[Histories], Predictions]] = {
        "random": lambda h: random_order(h, statistics, seed),
        "popularity": lambda h: popularity(h, statistics),
        "last_item": lambda h: last_item(h, statistics),
        "mean_pool": lambda h: mean_pool(h, statistics),
        f"decayed_mean_{DECAY}": lambda h: decayed(h, statistics),
        "centred_decayed_mean": lambda h: centred_decayed(h, statistics),
        "whitened_decayed_mean": lambda h: whitened_decayed(h, statistics),
        "plda_mean": lambda h: plda_mean(h, fitted.two_covariance),
    }
    if tuning is not None:
        functions["decayed_mean_tuned"] = lambda h: decayed(h, statistics, tuning.decay)
        functions["whitened_decayed_mean_tuned"] = lambda h: whitened_decayed(
            h, statistics, tuning.whitened_decay, tuning.mean_weight
        )
    if tuning is not None and (contexts := fitted.contexts) is not None:
        functions["whitened_in_context_tuned"] = lambda h: whitened_in_context(
            h, statistics, contexts, *tuning.in_context
        )
    return functions


def user_pools(
    statistics: TrainStatistics, two_covariance: TwoCovariance | None = None
) -> dict[str, Callable[[Histories], np.ndarray]]:
    """Every baseline user embedding by name, as a function of non-empty histories: [n_histories, d]."""

    def whitened(histories: Histories) -> Histories:
        return histories.with_vectors(statistics.whitened(histories.vectors))

    pools: dict[str, Callable[[Histories], np.ndarray]] = {
        "mean_pool": lambda h: running_mean(h)[h.last_rows],
        "whitened_mean": lambda h: running_mean(whitened(h))[h.last_rows],
    }
    if two_covariance is not None:
        pools["plda_mean"] = lambda h: plda_mean(h, two_covariance).queries[h.last_rows]
    return pools


def next_chunk_queries(histories: Histories) -> np.ndarray:
    """Rows to be predicted [q]: every chunk with a chunk of its user before it."""
    return np.flatnonzero(histories.positions >= 1)


def own_past(histories: Histories, gold: np.ndarray) -> np.ndarray:
    """Candidate rows [q, 2] that a query for row `gold[i]` has seen: its user's chunks before it."""
    return np.stack([histories.offsets[histories.history_of_row[gold]], gold], axis=1)


def tune(valid: Histories, statistics: TrainStatistics, contexts: TrainStatistics | None = None) -> Tuning:
    """Decays and mean weights of highest next-chunk MRR on validation users; the defaults if they have no query."""
    if len(next_chunk_queries(valid)) == 0:
        return Tuning()
    decay = max(DECAYS, key=lambda d: _mrr(valid, decayed(valid, statistics, d)))
    best = tune_pool(valid.with_vectors(statistics.whitened(valid.vectors)))
    return Tuning(decay, *best, tune_pool(in_context(valid, statistics, contexts)) if contexts else best)


def tune_pool(whitened: Histories) -> tuple[float, float]:
    """Decay and mean weight of `pooled` with the highest next-chunk MRR; the defaults without a query."""
    if len(next_chunk_queries(whitened)) == 0:
        return DECAY, MEAN_WEIGHT
    grid = [(decay, weight) for decay in DECAYS for weight in MEAN_WEIGHTS]
    return max(grid, key=lambda s: _mrr(whitened, Predictions(pooled(whitened, *s), whitened.vectors)))


def _mrr(histories: Histories, predictions: Predictions) -> float:
    gold = next_chunk_queries(histories)
    ranks = full_ranks(predictions.queries[gold - 1], predictions.candidates, gold, excluded=own_past(histories, gold))
    return float(np.mean(1 / ranks.rank))
