"""The purge: what is past its window goes, physically, and evidence of it stays.

    plan → journal → horizons (for readers) → stage after stage → evidence

The plan is written down before anything is removed: killed at any point, the next purge finishes it and reports what
an undisturbed one would have. No run of the platform may be under way, and no asset executes meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.erasure.erase import Executing, alone, undisturbed
from user_embeddings_dagster.privacy.retention.by_products import (
    LanguageModelCache,
    Leftovers,
    OldModels,
    TableVersions,
)
from user_embeddings_dagster.privacy.retention.content import MaskedChunks, Messages, RawFiles, Summaries
from user_embeddings_dagster.privacy.retention.stage import Found, Stage, Sweep
from user_embeddings_dagster.privacy.retention.windows import DEFAULTS, Horizons, horizons
from user_embeddings_dagster.quality.outcome import ERROR, CheckOutcome
from user_embeddings_dagster.schema import RETENTION_PURGES
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import read_json, write_json

STAGES: tuple[Stage, ...] = (
    RawFiles(), Messages(), MaskedChunks(), Summaries(), LanguageModelCache(), TableVersions(), Leftovers(), OldModels()
)  # fmt: skip
"""Of the data root, in the order in which one takes along the next; Dagster's own come after (assets.retention)."""


ROWS = ("messages", "masked_chunks", "summaries")
"""Stages whose rows would be made again."""


class _Journal(msgspec.Struct):
    """A purge under way: windows in days, horizons and what was found, by stage."""

    windows: dict[str, int | None]
    at: dict[str, datetime]
    found: dict[str, Found]


class Evidence(msgspec.Struct, frozen=True):
    """RETENTION_PURGES of one stage."""

    window_days: int | None
    horizon: datetime | None = None
    n_purged: int = 0
    bytes_purged: int = 0
    purged_hash: str = ""
    n_kept: int = 0
    oldest_kept: datetime | None = None


def purge(
    layout: Layout,
    windows: Mapping[str, int | None],
    now: datetime,
    more: Sequence[Stage] = (),
    *,
    dry_run: bool = False,
    announce: Callable[[str], None] = lambda line: None,
    executing: Executing = "refuse",
) -> dict[str, Evidence]:
    """Remove what is past its window in each stage and say what that was; `dry_run` only says what it would be.

    Where nothing is past it, the evidence of the last purge that found something stands. Raises
    ErasureRunning while another process erases or purges, AssetsExecuting (erasure.erase).
    """
    with alone(layout) if dry_run else undisturbed(layout, executing):
        path = layout.retention / "purge.journal"
        journal = read_json(path, _Journal, "remove it, and purge again") if path.exists() else None
        stages = (*STAGES, *more)
        if journal is None:
            journal = _planned(layout, windows, now, stages, announce)
        if dry_run:
            return {stage: _evidence(journal, stage, None) for stage in journal.found}
        write_json(path, msgspec.to_builtins(journal))
        content = {stage: at for stage, at in journal.at.items() if stage in ROWS and journal.found[stage].items}
        if content:
            Horizons.load(layout.horizons).moved(content).save(layout.horizons)
        sweep = Sweep(layout, journal.at, journal.found)
        for stage in stages:
            if stage.name in journal.found and (items := journal.found[stage.name].items):
                announce(f"{stage.name}: {len(items)} past the window")
                stage.remove(sweep, journal.found[stage.name])
        before = evidence(layout)
        told = {stage: _evidence(journal, stage, before.get(stage)) for stage in journal.found}
        write_json(layout.retention / "evidence.json", msgspec.to_builtins({**before, **told}))
        path.unlink()
        return told


def _planned(
    layout: Layout,
    windows: Mapping[str, int | None],
    now: datetime,
    stages: Sequence[Stage],
    announce: Callable[[str], None],
) -> _Journal:
    sweep = Sweep(layout, horizons(windows, now), {})
    for stage in stages:
        announce(f"{stage.name}: looking")
        sweep.found[stage.name] = stage.find(sweep)
    return _Journal(dict(windows), sweep.at, sweep.found)


def _evidence(journal: _Journal, stage: str, before: Evidence | None) -> Evidence:
    found = journal.found[stage]
    if not found.items and before is not None:
        return msgspec.structs.replace(
            before, window_days=journal.windows.get(stage), n_kept=found.kept, oldest_kept=found.oldest_kept
        )
    return Evidence(
        journal.windows.get(stage),
        journal.at.get(stage) if found.items else None,
        len(found.items),
        sum(found.items.values()),
        content_id(*sorted(found.items)) if found.items else "",
        found.kept,
        found.oldest_kept,
    )


def evidence(layout: Layout) -> dict[str, Evidence]:
    """Of every stage that a purge looked at; empty before the first."""
    path = layout.retention / "evidence.json"
    return read_json(path, dict[str, Evidence]) if path.exists() else {}


def as_table(found: Mapping[str, Evidence]) -> pl.DataFrame:
    """RETENTION_PURGES, one row per stage."""
    rows = [{"stage": stage, **msgspec.structs.asdict(found[stage])} for stage in DEFAULTS if stage in found]
    return RETENTION_PURGES.conform(pl.DataFrame(rows, schema=RETENTION_PURGES.schema))


def nothing_kept_too_long(purges: pl.DataFrame, now: datetime) -> CheckOutcome:
    """Nothing that a stage kept is older than its window, and every stage was looked at.

    Versions of tables count from when they were replaced, and a message counts with the raw file it is read from.
    """
    limits = pl.col("window_days") * 86_400 + 86_400  # horizons are whole days
    age = (pl.lit(now) - pl.col("oldest_kept")).dt.total_seconds()
    late = purges.filter(age > limits).height
    missing = len(DEFAULTS) - purges.height
    return CheckOutcome("nothing_kept_too_long", not late and not missing, ERROR, {"late": late, "missing": missing})


def as_text(found: Mapping[str, Evidence]) -> str:
    """For a terminal."""
    lines = [f"{'stage':22} {'window':>8} {'purged':>9} {'bytes':>14} {'kept':>9}  oldest kept"]
    for stage, row in found.items():
        window = "keep" if row.window_days is None else f"{row.window_days} d"
        oldest = f"{row.oldest_kept:%Y-%m-%d}" if row.oldest_kept else "-"
        lines.append(f"{stage:22} {window:>8} {row.n_purged:9,} {row.bytes_purged:14,} {row.n_kept:9,}  {oldest}")
    return "\n".join(lines)
