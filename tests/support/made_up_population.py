"""A population whose words follow from their items: four groups, each around its own axis and with its own words.

With it a trained tiny decoder that writes these words, and a sequence encoder whose projected state is the pooled
history: all that the jobs of the personalised LLM read.
"""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from training.base_decoder import train as train_decoder
from training.job import STOPPED, Job, run
from training.sequence_features import ItemSpace
from training.sequence_model import SequenceModel, SequenceSettings
from training.sequence_training import save_encoder
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.schema import INSIGHT_TASKS
from user_embeddings_dagster.storage.manifest import finalise

GROUPS = (
    ("parrot", "feather", "beak", "nest"),
    ("engine", "piston", "gear", "brake"),
    ("violin", "chord", "melody", "opera"),
    ("granite", "quartz", "basalt", "marble"),
)
PEOPLE = {"train": 24, "valid": 12, "test": 12}
CHUNKS, ASKED, AXES = 6, 2, 12
"""Chunks of a user; how many of the last are asked about; dimension of an item."""
NEXT, FREE = "What does SUBJECT write next?", "What does SUBJECT say to this?\nP1: well then"
DECODER = {
    "seed": 0, "threads": 1, "vocabulary": 400, "hidden": 48, "layers": 2, "heads": 2, "key_value_heads": 1,
    "intermediate": 64, "length": 24, "batch_size": 8, "steps": 120, "learning_rate": 1e-2, "min_users_per_word": 2,
    "validations": 1, "valid_rows": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Population:
    """Tables and the folders of the models."""

    sequences: pl.DataFrame
    tasks: pl.DataFrame
    texts: pl.DataFrame
    decoder: Path
    encoder: Path

    def inputs(self, folder: Path, tasks: pl.DataFrame | None = None, **config: Any) -> Path:
        """Inputs folder of a job."""
        folder.mkdir(parents=True)
        self.sequences.write_parquet(folder / "sequences.parquet")
        (self.tasks if tasks is None else tasks).write_parquet(folder / "tasks.parquet")
        self.texts.write_parquet(folder / "texts.parquet")
        folders = {"decoder": str(self.decoder), "sequence_encoder": str(self.encoder)}
        (folder / "config.json").write_text(json.dumps({"seed": 0, "threads": 1, **folders, **config}))
        return folder


def group(user: int) -> int:
    """Group of the `user`-th of a split."""
    return user % len(GROUPS)


def histories() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Histories (mining.pairs.sequences) and chunk_id, text."""
    rng, rows, start = np.random.default_rng(0), [], datetime(2024, 1, 1, tzinfo=UTC)
    for split, people in PEOPLE.items():
        for user in range(people):
            for position in range(CHUNKS):
                vector = 0.15 * rng.standard_normal(AXES)
                vector[group(user)] += 1
                text = " ".join(rng.permutation(GROUPS[group(user)])[:3])
                at = start + timedelta(days=position, minutes=user)
                name = f"{split}{user}.{position}"
                rows.append(
                    {
                        "datadao": "zig", "user_id": f"{split}{user}", "split": split, "position": position,
                        "ended_at": at, "chunk_id": name, "window_id": name, "text": text,
                        "vector": (vector / np.linalg.norm(vector)).astype(np.float32).tolist(),
                    }
                )  # fmt: skip
    frame = pl.DataFrame(rows, schema_overrides={"vector": pl.List(pl.Float32)})
    return frame.drop("text"), frame.select("chunk_id", "text")


def insight_tasks(frame: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Of each user's last chunks: which of four texts, one of each group, comes next; and what SUBJECT says."""
    said, rows = dict(texts.iter_rows()), []
    for split, people in PEOPLE.items():
        for user in range(people):
            for position in range(CHUNKS - ASKED, CHUNKS):
                fours = user - group(user)
                order = np.random.default_rng((user, position)).permutation(len(GROUPS))
                chunks = [f"{split}{fours + int(other)}.{position}" for other in order]
                own = f"{split}{user}.{position}"
                same = {"datadao": "zig", "user_id": f"{split}{user}", "split": split, "chunk_id": own}
                same |= {"n_history": position, "reference": said[own], "status": "kept", "validator": "similarity"}
                rows.append({
                    **same, "task_id": content_id("next", own), "kind": "next_contribution", "question": NEXT,
                    "options": [said[chunk] for chunk in chunks], "option_chunk_ids": chunks,
                    "answer": chunks.index(own),
                })  # fmt: skip
                rows.append({
                    **same, "task_id": content_id("free", own), "kind": "answer_as_subject", "question": FREE,
                    "options": [], "option_chunk_ids": [], "answer": -1,
                })  # fmt: skip
    assert frame.height == sum(PEOPLE.values()) * CHUNKS
    return pl.DataFrame(rows, schema=INSIGHT_TASKS.schema)


def sequence_encoder(folder: Path) -> Path:
    """Untrained: its projected state is the pooled history, in the items' own axes."""
    folder.mkdir(parents=True)
    prior = np.full(AXES, AXES**-0.5, dtype=np.float32)
    space = ItemSpace.of_items(np.zeros(AXES, np.float32), np.eye(AXES, dtype=np.float32), prior, 0.7, 0.5)
    settings = SequenceSettings.of({"dimension": 2 * AXES, "seed": 0, "heads": 2, "width": 16, "dropout": 0.0})
    torch.manual_seed(0)
    save_encoder(folder, SequenceModel(settings, AXES, AXES), settings, space, {})
    finalise(folder)
    return folder


def decoder(folder: Path, frame: pl.DataFrame, texts: pl.DataFrame) -> Path:
    """Trained to write words of one group in a line, after SUBJECT's name, with and without the space after it."""
    folder.mkdir(parents=True)
    rows = frame.select("chunk_id", "user_id", "split").join(texts, on="chunk_id").filter(pl.col("split") != "test")
    space = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(" ")).otherwise(pl.lit("  "))
    said = pl.concat_str(pl.lit("\nSUBJECT:"), space, "text")
    talk = pl.lit(NEXT) + said + f"\n{FREE}" + said
    rows.with_columns(text=talk, own=talk).drop("chunk_id").write_parquet(folder / "chunks.parquet")
    (folder / "config.json").write_text(json.dumps(DECODER))
    return finished("base_decoder", train_decoder, folder, folder / "output")


def population(folder: Path) -> Population:
    """Everything, in `folder`."""
    frame, texts = histories()
    return Population(
        frame, insight_tasks(frame, texts), texts, decoder(folder / "decoder", frame, texts),
        sequence_encoder(folder / "encoder"),
    )  # fmt: skip


def finished(name: str, train: Callable[[Job], None], inputs: Path, output: Path) -> Path:
    """The output of a job, run in this process."""
    job = Job(name, inputs, output, "test")
    if job.prepare() is None:
        train(job)
    return job.output


def record(output: Path) -> dict[str, Any]:
    """What a job reported."""
    return json.loads((output / "job.json").read_bytes())["metadata"]


def metrics(output: Path, name: str) -> list[float]:
    """A metric, step by step."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def terminated(
    name: str, train: Callable[[Job], None], inputs: Path, output: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a job in this process until SIGTERM arrives during step `at`; the signals' handlers are put back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before, step = [signal.getsignal(number) for number in numbers], Job.step

    def stopping(self: Job, number: int, *arguments: Any, **values: float) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, number, *arguments, **values)

    try:
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
            patched.setattr(Job, "step", stopping)
            run(name, train, "test", ["--inputs", str(inputs), "--output", str(output)])
        assert stopped.value.code == STOPPED
        assert not output.exists()
    finally:
        signal.alarm(0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


SUPERVISED = {
    "steps": 24, "width": 32, "tokens": 4, "heads": 2, "axes": AXES, "max_states": 4, "batch_tasks": 8,
    "learning_rate": 5e-3, "size_penalty": 30.0, "dropout": 0.0, "validations": 2, "discriminant": False,
}  # fmt: skip
"""Sizes and steps of a supervised stage that finds the groups in seconds, by its steps alone."""
