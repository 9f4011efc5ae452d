"""Membership inference with shadow models (LiRA), and the one-run audit's lower bound of ε (F7).

    python -m benchmarks.membership [DATA] [--models 32] [--users 120] [--dimension 32] [--steps 60]

Trains sequence encoders, each on every user or not by the fall of a fair coin, and attacks each with the others as its
shadow models. DATA is a data root whose item vectors are used (the latest 16 chunks of each user); without one, made-up
histories are. The trainings:

    as served       the encoder's own settings, early stopping on other users
    space alone     no step: whitening and axes, fitted on the training users in closed form
    overfitted      positive control: many large steps, no dropout, no weight decay, no early stopping; must be exposed
    untrained       negative control: the frozen vectors' decayed mean, which saw nobody; must be chance

Prints, of each: AUC of the loss and of LiRA, true positives at 1% false positives, each the mean over the targets with
a 95% interval over the users, and the audit's lower bound of ε of one target, chosen before anything is trained.
Returns 1 if a control fails.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: small matrices, many trainings

import numpy as np
import polars as pl

from benchmarks.likelihood_ratios import likelihood_ratios
from benchmarks.shadow_training import trained_encoder
from user_embeddings_dagster.evaluation.baselines import DECAY, Predictions, decayed_mean, next_chunk_queries
from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_statistics
from user_embeddings_dagster.evaluation.histories import Histories, histories_of
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.leakage.audit import AuditResult, audit, chance_tpr, tpr_at
from user_embeddings_dagster.evaluation.leakage.membership import info_nce
from user_embeddings_dagster.evaluation.measure import SequenceModel
from user_embeddings_dagster.evaluation.probes import auc
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables

CHUNKS = 16
OVERFITTED = {"steps": 100, "learning_rate": 5e-3, "dropout": 0.0, "weight_decay": 0.0, "residual_weight": 1.0}
AS_SERVED, SPACE, MEMORISED, UNTRAINED = "as served", "space alone", "overfitted", "untrained"


@dataclass(frozen=True)
class Attack:
    """What an attack on every target found: AUC and TPR at 1% FPR by loss and by LiRA, and the audit of one target."""

    by_loss: tuple[Estimate, Estimate]
    by_ratio: tuple[Estimate, Estimate]
    audited: AuditResult


def made_up(users: int, dimension: int = 32, seed: int = 0) -> Histories:
    """Histories of people with interests of their own, `CHUNKS` chunks each, a day apart."""
    rng = np.random.default_rng(seed)
    person = np.repeat(rng.standard_normal((users, dimension)), CHUNKS, axis=0)
    vectors = unit(0.5 * person + rng.standard_normal(person.shape))
    ended = 1_700_000_000 + 86_400 * np.tile(np.arange(CHUNKS), users)
    names = np.char.mod("%06d", np.arange(users))
    chunks = np.char.mod("%08d", np.arange(len(vectors)))
    return Histories(vectors, CHUNKS * np.arange(users + 1), names, ended, ended, chunks, vectors)


def latest(data: Path, users: int, seed: int) -> Histories:
    """The latest `CHUNKS` chunks of random users of a data root, of any split: each becomes a member by its coin."""
    layout = Layout(data)
    inputs = EvaluationInputs.of_users(Lake(layout.root), LanceTables(layout.lancedb), seed)
    ranked = inputs.snapshot.filter(pl.len().over("datadao", "user_id") >= 4)
    ranked = ranked.filter(pl.col("position").rank("ordinal", descending=True).over("datadao", "user_id") <= CHUNKS)
    people = ranked["user_id"].unique().sort()
    chosen = np.random.default_rng(seed).permutation(len(people))[:users]
    rows = ranked.filter(pl.col("user_id").is_in(people.gather(np.sort(chosen)).implode()))
    return histories_of(rows, inputs.chunk_ids, inputs.vectors, inputs.contexts)


def trained(histories: Histories, chosen: np.ndarray, valid: np.ndarray, settings: dict[str, object]) -> SequenceModel:
    """A sequence encoder trained on the histories `chosen` [n_histories] bool, stopped early by those of `valid`."""
    split = np.where(chosen, "train", np.where(valid, "valid", ""))
    with trained_encoder(histories, split, np.full(len(split), "all"), settings) as (model, _):
        return model


def user_losses(histories: Histories, predictions: Predictions) -> np.ndarray:
    """Mean InfoNCE of each history's next chunks [n_histories], over everybody else's chunks."""
    gold, people = next_chunk_queries(histories), histories.history_of_row
    queries, candidates = unit(predictions.queries[gold - 1]), unit(predictions.candidates)
    losses = info_nce(queries, candidates, gold, np.arange(len(people)), people)
    counts = np.bincount(people[gold], minlength=histories.n_histories)
    return np.bincount(people[gold], weights=losses, minlength=histories.n_histories) / np.maximum(counts, 1)


def attack(losses: np.ndarray, included: np.ndarray, users: np.ndarray, seed: int) -> Attack:
    """Attack every model of `losses` [models, n], `included` [models, n] bool, with the others; audit the first."""
    ratios = np.stack([likelihood_ratios(losses, included, target) for target in range(len(losses))])
    first = -ratios[0]
    return Attack(
        _over_targets(-losses, included, users, seed),
        _over_targets(ratios, included, users, seed),
        audit(first[included[0]], first[~included[0]], seed=seed),
    )


def _over_targets(scores: np.ndarray, included: np.ndarray, users: np.ndarray, seed: int) -> tuple[Estimate, Estimate]:
    """Mean AUC and TPR over the targets, with intervals over users."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        found = [(auc(m, s, weights), tpr_at(m, s, weights)) for s, m in zip(scores, included, strict=True)]
        return np.array(found).mean(axis=0).T

    area, rate = bootstrap_statistics(statistic, users, seed=seed, resamples=500)
    return area, rate


def shadows(
    histories: Histories, coins: np.ndarray, valid: np.ndarray, settings: dict[str, object], label: str
) -> np.ndarray:
    """Losses [models, n_histories] of a training for each row of `coins` [models, n_histories]."""
    rows = []
    for number, chosen in enumerate(coins):
        print(f"\r{label}: training {number + 1} of {len(coins)}", end="", file=sys.stderr, flush=True)
        rows.append(user_losses(histories, trained(histories, chosen, valid, {**settings, "seed": number})(histories)))
    print(file=sys.stderr)
    return np.stack(rows)


def measured(histories: Histories, models: int, dimension: int, steps: int, seed: int) -> dict[str, Attack]:
    """Attacks by name of the training. One in eight users stops the trainings early and is attacked in none."""
    rng = np.random.default_rng(seed)
    valid = rng.permutation(histories.n_histories) < histories.n_histories // 8
    coins = (rng.random((models, histories.n_histories)) < 0.5) & ~valid
    asked, users = ~valid, histories.user_ids[~valid]
    nobody = np.zeros_like(valid)
    served = {"dimension": dimension, "steps": steps}
    trainings = {
        AS_SERVED: (valid, served),
        SPACE: (valid, {**served, "steps": 0}),
        MEMORISED: (nobody, {**served, **OVERFITTED}),
    }
    found = {
        name: attack(shadows(histories, coins, stop, settings, name)[:, asked], coins[:, asked], users, seed)
        for name, (stop, settings) in trainings.items()
    }
    frozen = unit(histories.vectors if histories.contexts is None else histories.contexts)
    nothing = user_losses(histories, Predictions(decayed_mean(histories.with_vectors(frozen), DECAY), frozen))
    found[UNTRAINED] = attack(np.tile(nothing[asked], (models, 1)), coins[:, asked], users, seed)
    return found


def controls_hold(found: dict[str, Attack]) -> bool:
    """The overfitted training is exposed, the one that saw nobody is not."""
    memorised, untrained = found[MEMORISED], found[UNTRAINED]
    chance = untrained.audited.chance_tpr
    exposed = (memorised.by_ratio[1].low or 0.0) > 5 * chance and memorised.audited.epsilon_lower > 0
    return exposed and (untrained.by_loss[0].low or 0.0) <= 0.5 and untrained.audited.epsilon_lower == 0


def main() -> int:
    """Print the table; 1 if a control fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--users", type=int, default=120)
    parser.add_argument("--dimension", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    histories = latest(options.data, options.users, options.seed) if options.data else made_up(options.users)
    chunks = len(histories.vectors)
    print(f"{histories.n_histories} histories, {chunks} chunks, {options.models} models, dimension {options.dimension}")
    found = measured(histories, options.models, options.dimension, options.steps, options.seed)
    print(
        f"{'':<13}{'AUC, loss':<21}{'AUC, LiRA':<21}{'TPR@1%FPR, loss':<21}{'TPR@1%FPR, LiRA':<21}ε ≥ (right/guessed)"
    )
    for name, result in found.items():
        cells = [_cell(e) for pair in zip(result.by_loss, result.by_ratio, strict=True) for e in pair]
        bound = result.audited
        print(f"{name:<13}" + "".join(f"{cell:<21}" for cell in cells), end="")
        print(f"{bound.epsilon_lower:.2f} ({bound.correct}/{bound.guesses})")
    others = int(histories.n_histories * 7 / 16)
    print(f"{'chance':<13}{'0.500':<21}{'0.500':<21}{chance_tpr(others):<21.3f}{chance_tpr(others):<21.3f}0")
    holds = controls_hold(found)
    print("both controls hold" if holds else "A CONTROL FAILS")
    return 0 if holds else 1


def _cell(estimate: Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
