"""Sequence encoders trained for an attack: by the job itself, on chosen histories, in a folder that goes."""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.measure import SequenceModel


@contextlib.contextmanager
def trained_encoder(
    histories: Histories, split: np.ndarray, datadaos: np.ndarray, settings: dict[str, object]
) -> Iterator[tuple[SequenceModel, dict[str, Any]]]:
    """The encoder and the job's metadata. split [n_histories]: "train", "valid" or "" (left out); datadaos alike."""
    from training.job import Job
    from training.sequence_inference import SequenceEncoder
    from training.sequence_training import train

    row = histories.history_of_row
    frame = pl.DataFrame(
        {
            "datadao": datadaos[row],
            "user_id": histories.user_ids[row],
            "split": split[row],
            "position": histories.positions,
            "ended_at": pl.Series(histories.ended * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "chunk_id": histories.chunk_ids,
            "window_id": histories.chunk_ids,
            "vector": pl.Series(histories.vectors).cast(pl.List(pl.Float32)),
        }
    ).filter(pl.col("split") != "")
    with tempfile.TemporaryDirectory(prefix="shadow-") as name:
        inputs, output = Path(name) / "inputs", Path(name) / "output"
        inputs.mkdir()
        frame.write_parquet(inputs / "sequences.parquet")
        (inputs / "config.json").write_text(json.dumps({"threads": 1, **settings}))
        job = Job("sequence_encoder", inputs, output, "benchmark")
        job.prepare()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            train(job)
        metadata = json.loads((output / "job.json").read_text())["metadata"]
        yield SequenceModel(SequenceEncoder.load(output)), metadata
