"""F21: torch runs out of memory at a step: the job fails, and run again it ends with the undisturbed run's bytes."""

import json
import signal

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.damaged_models import encoders
from training import checkpoint, item_encoder
from training.job import run
from training.versions import ITEM_ENCODER
from user_embeddings_dagster.privacy.containment import ContainedError

SEQUENCE = {"dimension": 24, "heads": 2, "steps": 12, "batch_chunks": 128, "evaluate_every": 6, "patience": 99}


@pytest.fixture
def scarce(monkeypatch):
    """Make the optimizer's step of that number raise, once."""

    def at(number: int) -> None:
        step, calls = torch.optim.AdamW.step, []

        def failing(self, *arguments, **options):
            calls.append(1)
            if len(calls) == number:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return step(self, *arguments, **options)

        monkeypatch.setattr(torch.optim.AdamW, "step", failing)

    return at


def result(output):
    """Weights and metrics of a job's output."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix in (".safetensors", ".jsonl")}


@pytest.mark.parametrize("restored", [True, False])
def test_the_sequence_encoder_goes_on_from_its_last_step(
    samples, train_sequence_encoder, tmp_path, scarce, monkeypatch, restored
):
    """C68: with the random generators not restored (the broken twin) the result differs."""
    inputs = samples.write_inputs(tmp_path / "inputs", samples.sequences(), **SEQUENCE, checkpoint_seconds=0)
    whole = result(train_sequence_encoder(inputs, tmp_path / "whole"))
    scarce(8)
    with pytest.raises(ContainedError, match="OutOfMemoryError"):
        train_sequence_encoder(inputs, tmp_path / "output")
    assert not (tmp_path / "output").exists(), "no result, rather than half of one"
    assert len((tmp_path / "output.work" / "result" / "metrics.jsonl").read_text().splitlines()) == 7
    if not restored:
        monkeypatch.setattr(checkpoint, "restore_random_state", lambda state: None)
    same = result(train_sequence_encoder(inputs, tmp_path / "output")) == whole
    assert same is restored


def test_the_item_encoder_goes_on_from_its_last_step(tmp_path, scarce):
    """C68."""
    (tmp_path / "models").mkdir()
    base = encoders(tmp_path / "models")[0].folder
    generator, inputs = np.random.default_rng(0), tmp_path / "inputs"
    inputs.mkdir()
    n = 40
    vectors = generator.normal(size=(n, 16)).astype(np.float32)
    pl.DataFrame(
        {
            "chunk_id": [f"{i:032x}" for i in range(n)],
            "user_id": [f"user{i % 8}" for i in range(n)],
            "split": ["valid" if i % 5 == 0 else "train" for i in range(n)],
            "window_id": [f"w{i}" for i in range(n)],
            "text": ["SUBJECT: " + " ".join(f"w{w}" for w in generator.integers(0, 40, 8)) for _ in range(n)],
            "negatives": [[] for _ in range(n)],
        },
        schema_overrides={"negatives": pl.List(pl.String)},
    ).with_columns(
        positive_similarity=pl.lit(0.9),
        summary_vector=pl.Series(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).cast(pl.List(pl.Float32)),
    ).write_parquet(inputs / "pairs.parquet")
    settings = {"seed": 3, "base": str(base), "max_tokens": 16, "steps": 10, "batch_size": 8, "validations": 2}
    settings |= {"threads": 1, "checkpoint_seconds": 0, "top_layers": 1}
    (inputs / "config.json").write_text(json.dumps(settings))

    def train(output):
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
        before = [signal.getsignal(number) for number in numbers]
        try:
            run("item_encoder", item_encoder.train, ITEM_ENCODER, ["--inputs", str(inputs), "--output", str(output)])
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        return result(output)

    whole = train(tmp_path / "whole")
    scarce(6)
    with pytest.raises(ContainedError, match="OutOfMemoryError"):
        train(tmp_path / "output")
    assert not (tmp_path / "output").exists()
    assert train(tmp_path / "output") == whole
