"""Rows of the scores table: every value with its seed, split hash, candidate set, n and interval."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import (
    NOTHING,
    Estimate,
    bootstrap_means,
    paired_difference,
    unpaired_difference,
)
from user_embeddings_dagster.schema import SCORES

OMITTED = "none: "
"""What the candidate set of a row that could not be measured begins with, before the reason."""
Values = Mapping[str, np.ndarray]
"""Per query [n], by metric."""
Task = tuple[str, np.ndarray]
"""What a slice is measured on: its candidate set, and the user of each query [n]."""


@dataclass(frozen=True)
class Scope:
    """What a set of scores is about: the asset that measures, the DataDAO (or 'all'), the seed and the split."""

    asset: str
    datadao: str
    seed: int
    split_hash: str


@dataclass
class ScoreSheet:
    """Collects the rows of one suite."""

    scope: Scope
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        model: str,
        metric: str,
        estimate: Estimate,
        *,
        slice_: str,
        candidates: str,
        version: str,
        datadao: str | None = None,
    ) -> None:
        """One row. An estimate without a value is an omission: null value, n 0."""
        self.rows.append(
            {
                "asset": self.scope.asset,
                "datadao": self.scope.datadao if datadao is None else datadao,
                "model": model,
                "metric": metric,
                "slice": slice_,
                "value": estimate.value,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "n": estimate.n,
                "n_users": estimate.n_users,
                "seed": self.scope.seed,
                "split_hash": self.scope.split_hash,
                "candidate_set": candidates,
                "version": version,
            }
        )

    def means(
        self,
        model: str,
        values: Values,
        users: np.ndarray,
        *,
        slice_: str,
        candidates: str,
        version: str,
        datadao: str | None = None,
    ) -> None:
        """One row per metric of `values` ({metric: [n] per query}), with an interval over `users` [n]."""
        estimates = bootstrap_means(_columns(values), users, seed=self.scope.seed)
        for metric, estimate in zip(values, estimates, strict=True):
            self.add(model, metric, estimate, slice_=slice_, candidates=candidates, version=version, datadao=datadao)

    def differences(
        self,
        model: str,
        better: Values,
        base: Values,
        users: np.ndarray,
        *,
        slice_: str,
        candidates: str,
        version: str,
    ) -> None:
        """One row per metric, named `<metric>_difference`: `better` minus `base` on the same queries."""
        estimates = paired_difference(_columns(better), _columns(base), users, seed=self.scope.seed)
        for metric, estimate in zip(better, estimates, strict=True):
            self.add(model, f"{metric}_difference", estimate, slice_=slice_, candidates=candidates, version=version)

    def write(
        self,
        measured: Mapping[str, Mapping[str, Values]],
        tasks: Mapping[str, Task],
        versions: Mapping[str, str],
        compared: Iterable[tuple[str, str]],
    ) -> None:
        """Means of `measured` ({model: {slice: …}}), then the paired differences of `compared` (model, base)."""
        for name, slices in measured.items():
            for slice_, values in slices.items():
                candidates, users = tasks[slice_]
                self.means(name, values, users, slice_=slice_, candidates=candidates, version=versions[name])
        for name, base in compared:
            for slice_, values in measured[name].items():
                candidates, users = tasks[slice_]
                self.differences(
                    f"{name} - {base}", values, measured[base][slice_], users,
                    slice_=slice_, candidates=candidates, version=versions[name],
                )  # fmt: skip

    def contrasts(
        self,
        model: str,
        a: Values,
        users_a: np.ndarray,
        b: Values,
        users_b: np.ndarray,
        *,
        slice_: str,
        candidates: str,
        version: str,
    ) -> None:
        """One row per metric, named `<metric>_difference`: mean of `a` minus mean of `b`, two sets of users."""
        estimates = unpaired_difference(_columns(a), users_a, _columns(b), users_b, seed=self.scope.seed)
        for metric, estimate in zip(a, estimates, strict=True):
            self.add(model, f"{metric}_difference", estimate, slice_=slice_, candidates=candidates, version=version)

    def omit(
        self, model: str, metric: str, *, reason: str, slice_: str, version: str, datadao: str | None = None
    ) -> None:
        """An explicit row for what could not be measured: null value, n 0, the reason in the candidate set's place."""
        candidates = f"{OMITTED}{reason}"
        self.add(model, metric, NOTHING, slice_=slice_, candidates=candidates, version=version, datadao=datadao)

    def frame(self) -> pl.DataFrame:
        """The rows as a SCORES frame, in canonical order. Raises ValueError on duplicate keys."""
        if not self.rows:
            return SCORES.empty()
        frame = SCORES.conform(pl.DataFrame(self.rows, schema=SCORES.schema)).sort(SCORES.primary_key)
        if frame.select(SCORES.primary_key).is_duplicated().any():
            raise ValueError(f"{self.scope.asset}: two scores have the same {SCORES.primary_key}")
        return frame


def _columns(values: Values) -> np.ndarray:
    return np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
