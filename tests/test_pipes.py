"""The hand-off to training jobs (C68), with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from resources.training_jobs import TrainingJobs

PIPES = "from dagster_pipes import open_dagster_pipes\n"
SCRIPTS = {
    "good": PIPES
    + "with open_dagster_pipes() as pipes:\n"
    + "    pipes.report_asset_materialization(metadata={'loss': 0.5}, data_version='v1')\n",
    "silent": PIPES + "with open_dagster_pipes() as pipes:\n    pass\n",
    "failing": "import sys\nprint('somebody@mail.example\\n[failing] disk is full', file=sys.stderr)\nsys.exit(3)\n",
    "endless": "import os, sys, time\nopen(sys.argv[4] + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n",
}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingJobs:
    package = tmp_path / "some_jobs"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, script in SCRIPTS.items():
        (package / f"{name}.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return TrainingJobs(package="some_jobs", termination_seconds=5)


def materialise(jobs: TrainingJobs, job: str, folder: Path) -> dg.ExecuteInProcessResult:
    @dg.asset
    def trained(context: dg.AssetExecutionContext, training_jobs: TrainingJobs) -> dg.MaterializeResult:
        return training_jobs.run(context, job, folder / "inputs", folder / "output")

    return dg.materialize([trained], resources={"training_jobs": jobs}, raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> str:
    event = next(event for event in result.all_events if event.is_step_failure)
    data = event.step_failure_data
    return f"{data.error} {data.user_failure_data.metadata if data.user_failure_data else ''}"


def test_what_a_job_reports_becomes_the_materialisation(jobs, tmp_path):
    result = materialise(jobs, "good", tmp_path)
    assert result.success
    metadata = result.asset_materializations_for_node("trained")[0].metadata
    assert metadata["loss"].value == 0.5


def test_a_job_that_exits_0_without_reporting_fails_its_asset(jobs, tmp_path):
    """C68: Dagster alone would call this a success."""
    result = materialise(jobs, "silent", tmp_path)
    assert not result.success
    assert "reported no result" in failure(result)
    assert not result.get_asset_materialization_events()


def test_a_failing_job_shows_the_end_of_its_log(jobs, tmp_path):
    result = materialise(jobs, "failing", tmp_path)
    assert not result.success
    assert "exited with code 3" in failure(result)
    assert "disk is full" in failure(result)
    assert "somebody" not in failure(result), "what libraries write may quote what they read"


def test_cancelling_the_run_ends_the_job(jobs, tmp_path):
    """C68: the child process is gone soon after the run is interrupted."""
    code = (
        "import sys; from pathlib import Path; import dagster as dg; from resources.training_jobs import TrainingJobs\n"
        "@dg.asset\n"
        "def trained(context: dg.AssetExecutionContext, training_jobs: TrainingJobs) -> dg.MaterializeResult:\n"
        "    folder = Path(sys.argv[1])\n"
        "    return training_jobs.run(context, 'endless', folder / 'inputs', folder / 'output')\n"
        "jobs = TrainingJobs(package='some_jobs', termination_seconds=5)\n"
        "dg.materialize([trained], resources={'training_jobs': jobs})\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    note = tmp_path / "output.pid"
    wait_for(lambda: note.exists() and note.read_text(), 60)
    child = int(note.read_text())
    run.send_signal(signal.SIGINT)
    run.wait(timeout=30)
    wait_for(lambda: not alive(child), 10)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_a_session_warns_of_nothing():
    """Dagster's own use of a preview of its own, at every training."""
    code = (
        "import dagster as dg; from dagster._core.pipes.context import PipesMessageHandler as Handler;"
        "Handler(None, dg.PipesTempFileMessageReader()); import warnings; {}"
        "Handler(None, dg.PipesTempFileMessageReader());"
        "warnings.warn('Function `another`', dg.PreviewWarning)"
    )
    without, filtered = (
        subprocess.run([sys.executable, "-W", "always", "-c", code.format(how)], capture_output=True, text=True).stderr
        for how in ("", "import resources.training_jobs;")
    )
    assert without.count("expected_writer_count`") == 2, "Dagster does not warn any more: take the filter away"
    assert filtered.count("expected_writer_count`") == 1
    assert "another" in filtered
