"""Erasing and purging wait for runs under way."""

import os
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from assets.live_runs import RunsUnderWay, live_runs, open_home, refuse_beside_runs
from user_embeddings_dagster import cli
from user_embeddings_dagster.runner import open_instance


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    open_instance(tmp_path / "dagster_home").dispose()
    return tmp_path / "dagster_home"


def opened(home) -> dg.DagsterInstance:
    instance = open_home(home)
    assert instance is not None
    return instance


ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("location"), "repository"), "waiting")


def recorded(
    instance: dg.DagsterInstance, pid: int | None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    daemon: bool = False, told: float | None = None,
) -> str:  # fmt: skip
    """A run under way, in a process if one is known, which told of itself now or at another time."""

    @dg.op
    def wait():
        return None

    @dg.job
    def waiting():
        wait()

    run = instance.create_run_for_job(waiting, status=status, remote_job_origin=ORIGIN if daemon else None)
    if pid is not None:
        data = EngineEventData.in_process(pid)
        event = DagsterEvent(dg.DagsterEventType.ENGINE_EVENT.value, "waiting", event_specific_data=data, message="on")
        instance.report_dagster_event(event, run.run_id, timestamp=told)
    return run.run_id


def started(home, pid: int | None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED, **told) -> str:
    with opened(home) as instance:
        return recorded(instance, pid, status, **told)


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_nothing_is_removed_beside_a_run_unless_forced(home, capsys):
    run = started(home, os.getpid())
    data = ["--data", str(home.parent)]
    for command in (["purge"], ["erase", "f" * 32]):
        assert cli.main([*data, *command]) == 2
        assert "1 run of the platform is under way" in (said := capsys.readouterr().err) and run[:8] in said
    assert cli.main([*data, "purge", "--dry-run"]) == 0
    assert cli.main([*data, "purge", "--force"]) == 0
    assert "dagster_runs" in capsys.readouterr().out
    with opened(home) as instance:
        left = instance.get_run_by_id(run)
        assert left is not None and left.status == dg.DagsterRunStatus.STARTED  # it was not ended by looking


@pytest.mark.parametrize("daemon", [False, True])
def test_a_run_whose_process_was_killed_is_not_waited_for(home, dead, daemon):
    started(home, dead, daemon=daemon)
    with opened(home) as instance:
        assert live_runs(instance) == []
    unknown = started(home, None)
    with opened(home) as instance:
        assert live_runs(instance) == [unknown]  # nothing is assumed of it
        refuse_beside_runs(instance, unknown)
        with pytest.raises(RunsUnderWay):
            refuse_beside_runs(instance)


def test_without_an_instance_nothing_runs(tmp_path):
    assert open_home(tmp_path / "dagster_home") is None


def test_a_process_that_has_a_killed_ones_number_is_another(home):
    """In a container that was started again, the number is often the very same."""
    born = psutil.Process().create_time()
    started(home, os.getpid(), told=born - 1)
    own = started(home, os.getpid(), told=born + 0.1)
    with opened(home) as instance:
        assert live_runs(instance) == [own]


def test_a_process_that_nobody_has_reaped_is_dead(home):
    zombie = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    started(home, zombie.pid)
    with opened(home) as instance:
        assert live_runs(instance) == []
    zombie.wait()


def test_what_executes_a_step_may_outlive_what_started_it(home, dead):
    run = started(home, dead, daemon=True)
    with opened(home) as instance:
        metadata = {"pid": dg.MetadataValue.text(str(os.getpid()))}
        kind = dg.DagsterEventType.STEP_WORKER_STARTED.value
        event = DagsterEvent(kind, "waiting", event_specific_data=EngineEventData(metadata), message="step")
        instance.report_dagster_event(event, run)
        assert live_runs(instance) == [run]


def test_of_a_daemons_run_nothing_is_assumed_where_machines_share_the_record(dead):
    """Only a database can be shared; no event tells on which machine a process was."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = recorded(instance, dead, daemon=True)
        recorded(instance, dead)
        assert live_runs(instance) == [run]


@pytest.mark.parametrize(("status", "daemon"), [("NOT_STARTED", False), ("STARTED", False), ("STARTING", True)])
def test_a_run_without_a_process_for_an_hour_has_none(home, monkeypatch, status, daemon):
    run = started(home, None, dg.DagsterRunStatus[status], daemon=daemon)
    now = time.time()
    with opened(home) as instance:
        monkeypatch.setattr(time, "time", lambda: now + 3500)
        assert live_runs(instance) == [run]
        monkeypatch.setattr(time, "time", lambda: now + 3700)
        assert live_runs(instance) == []


def test_a_run_that_is_about_to_start_is_waited_for_too(home):
    run = started(home, None, dg.DagsterRunStatus.NOT_STARTED)
    with opened(home) as instance:
        assert live_runs(instance) == [run]


def test_a_run_in_the_queue_is_not_waited_for(home):
    """Where `dev` was ended it would stay there for good; its assets wait (test_exclusion)."""
    started(home, None, dg.DagsterRunStatus.QUEUED, daemon=True)
    (home.parent / "landing").mkdir()
    assert cli.main(["--data", str(home.parent), "purge"]) == 0


def test_runs_of_the_environments_instance_are_seen(home, tmp_path, capsys):
    """DAGSTER_HOME need not be the data root's own; runs of `demo` are recorded there all the same."""
    run = started(home, os.getpid())
    (tmp_path / "elsewhere" / "landing").mkdir(parents=True)
    assert cli.main(["--data", str(tmp_path / "elsewhere"), "purge"]) == 2
    assert run[:8] in capsys.readouterr().err
    assert cli.main(["--data", str(tmp_path / "elsewhere"), "purge", "--force"]) == 0
