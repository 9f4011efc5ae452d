"""The trained sequence encoder, loaded alone: chunks of users → user embeddings and next-chunk queries."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from training.checkpoint import load_tensors
from training.sequence_batches import packed
from training.sequence_features import (
    RHYTHM,
    Histories,
    ItemSpace,
    States,
    daily_rhythm,
    histories_from,
    prior_pools,
    states_of,
)
from training.sequence_memory import Memories, advance, from_bytes, inputs_of
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.storage.manifest import refuse_code, verify

FORMAT = "sequence-encoder/3"
BATCH_STATES = 8_192  # states of one forward pass (or one history)


@dataclass(frozen=True)
class UserStates:
    """One row per user, sorted by user_id.

    `state` [n, dimension] float32: the user embedding; `projected` [n, item_dimension] float32, rows of
    length 1: what the user's next chunk is expected to be, in the space of `SequenceEncoder.targets`;
    `n_chunks` [n] int64; `last_chunk_at` [n] datetime64[us], UTC; `memory` [n, size] uint8: what `advance` needs to
    go on from here.
    """

    user_ids: np.ndarray
    state: np.ndarray
    projected: np.ndarray
    n_chunks: np.ndarray
    last_chunk_at: np.ndarray
    memory: np.ndarray


class HistoryEncoder:
    """What of a sequence encoder needs torch and numpy alone: exported as it stands (training.standalone_encoder)."""

    def __init__(self, model: SequenceModel, space: ItemSpace, version: str, device: str = "cpu") -> None:
        self.model, self.space, self.version, self.device = model.to(device).eval(), space, version, device

    @classmethod
    def of(cls, described: dict[str, Any], tensors: dict[str, torch.Tensor], device: str = "cpu") -> Self:
        """From encoder.json and the tensors of model.safetensors."""
        parts = {name.removeprefix("space."): t.numpy() for name, t in tensors.items() if name.startswith("space.")}
        space = ItemSpace(**parts, decay=described["decay"], mean_weight=described["mean_weight"])
        model = SequenceModel(SequenceSettings(**described["settings"]), len(space.prior), len(space.mean))
        model.load_state_dict(
            {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        return cls(model, space, described["version"], device)

    @property
    def dimension(self) -> int:
        """Dimension of the user state."""
        return self.model.dimension

    @property
    def item_dimension(self) -> int:
        """Dimension of the item space: of queries and candidates."""
        return self.model.item_dimension

    @torch.inference_mode()
    def advance(
        self, memory: np.ndarray, vectors: np.ndarray, contexts: np.ndarray | None, ended: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One more chunk for each of B users: memory [B, size], state [B, dimension], query [B, D] after it.

        `memory` [B, size] uint8 as stored, item `vectors` [B, D], `contexts` [B, C] (None for an encoder trained
        without), `ended` [B] int64, seconds since 1970. Costs one step whatever was read before, and equals encoding
        the whole history to about 1e-5. Raises ValueError if the memory is another model's.
        """
        memories, states = advance(self.model, self.space, from_bytes(memory, self.model), vectors, contexts, ended)
        return memories.to_bytes(), states.cpu().numpy(), unit(self.model.project(states).cpu().numpy())

    @torch.inference_mode()
    def fresh(self, users: int) -> np.ndarray:
        """Memory [users, size] of users without a chunk, to be handed to `advance`."""
        zeros = np.zeros(users, dtype=np.int64)
        sums = _no_sums(users, self.space)
        items, pools = np.tile(self.space.prior, (users, 1)), np.tile(prior_pools(self.space), (users, 1))
        _, mixers = self.model.step(self.model.fresh(users), inputs_of(self.model, items, pools, zeros, zeros))
        return Memories(*sums, zeros, zeros, mixers).to_bytes()

    def encode_histories(self, histories: Histories) -> tuple[np.ndarray, np.ndarray]:
        """State [n, dimension] and query [n, D] after each chunk, row by row of `histories`."""
        if len(histories.vectors) == 0:
            return np.zeros((0, self.dimension), np.float32), np.zeros((0, self.item_dimension), np.float32)
        states = states_of(histories, self.space)
        after = np.delete(np.arange(len(states.items)), states.begins)
        state, projected, _ = self._run(states, keep=after)
        return state, unit(projected)

    def targets(self, vectors: np.ndarray, contexts: np.ndarray | None = None) -> np.ndarray:
        """Item vectors [n, D] and contexts [n, C] → candidates [n, D] in the space of the queries, of length 1."""
        return self.space.maps(vectors, contexts)[0]

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """State [dimension] and query [D] of a user without any chunk: the population's."""
        states = states_of(self._nobody(users=1), self.space)
        state, projected, _ = self._run(states, keep=np.zeros(1, dtype=np.int64))
        return state[0], unit(projected)[0]

    def _nobody(self, users: int) -> Histories:
        """Histories of users without chunks."""
        none = np.zeros(0, dtype=np.int64)
        vectors, contexts = (np.zeros((0, len(m)), np.float32) for m in (self.space.mean, self.space.context_mean))
        return Histories(
            vectors, np.zeros(users + 1, dtype=np.int64), np.array([""] * users), none, none, none, contexts
        )

    @torch.inference_mode()
    def _run(
        self, states: States, keep: np.ndarray, remember: bool = False
    ) -> tuple[np.ndarray, np.ndarray, list[torch.Tensor]]:
        """States and projections of the states `keep` (ascending); with `remember` also the mixers' memories there,
        of which there must be one per history."""
        state = np.empty((len(keep), self.dimension), dtype=np.float32)
        projected = np.empty((len(keep), self.item_dimension), dtype=np.float32)
        pieces = np.stack([states.begins, states.lengths], axis=1)
        ends = np.cumsum(states.lengths)
        memories, begin = [], 0
        while begin < len(pieces):
            budget = states.begins[begin] + BATCH_STATES
            end = max(begin + 1, int(np.searchsorted(ends, budget, side="right")))
            inputs, index = packed(states, pieces[begin:end], self.device)
            first, last = np.searchsorted(keep, (index[0], index[-1] + 1))
            chosen = torch.from_numpy(keep[first:last] - index[0]).to(self.device)
            output, memory = self.model(inputs, chosen if remember else None)
            state[first:last] = output[chosen].cpu().numpy()
            projected[first:last] = self.model.project(output[chosen]).cpu().numpy()
            memories.append(memory)
            begin = end
        if not remember:
            return state, projected, []
        blocks = zip(*memories, strict=True) if memories else ((part,) for part in self.model.fresh(0))
        return state, projected, [torch.cat(parts) for parts in blocks]


class SequenceEncoder(HistoryEncoder):
    """A trained sequence encoder; the same histories give the same states in any batch (to about 1e-6)."""

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "SequenceEncoder":
        """From the job's output folder. Raises CorruptArtifact unless all is as the manifest says."""
        folder = Path(folder)
        verify(folder)
        refuse_code(folder)
        described = json.loads((folder / "encoder.json").read_bytes())
        if described["format"] != FORMAT:
            raise ValueError(f"{folder}/encoder.json: format {described['format']!r} is not {FORMAT!r}")
        return cls.of(described, load_tensors(folder / "model.safetensors"), device)

    def encode_users(self, sequences: pl.DataFrame) -> UserStates:
        """State of each user of `sequences` (user_id, position, ended_at, vector, context) after the last chunk.

        `context` may be left out for an encoder that was trained without.
        """
        columns = ["user_id", "position", "ended_at", "vector"]
        frame = sequences.select(*columns, *(name for name in ("context",) if name in sequences.columns))
        histories, _ = histories_from(frame)
        if len(histories.vectors) == 0:
            histories = self._nobody(users=0)
        states = states_of(histories, self.space)
        state, projected, mixers = self._run(states, keep=states.begins + states.lengths - 1, remember=True)
        memories = Memories(
            *_sums(histories, states, self.space), histories.lengths, histories.ended[histories.offsets[1:] - 1], mixers
        )
        ended = frame.sort("user_id", "position")["ended_at"].to_numpy()
        return UserStates(
            user_ids=histories.user_ids,
            state=state,
            projected=unit(projected),
            n_chunks=histories.lengths.astype(np.int64),
            last_chunk_at=ended[histories.offsets[1:] - 1].astype("datetime64[us]"),
            memory=memories.to_bytes(),
        )

    def encode_positions(self, sequences: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Per row of `sequences`, in its order: state [n, dimension] and query [n, D] after that chunk."""
        histories, rows = histories_from(sequences)
        state = np.empty((len(rows), self.dimension), dtype=np.float32)
        query = np.empty((len(rows), self.item_dimension), dtype=np.float32)
        state[rows], query[rows] = self.encode_histories(histories)
        return state, query


def _sums(histories: Histories, states: States, space: ItemSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`sums`, `people` and `rhythms` of the memory of each history, as adding chunk by chunk gives them."""
    items = np.delete(states.items, states.begins, axis=0)
    if len(items) == 0:
        return _no_sums(histories.n_histories, space)
    back = (histories.lengths[histories.history_of_row] - 1 - histories.positions)[:, None]
    weighted = np.stack([space.decay**back * items, items], axis=1)

    def total(rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows, histories.offsets[:-1], axis=0, dtype=np.float32)

    return total(weighted), total(states.people), total(daily_rhythm(histories.ended))


def _no_sums(users: int, space: ItemSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of users without chunks."""
    shapes = ((users, 2, len(space.prior)), (users, len(space.mean)), (users, RHYTHM))
    sums, people, rhythms = (np.zeros(shape, dtype=np.float32) for shape in shapes)
    return sums, people, rhythms
