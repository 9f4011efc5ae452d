"""Erasing and purging wait for runs under way."""

import os
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
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


def started(home, pid: int | None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
    """A run under way, in a process if one is known."""
    with opened(home) as instance:

        @dg.op
        def wait():
            return None

        @dg.job
        def waiting():
            wait()

        origin = None
        if status == dg.DagsterRunStatus.QUEUED:  # there is no queue but the daemon's
            location = RegisteredCodeLocationOrigin("location")
            origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "repository"), "waiting")
        run = instance.create_run_for_job(waiting, status=status, remote_job_origin=origin)
        if pid is not None:
            instance.report_engine_event("executing", run, EngineEventData.in_process(pid))
        return run.run_id


def test_nothing_is_removed_beside_a_run_unless_forced(home, capsys):
    run = started(home, os.getpid())
    data = ["--data", str(home.parent)]
    for command in (["purge"], ["erase", "f" * 32]):
        assert cli.main([*data, *command]) == 2
        assert "1 runs of the platform are under way" in (said := capsys.readouterr().err) and run[:8] in said
    assert cli.main([*data, "purge", "--dry-run"]) == 0
    assert cli.main([*data, "purge", "--force"]) == 0
    assert "dagster_runs" in capsys.readouterr().out
    with opened(home) as instance:
        left = instance.get_run_by_id(run)
        assert left is not None and left.status == dg.DagsterRunStatus.STARTED  # it was not ended by looking


def test_a_run_whose_process_was_killed_is_not_waited_for(home):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    started(home, dead.pid)
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


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED])
def test_a_run_that_is_about_to_start_is_waited_for_too(home, status):
    run = started(home, None, status)
    with opened(home) as instance:
        assert live_runs(instance) == [run]


def test_runs_of_the_environments_instance_are_seen(home, tmp_path, capsys):
    """DAGSTER_HOME need not be the data root's own; runs of `demo` are recorded there all the same."""
    run = started(home, os.getpid())
    assert cli.main(["--data", str(tmp_path / "elsewhere"), "purge"]) == 2
    assert run[:8] in capsys.readouterr().err
    assert cli.main(["--data", str(tmp_path / "elsewhere"), "purge", "--force"]) == 0
