"""The runtime of training jobs, on a job small enough to be killed many times."""

import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from training.job import Job
from training.record import plain
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.storage.manifest import verify

# A regression with dropout whose data come from numpy's and Python's global generators: exact only if all resume.
TOY = """
import os, random, signal, sys, time
import numpy as np
from training.job import run

def train(job):
    import torch
    from training import checkpoint
    from safetensors.torch import save_file
    options = job.config
    device = job.seed()
    if "forget" in options.get("broken", ""):
        checkpoint.restore_random_state = lambda state: None
    if "silent" in options.get("broken", ""):
        return
    (job.work / "pid").write_text(str(os.getpid()))
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    resumed = job.resume()
    if resumed:
        model.load_state_dict(resumed.state["model"])
        optimizer.load_state_dict(resumed.state["optimizer"])
    for step in range(resumed.step + 1 if resumed else 1, options["steps"] + 1):
        if step == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PAUSE)
        x = torch.from_numpy(np.random.standard_normal((8, 4))).float() * random.random()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        state = lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        job.step(step, options["steps"], state, loss=loss.item())
    save_file(model.state_dict(), job.result / "model.safetensors")
    value = float("nan") if "nan" in options.get("broken", "") else loss.detach().numpy()[()]
    job.finish({"end_loss": value}, data_version="v1", device=device)

if __name__ == "__main__":
    sys.argv = ["toy", *ARGUMENTS] if "ARGUMENTS" in globals() else sys.argv
    if "LOG" in globals():
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    KILL_AT = globals().get("KILL_AT", int(os.environ.get("KILL_AT", 0)))
    PAUSE = globals().get("PAUSE", float(os.environ.get("PAUSE", 0)))
    sys.exit(run("toy", train))
"""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "safetensors.torch", "training.checkpoint", "training.job"])


class Toy:
    """The toy job in one folder; each start is a fresh process (forked from a server that has torch loaded)."""

    def __init__(self, folder, steps=14, **config):
        self.folder = Path(folder)
        self.inputs, self.output = self.folder / "inputs", self.folder / "models" / "toy"
        self.inputs.mkdir(parents=True, exist_ok=True)
        config = {"seed": 3, "steps": steps, "threads": 1, "checkpoint_seconds": 0.0, **config}
        (self.inputs / "config.json").write_text(json.dumps(config))
        self.script = self.folder / "toy.py"
        self.script.write_text(TOY)
        self.arguments = ["--inputs", str(self.inputs), "--output", str(self.output)]

    def start(self, kill_at=0, pause=0.0):
        values = {
            "ARGUMENTS": self.arguments, "KILL_AT": kill_at, "PAUSE": pause, "LOG": str(self.folder / "log"),
        }  # fmt: skip
        process = FORKS.Process(target=runpy.run_path, args=(str(self.script), values, "__main__"))
        process.start()
        return process

    def run(self, **options):
        process = self.start(**options)
        process.join(60)
        return process.exitcode

    @property
    def log(self):
        return (self.folder / "log").read_text()

    @property
    def weights(self):
        return file_sha256(self.output / "model.safetensors")

    @property
    def checkpoints(self):
        return sorted((self.folder / "models" / "toy.work" / "checkpoints").glob("step-*"))

    def wait_for_checkpoint(self):
        deadline = time.monotonic() + 30
        while not self.checkpoints and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.checkpoints


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    toy = Toy(tmp_path_factory.mktemp("undisturbed"))
    assert toy.run() == 0
    return toy


def test_killed_at_random_steps_and_resumed_the_result_is_the_same(undisturbed, tmp_path):
    """C68: bit-exact resume on CPU after kill -9."""
    toy = Toy(tmp_path)
    for step in sorted(random.Random(os.getpid()).sample(range(1, 15), 3)):
        assert toy.run(kill_at=step) == -signal.SIGKILL
        assert not toy.output.exists(), "a killed job leaves no output"
    assert toy.run() == 0
    assert "resumed at step" in toy.log
    assert toy.weights == undisturbed.weights
    assert (toy.output / "metrics.jsonl").read_bytes() == (undisturbed.output / "metrics.jsonl").read_bytes()
    assert not toy.output.with_name("toy.work").exists()


def test_random_generators_that_are_not_restored_are_noticed(undisturbed, tmp_path):
    """Broken twin of the test above."""
    toy = Toy(tmp_path, broken="forget")
    assert toy.run(kill_at=8) == -signal.SIGKILL
    assert toy.run() == 0
    assert toy.weights != undisturbed.weights


def test_a_damaged_checkpoint_costs_some_steps_and_not_the_result(undisturbed, tmp_path):
    """C68: corrupted checkpoints are refused, the previous good one is used."""
    toy = Toy(tmp_path)
    assert toy.run(kill_at=9) == -signal.SIGKILL
    path = toy.checkpoints[-1] / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    assert toy.run() == 0
    assert "checkpoint refused" in toy.log and "resumed at step 7" in toy.log
    assert toy.weights == undisturbed.weights


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_job_saves_and_stops(undisturbed, tmp_path, number):
    """C68: cancel kills the job; what was trained is kept. Dagster's Pipes client sends SIGINT."""
    toy = Toy(tmp_path, checkpoint_seconds=3600)
    process = toy.start(pause=0.1)
    deadline = time.monotonic() + 30
    metrics = tmp_path / "models" / "toy.work" / "result" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not toy.checkpoints, "none was due yet"
    sent = time.monotonic()
    os.kill(process.pid, number)
    process.join(30)
    assert time.monotonic() - sent < 5
    assert process.exitcode == 143
    assert len(toy.checkpoints) == 1
    assert toy.run() == 0
    assert toy.weights == undisturbed.weights


def test_a_complete_result_is_not_trained_again_and_torch_is_not_imported(undisturbed):
    """C68: the same inputs and configuration return at once, from a shell as any other job."""
    before = (undisturbed.output / "manifest.json").stat().st_mtime_ns
    code = f"""
import runpy, sys
try:
    runpy.run_path({str(undisturbed.script)!r}, {{"ARGUMENTS": {undisturbed.arguments!r}}}, "__main__")
except SystemExit as stop:
    assert stop.code == 0
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    report, torch_loaded = done.stdout.splitlines()
    assert torch_loaded == "False"
    assert json.loads(report)["metadata"]["reused"] is True
    assert (undisturbed.output / "manifest.json").stat().st_mtime_ns == before


def test_the_report_accounts_for_time_memory_device_and_steps(undisturbed):
    record = json.loads((undisturbed.output / "job.json").read_text())
    metadata = record["metadata"]
    assert metadata["seconds"] > 0 and metadata["peak_memory_mb"] > 50
    assert (metadata["device"], metadata["threads"], metadata["steps"]) == ("cpu", 1, 14)
    assert isinstance(metadata["end_loss"], float), "numpy scalars become Python's"
    verify(undisturbed.output)


def test_seconds_add_up_over_resumed_runs(tmp_path):
    toy = Toy(tmp_path, steps=6)
    assert toy.run(kill_at=6, pause=0.3) == -signal.SIGKILL
    assert toy.run() == 0
    assert json.loads((toy.output / "job.json").read_text())["metadata"]["seconds"] > 1.2


def test_a_damaged_result_is_made_again(undisturbed, tmp_path):
    toy = Toy(tmp_path)
    assert toy.run() == 0
    path = toy.output / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert toy.run() == 0
    assert "refused and made again" in toy.log
    assert toy.weights == undisturbed.weights


def test_another_configuration_starts_afresh_and_replaces_the_result(tmp_path):
    toy = Toy(tmp_path, steps=8)
    assert toy.run() == 0
    first = toy.weights
    toy = Toy(tmp_path, steps=9)
    assert toy.run(kill_at=5) == -signal.SIGKILL
    assert toy.weights == first, "the old result stands until the new one is whole"
    toy = Toy(tmp_path, steps=10)
    assert toy.run() == 0
    assert "resumed" not in toy.log, "checkpoints of another configuration are not resumed from"
    assert len((toy.output / "metrics.jsonl").read_text().splitlines()) == 10


def test_changed_inputs_are_another_job(tmp_path):
    toy = Toy(tmp_path, steps=3)

    def fingerprint():
        return Job("toy", toy.inputs, toy.output, "1").fingerprint

    before = fingerprint()
    (toy.inputs / "rows.parquet").write_bytes(b"rows")
    assert fingerprint() != before
    config = json.loads((toy.inputs / "config.json").read_text())
    with_rows = fingerprint()
    (toy.inputs / "config.json").write_text(json.dumps(config | {"threads": 7}))
    assert fingerprint() == with_rows, "how it is executed does not change what it is"
    assert Job("toy", toy.inputs, toy.output, "2").fingerprint != with_rows


@pytest.mark.parametrize(("broken", "complaint"), [("nan", "end_loss is nan"), ("silent", "without a report")])
def test_a_job_that_has_nothing_true_to_report_fails(tmp_path, broken, complaint):
    """C68: exit 0 without a finite report does not exist."""
    toy = Toy(tmp_path, steps=2, broken=broken)
    assert toy.run() == 1
    assert complaint in toy.log
    assert not toy.output.exists()


def test_two_processes_on_one_output_make_one_result(tmp_path):
    toy = Toy(tmp_path, steps=10)
    first = toy.start(pause=0.1)
    toy.wait_for_checkpoint()
    assert toy.run() == 0
    first.join(60)
    assert first.exitcode == 0
    assert "waiting for it" in toy.log and "nothing to train" in toy.log


def test_what_comes_before_the_first_step_is_not_counted_in_the_estimate(tmp_path, capsys, monkeypatch):
    """The start validation of a slow encoder made it 20 minutes of 60 seconds."""
    clock = iter([0.0, 100.0, 110.0, 120.0])
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "config.json").write_text("{}")
    monkeypatch.setattr("training.job.time.monotonic", lambda: next(clock))
    job = Job("toy", tmp_path / "inputs", tmp_path / "output", "1")
    job.result.mkdir(parents=True)
    for step in (1, 2, 3):
        job.step(step, 60, loss=0.5)
    assert capsys.readouterr().err.splitlines() == [
        "[toy] step 1/60 loss 0.5", "[toy] step 2/60 loss 0.5 0.1 steps/s 580 s left",
        "[toy] step 3/60 loss 0.5 0.1 steps/s 570 s left",
    ]  # fmt: skip


def test_plain_values():
    assert plain({"a": np.float32(0.5), "b": [np.int64(2), "x", None, True]}, "m") == {
        "a": 0.5,
        "b": [2, "x", None, True],
    }
    with pytest.raises(ValueError, match="m: a is inf"):
        plain({"a": np.float64("inf")}, "m")
    with pytest.raises(TypeError, match="m: a: set"):
        plain({"a": {1}}, "m")


DAGSTER = """
import json, sys
import dagster as dg

script, *arguments = json.loads(sys.argv[1])

@dg.asset
def toy(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient):
    command = [sys.executable, "-P", script, *arguments]
    return pipes.run(command=command, context=context).get_materialize_result(implicit_materialization=False)

result = dg.materialize([toy], resources={"pipes": dg.PipesSubprocessClient()}, raise_on_error=False)
events = result.asset_materializations_for_node("toy") if result.success else []
print(json.dumps([{k: v.value for k, v in event.metadata.items()} | {"tags": event.tags} for event in events]))
sys.exit(not result.success)
"""


def _under_dagster(toy, **environment):
    arguments = json.dumps([str(toy.script), *toy.arguments])
    home = toy.folder / "dagster_home"
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", DAGSTER, arguments],
        env={**os.environ, "DAGSTER_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_under_pipes_one_materialisation_with_metadata_and_live_log(undisturbed, tmp_path):
    """C68: the same job under Dagster Pipes gives the same weights, its log and its metadata."""
    toy = Toy(tmp_path)
    process = _under_dagster(toy)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (metadata,) = json.loads(out.splitlines()[-1])
    assert metadata["device"] == "cpu" and metadata["steps"] == 14 and metadata["seconds"] > 0
    assert metadata["tags"]["dagster/data_version"] == "v1"
    assert "step 14/14 loss" in err
    assert toy.weights == undisturbed.weights


def test_the_job_dies_with_its_dagster_run(tmp_path):
    """C68: kill -9 of the run leaves no orphan."""
    toy = Toy(tmp_path, steps=1000)
    process = _under_dagster(toy, PAUSE="0.1")
    toy.wait_for_checkpoint()
    job = int((tmp_path / "models" / "toy.work" / "pid").read_text())
    os.kill(job, 0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while _alive(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(job)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False
