import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from training import checkpoint
from training.record import read
from training.sequence_training import settings_of
from user_embeddings_dagster.storage.manifest import verify

CONFIG = {"dimension": 24, "heads": 2, "steps": 30, "batch_chunks": 128, "evaluate_every": 10, "patience": 99}


@pytest.fixture(scope="module")
def frame(samples):
    return samples.sequences()


@pytest.fixture(scope="module")
def output(samples, frame, train_sequence_encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("sequence")
    return train_sequence_encoder(samples.write_inputs(root / "inputs", frame, **CONFIG), root / "output")


def _record(output):
    return json.loads((output / "job.json").read_text())


def test_a_misspelt_setting_is_refused():
    assert settings_of({"dimension": 24, "seed": 0, "threads": 1, "dp_noise": 0.0})[0].dimension == 24
    with pytest.raises(ValueError, match=r"unknown settings .'temprature'"):
        settings_of({"dimension": 24, "seed": 0, "temprature": 1.0})


def test_the_result_is_whole_and_says_what_it_is(output):
    verify(output)
    described = json.loads((output / "encoder.json").read_text())
    assert described["version"] == _record(output)["data_version"]
    assert described["settings"]["dimension"] == 24
    assert all(np.isfinite(tensor).all() for tensor in load_file(output / "model.safetensors").values())


def test_loss_falls_and_is_reported_beside_that_of_knowing_nothing(output, frame):
    """C34: start, end, chance, and the best validation scores."""
    metadata = _record(output)["metadata"]
    assert metadata["end_loss"] < metadata["start_loss"]
    n_train = frame.filter(pl.col("split") == "train").height
    at_chance = 2 * (1 - n_train**-0.5)  # (1 - p^q) / q of the right one among all, q = truncation = 1/2
    assert 0.9 * at_chance < metadata["loss_at_chance"] < at_chance
    assert metadata["valid_mrr_best"] >= metadata["valid_mrr_start"], "the best weights are kept, the start included"
    assert metadata["train_users"] == 32 and metadata["valid_users"] == 8
    lines = read(output / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["step"] for line in lines if "valid_mrr" in line] == [10, 20, 30]


def test_the_same_inputs_give_the_same_version(samples, frame, output, train_sequence_encoder, tmp_path):
    inputs = samples.write_inputs(tmp_path / "inputs", frame, **CONFIG)
    again = train_sequence_encoder(inputs, tmp_path / "output")
    assert _record(again)["data_version"] == _record(output)["data_version"]
    other = samples.write_inputs(tmp_path / "inputs", frame, **{**CONFIG, "seed": 6})
    assert (
        _record(train_sequence_encoder(other, tmp_path / "output"))["data_version"] != _record(output)["data_version"]
    )


@pytest.mark.parametrize("restored", [True, False])
def test_a_killed_training_resumes_to_the_same_weights(
    samples, frame, output, train_sequence_encoder, tmp_path, monkeypatch, restored
):
    """C68: kill -9 from outside at a random moment, then resumed; dropout makes the broken twin differ."""
    inputs = samples.write_inputs(tmp_path / "inputs", frame, **CONFIG, checkpoint_seconds=0)
    command = ["-m", "training.sequence_encoder", "--inputs", inputs, "--output", tmp_path / "output"]
    process = subprocess.Popen(
        [sys.executable, "-P", *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    saved = tmp_path / "output.work" / "checkpoints"
    wanted = random.Random(os.getpid()).randrange(1, 20)
    while process.poll() is None and not any(int(p.name[5:]) >= wanted for p in saved.glob("step-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still training"
    if not restored:
        monkeypatch.setattr(checkpoint, "restore_random_state", lambda state: None)
    train_sequence_encoder(inputs, tmp_path / "output")
    same = _record(tmp_path / "output")["data_version"] == _record(output)["data_version"]
    assert same is restored


def test_early_stopping_keeps_the_best(samples, frame, train_sequence_encoder, tmp_path):
    config = CONFIG | {"steps": 200, "learning_rate": 0.05, "evaluate_every": 2, "patience": 2}
    inputs = samples.write_inputs(tmp_path / "inputs", frame, **config)
    metadata = _record(train_sequence_encoder(inputs, tmp_path / "output"))["metadata"]
    assert metadata["trained_steps"] < 200
    assert metadata["trained_steps"] - metadata["best_step"] == 4


def test_a_test_user_never_enters(samples, frame, train_sequence_encoder, tmp_path):
    """C35, law 7: no test user's chunk reaches a trained part."""
    tainted = frame.with_columns(split=pl.when(pl.col("position") == 3).then(pl.lit("test")).otherwise(pl.col("split")))
    with pytest.raises(ValueError, match="only train and valid"):
        train_sequence_encoder(samples.write_inputs(tmp_path / "inputs", tainted, **CONFIG), tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_no_training_users_is_an_error(samples, frame, train_sequence_encoder, tmp_path):
    nobody = frame.filter(pl.col("split") == "valid")
    with pytest.raises(ValueError, match="no training users"):
        train_sequence_encoder(samples.write_inputs(tmp_path / "inputs", nobody, **CONFIG), tmp_path / "output")


def test_it_trains_without_validation_users_and_on_single_chunks(samples, train_sequence_encoder, tmp_path):
    singles = samples.sequences(users=12, longest=1, valid_share=0)
    config = CONFIG | {"steps": 3}
    output = train_sequence_encoder(samples.write_inputs(tmp_path / "inputs", singles, **config), tmp_path / "output")
    metadata = _record(output)["metadata"]
    assert metadata["valid_users"] == 0 and "valid_mrr_best" not in metadata
    assert metadata["steps"] == 3
