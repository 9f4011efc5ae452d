"""Runs in one process: what a killed one leaves behind does not hold up the next."""

import os
import signal
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from user_embeddings_dagster.runner import open_instance, register_drops
from user_embeddings_dagster.settings import Layout

KILLED = """
import sys, time
import dagster as dg
from pathlib import Path
from user_embeddings_dagster.runner import open_instance

@dg.op(pool="gpu")
def holds_the_slot(context):
    Path(sys.argv[2]).touch()
    time.sleep(60)

@dg.job
def killed():
    holds_the_slot()

with open_instance(Path(sys.argv[1])) as instance:
    killed.execute_in_process(instance=instance)
"""


@pytest.fixture(autouse=True)
def own_home(monkeypatch):
    """What opening an instance says in the environment is gone after the test."""
    monkeypatch.setenv("DAGSTER_HOME", "")


@dg.op(pool="gpu")
def takes_the_slot() -> str:
    """The next run's work on the same device."""
    return "done"


@dg.job
def following():
    """The next run."""
    takes_the_slot()


@pytest.fixture
def holder(tmp_path):
    """A process whose run holds the slot."""
    home, holding = tmp_path / "dagster_home", tmp_path / "holding"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(home), str(holding)], start_new_session=True)
    while not holding.exists():
        assert process.poll() is None
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        killed(process)


def killed(process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_whose_process_lives_goes_on(holder, tmp_path):
    """C67: opening the UI, or starting again, beside a run under way takes nothing from it."""
    with open_instance(tmp_path / "dagster_home") as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 1


def test_what_an_ended_run_waits_for_is_not_kept_for_it(tmp_path):
    """C67: a step of a run that was ended, which was next in line for the pool's only slot, does not keep it."""
    with open_instance(tmp_path / "dagster_home") as instance:
        ended = following.execute_in_process(instance=instance).run_id
        storage = instance.event_log_storage
        assert storage.claim_concurrency_slot("gpu", ended, "takes_the_slot").is_claimed
        storage.claim_concurrency_slot("gpu", ended, "another_step")
        assert storage.get_concurrency_info("gpu").pending_step_count == 1
    with open_instance(tmp_path / "dagster_home") as instance:
        pool = instance.event_log_storage.get_concurrency_info("gpu")
        assert (pool.active_slot_count, pool.pending_step_count) == (0, 0)


@pytest.mark.parametrize("lives", [False, True])
def test_a_daemons_run_that_died_with_its_host_frees_its_pool_slots(tmp_path, lives):
    """C67: the daemon that watched it is gone too. One whose process lives is left alone."""
    home = tmp_path / "dagster_home"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    location = RegisteredCodeLocationOrigin("location")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "repository"), "following")
    with open_instance(home) as instance:
        run = instance.create_run_for_job(following, status=dg.DagsterRunStatus.STARTED, remote_job_origin=origin)
        time.sleep(0.1)  # the kernel's clock of processes ticks a hundred times a second
        instance.report_engine_event("executing", run, EngineEventData.in_process(process.pid))
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("gpu")
        assert storage.claim_concurrency_slot("gpu", run.run_id, "takes_the_slot").is_claimed
    if not lives:
        process.kill()
        process.wait()
    with open_instance(home) as instance:
        (run,) = instance.get_runs()
        assert run.status == (dg.DagsterRunStatus.STARTED if lives else dg.DagsterRunStatus.FAILURE)
        assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == int(lives)
    process.kill()
    process.wait()


def test_a_killed_run_frees_its_pool_slots(holder, tmp_path, monkeypatch):
    """C67: after `kill -9` of an in-process run, the next one is not left waiting for its slot of the `gpu` pool."""
    home = tmp_path / "dagster_home"
    killed(holder)

    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        held = instance.event_log_storage.get_concurrency_info("gpu")
        assert held.active_slot_count == 1, "the killed run holds the pool's only slot"
    started = time.monotonic()
    with open_instance(home) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
        assert following.execute_in_process(instance=instance).success
    assert time.monotonic() - started < 60


def test_folders_whose_names_are_no_datadaos_are_told(tmp_path):
    layout, said = Layout(tmp_path), []
    for name in ("reddit", "My Chats"):
        (layout.landing / name).mkdir(parents=True)
        (layout.landing / name / "a.json").write_text("{}")
    with dg.DagsterInstance.ephemeral() as instance:
        assert register_drops(instance, layout, said.append) == ["reddit"]
        (layout.landing / "all").mkdir()
        register_drops(instance, layout, said.append)
    assert [line.rpartition("): ")[2] for line in said] == ["1", "2"]
    assert said[0].startswith("folders below landing/ passed over (a DataDAO's name is [a-z0-9_-]")
