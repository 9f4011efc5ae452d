"""The runtime of training jobs: when one is trained again, and what it reports (C68)."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from toy_job import Toy

from training.job import Job
from training.record import plain
from user_embeddings_dagster.storage.manifest import verify


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
