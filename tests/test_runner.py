"""Runs in one process: what a killed one leaves behind does not hold up the next."""

import os
import signal
import subprocess
import sys
import time

import dagster as dg

from user_embeddings_dagster.runner import open_instance

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


@dg.op(pool="gpu")
def takes_the_slot() -> str:
    """The next run's work on the same device."""
    return "done"


@dg.job
def following():
    """The next run."""
    takes_the_slot()


def test_a_killed_run_frees_its_pool_slots(tmp_path, monkeypatch):
    """C67: after `kill -9` of an in-process run, the next one is not left waiting for its slot of the `gpu` pool."""
    home, holding = tmp_path / "dagster_home", tmp_path / "holding"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(home), str(holding)], start_new_session=True)
    while not holding.exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

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
