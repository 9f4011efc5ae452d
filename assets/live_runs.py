"""Runs under way or about to be: what erases or purges must not start beside them: they write what it removes."""

import os
from pathlib import Path

import dagster as dg

from user_embeddings_dagster.settings import Layout

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class RunsUnderWay(Exception):
    """Runs of the platform are under way."""


def live_runs(instance: dg.DagsterInstance, but_not: str = "") -> list[str]:
    """Ids of runs under way. One whose process is known to have died is not: nothing marks killed runs as ended."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=UNDER_WAY))
    return [run.run_id for run in runs if run.run_id != but_not and not _died(instance, run)]


def refuse_beside_runs(instance: dg.DagsterInstance, but_not: str = "") -> None:
    """Raises RunsUnderWay if there are any."""
    if runs := live_runs(instance, but_not):
        raise RunsUnderWay(
            f"{len(runs)} runs of the platform are under way ({', '.join(run[:8] for run in sorted(runs)[:5])}): wait "
            "for them or end them, or go on with --force, and what they write meanwhile may stay behind"
        )


def homes(layout: Layout) -> list[Path]:
    """Where runs on this data root may be recorded: its own DAGSTER_HOME, and the environment's if that is another."""
    own, named = layout.root / "dagster_home", os.environ.get("DAGSTER_HOME")
    return [own, *([Path(named)] if named and Path(named).resolve() != own.resolve() else [])]


def open_home(home: Path) -> dg.DagsterInstance | None:
    """The instance of a DAGSTER_HOME as it is, without ending what looks killed; None if there is none."""
    from dagster._core.instance.ref import InstanceRef

    if not (home / "history").exists() and not (home / "dagster.yaml").exists():  # history may be in a database
        return None
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))


def _died(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether it ran in a process of this machine that is gone; of a daemon's runs nothing is assumed."""
    if run.remote_job_origin is not None:
        return False
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [
        str(event.dagster_event.engine_event_data.metadata["pid"].value)
        for event in events
        if event.dagster_event is not None and "pid" in event.dagster_event.engine_event_data.metadata
    ]
    return bool(found) and not any(pid == str(os.getpid()) or Path("/proc", pid).exists() for pid in found)
