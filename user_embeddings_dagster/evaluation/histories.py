"""Users' histories as one matrix: the chunks of a user are consecutive rows, in time order."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl


class NothingToFit(ValueError):
    """No training user has the chunks that a baseline is fitted on."""


@dataclass(frozen=True)
class Histories:
    """Histories of `n_histories` users with `n_chunks` chunks in all.

    `vectors` [n_chunks, dim] float32: item vectors; `contexts` [n_chunks, dim] float32: vectors of the whole chunks,
    others' words included, by the frozen text encoder (None: not known). History h is rows `offsets[h]` to
    `offsets[h + 1]` (`offsets` is [n_histories + 1] int64); `user_ids` [n_histories]; `started`, `ended` [n_chunks]
    int64, seconds since 1970; `chunk_ids` [n_chunks]. A person in two DataDAOs has two histories under one user id.
    """

    vectors: np.ndarray
    offsets: np.ndarray
    user_ids: np.ndarray
    started: np.ndarray
    ended: np.ndarray
    chunk_ids: np.ndarray
    contexts: np.ndarray | None = None

    @property
    def n_histories(self) -> int:
        """Number of histories, empty ones included."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Chunks of each history [n_histories]."""
        return np.diff(self.offsets)

    @property
    def history_of_row(self) -> np.ndarray:
        """History of each chunk [n_chunks]."""
        return np.repeat(np.arange(self.n_histories), self.lengths)

    @property
    def positions(self) -> np.ndarray:
        """0-based place of each chunk in its history [n_chunks]."""
        return np.arange(len(self.vectors)) - np.repeat(self.offsets[:-1], self.lengths)

    @property
    def last_rows(self) -> np.ndarray:
        """Row of each history's last chunk [n_histories], if none is empty."""
        return self.offsets[1:] - 1

    def with_vectors(self, vectors: np.ndarray) -> "Histories":
        """The same histories with other vectors [n_chunks, any] and without contexts."""
        if len(vectors) != len(self.vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(self.vectors)} chunks")
        return replace(self, vectors=vectors, contexts=None)

    def ranges(self, begins: np.ndarray, ends: np.ndarray, histories: np.ndarray) -> "Histories":
        """One history per row range [begins[i], ends[i]), which may be empty, of the person `histories[i]`."""
        lengths = np.maximum(ends - begins, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(begins, lengths)
        return Histories(
            self.vectors[rows], offsets, self.user_ids[histories], self.started[rows], self.ended[rows],
            self.chunk_ids[rows], None if self.contexts is None else self.contexts[rows],
        )  # fmt: skip


def histories_of(
    snapshot: pl.DataFrame,
    chunk_ids: pl.Series | list[str],
    vectors: np.ndarray,
    contexts: np.ndarray | None = None,
) -> Histories:
    """Histories of the rows of a TRAINING_SNAPSHOT (filter it first); `vectors[i]`, `contexts[i]` of `chunk_ids[i]`.

    Ordered by DataDAO, user and position. Raises ValueError with the number of chunks that have no vector.
    """
    place = pl.DataFrame({"chunk_id": chunk_ids, "row": np.arange(len(vectors))})
    rows = snapshot.sort("datadao", "user_id", "position").join(place, on="chunk_id", how="left", maintain_order="left")
    if missing := rows["row"].null_count():
        raise ValueError(f"{missing} of {rows.height} snapshot chunks have no vector")
    first = rows.select(pl.struct("datadao", "user_id").rle_id().is_first_distinct()).to_series().to_numpy()
    begins = np.flatnonzero(first) if rows.height else np.zeros(0, dtype=np.int64)
    chosen = rows["row"].to_numpy()
    return Histories(
        vectors=np.ascontiguousarray(vectors[chosen], dtype=np.float32),
        offsets=np.append(begins, rows.height).astype(np.int64),
        user_ids=rows["user_id"].to_numpy()[begins],
        started=rows["started_at"].dt.epoch("s").to_numpy(),
        ended=rows["ended_at"].dt.epoch("s").to_numpy(),
        chunk_ids=rows["chunk_id"].to_numpy(),
        contexts=None if contexts is None else np.ascontiguousarray(contexts[chosen], dtype=np.float32),
    )
