"""The bootstrap resamples users, covers the truth at about its level, and says when it cannot."""

import time

import numpy as np
import pytest

from user_embeddings_dagster.evaluation.bootstrap import (
    NOTHING,
    Estimate,
    bootstrap_means,
    bootstrap_statistics,
    means_over_trainings,
    paired_difference,
    unpaired_difference,
)


def interval(estimate: Estimate) -> tuple[float, float]:
    """Both ends, which must be there."""
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def holds(estimate: Estimate, truth: float) -> bool:
    low, high = interval(estimate)
    return low <= truth <= high


def width(estimate: Estimate) -> float:
    low, high = interval(estimate)
    return high - low


def population(rng, n_users=60, per_user=20):
    """Queries whose success depends on the user: values [n, 1], users [n]. True mean 0.5."""
    skill = rng.beta(2, 2, n_users)
    users = np.repeat(np.arange(n_users), per_user)
    return (rng.random(len(users)) < skill[users]).astype(float)[:, None], users


def test_interval_over_users_covers_the_truth_and_over_queries_would_not():
    rng = np.random.default_rng(0)
    by_user = by_query = 0
    for trial in range(120):
        values, users = population(rng, per_user=10)
        [estimate] = bootstrap_means(values, users, seed=trial, resamples=300)
        by_user += holds(estimate, 0.5)
        [wrong] = bootstrap_means(values, np.arange(len(users)), seed=trial, resamples=300)
        by_query += holds(wrong, 0.5)
    assert by_user / 120 > 0.89
    assert by_query / 120 < 0.80  # the broken twin: queries taken as independent


def test_mean_n_and_reproducibility():
    values, users = population(np.random.default_rng(1))
    [a] = bootstrap_means(values, users, seed=5)
    assert a.value == values.mean()
    assert (a.n, a.n_users) == (1200, 60)
    assert [a] == bootstrap_means(values, users, seed=5)
    assert [a] != bootstrap_means(values, users, seed=6)


def test_a_paired_difference_is_narrower_than_the_two_intervals_and_finds_a_small_gain():
    rng = np.random.default_rng(2)
    base, users = population(rng)
    better = np.minimum(base + (rng.random(base.shape) < 0.05), 1)
    [difference] = paired_difference(better, base, users, seed=0)
    [a], [b] = bootstrap_means(better, users, seed=0), bootstrap_means(base, users, seed=0)
    assert interval(difference)[0] > 0
    assert width(difference) < width(a) / 2
    assert interval(a)[0] < interval(b)[1]  # the separate intervals overlap


def test_unpaired_difference_of_equal_populations_holds_zero_at_about_its_level():
    rng = np.random.default_rng(3)
    users, held = population(rng)[1], 0
    for trial in range(150):
        a, users_a = population(rng)
        b, users_b = population(rng)
        [estimate] = unpaired_difference(a, users_a, b, users_b, seed=trial, resamples=300)
        held += holds(estimate, 0)
    assert held / 150 > 0.89
    [different] = unpaired_difference(np.ones((1200, 1)), users, np.zeros((1200, 1)), users, seed=0)
    assert (different.value, different.low, different.high) == (1, 1, 1)
    assert different.n_users == 120


def test_any_statistic_of_weights_agrees_with_the_mean_and_skips_undefined_draws():
    rng = np.random.default_rng(5)
    values, users = population(rng, n_users=40, per_user=3)

    def mean(weights):
        return weights @ values / weights.sum(axis=1, keepdims=True)

    [found] = bootstrap_statistics(mean, users, seed=1)
    [expected] = bootstrap_means(values, users, seed=1)
    assert (found.value, *interval(found)) == pytest.approx((expected.value, *interval(expected)))
    assert (found.n, found.n_users) == (120, 40)
    rare = np.arange(120) < 3  # one user's rows: absent from a third of the draws

    def share(weights):
        total = weights @ rare
        return (np.where(total > 0, 1.0, np.nan) * (weights @ values[:, 0]) / weights.sum(axis=1))[:, None]

    assert interval(bootstrap_statistics(share, users, seed=1)[0])[1] < 1
    with pytest.raises(ValueError, match="whole sample"):
        bootstrap_statistics(lambda weights: np.full((len(weights), 1), np.nan), users, seed=1)


def test_too_few_users_give_a_value_without_interval_and_no_query_gives_nothing():
    [few] = bootstrap_means(np.ones((9, 1)), np.repeat([0, 1, 2], 3), seed=0)
    assert (few.value, few.low, few.high, few.n, few.n_users) == (1.0, None, None, 9, 3)
    assert bootstrap_means(np.zeros((0, 2)), np.zeros(0), seed=0) == [NOTHING, NOTHING]
    many = np.arange(10)
    [mixed] = unpaired_difference(np.ones((10, 1)), many, np.ones((3, 1)), many[:3], seed=0)
    assert mixed.low is None


def test_nan_and_misaligned_users_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_means(np.array([[np.nan]]), np.array([0]), seed=0)
    with pytest.raises(ValueError, match="2 users for 3 values"):
        bootstrap_means(np.ones((3, 1)), np.array([0, 1]), seed=0)


def test_two_thousand_resamples_are_fast():
    rng = np.random.default_rng(4)
    values, users = rng.random((20_000, 4)), np.repeat(np.arange(1_000), 20)
    started = time.perf_counter()
    bootstrap_means(values, users, seed=0)
    assert time.perf_counter() - started < 5  # about 0.2 s when the machine is free


@pytest.mark.parametrize("trainings", [3, 6])
def test_trainings_are_inside_the_interval(trainings: int):
    """C32: the truth of a kind of training is its mean over seeds; resampling users alone misses it far more often."""
    rng = np.random.default_rng(8)
    with_seeds = by_user = 0
    for trial in range(120):
        skill = rng.normal(0, 1, 40)
        users = np.repeat(np.arange(40), 5)
        noise = rng.normal(0, 0.3, (trainings, 1))  # of a seed, common to all queries
        values = (noise + skill[users] + rng.normal(0, 1, (trainings, 200)))[:, :, None]
        with_seeds += holds(means_over_trainings(values, users, seed=trial, resamples=300)[0], 0.0)
        by_user += holds(bootstrap_means(values[0], users, seed=trial, resamples=300)[0], 0.0)
    assert with_seeds / 120 > 0.9
    assert by_user / 120 < 0.8  # the broken twin: one seed, taken for all


def test_one_training_is_the_users_alone():
    values, users = population(np.random.default_rng(9))
    [alone] = bootstrap_means(values, users, seed=1)
    assert means_over_trainings(values[None], users, seed=1) == [alone]
    [twice] = means_over_trainings(np.stack([values, values + 0.2]), users, seed=1)
    assert twice.value == pytest.approx(values.mean() + 0.1)
    assert width(twice) > 3 * width(alone)  # two trainings say little about a third
    assert means_over_trainings(np.zeros((2, 0, 3)), np.zeros(0), seed=0) == [NOTHING] * 3
