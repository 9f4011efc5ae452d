"""The audit's figures on members that are known: exact values, controls at both ends, and coverage."""

import numpy as np
import pytest

from benchmarks.likelihood_ratios import likelihood_ratios
from user_embeddings_dagster.evaluation.bootstrap import Estimate
from user_embeddings_dagster.evaluation.leakage.audit import (
    audit,
    chance_tpr,
    epsilon_bound,
    one_run_bounds,
    p_value,
    tpr_at,
)


def randomised_response(units: int, epsilon: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and members of the mechanism that is exactly ε-DP: the coin, told truly with probability e^ε/(1 + e^ε)."""
    rng = np.random.default_rng(seed)
    member = rng.random(units) < 0.5
    told = np.where(rng.random(units) < 1 / (1 + np.exp(-epsilon)), member, ~member)
    return told + 0.01 * rng.random(units), member


def above(estimate: Estimate, value: float) -> bool:
    """The whole interval is."""
    return estimate.low is not None and estimate.low > value


def reaches(estimate: Estimate, value: float) -> bool:
    """The value is in the interval."""
    return estimate.low is not None and estimate.high is not None and estimate.low <= value <= estimate.high


def test_p_value_without_delta_is_the_binomial_tail():
    """Steinke et al. 2023, theorem 3.1: eight of eight right at ε = 0 is 2^-8."""
    assert p_value(8, 8, 8, 0.0, 0.0) == pytest.approx(2**-8)
    assert p_value(100, 8, 0, 3.0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("correct", "epsilon"), [(70, 0.0), (90, 1.0), (100, 2.5)])
def test_p_value_is_scipys_tail(correct, epsilon):
    binom = pytest.importorskip("scipy.stats").binom
    expected = binom.sf(correct - 1, 100, 1 / (1 + np.exp(-epsilon)))
    assert p_value(1000, 100, correct, epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


def test_delta_only_weakens_the_bound():
    exact, slack = (epsilon_bound(1000, 100, 95, delta, 0.05) for delta in (0.0, 1e-4))
    assert 0 < slack < exact


def test_bound_is_the_epsilon_at_which_the_p_value_is_the_level():
    found = epsilon_bound(100, 100, 90, 0.0, 0.05)
    assert p_value(100, 100, 90, found, 0.0) == pytest.approx(0.05, rel=1e-6)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="correct ≤ guesses"):
        epsilon_bound(10, 8, 9, 0.0, 0.05)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bound_stays_below_the_true_epsilon_in_at_least_95_of_100_runs(epsilon):
    """C21: a bound that exceeded an honest ε would accuse a sound training."""
    above = 0
    for seed in range(200):
        scores, member = randomised_response(400, epsilon, seed)
        above += max(one_run_bounds(scores, member, seed=seed))[0] > epsilon
    assert above <= 20  # 5% of 200 are expected at most; 20 has probability below 0.002 at 5%


def test_a_mechanism_that_hides_less_than_it_claims_is_found():
    """Positive control of the seam for DP: ε = 4 sold as ε = 1."""
    scores, member = randomised_response(1000, 4.0, 0)
    assert audit(-scores[member], -scores[~member]).epsilon_lower > 2


def test_memorised_losses_are_exposed_and_equal_ones_are_chance():
    rng = np.random.default_rng(0)
    told = audit(rng.normal(0, 0.1, 300), rng.normal(5, 0.1, 300))
    assert told.auc.value == 1.0
    assert told.tpr.value == 1.0
    assert told.epsilon_lower > 3
    nothing = audit(rng.normal(0, 1, 300), rng.normal(0, 1, 300))
    assert reaches(nothing.auc, 0.5)
    assert reaches(nothing.tpr, nothing.chance_tpr)
    assert nothing.epsilon_lower == 0.0


def test_audit_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="both sides"):
        audit(np.zeros(3), np.zeros(0))
    with pytest.raises(ValueError, match="finite"):
        audit(np.array([np.nan]), np.zeros(3))


def test_tpr_counts_members_above_the_threshold_that_one_percent_of_the_others_pass():
    member = np.array([True] * 4 + [False] * 100)
    scores = np.concatenate([[9.0, 8.0, 3.0, 0.0], [5.0, 4.0], np.full(98, -1.0)])
    assert tpr_at(member, scores, np.ones((1, 104)))[0] == 0.5  # one non-member may pass: down to 4.0, not including
    tied = np.zeros(104)
    assert tpr_at(member, tied, np.ones((1, 104)))[0] == 0.0  # all tie: nobody can be named


def test_chance_tpr_is_what_random_scores_have():
    rng = np.random.default_rng(0)
    member = np.arange(300) < 150
    found = [tpr_at(member, rng.random(300), np.ones((1, 300)))[0] for _ in range(2_000)]
    assert np.mean(found) == pytest.approx(chance_tpr(150), rel=0.1)


def test_shadow_models_find_members_whose_loss_alone_says_nothing():
    """LiRA: units differ in difficulty far more than membership moves them."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 5, 300)
    included = rng.random((16, 300)) < 0.5
    losses = difficulty + rng.normal(0, 0.3, included.shape) - 1.0 * included
    ratios = likelihood_ratios(losses, included, 0)
    by_loss = audit(losses[0][included[0]], losses[0][~included[0]])
    by_ratio = audit(-ratios[included[0]], -ratios[~included[0]])
    assert not above(by_loss.auc, 0.65)
    assert above(by_ratio.auc, 0.9)
    assert above(by_ratio.tpr, 0.3)


def test_shadow_models_say_nothing_of_models_that_saw_nobody():
    rng = np.random.default_rng(0)
    losses, included = rng.normal(size=(16, 300)), rng.random((16, 300)) < 0.5
    scores = likelihood_ratios(losses, included, 0)
    assert audit(-scores[included[0]], -scores[~included[0]]).epsilon_lower == 0.0
