"""The event log with open connections: Dagster's own reads the same of it, and nothing that others do is missed."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage

from user_embeddings_dagster.event_log import PooledEventLog
from user_embeddings_dagster.runner import open_instance


@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="small")])
def small() -> dg.MaterializeResult:
    """One row per test."""
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[dg.AssetCheckResult(passed=True)])


JOB = dg.Definitions(assets=[small], jobs=[dg.define_asset_job("run_small")]).resolve_job_def("run_small")
ENGINE = dg.DagsterEventType.ENGINE_EVENT


@pytest.fixture
def home(tmp_path, monkeypatch):
    """What opening an instance says in the environment is gone after the test."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    return tmp_path / "dagster_home"


def plain(home: Path) -> dg.DagsterInstance:
    """As webserver and daemon open it."""
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))


def test_other_processes_read_every_event_at_once(home):
    """C67: with Dagster's own class, while the writer holds its connections."""
    with open_instance(home) as instance, plain(home) as reader:
        assert type(instance.event_log_storage) is PooledEventLog
        assert type(reader.event_log_storage) is SqliteEventLogStorage
        run = JOB.execute_in_process(instance=instance).run_id
        told = [entry.message for entry in reader.all_logs(run)]
        assert told == [entry.message for entry in instance.all_logs(run)] != []
        event = reader.get_latest_materialization_event(small.key)
        assert event is not None and event.run_id == run
        (check,) = reader.event_log_storage.get_asset_check_execution_history(next(iter(small.check_keys)), 5)
        assert check.run_id == run


def test_who_watches_a_run_is_told_of_each_event(home):
    """C67: the UI's live log. A write-ahead log grows beside the watched file."""
    seen, ended = [], threading.Event()

    def told(entry, cursor):
        seen.append(entry.message)
        if "last of them" in entry.message:
            ended.set()

    with open_instance(home) as instance, plain(home) as reader:
        run = instance.create_run_for_job(JOB)
        instance.report_engine_event("first of them", run)
        reader.event_log_storage.watch(run.run_id, None, told)
        instance.report_engine_event("last of them", run)
        assert ended.wait(20), seen
        reader.event_log_storage.end_watch(run.run_id, told)


def test_a_file_that_was_removed_is_begun_anew(home):
    """C17: nothing is written to, or read from, what retention or `dagster run wipe` unlinked."""
    with open_instance(home) as instance:
        run = JOB.execute_in_process(instance=instance).run_id
        file = home / "history" / "runs" / f"{run}.db"
        for path in file.parent.glob(f"{run}.db*"):
            path.unlink()
        assert instance.all_logs(run) == []
        instance.report_engine_event("again", instance.get_run_by_id(run))
        with plain(home) as reader:
            assert [entry.message for entry in reader.all_logs(run)] == ["again"]
        instance.event_log_storage.wipe()
        assert instance.all_logs(run) == []
        assert JOB.execute_in_process(instance=instance).success


def test_two_files_are_open_at_most_and_none_once_disposed(home):
    def held() -> set[str]:
        targets = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        return {path.name for path in targets if path.is_relative_to(home) and path.suffix == ".db"}

    with open_instance(home) as instance:
        runs = [JOB.execute_in_process(instance=instance).run_id for _ in range(3)]
        assert held() == {"index.db", f"{runs[-1]}.db"}
        assert instance.all_logs(runs[0])
        assert held() == {"index.db", f"{runs[0]}.db"}
    assert held() == set()
    assert not list(home.rglob("*.db-wal")), "what is read from the files alone is whole"


def test_a_runs_file_begins_as_dagster_would_make_it(home):
    """The second of a process is a copy: of the same tables, at the same revision, with a write-ahead log."""

    def described(path: Path) -> tuple:
        with sqlite3.connect(path) as file:
            tables = file.execute("select type, name, sql from sqlite_master order by name").fetchall()
            revision = file.execute("select * from alembic_version").fetchall()
            return tables, revision, file.execute("pragma journal_mode").fetchall()

    with open_instance(home) as instance:
        runs = [JOB.execute_in_process(instance=instance).run_id for _ in range(2)]
        begun = list((home / "history" / "runs").glob("*.begun*"))
    with plain(home) as instance:
        runs.append(JOB.execute_in_process(instance=instance).run_id)
    first, copied, dagsters = [described(home / "history" / "runs" / f"{run}.db") for run in runs]
    assert first == copied == dagsters and copied[2] == [("wal",)]
    assert not begun


def test_no_connection_is_carried_into_a_fork(home):
    with open_instance(home) as instance:
        run = instance.create_run_for_job(JOB)
        instance.report_engine_event("parent", run)
        child = os.fork()
        if not child:
            instance.report_engine_event("child", run)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        instance.report_engine_event("parent again", run)
        told = [entry.message for entry in instance.all_logs(run.run_id, of_type=ENGINE)]
        assert told == ["parent", "child", "parent again"]


WRITER = """
import sys
from pathlib import Path
from user_embeddings_dagster.runner import open_instance
with open_instance(Path(sys.argv[1])) as instance:
    for number in range(40):
        instance.report_engine_event(f"{sys.argv[3]} {number}", instance.get_run_by_id(sys.argv[2]))
"""


def test_two_processes_and_two_threads_lose_nothing(home):
    with open_instance(home) as instance:
        run = instance.create_run_for_job(JOB)

        def write(name: str) -> None:
            for number in range(40):
                instance.report_engine_event(f"{name} {number}", run)

        command = [sys.executable, "-c", WRITER, str(home), run.run_id]
        others = [subprocess.Popen([*command, name]) for name in ("third", "fourth")]
        threads = [threading.Thread(target=write, args=[name]) for name in ("first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in others] == [0, 0]
        told = [entry.message for entry in instance.all_logs(run.run_id, of_type=ENGINE)]
    names = ("first", "second", "third", "fourth")
    assert sorted(told) == sorted(f"{name} {number}" for name in names for number in range(40))


def test_a_storage_named_in_dagster_yaml_is_used(home):
    """C67: the operator's, not ours."""
    home.mkdir()
    (home / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {home / 'elsewhere'}\n")
    with open_instance(home) as instance:
        assert not isinstance(instance.event_log_storage, PooledEventLog)
        assert JOB.execute_in_process(instance=instance).success
    assert (home / "elsewhere" / "history").exists() and not (home / "history").exists()
