"""Differentially private training of the sequence encoder: what it claims, what an audit finds, what it costs (F7).

    python -m benchmarks.differential_privacy [SEQUENCES] [--steps 200] [--rate 0.05] [--dimension 32]

SEQUENCES is a `sequences.parquet` as the training job reads it (item vectors alone are used, the latest 16 chunks of
each user); without one, made-up histories are. A quarter of the users play the public DataDAO, whom nothing protects;
each of the others is trained on by the fall of a fair coin. Trainings: without DP as served (negatives from the batch),
by user and clipped but without noise, and with noise σ; the best weights by public users are kept. Prints, of each:

    ε           claimed, by RDP and PRV, at δ = 1e-5
    gradients   the audit's lower bound of ε where 2,000 canaries have a coordinate of the gradient each
    losses      the audit's lower bound, AUC and TPR at 1% FPR of the users' losses less those before training
    MRR         of the next chunk of users who were not trained on, full ranking, 95% interval over users; and its
                difference to the start (the space fitted on public users, no step)

Controls: an overfitted training without DP must be exposed; canaries with a quarter of the claimed noise must break the
claim of σ = 2. Returns 1 if a bound passes its claim or a control fails.
"""

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: small matrices, many steps

import numpy as np
import polars as pl

from benchmarks.membership import OVERFITTED, made_up, user_losses
from benchmarks.shadow_training import trained_encoder
from training.differential_privacy import PrivacySettings, Randomness
from training.sequence_features import histories_from
from user_embeddings_dagster.evaluation.baselines import next_chunk_queries, own_past
from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_means
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.leakage.audit import AuditResult, audit, one_run_bounds
from user_embeddings_dagster.evaluation.ranking import full_ranks

CHUNKS, CANARIES, DELTA = 16, 2_000, 1e-5
PUBLIC_SHARE, NOISES = 0.25, (0.0, 0.6, 1.0, 2.0)
PER_USER = {"negatives": "public", "public_datadaos": ["public"], "dp_secret": False}
WEAK = 0.25  # share of the claimed noise that the broken twin adds
CONTROL, START = "overfitted", "start"


@dataclass(frozen=True)
class Roles:
    """Who is public (and of these, who stops trainings), and who of the others was trained on: bool [n_histories]."""

    public: np.ndarray
    valid: np.ndarray
    member: np.ndarray

    @classmethod
    def drawn(cls, users: int, seed: int) -> "Roles":
        """By the seed."""
        rng = np.random.default_rng(seed)
        place = rng.permutation(users) / users
        public = place < PUBLIC_SHARE
        return cls(public, place < PUBLIC_SHARE / 4, ~public & (rng.random(users) < 0.5))


@dataclass(frozen=True)
class Trained:
    """One training's result on all histories: mean losses [n_histories], reciprocal ranks by query, its metadata."""

    losses: np.ndarray
    reciprocal: np.ndarray
    metadata: dict[str, float]


def histories(path: Path | None) -> Histories:
    """Latest chunks of each user of a `sequences.parquet`, or made-up ones."""
    if path is None:
        return made_up(400)
    columns = ["datadao", "user_id", "position", "ended_at", "chunk_id", "vector"]
    frame = pl.scan_parquet(path).select(columns).filter(pl.len().over("datadao", "user_id") >= 4)
    last = pl.col("position").rank("ordinal", descending=True).over("datadao", "user_id") <= CHUNKS
    return histories_from(frame.filter(last).collect())[0]


def trained(histories: Histories, roles: Roles, settings: dict[str, object]) -> Trained:
    """Train on members and public users; evaluate on the protected, members or not."""
    split = np.where(roles.valid, "valid", np.where(roles.public | roles.member, "train", ""))
    datadaos = np.where(roles.public, "public", "private")
    with trained_encoder(histories, split, datadaos, {"seed": 0, **settings}) as (model, metadata):
        predictions = model(histories)
    gold = next_chunk_queries(histories)
    excluded = own_past(histories, gold)
    ranks = full_ranks(predictions.queries[gold - 1], predictions.candidates, gold, excluded=excluded)
    return Trained(user_losses(histories, predictions), 1 / ranks.rank, metadata)


def gradient_bound(claimed: float, added: float, rate: float, steps: int, seed: int) -> float:
    """Audit's lower bound of ε of the noised sums alone: each canary's gradient is C along an axis of its own."""
    member = np.random.default_rng([seed, 7]).random(CANARIES) < 0.5
    randomness, scores = Randomness.from_seed(seed), np.zeros(CANARIES)
    for step in range(steps):
        present = randomness.sampled(step, CANARIES, rate) & member
        scores += present + claimed * added * randomness.normal(step, CANARIES).numpy()
    return max(one_run_bounds(scores, member, delta=DELTA))[0]


def report(name: str, result: Trained, start: Trained, roles: Roles, data: Histories) -> AuditResult:
    """Print one row."""
    moved = result.losses - start.losses
    rng = np.random.default_rng(0)  # a training that kept its start moved nobody: ties fall by chance
    moved = moved + 1e-12 * rng.standard_normal(len(moved))
    others = ~roles.public & ~roles.member
    found = audit(moved[roles.member], moved[others], delta=DELTA)
    asked = others[data.history_of_row[next_chunk_queries(data)]]
    users = data.user_ids[data.history_of_row[next_chunk_queries(data)]][asked]
    both = np.stack([result.reciprocal, result.reciprocal - start.reciprocal], axis=1)[asked]
    mrr, gain = bootstrap_means(both, users, seed=0)
    noise = float(result.metadata.get("dp_noise", 0))
    claim, mechanism = "no DP", ""
    if noise:
        rate, steps = float(result.metadata["dp_sampling_rate"]), int(result.metadata["dp_steps"])
        claim = f"{result.metadata['dp_epsilon']:.2f} / {result.metadata['dp_epsilon_prv']:.2f}"
        mechanism = f"{gradient_bound(noise, 1.0, rate, steps, 0):.2f}"
    print(
        f"{name:<22}{claim:<15}{mechanism:<11}{found.epsilon_lower:<7.2f}{_cell(found.auc):<22}{_cell(found.tpr):<22}"
        f"{_cell(mrr):<22}{_cell(gain, '+.4f'):<26}{int(result.metadata['best_step'])}/{int(result.metadata['steps'])}",
        flush=True,
    )
    return found


def _cell(estimate: Estimate, form: str = ".3f") -> str:
    return f"{estimate.value:{form}} [{estimate.low or 0:{form}}, {estimate.high or 0:{form}}]"


def main() -> int:
    """Print the table; 1 if a bound passes its claim or a control fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--dimension", type=int, default=32)
    options = parser.parse_args()
    data = replace(histories(options.sequences), contexts=None)
    roles = Roles.drawn(data.n_histories, seed=0)
    served = {"dimension": options.dimension, "steps": options.steps, "extra_keys": 256, "patience": 99}
    private = {**served, **PER_USER, "dp_sampling_rate": options.rate, "dp_clip": options.clip, "dp_delta": DELTA}
    trainings = {
        "no DP, as served": {**served, "steps": 60, "patience": 3},
        **{f"by user, σ = {noise:g}": {**private, "dp_noise": noise} for noise in NOISES},
        CONTROL: {**served, **OVERFITTED},
    }
    print(
        f"{data.n_histories} histories, {len(data.vectors)} chunks; public {roles.public.sum()}, trained on "
        f"{roles.member.sum()}, not {(~roles.public & ~roles.member).sum()}; q {options.rate}, C {options.clip}"
    )
    print(f"{'':<22}{'ε RDP / PRV':<15}{'gradients':<11}{'losses':<7}{'AUC':<22}{'TPR@1%FPR':<22}{'MRR':<22}", end="")
    print(f"{'MRR - start':<26}best step")
    start = trained(data, roles, {**private, "dp_noise": 0.0, "steps": 0})
    holds = True
    for name, settings in trainings.items():
        # The control keeps its last weights, which no validation user would have kept.
        stopped = replace(roles, valid=np.zeros_like(roles.valid)) if name == CONTROL else roles
        result = trained(data, stopped, settings)
        found = report(name, result, start, roles, data)
        holds &= found.epsilon_lower <= float(result.metadata.get("dp_epsilon", np.inf))
        if name == CONTROL:
            holds &= found.epsilon_lower > 0
    claim = PrivacySettings.of({**private, "dp_noise": 2.0}).epsilons(options.steps)[-1]
    honest, weak = (gradient_bound(2.0, share, options.rate, options.steps, 0) for share in (1.0, WEAK))
    print(f"canaries at σ = 2: ε ≥ {honest:.2f}; with a quarter of that noise ε ≥ {weak:.2f}; claimed {claim:.2f}")
    holds &= honest <= claim < weak
    print("all bounds are within their claims, and both controls hold" if holds else "A BOUND OR A CONTROL FAILS")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
