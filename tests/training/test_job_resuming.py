"""C68: killed or cancelled, a job resumes bit for bit; a damaged checkpoint costs steps alone."""

import json
import os
import random
import signal
import time

import pytest
from toy_job import Toy


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


def test_seconds_add_up_over_resumed_runs(tmp_path):
    toy = Toy(tmp_path, steps=6)
    assert toy.run(kill_at=6, pause=0.3) == -signal.SIGKILL
    assert toy.run() == 0
    assert json.loads((toy.output / "job.json").read_text())["metadata"]["seconds"] > 1.2
