"""What of a user comes before a task: chunks in order, as vectors and as texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.storage.lance_tables import stacked

TOKEN_CHARACTERS = 4  # of English, roughly: what a budget of tokens is in characters


@dataclass(frozen=True)
class Past:
    """Histories of one DataDAO: `positions` ascending, unit `vectors` [n, d] and `texts` by user."""

    positions: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, snapshot: pl.DataFrame, chunks: pl.DataFrame, vectors: pl.DataFrame) -> "Past":
        """`snapshot`: TRAINING_SNAPSHOT's rows; `chunks`: chunk_id, text; `vectors`: chunk_id, vector."""
        rows = (
            snapshot.select("user_id", "position", "chunk_id")
            .join(chunks.select("chunk_id", "text"), on="chunk_id")
            .join(vectors.select("chunk_id", "vector"), on="chunk_id")
            .sort("user_id", "position")
        )
        positions, found, texts = {}, {}, {}
        for (user,), part in rows.group_by("user_id", maintain_order=True):
            positions[user] = part["position"].to_numpy()
            found[user] = stacked(part["vector"])
            texts[user] = part["text"].to_list()
        return cls(positions, found, texts)

    def before(self, user: str, n_history: int) -> np.ndarray:
        """Vectors [n, d] of the user's chunks before position `n_history`, in order."""
        return self.vectors[user][: self._count(user, n_history)]

    def told(self, user: str, n_history: int) -> Sequence[str]:
        """Texts of these chunks, in order."""
        return self.texts[user][: self._count(user, n_history)]

    def stuffed(self, user: str, n_history: int, max_tokens: int) -> list[str]:
        """The last of these texts that fit into about `max_tokens`, in order; the earliest of them cut at its start."""
        left, kept = max_tokens * TOKEN_CHARACTERS, []
        for text in reversed(self.told(user, n_history)):
            if left <= 0:
                break
            kept.append(text[-left:])
            left -= len(text)
        return kept[::-1]

    def _count(self, user: str, n_history: int) -> int:
        return int(np.searchsorted(self.positions[user], n_history))
