"""How well an attack tells members from non-members, and the least ε that this rules out below it.

Scores rise with the suspicion of membership: for a loss, its negative.

- True-positive rate at a false-positive rate of 1%: Carlini et al. 2022, "Membership Inference Attacks From First
  Principles" (arXiv:2112.03570), section IV: one that names few people for certain is an attack, whatever its AUC.
- One-run audit: Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv:2305.08846),
  theorem 3.1 and appendix D. It holds only where each unit was trained on by an independent fair coin: the splits of
  the platform are not (their users differ in more than membership), a benchmark's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, log1p

import numpy as np

from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_statistics
from user_embeddings_dagster.evaluation.probes import auc

FPR = 0.01
GUESSED = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Shares of the units that the auditor guesses; how many to guess must not depend on the answer, so that the
confidence is divided among them (Bonferroni)."""
CONFIDENCE = 0.95
EPSILON_STEPS = 40  # halvings: the bound is exact to 1e-11


@dataclass(frozen=True)
class AuditResult:
    """`auc` and `tpr` (at 1% false positives) with 95% intervals; `epsilon_lower` at `confidence` for `delta`.

    Of `guesses` units, the most and the least suspicious half each, `correct` were guessed right: the guess that gives
    the bound. `chance_tpr`: what random scores are expected to have of so many non-members.
    """

    auc: Estimate
    tpr: Estimate
    chance_tpr: float
    epsilon_lower: float
    guesses: int
    correct: int
    delta: float
    confidence: float


def audit(
    losses_in: np.ndarray,
    losses_out: np.ndarray,
    *,
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> AuditResult:
    """Audit one training by one loss per unit (a user, or a canary): `losses_in` [n] of those that a fair coin put into
    the training, `losses_out` [k] of those that it left out. Lower loss, more suspicion.

    `epsilon_lower` is below the true ε of any (ε, δ)-DP training, with `confidence`; 0 rules nothing out. A bound above
    the accountant's ε proves that the accountant, or the code, is wrong. Raises ValueError on losses that are not
    finite or an empty side.
    """
    losses = np.concatenate([losses_in, losses_out]).astype(np.float64)
    if not np.isfinite(losses).all() or min(len(losses_in), len(losses_out)) == 0:
        raise ValueError("an audit needs finite losses of units on both sides")
    member = np.arange(len(losses)) < len(losses_in)
    area, rate = membership_estimates(-losses, member, np.arange(len(losses)), seed=seed)
    bounds = one_run_bounds(-losses, member, delta=delta, confidence=confidence, seed=seed)
    epsilon, guesses, correct = max(bounds)
    return AuditResult(area, rate, chance_tpr(len(losses_out)), epsilon, guesses, correct, delta, confidence)


def membership_estimates(
    scores: np.ndarray, member: np.ndarray, users: np.ndarray, *, seed: int
) -> tuple[Estimate, Estimate]:
    """AUC and true-positive rate at 1% false positives of scores [n], with intervals by resampling `users` [n]."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.stack([auc(member, scores, weights), tpr_at(member, scores, weights)], axis=1)

    area, rate = bootstrap_statistics(statistic, users, seed=seed)
    return area, rate


def tpr_at(member: np.ndarray, scores: np.ndarray, weights: np.ndarray, fpr: float = FPR) -> np.ndarray:
    """Weighted share of the members above the lowest threshold that at most `fpr` of the non-members pass; [r].

    `weights` [r, n]. Units of one score pass together. NaN without members or non-members.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf) > 0)
    found = np.cumsum(np.add.reduceat(weights[:, order] * member[order], starts, axis=1), axis=1)
    wrong = np.cumsum(np.add.reduceat(weights[:, order] * ~member[order], starts, axis=1), axis=1)
    members, others = found[:, -1], wrong[:, -1]
    passed = (wrong <= fpr * others[:, None] + 1e-9).sum(axis=1)
    best = np.where(passed > 0, found[np.arange(len(found)), np.maximum(passed - 1, 0)], 0.0)
    defined = (members > 0) & (others > 0)
    return np.where(defined, best / np.where(defined, members, 1), np.nan)


def chance_tpr(non_members: int, fpr: float = FPR) -> float:
    """Expected `tpr_at` of random scores: with k = ⌊fpr · n⌋ of n non-members allowed above the threshold, it lies just
    above the (k + 1)-th of them, which (k + 1) / (n + 1) of the members are expected to pass."""
    return (np.floor(fpr * non_members + 1e-9) + 1) / (non_members + 1)


def one_run_bounds(
    scores: np.ndarray,
    member: np.ndarray,
    *,
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
    shares: Sequence[float] = GUESSED,
    seed: int = 0,
) -> list[tuple[float, int, int]]:
    """(lower bound of ε, guesses, correct ones) for each share of the units that is guessed; all hold together.

    The half of the guesses with the highest scores is guessed in, the half with the lowest out; ties fall by the seed.
    """
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    bounds = []
    for share in shares:
        half = max(1, int(share * len(scores) / 2))
        if 2 * half > len(scores):
            continue
        correct = int((~member[order[:half]]).sum() + member[order[-half:]].sum())
        level = (1 - confidence) / len(shares)
        bounds.append((epsilon_bound(len(scores), 2 * half, correct, delta, level), 2 * half, correct))
    return bounds


def epsilon_bound(units: int, guesses: int, correct: int, delta: float, level: float) -> float:
    """Largest ε that `correct` of `guesses` on `units` coins rule out at significance `level`; 0 if none.

    Raises ValueError unless 0 ≤ correct ≤ guesses ≤ units, 0 ≤ δ ≤ 1 and 0 < level < 1.
    """
    if not (0 <= correct <= guesses <= units and 0 <= delta <= 1 and 0 < level < 1):
        raise ValueError("an audit needs 0 ≤ correct ≤ guesses ≤ units, 0 ≤ delta ≤ 1 and 0 < level < 1")
    if p_value(units, guesses, correct, 0.0, delta) >= level:
        return 0.0
    low, high = 0.0, 1.0
    while p_value(units, guesses, correct, high, delta) < level:
        low, high = high, 2 * high
    for _ in range(EPSILON_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(units, guesses, correct, middle, delta) < level else (low, middle)
    return low


def p_value(units: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Probability bound of at least `correct` right guesses under (ε, δ)-DP (Steinke et al. 2023, appendix D).

    P[Binomial(guesses, e^ε / (1 + e^ε)) ≥ correct] + 2 · units · δ · max over i of P[correct > that ≥ correct - i] / i.
    """
    # Without δ only the upper tail is needed; logarithms keep both shares exact for a large ε.
    right, wrong = -log1p(exp(-epsilon)), -epsilon - log1p(exp(-epsilon))
    k = np.arange(guesses + 1)
    factorials = np.array([lgamma(n + 1.0) for n in range(guesses + 1)])
    mass = np.exp(factorials[-1] - factorials - factorials[::-1] + k * right + (guesses - k) * wrong)
    tail = float(mass[correct:].sum())
    if delta > 0 and correct > 0:
        below = np.cumsum(mass[:correct][::-1]) / np.arange(1, correct + 1)
        tail += 2 * units * delta * float(below.max())
    return min(tail, 1.0)
