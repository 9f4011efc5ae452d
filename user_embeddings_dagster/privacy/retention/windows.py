"""How long each stage keeps what it holds, and up to which date that was enforced.

A window is a number of days, or "keep": until its contributor is erased or withdraws. What an age is differs by stage:

    raw_files             since the file was dropped (its modification time in the landing folder)
    messages              since the message was written (created_at); one without a time counts as too old, because
                          nothing shows that it is young enough
    masked_chunks         since SUBJECT's last message in the chunk (ended_at), with every vector made of it
    summaries             the same, for what was read off the chunk: summaries, KOAIs and their vectors
    language_model_cache  since the model answered
    table_versions        since a Parquet file, a LanceDB version or a block of scores.duckdb was replaced
    leftovers             since a killed job wrote it: staged rows, batches, inputs of trainings
    models                since a version was trained that is not the promoted one
    dagster_runs          since a run ended that is not the latest of any asset partition; with its events
    compute_logs          since the captured output of a run was written

What is made of something never outlives it: a purged raw file takes its messages along, a purged message every chunk
that quotes it, a purged chunk its summaries and vectors. So a window never reaches further than those before it.
By default content is kept, because a user embedding is read off the whole history, and by-products are not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from user_embeddings_dagster.settings import RETENTION
from user_embeddings_dagster.storage.durability import read_json, write_json
from user_embeddings_dagster.storage.lake import fingerprint

KEEP = "keep"
DEFAULTS: Mapping[str, int | None] = {
    "raw_files": None,
    "messages": None,
    "masked_chunks": None,
    "summaries": None,
    "language_model_cache": 90,
    "table_versions": 7,
    "leftovers": 1,
    "models": 180,
    "dagster_runs": 90,
    "compute_logs": 14,
}
"""Days by stage, in the order in which they are purged; None keeps."""

MAX_DAYS = 36_500  # "keep" is for longer: dates before the year 1 are none

_CHAIN = ("messages", "masked_chunks", "summaries")


def windows(setting: str | None) -> dict[str, int | None]:
    """Days by stage: the defaults, changed by a JSON object such as {"messages": 730, "models": "keep"}.

    Raises ValueError on anything else than whole days of 1 to MAX_DAYS or "keep", by the name of a stage.
    """
    try:
        changes = json.loads(setting or "{}")
    except ValueError:
        changes = None
    if not isinstance(changes, dict):
        raise ValueError(f"{RETENTION}: not a JSON object of days by stage")
    if unknown := sorted(set(changes) - set(DEFAULTS)):
        raise ValueError(f"{RETENTION}: no stages {unknown}; the stages are {sorted(DEFAULTS)}")
    for stage, days in changes.items():
        if days != KEEP and (not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MAX_DAYS):
            raise ValueError(f'{RETENTION}: {stage} must be a whole number of days, 1 to {MAX_DAYS}, or "{KEEP}"')
    chosen = {**DEFAULTS, **changes}
    return {stage: None if days == KEEP else days for stage, days in chosen.items()}


def horizons(windows: Mapping[str, int | None], now: datetime) -> dict[str, datetime]:
    """The first moment that each stage with a window still keeps: whole days, UTC."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {stage: today - timedelta(days=days) for stage, days in windows.items() if days is not None}


@dataclass(frozen=True)
class Horizons:
    """Up to which date rows were purged, by stage: whoever reads or makes rows anew leaves out what lies before.

    They move only when a purge finds something, so that tables stay as they are until then. No stage is falsy.
    """

    at: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Horizons":
        """Those at `path`; none if there is no file."""
        return cls(read_json(path, dict[str, datetime]) if path.exists() else {})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, {stage: at.isoformat() for stage, at in self.at.items()})

    def moved(self, to: Mapping[str, datetime]) -> "Horizons":
        """With some moved on; none moves back."""
        return Horizons({stage: max(at, self.at.get(stage, at)) for stage, at in {**self.at, **to}.items()})

    def of(self, stage: str) -> datetime | None:
        """Horizon of messages, masked_chunks or summaries: the latest of its own and of those before it."""
        found = [self.at[name] for name in _CHAIN[: _CHAIN.index(stage) + 1] if name in self.at]
        return max(found, default=None)

    def past(self, stage: str, column: str) -> pl.Expr:
        """Which rows lie before it; a row without a time does, wherever there is a horizon."""
        horizon = self.of(stage)
        return pl.lit(False) if horizon is None else (pl.col(column) < horizon).fill_null(True)

    def version(self, stage: str) -> tuple[str, ...]:
        """What a table's fingerprint takes in of it: nothing without a horizon."""
        horizon = self.of(stage)
        return () if horizon is None else (fingerprint("horizon", horizon.isoformat()),)

    def __bool__(self) -> bool:
        return bool(self.at)
