"""What a Perceiver reads of users at moments of their histories: the sequence encoder's projected states.

A projected state is what the user's next chunk is expected to be, in the item space, whose axes come in order of how
well they predict. Raw states also say who a person is, by which a Perceiver tells its training users apart and learns
their words by heart (docs/personalised_llm.md).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F

from training.sequence_batches import packed
from training.sequence_features import histories_from, states_of
from training.sequence_inference import SequenceEncoder

User = tuple[str, str]
"""DataDAO and user_id."""


class StateHistories:
    """Projected states of many users after each of their chunks, and the one before any (the population's prior)."""

    def __init__(self, users: Sequence[User], offsets: np.ndarray, states: np.ndarray, prior: np.ndarray) -> None:
        """Rows offsets[i]:offsets[i + 1] of `states` [n, dimension] are user i's, in time order."""
        self._begins = dict(zip(users, zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True), strict=True))
        self._states = torch.from_numpy(np.concatenate([states, prior[None]]).astype(np.float32))

    @classmethod
    def of(cls, encoder: SequenceEncoder, sequences: pl.DataFrame, prior: np.ndarray | None = None) -> "StateHistories":
        """Of the histories `sequences` (mining.pairs.sequences): datadao, user_id, position, vector, context.

        `prior` [dimension]: another state before any chunk than the encoder's own.
        """
        frame = sequences.sort("datadao", "user_id", "position")
        _, projected = encoder.encode_positions(frame)
        return cls(*_runs(frame), projected, encoder.prior()[1] if prior is None else prior)

    @classmethod
    def pooled(cls, encoder: SequenceEncoder, sequences: pl.DataFrame) -> "StateHistories":
        """The same histories without a sequence encoder: after each chunk, the mean of all items so far, of length 1.

        The items are in the space that the projected states are in; the prior is the same.
        """
        frame = sequences.sort("datadao", "user_id", "position")
        users, offsets = _runs(frame)
        items = _items(encoder, frame)
        sums = np.cumsum(items, axis=0, dtype=np.float64)
        before = np.concatenate([np.zeros_like(sums[:1]), sums])[np.repeat(offsets[:-1], np.diff(offsets))]
        means = sums - before
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return cls(users, offsets, means, encoder.prior()[1])

    @classmethod
    def items(cls, encoder: SequenceEncoder, sequences: pl.DataFrame) -> "StateHistories":
        """The same histories with each chunk's own item vector as the state after it."""
        frame = sequences.sort("datadao", "user_id", "position")
        return cls(*_runs(frame), _items(encoder, frame), encoder.prior()[1])

    @property
    def dimension(self) -> int:
        """Dimension of a state."""
        return self._states.shape[1]

    @property
    def prior(self) -> torch.Tensor:
        """State [dimension] of a user without any chunk."""
        return self._states[-1]

    @property
    def users(self) -> list[User]:
        """Everybody who has a state, in order."""
        return list(self._begins)

    def length(self, user: User) -> int:
        """Number of the user's chunks; 0 for somebody unknown."""
        begin, end = self._begins.get(user, (0, 0))
        return end - begin

    def every(self, users: Sequence[User]) -> torch.Tensor:
        """All states [n, dimension] of these users, one after the other."""
        return torch.cat([self._states[slice(*self._begins[user])] for user in users])

    def batch(self, users: Sequence[User], seen: Sequence[int], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B, T, dimension] and mask [B, T] bool of users after their first `seen` chunks.

        Of each the last `longest` at most; of who has none, the prior. Raises ValueError where a user has fewer.
        """
        rows = []
        for user, n in zip(users, seen, strict=True):
            if n > self.length(user):
                raise ValueError(f"a user of {user[0]} has {self.length(user)} chunks, not {n}")
            begin = self._begins.get(user, (0, 0))[0]
            rows.append(torch.arange(begin + max(0, n - longest), begin + n) if n else torch.tensor([-1]))
        mask = torch.zeros(len(rows), max(map(len, rows), default=1), dtype=torch.bool)
        states = torch.zeros(*mask.shape, self.dimension)
        for place, index in enumerate(rows):
            states[place, : len(index)] = self._states[index]
            mask[place, : len(index)] = True
        return states, mask


def _items(encoder: SequenceEncoder, frame: pl.DataFrame) -> np.ndarray:
    """Item vectors [n, dimension] of a frame's chunks, in the space of the projected states."""
    if frame.is_empty():
        return np.zeros((0, len(encoder.prior()[1])))
    contexts = np.stack(frame["context"].to_list()) if "context" in frame.columns else None
    return encoder.targets(np.stack(frame["vector"].to_list()), contexts)


def _runs(frame: pl.DataFrame) -> tuple[list[User], np.ndarray]:
    """Users of a frame sorted by datadao and user_id, and where the rows of each begin and end."""
    if frame.is_empty():
        return [], np.zeros(1, dtype=np.int64)
    runs = frame.select(pl.struct("datadao", "user_id").rle().alias("run")).unnest("run")
    users = [(row["datadao"], row["user_id"]) for row in runs["value"].to_list()]
    return users, np.concatenate([[0], np.cumsum(runs["len"].to_numpy())]).astype(np.int64)


class TrainedHistories(StateHistories):
    """The same states computed at each call, so that the sequence encoder is trained along (presets enc, full)."""

    def __init__(self, encoder: SequenceEncoder, sequences: pl.DataFrame) -> None:
        frame = sequences.sort("datadao", "user_id", "position")
        users, offsets = _runs(frame)
        _, projected = encoder.encode_positions(frame)
        super().__init__(users, offsets, projected, encoder.prior()[1])
        self._encoder, self._places = encoder, {user: place for place, user in enumerate(users)}
        self._inputs = states_of(histories_from(frame)[0], encoder.space)

    def batch(self, users: Sequence[User], seen: Sequence[int], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As of StateHistories, with the gradient of the sequence encoder; its prior stays as it was."""
        states, mask = super().batch(users, seen, longest)
        furthest: dict[int, int] = {}  # of each history that is read, how many of its chunks
        for user, n in zip(users, seen, strict=True):
            if n:
                place = self._places[user]
                furthest[place] = max(n, furthest.get(place, 0))
        if not furthest:
            return states, mask
        pieces = np.array([(self._inputs.begins[place], n + 1) for place, n in furthest.items()], dtype=np.int64)
        inputs, _ = packed(self._inputs, pieces, self._encoder.device)
        output, _ = self._encoder.model(inputs, None)
        projected = F.normalize(self._encoder.model.project(output), dim=-1)
        begins = dict(zip(furthest, (np.cumsum(pieces[:, 1]) - pieces[:, 1]).tolist(), strict=True))
        rows = list(states.to(projected.device).unbind(0))
        for row, (user, n) in enumerate(zip(users, seen, strict=True)):
            if n:
                last = begins[self._places[user]] + n + 1
                read = projected[last - min(n, longest) : last]
                rows[row] = F.pad(read, (0, 0, 0, states.shape[1] - len(read)))
        return torch.stack(rows), mask
