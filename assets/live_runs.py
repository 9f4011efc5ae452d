"""Runs under way or about to be: what erases or purges must not start beside them: they write what it removes."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import psutil

from user_embeddings_dagster.settings import Layout

# Not what is in the queue: without a daemon it stays there for good, and with one, each asset of what starts meanwhile
# waits until nobody erases or purges any more (assets.exclusion). It has written nothing yet, and reads what is left.
UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# A run tells of its process within seconds of its start. One that has not for so long has none.
PROCESS_SECONDS = 3600.0


class RunsUnderWay(Exception):
    """Runs of the platform are under way."""


def live_runs(instance: dg.DagsterInstance, but_not: str = "") -> list[str]:
    """Ids of runs under way. One whose process is known to have died is not: nothing marks killed runs as ended."""
    runs = [record.dagster_run for record in _under_way(instance) if not _died(instance, record)]
    return [run.run_id for run in runs if run.run_id != but_not]


def killed_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that are recorded as under way, and whose process is known to have died."""
    return [record.dagster_run for record in _under_way(instance) if _died(instance, record)]


def refuse_beside_runs(instance: dg.DagsterInstance, but_not: str = "") -> None:
    """Raises RunsUnderWay if there are any."""
    if runs := live_runs(instance, but_not):
        one = len(runs) == 1
        some, them = ("1 run of the platform is", "it") if one else (f"{len(runs)} runs of the platform are", "them")
        raise RunsUnderWay(
            f"{some} under way ({', '.join(run[:8] for run in sorted(runs)[:5])}): wait for {them} or end {them}, or "
            f"go on with --force, and what {'it writes' if one else 'they write'} meanwhile may stay behind"
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


def _under_way(instance: dg.DagsterInstance) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(filters=dg.RunsFilter(statuses=UNDER_WAY))


def _died(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether it ran in processes of this machine that are all gone, or has had none for long.

    No event names the machine. Of a daemon's runs nothing is assumed where several machines can share their record.
    """
    from dagster._core.storage.runs import SqliteRunStorage

    run = record.dagster_run
    shared = run.remote_job_origin is not None and not isinstance(instance.run_storage, SqliteRunStorage)
    if shared:
        return False
    # Steps have processes of their own, which may outlive the run's, and go on writing.
    kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_WORKER_STARTED}
    processes = [
        (int(str(event.dagster_event.engine_event_data.metadata["pid"].value)), event.timestamp)
        for event in instance.all_logs(run.run_id, of_type=kinds)
        if event.dagster_event is not None and "pid" in event.dagster_event.engine_event_data.metadata
    ]
    if not processes:
        return time.time() - record.update_timestamp.timestamp() > PROCESS_SECONDS
    return not any(_lives(pid, told) for pid, told in processes)


def _lives(pid: int, told: float) -> bool:
    """Whether the process that told of itself then lives. One that started later has its number and nothing else: in
    a container numbers begin anew."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= told and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
