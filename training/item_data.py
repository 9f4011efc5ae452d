"""The item encoder's training pairs as arrays, and the batches of each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from user_embeddings_dagster.embedding.base_model import tokenize
from user_embeddings_dagster.storage.lance_tables import stacked


@dataclass(frozen=True)
class Pairs:
    """Row-aligned pairs of one split, by chunk_id.

    `tokens` of the chunks, their `lengths` [n], unit `summaries` [n, d] (frozen targets), `limit` [n]:
    summaries more similar than this to the row's own are false negatives; `negatives`: rows of the mined
    ones.
    """

    tokens: list[list[int]]
    lengths: np.ndarray
    summaries: torch.Tensor
    limit: torch.Tensor
    negatives: list[np.ndarray]
    users: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Candidates:
    """What the queries of one step compete over: vectors [m, d], each query's positive [n], allowed [n,
    m]."""

    vectors: torch.Tensor
    positives: torch.Tensor
    allowed: torch.Tensor


def load(path: Path, tokenizer: Any, max_tokens: int, margin: float) -> dict[str, Pairs]:
    """Pairs of the splits "train" and "valid" from a Parquet file.

    Columns: chunk_id, user_id, split, text, summary_vector, positive_similarity (cosine of the chunk's
    base vector to its summary's), negatives (list of chunk_id). Raises ValueError if the file holds any
    other split: a test user's text must not come near a trained part; or if a negative is no training chunk.
    """
    frame = pl.read_parquet(path).sort("chunk_id")
    if others := sorted(set(frame["split"].unique()) - {"train", "valid"}):
        raise ValueError(f"{path}: splits {others} must not be trained on")
    parts = {split: frame.filter(pl.col("split") == split) for split in ("train", "valid")}
    return {split: _pairs(part, tokenizer, max_tokens, margin) for split, part in parts.items()}


def _pairs(frame: pl.DataFrame, tokenizer: Any, max_tokens: int, margin: float) -> Pairs:
    tokens = tokenize(tokenizer, frame["text"].to_list(), max_tokens) if frame.height else []
    return Pairs(
        tokens=tokens,
        lengths=np.array([len(row) for row in tokens]),
        summaries=torch.tensor(stacked(frame["summary_vector"])),
        limit=torch.tensor(margin * frame["positive_similarity"].cast(pl.Float32).to_numpy()),
        negatives=_negative_rows(frame),
        users=frame["user_id"].n_unique(),
    )


def _negative_rows(frame: pl.DataFrame) -> list[np.ndarray]:
    place = dict(zip(frame["chunk_id"], range(frame.height), strict=True))
    try:
        return [np.array([place[id_] for id_ in ids], dtype=np.int64) for ids in frame["negatives"].to_list()]
    except KeyError:
        raise ValueError("a mined negative is not among the pairs of its split") from None


def batch_rows(n: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Rows of the batch of 0-based `step`: a function of the seed and the step alone, so nothing needs
    resuming.

    Every epoch is a new permutation cut into batches; a last incomplete one is left out. Lengths are mixed in
    a batch, so that its loss says something about all: the pieces it is encoded in are sorted by length.
    """
    size = min(batch_size, n)
    epoch, index = divmod(step, n // size)
    return np.random.default_rng([seed, epoch]).permutation(n)[index * size : (index + 1) * size]


def candidates(pairs: Pairs, rows: np.ndarray, negatives: int, seed: int, step: int) -> Candidates:
    """The summaries of the batch and up to `negatives` mined ones of each row, drawn by seed and step.

    A candidate whose summary is more similar to the row's own than the row's limit does not compete with it.
    """
    generator = np.random.default_rng([seed, step, 1])
    mined = [generator.permutation(pairs.negatives[row])[:negatives] for row in rows]
    pool = np.unique(np.concatenate([rows, *mined]))
    positives = torch.from_numpy(np.searchsorted(pool, rows))
    return _compete(pairs, rows, pool, positives)


def all_candidates(pairs: Pairs, rows: Sequence[int] | np.ndarray) -> Candidates:
    """Every summary of the split as candidate of the given rows."""
    rows = np.asarray(rows)
    return _compete(pairs, rows, np.arange(len(pairs)), torch.from_numpy(rows))


def _compete(pairs: Pairs, rows: np.ndarray, pool: np.ndarray, positives: torch.Tensor) -> Candidates:
    vectors = pairs.summaries[pool]
    allowed = pairs.summaries[rows] @ vectors.T <= pairs.limit[rows].unsqueeze(1)
    allowed[torch.arange(len(rows)), positives] = True
    return Candidates(vectors, positives, allowed)
