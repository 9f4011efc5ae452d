"""Linear probes: what of a person's future a user embedding of their past predicts linearly, and what not (C40).

Alain & Bengio, "Understanding intermediate layers using linear classifier probes" (arXiv:1610.01644). The probe
is ridge regression in closed form; a class is the highest of its one-vs-rest scores (Rifkin & Klautau, JMLR 2004).
It is fitted on training users, its penalty chosen on validation users, its score taken on test users.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.attributes import Attribute
from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS, NOTHING, Estimate, bootstrap_statistics
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet

PENALTIES = tuple(10.0**exponent for exponent in range(-3, 4))
"""Ridge penalty per training user, for features of variance 1."""
DEFAULT_PENALTY = 1.0
"""Without validation users."""
ROUNDING = 1e-5
"""Columns narrower than this share of the widest are rounding noise (whitened null directions of an encoder, whose
axes are arbitrary): scaled up to variance 1 they would make scores depend on the machine."""
SPLITS = ("train", "valid", "test")
NO_FEATURES = "majority_or_mean"

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ProbeModel:
    """A model's user embeddings [n_users, d] of the past, by split."""

    features: Mapping[str, np.ndarray]
    version: str


@dataclass(frozen=True)
class ProbeTask:
    """One attribute of the same users, by split, and who they are (`users` [n] of the test split)."""

    attributes: Mapping[str, Attribute]
    users: np.ndarray

    @property
    def name(self) -> str:
        """Of the attribute."""
        return self.attributes["test"].name


def probe(model: ProbeModel, task: ProbeTask) -> np.ndarray:
    """Predicted targets [n_test, k]; without features (d = 0) the mean of the training users' targets."""
    train, valid, test = (_scaled(model.features, split) for split in SPLITS)
    wanted = {split: task.attributes[split].targets.astype(np.float64) for split in SPLITS}
    centre = wanted["train"].mean(axis=0)
    if train.shape[1] == 0:
        return np.broadcast_to(centre, wanted["test"].shape)
    left, sizes, right = np.linalg.svd(train, full_matrices=False)
    inner = left.T @ (wanted["train"] - centre)

    def weights(penalty: float) -> np.ndarray:
        return right.T @ ((sizes / (sizes**2 + penalty * len(train)))[:, None] * inner)

    def error(penalty: float) -> float:
        return float(((valid @ weights(penalty) + centre - wanted["valid"]) ** 2).mean())

    penalty = min(PENALTIES, key=error) if len(valid) else DEFAULT_PENALTY
    return test @ weights(penalty) + centre


def probe_scores(
    scope: Scope,
    tasks: Sequence[ProbeTask],
    models: Mapping[str, ProbeModel],
    *,
    reference: str = "whitened_mean",
    compared: Sequence[str] = (),
) -> pl.DataFrame:
    """One slice per attribute. Amounts: `r2`. Classes: `accuracy`, and `auc` (one-vs-rest, mean
    over the classes with `MIN_USERS` users).

    Every model is given beside the mean or majority of the training users (`NO_FEATURES`); `compared` models get
    the paired difference to `reference`. R² and AUC are statistics of all test users: n is their number. An
    attribute that does not differ among the training or test users is omitted.
    """
    sheet = ScoreSheet(scope)
    none = {split: np.zeros((len(rows), 0)) for split, rows in next(iter(models.values())).features.items()}
    everyone = {**models, NO_FEATURES: ProbeModel(none, "exact")}
    for task in tasks:
        found = (
            {name: statistic_of(task.attributes["test"], probe(model, task)) for name, model in everyone.items()}
            if _measurable(task)
            else {}
        )
        metrics = _metrics(task)
        for name, model in everyone.items():
            estimates = _estimates(found.get(name), task, scope.seed, len(metrics))
            _add(sheet, name, metrics, estimates, task, model.version)
        for name in compared:
            both = (found[name], found[reference]) if found else None
            estimates = _estimates(both and _minus(*both), task, scope.seed, len(metrics))
            names = [f"{metric}_difference" for metric in metrics]
            _add(sheet, f"{name} - {reference}", names, estimates, task, everyone[name].version)
    return sheet.frame()


def statistic_of(attribute: Attribute, predicted: np.ndarray) -> Statistic:
    """The attribute's metrics [r, 1 or 2] as a function of weights [r, n] of the users."""
    if not attribute.classes:
        return lambda weights: r_squared(attribute.values, predicted, weights)[:, None]
    right = (predicted.argmax(axis=1) == attribute.values).astype(np.float64)
    usable = _frequent(attribute)

    def accuracy_and_auc(weights: np.ndarray) -> np.ndarray:
        areas = np.stack([auc(attribute.values == k, predicted[:, k], weights) for k in usable], axis=1)
        defined = np.isfinite(areas)
        area = np.where(defined, areas, 0).sum(axis=1) / np.where(defined.any(axis=1), defined.sum(axis=1), np.nan)
        return np.stack([weights @ right / weights.sum(axis=1), area], axis=1)

    return accuracy_and_auc


def r_squared(values: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1 - squared error / variance, both summed over the columns of `values` [n, k]; [r] for weights [r, n].

    0 is the mean of these very users; worse than that is negative. NaN where they do not differ.
    """
    total = weights.sum(axis=1)
    error = weights @ ((values - predicted) ** 2).sum(axis=1)
    centred = values - values.mean(axis=0)
    spread = weights @ (centred**2).sum(axis=1) - ((weights @ centred) ** 2).sum(axis=1) / total
    return 1 - error / np.where(spread > 1e-12, spread, np.nan)


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted share of (positive, negative) pairs in the right order, ties half; [r]. NaN without such a pair."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    good = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    bad = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(bad, axis=1) - bad / 2
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    return (good * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)


def _scaled(features: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """Columns with the training users' mean 0 and variance 1; one that is constant or mere rounding is 0."""
    train = np.asarray(features["train"], dtype=np.float64)
    spread = train.std(axis=0)
    real = spread > ROUNDING * spread.max(initial=0)
    return (features[split] - train.mean(axis=0)) * (real / np.where(real, spread, 1))


def _measurable(task: ProbeTask) -> bool:
    train, test = task.attributes["train"], task.attributes["test"]
    if min(len(train.values), len(test.values)) < MIN_USERS:
        return False
    varied = all(float(np.ptp(part.values, axis=0).max()) > 0 for part in (train, test))
    return varied and (not test.classes or len(_frequent(test)) > 0)


def _frequent(attribute: Attribute) -> np.ndarray:
    """Classes with `MIN_USERS` users in them and as many outside."""
    counts = np.bincount(attribute.values, minlength=len(attribute.classes))
    return np.flatnonzero(np.minimum(counts, len(attribute.values) - counts) >= MIN_USERS)


def _metrics(task: ProbeTask) -> list[str]:
    return ["accuracy", "auc"] if task.attributes["test"].classes else ["r2"]


def _minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda weights: a(weights) - b(weights)


def _estimates(statistic: Statistic | None, task: ProbeTask, seed: int, n_metrics: int) -> list[Estimate]:
    if statistic is None:
        return [NOTHING] * n_metrics
    return bootstrap_statistics(statistic, task.users, seed=seed)


def _add(
    sheet: ScoreSheet, model: str, metrics: Sequence[str], estimates: Sequence[Estimate], task: ProbeTask, version: str
) -> None:
    attribute = task.attributes["test"]
    k = len(attribute.classes) or attribute.values.shape[1]
    candidates = f"{'classes' if attribute.classes else 'amounts'}:{k}"
    for metric, estimate in zip(metrics, estimates, strict=True):
        sheet.add(model, metric, estimate, slice_=task.name, candidates=candidates, version=version)
