"""Retention: what is past its window is removed from every stage, Dagster's own records included."""

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from assets.exclusion import removing
from assets.live_runs import refuse_beside_runs
from assets.policies import PRIVACY
from assets.reporting import check_result, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.privacy.retention.purge import as_table, evidence, nothing_kept_too_long, purge
from user_embeddings_dagster.privacy.retention.stage import Found, Stage, Sweep
from user_embeddings_dagster.privacy.retention.windows import windows
from user_embeddings_dagster.schema import RETENTION_PURGES
from user_embeddings_dagster.settings import retention_setting

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class DagsterRuns:
    """Runs with their events, by when they ended. Those that hold the latest event of an asset's partition stay."""

    name = "dagster_runs"

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def find(self, sweep: Sweep) -> Found:
        """Ids are run ids; a run has no bytes of its own."""
        found, horizon = Found(), sweep.at.get(self.name)
        held = self._latest() if horizon else set()
        for record in self._instance.get_run_records(filters=dg.RunsFilter(statuses=ENDED)):
            ended = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
            if horizon and ended < horizon and record.dagster_run.run_id not in held:
                found.items[record.dagster_run.run_id] = 0
            elif record.dagster_run.run_id not in held:
                found.keep(1, ended)
        return found

    def _latest(self) -> set[str]:
        held = set[str]()
        fetchers = {
            dg.DagsterEventType.ASSET_MATERIALIZATION: self._instance.fetch_materializations,
            dg.DagsterEventType.ASSET_OBSERVATION: self._instance.fetch_observations,
        }
        for key in self._instance.all_asset_keys():
            latest = self._instance.get_latest_materialization_event(key)
            held |= {latest.run_id} if latest else set()
            for event_type, fetch in fetchers.items():
                ids = list(self._instance.get_latest_storage_id_by_partition(key, event_type).values())
                only = dg.AssetRecordsFilter(key, storage_ids=ids)
                held |= {record.run_id for record in fetch(only, limit=len(ids)).records} if ids else set()
        return held

    def remove(self, sweep: Sweep, found: Found) -> None:
        """The runs, their events, and the bytes of both in SQLite files (another database is its operator's)."""
        home = Path(self._instance.root_directory)
        for run in found.items:
            self._instance.delete_run(run)
            for path in (home / "history" / "runs").glob(f"{run}.db*"):
                path.unlink()
        for path in (home / "history" / "runs.db", home / "history" / "runs" / "index.db"):
            if found.items and path.exists():
                connection = sqlite3.connect(path, timeout=60)
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.close()


class ComputeLogs:
    """What steps printed, where the instance stores that (it does not by default), by when it was written."""

    name = "compute_logs"

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._home = Path(instance.root_directory)

    def find(self, sweep: Sweep) -> Found:
        """Ids are run ids."""
        found, horizon = Found(), sweep.at.get(self.name)
        for folder in sorted((self._home / "storage").glob("*/compute_logs")):
            files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            written = datetime.fromtimestamp(max((file.st_mtime for file in files), default=0), UTC)
            if horizon and written < horizon:
                found.items[folder.parent.name] = sum(file.st_size for file in files)
            else:
                found.keep(1, written)
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Whole folders."""
        for run in found.items:
            shutil.rmtree(self._home / "storage" / run, ignore_errors=True)


def stages(instance: dg.DagsterInstance) -> list[Stage]:
    """Those of a Dagster instance."""
    return [DagsterRuns(instance), ComputeLogs(instance)]


@dg.asset(
    group_name="privacy",
    owners=PRIVACY,
    kinds={"parquet"},
    code_version="1",
    metadata=table_metadata(RETENTION_PURGES),
    check_specs=domain_specs("retention_purges", nothing_kept_too_long),
)
@removing
def retention_purges(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult:
    """One row per stage of what is kept for a limited time: its window, what the last purge removed, what it kept.

    Materialising it purges. Refused while other runs are under way; killed, the next one finishes it.
    """
    refuse_beside_runs(context.instance, context.run.run_id)
    now = datetime.now(UTC)
    limits, more = windows(retention_setting()), stages(context.instance)
    purge(store.layout, limits, now, more, announce=context.log.info, executing="wait")
    before = store.lake.current(RETENTION_PURGES.name)
    frame = as_table(evidence(store.layout))
    commit = store.lake.commit(RETENTION_PURGES, frame)
    checks = [check_result(nothing_kept_too_long(frame, now), RETENTION_PURGES.name)]
    return table_result(RETENTION_PURGES, commit, reused=commit == before, checks=checks)
