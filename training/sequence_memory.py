"""What is kept of a user, so that one more chunk costs one step: constant in size, whatever the history's length.

Sums of the pools, number of chunks, time of the last one, and each mixer's memory. `to_bytes` and `from_bytes`
are the stored form: little-endian, float32, one row per user.
"""

from dataclasses import dataclass

import numpy as np
import torch

from training.sequence_features import RHYTHM, ItemSpace, daily_rhythm, pools_of, position_codes
from training.sequence_model import Inputs, SequenceModel
from user_embeddings_dagster.evaluation.ranking import unit


@dataclass(frozen=True)
class Memories:
    """Memories of B users.

    `sums` [B, 2, I]: decayed and plain sum in the item space; `people` [B, D]: sum in the person space; `rhythms`
    [B, 2]: sum of the daily rhythms; `counts`, `ended` [B] int64: chunks read, and seconds since 1970 of the last;
    `mixers`: per block [B, …].
    """

    sums: np.ndarray
    people: np.ndarray
    rhythms: np.ndarray
    counts: np.ndarray
    ended: np.ndarray
    mixers: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.counts)

    def to_bytes(self) -> np.ndarray:
        """Stored form [B, size] uint8."""
        times = np.stack([self.counts, self.ended], axis=1).astype("<i8")
        parts = [
            self.sums.reshape(len(self), 2 * self.sums.shape[2]),
            self.people,
            self.rhythms,
            *(tensor.flatten(1).cpu().numpy() for tensor in self.mixers),
        ]
        return np.concatenate(
            [times.view(np.uint8), *(np.ascontiguousarray(part, dtype="<f4").view(np.uint8) for part in parts)], axis=1
        )


def from_bytes(stored: np.ndarray, model: SequenceModel) -> Memories:
    """Memories from their stored form [B, size] uint8. Raises ValueError if they are of another model's shape."""
    like = model.fresh(1)
    sizes = [2 * model.item_dimension, model.person_dimension, RHYTHM, *(tensor[0].numel() for tensor in like)]
    if stored.shape[1] != 16 + 4 * sum(sizes):
        raise ValueError(f"a stored user memory of {stored.shape[1]} bytes is not of this model")
    times = np.ascontiguousarray(stored[:, :16]).view("<i8")
    values = stored[:, 16:].copy().view("<f4")  # torch wants it writable
    sums, people, rhythms, *parts = np.split(values, np.cumsum(sizes)[:-1], axis=1)
    mixers = [torch.from_numpy(part).to(new).view(-1, *new.shape[1:]) for part, new in zip(parts, like, strict=True)]
    return Memories(sums.reshape(-1, 2, model.item_dimension), people, rhythms, times[:, 0], times[:, 1], mixers)


def advance(
    model: SequenceModel, space: ItemSpace, memories: Memories, vectors: np.ndarray, contexts: np.ndarray | None,
    ended: np.ndarray,
) -> tuple[Memories, torch.Tensor]:  # fmt: skip
    """Memories and states [B, d] of B users after one more chunk each: raw item vectors [B, D], contexts [B, C] (None
    for an encoder without), end times [B]."""
    items, people = space.maps(vectors, contexts)
    sums = memories.sums * np.array([[[space.decay], [1.0]]], dtype=np.float32) + items[:, None]
    people = memories.people + people
    rhythms = memories.rhythms + daily_rhythm(ended)
    gaps, places = position_codes(memories.counts, ended - memories.ended)
    prediction = unit(sums[:, 0]) + space.mean_weight * unit(sums[:, 1])
    pools = pools_of(prediction, people, rhythms / (memories.counts[:, None] + 1))
    states, mixers = model.step(memories.mixers, inputs_of(model, items, pools, gaps, places))
    return Memories(sums, people, rhythms, memories.counts + 1, ended, mixers), states


def inputs_of(
    model: SequenceModel, items: np.ndarray, pools: np.ndarray, gaps: np.ndarray, places: np.ndarray
) -> Inputs:
    """Model inputs of one position of B users."""
    device = model.weight.device
    arrays = (items, pools, gaps, places, gaps)  # `since` plays no part in a single step
    return Inputs(*(torch.from_numpy(array).to(device) for array in arrays))
