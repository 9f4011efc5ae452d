"""The two-covariance model finds what was planted: its axes, its λ, its posterior."""

import numpy as np
import pytest
from planted import histories as planted

from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.plda import TwoCovariance, fit_two_covariance
from user_embeddings_dagster.evaluation.ranking import full_ranks


def speakers(between: np.ndarray, n_users: int = 4_000, chunks: int = 5, seed: int = 0) -> tuple[Histories, np.ndarray]:
    """Users u ~ N(0, diag(between)) and chunks x = M (u + e), e ~ N(0, 1), with a mixing M known to nobody; and M."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 2 * chunks - 1, n_users)
    mixing = np.random.default_rng(99).standard_normal((len(between), len(between)))
    people = rng.standard_normal((n_users, len(between))) * np.sqrt(between)
    frame = planted(n_users, dim=len(between), lengths=lengths)
    latent = np.repeat(people, lengths, axis=0) + rng.standard_normal((lengths.sum(), len(between)))
    return frame.with_vectors((latent @ mixing.T + 3).astype(np.float32)), mixing


def test_it_recovers_the_planted_ratios_and_a_model_without_the_correction_does_not():
    between = np.array([4.0, 1.0, 0.25, 0.0])
    h, _ = speakers(between)
    model = fit_two_covariance(h, ridge=0.0)
    assert model.between == pytest.approx(between, rel=0.12, abs=0.04)
    assert model.mean == pytest.approx(np.full(4, 3.0), abs=0.2)
    y = model.transformed(h.vectors)
    means = np.add.reduceat(y, h.offsets[:-1], axis=0) / h.lengths[:, None]
    residuals = y - np.repeat(means, h.lengths, axis=0)
    assert residuals.T @ residuals / (len(y) - h.n_histories) == pytest.approx(np.eye(4), abs=0.01)
    uncorrected = (means**2).mean(axis=0)  # B without taking W / n out: a user's few chunks pass for the person
    assert uncorrected[3] > 0.2


def test_the_posterior_is_the_formula_and_shrinks_what_says_nothing_of_a_person():
    model = TwoCovariance(np.zeros(2), np.eye(2), np.array([3.0, 0.0]), np.zeros(2))
    found = model.posterior(np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1, 10]))
    assert found == pytest.approx(np.array([[3 / 4, 0], [30 / 31, 0]]))


def test_where_the_model_holds_it_finds_people_better_than_the_mean():
    train, _ = speakers(np.array([2.0] * 3 + [0.02] * 12), n_users=800)
    test, _ = speakers(np.array([2.0] * 3 + [0.02] * 12), n_users=150, seed=7)
    model = fit_two_covariance(train, ridge=0.01)
    first, second = (
        test.ranges(test.offsets[:-1] + a, test.offsets[:-1] + b, np.arange(150)) for a, b in ((0, 1), (1, 2))
    )

    def mrr(transform) -> float:
        sides = [transform(side.vectors) for side in (first, second)]
        return float((1 / full_ranks(*sides, np.arange(150)).rank).mean())

    posterior = mrr(lambda v: model.posterior(model.transformed(v), np.ones(len(v))))
    assert posterior > 1.2 * mrr(lambda v: v - train.vectors.mean(axis=0))


def test_users_of_a_single_chunk_are_no_evidence():
    h, _ = speakers(np.array([1.0, 0.5]), n_users=50)
    firsts = h.ranges(h.offsets[:-1], h.offsets[:-1] + 1, np.arange(50))
    with pytest.raises(ValueError, match="no training user has two chunks"):
        fit_two_covariance(firsts, ridge=0.1)
