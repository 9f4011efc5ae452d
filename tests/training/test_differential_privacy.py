import numpy as np
import pytest
import torch

from training.differential_privacy import PrivacySettings, Randomness, clipped, tight_epsilon
from training.item_encoder import Config
from user_embeddings_dagster.evaluation.leakage.audit import one_run_bounds

CLIP = 0.5


def test_a_gradient_that_is_not_finite_counts_as_zero():
    assert clipped(torch.tensor([np.inf, 1.0]), 1.0).tolist() == [0.0, 0.0]
    assert clipped(torch.tensor([np.nan, 1.0]), 1.0).tolist() == [0.0, 0.0]
    assert clipped(torch.tensor([0.3, 0.4]), 1.0).tolist() == pytest.approx([0.3, 0.4])
    assert float(clipped(torch.full((1000,), 1e30), 0.5).norm()) == pytest.approx(0.5, abs=1e-12)


def test_users_are_sampled_by_coins_of_their_own():
    """Poisson sampling: rate, sizes as a binomial's (not a fixed one), no two users' coins tied."""
    randomness, users, steps, rate = Randomness.from_seed(0), 200, 500, 0.05
    drawn = np.stack([randomness.sampled(step, users, rate) for step in range(steps)])
    sizes, expected = drawn.sum(axis=1), users * rate
    assert abs(drawn.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / drawn.size)
    assert 0.8 < sizes.var() / (expected * (1 - rate)) < 1.25, "a batch of fixed size has no variance"
    ties = np.corrcoef(drawn.T)[~np.eye(users, dtype=bool)]
    assert abs(ties.mean()) < 0.01 and np.abs(ties).max() < 0.3
    assert (randomness.sampled(3, users, rate) == drawn[3]).all()


def test_noise_is_normal_and_of_the_step_and_the_key_alone():
    randomness = Randomness.from_seed(0)
    values = randomness.normal(5, 100_001).numpy()
    assert abs(values.mean()) < 0.015 and abs(values.std() - 1) < 0.01
    assert (np.abs(values) > 3).mean() == pytest.approx(0.0027, abs=0.0007)
    assert np.array_equal(values, Randomness.from_seed(0).normal(5, 100_001).numpy())
    others = [randomness.normal(6, 100_001).numpy(), Randomness.from_seed(1).normal(5, 100_001).numpy()]
    assert all(abs(np.corrcoef(values, other)[0, 1]) < 0.02 for other in others)


def test_the_secret_key_is_the_training_s_own(tmp_path):
    first, other = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    other.mkdir()
    noise = Randomness.secret(first).normal(0, 10)
    assert torch.equal(Randomness.secret(first).normal(0, 10), noise)
    assert not torch.equal(Randomness.secret(other).normal(0, 10), noise)
    assert (first / "dp.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("noise", "epsilon"), [(0.6, 17.5), (1.0, 5.4), (2.0, 1.7)])
def test_epsilon_is_opacus_own(noise, epsilon):
    """2,000 users, 100 a step, 10 epochs, δ = 1e-5; by PRV it is tighter."""
    from opacus.accountants import RDPAccountant

    settings = PrivacySettings(noise, dp_sampling_rate=100 / 2000, negatives="public", public_datadaos=("p",))
    found = settings.epsilons(200)
    accountant = RDPAccountant()
    accountant.history = [(noise, 0.05, 200)]
    assert found[-1] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9) == pytest.approx(epsilon, abs=0.05)
    assert (np.diff(found) > 0).all(), "every step costs"
    assert 0.8 * found[-1] < tight_epsilon(noise, 0.05, 200, 1e-5) < found[-1]


def test_the_item_encoder_refuses_it():
    with pytest.raises(ValueError, match="no private training"):
        Config.of({"seed": 0, "dp_noise": 1.0})


@pytest.mark.parametrize(("true_noise", "caught"), [(2.0, False), (0.5, True)])
def test_the_audit_finds_noise_that_was_not_added(true_noise, caught):
    """F7: gradients of canaries along axes of their own; the claim is ε of σ = 2. The twin adds a quarter of it."""
    units, delta = 1_500, 1e-5
    settings = PrivacySettings(2.0, dp_sampling_rate=1.0, negatives="public", public_datadaos=("p",))
    member = np.random.default_rng(0).random(units) < 0.5
    scores = CLIP * member + true_noise * CLIP * Randomness.from_seed(4).normal(0, units).numpy()
    bound = max(one_run_bounds(scores, member, delta=delta))[0]
    assert bound > 0, "the audit sees something either way"
    assert (bound > settings.epsilons(1)[-1]) is caught
