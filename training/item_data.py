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

    `tokens` of the chunks, their `lengths` [n], unit `summaries` [n, d] (frozen targets); `positives` [n]: the row
    whose summary is the target, its own unless it was relabelled; `queries`: rows that are trained on, the others'
    summaries only compete. Summaries more similar than `limit` [n] to the row's own, or than `positive_limit` [n] to
    its positive, are false negatives; `negatives`: rows of the mined ones.
    """

    tokens: list[list[int]]
    lengths: np.ndarray
    summaries: torch.Tensor
    limit: torch.Tensor
    positive_limit: torch.Tensor
    positives: np.ndarray
    queries: np.ndarray
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
    base vector to its positive's summary), negatives (list of chunk_id); of relabelled pairs also positive
    (chunk_id; null: not trained on) and own_similarity (to its own summary). Raises ValueError if the file holds any
    other split: a test user's text must not come near a trained part; or if a negative or positive is no chunk of
    its split.
    """
    frame = pl.read_parquet(path).sort("chunk_id")
    if others := sorted(set(frame["split"].unique()) - {"train", "valid"}):
        raise ValueError(f"{path}: splits {others} must not be trained on")
    parts = {split: frame.filter(pl.col("split") == split) for split in ("train", "valid")}
    return {split: _pairs(part, tokenizer, max_tokens, margin) for split, part in parts.items()}


def _pairs(frame: pl.DataFrame, tokenizer: Any, max_tokens: int, margin: float) -> Pairs:
    tokens = tokenize(tokenizer, frame["text"].to_list(), max_tokens) if frame.height else []
    relabelled = "positive" in frame.columns
    place = dict(zip(frame["chunk_id"], range(frame.height), strict=True))
    queries = np.arange(frame.height)
    positives = queries.copy()
    if relabelled:
        queries = queries[frame["positive"].is_not_null().to_numpy()]
        positives[queries] = _rows(place, frame["positive"].drop_nulls().to_list(), "positive")
    return Pairs(
        tokens=tokens,
        lengths=np.array([len(row) for row in tokens]),
        summaries=torch.tensor(stacked(frame["summary_vector"])),
        limit=_limits(frame["own_similarity" if relabelled else "positive_similarity"], margin),
        positive_limit=_limits(frame["positive_similarity"], margin),
        positives=positives,
        queries=queries,
        negatives=[_rows(place, ids, "mined negative") for ids in frame["negatives"].to_list()],
        users=frame["user_id"].n_unique(),
    )


def _limits(similarity: pl.Series, margin: float) -> torch.Tensor:
    return torch.tensor(margin * similarity.cast(pl.Float32).to_numpy())


def _rows(place: dict[str, int], chunk_ids: list[str], what: str) -> np.ndarray:
    try:
        return np.array([place[id_] for id_ in chunk_ids], dtype=np.int64)
    except KeyError:
        raise ValueError(f"a {what} is not among the pairs of its split") from None


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
    """The positives of the batch and up to `negatives` mined summaries of each row, drawn by seed and step.

    A candidate whose summary is more similar to the row's own, or to its positive, than the row's limits does not
    compete with it.
    """
    generator = np.random.default_rng([seed, step, 1])
    mined = [generator.permutation(pairs.negatives[row])[:negatives] for row in rows]
    pool = np.unique(np.concatenate([pairs.positives[rows], *mined]))
    return _compete(pairs, rows, pool)


def all_candidates(pairs: Pairs, rows: Sequence[int] | np.ndarray) -> Candidates:
    """Every summary of the split as candidate of the given rows."""
    return _compete(pairs, np.asarray(rows), np.arange(len(pairs)))


def _compete(pairs: Pairs, rows: np.ndarray, pool: np.ndarray) -> Candidates:
    vectors, positives = pairs.summaries[pool], pairs.positives[rows]
    near = pairs.summaries[rows] @ vectors.T > pairs.limit[rows].unsqueeze(1)
    near |= pairs.summaries[positives] @ vectors.T > pairs.positive_limit[rows].unsqueeze(1)
    places = torch.from_numpy(np.searchsorted(pool, positives))
    allowed = ~near
    allowed[torch.arange(len(rows)), places] = True
    return Candidates(vectors, places, allowed)
