"""The trained sequence encoder, loaded alone: chunks of users → user embeddings and next-chunk queries."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file

from training.sequence_batches import padded
from training.sequence_features import ItemSpace, States, histories_from, matrix, states_of
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.storage.manifest import verify

FORMAT = "sequence-encoder/1"
BATCH_STATES = 8_192  # padded states of one forward pass


@dataclass(frozen=True)
class UserStates:
    """One row per user, sorted by user_id.

    `state` [n, dimension] float32: the user embedding; `projected` [n, item_dimension] float32, rows of
    length 1: what the user's next chunk is expected to be, in the space of `SequenceEncoder.targets`;
    `n_chunks` [n] int64; `last_chunk_at` [n] datetime64[us], UTC.
    """

    user_ids: np.ndarray
    state: np.ndarray
    projected: np.ndarray
    n_chunks: np.ndarray
    last_chunk_at: np.ndarray


class SequenceEncoder:
    """A trained sequence encoder; the same histories give the same states in any batch (to about 1e-6)."""

    def __init__(self, model: SequenceModel, space: ItemSpace, version: str, device: str = "cpu") -> None:
        self.model, self.space, self.version, self.device = model.to(device).eval(), space, version, device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "SequenceEncoder":
        """From the job's output folder. Raises CorruptArtifact unless all is as the manifest says."""
        folder = Path(folder)
        verify(folder)
        described = json.loads((folder / "encoder.json").read_bytes())
        if described["format"] != FORMAT:
            raise ValueError(f"{folder}/encoder.json: format {described['format']!r} is not {FORMAT!r}")
        tensors = load_file(folder / "model.safetensors")
        parts = {name.removeprefix("space."): t.numpy() for name, t in tensors.items() if name.startswith("space.")}
        space = ItemSpace(**parts, decay=described["decay"], mean_weight=described["mean_weight"])
        model = SequenceModel(SequenceSettings(**described["settings"]), described["item_dimension"])
        model.load_state_dict(
            {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        )
        return cls(model, space, described["version"], device)

    @property
    def dimension(self) -> int:
        """Dimension of the user state."""
        return self.model.dimension

    def encode_users(self, sequences: pl.DataFrame) -> UserStates:
        """State of each user of `sequences` (user_id, position, ended_at, vector) after the last chunk."""
        frame = sequences.select("user_id", "position", "ended_at", "vector")
        histories, _ = histories_from(frame)
        states = states_of(histories, self.space) if len(histories.vectors) else None
        if states is None:
            return UserStates(*self._no_users())
        last = states.begins + states.lengths - 1
        state, projected = self._run(states, keep=last)
        ended = frame.sort("user_id", "position")["ended_at"].to_numpy()
        return UserStates(
            user_ids=histories.user_ids,
            state=state,
            projected=unit(projected),
            n_chunks=histories.lengths.astype(np.int64),
            last_chunk_at=ended[histories.offsets[1:] - 1].astype("datetime64[us]"),
        )

    def encode_positions(self, sequences: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Per row of `sequences`, in its order: state [n, dimension] and query [n, D] after that chunk."""
        histories, rows = histories_from(sequences)
        state = np.empty((len(rows), self.dimension), dtype=np.float32)
        query = np.empty((len(rows), len(self.space.mean)), dtype=np.float32)
        if len(rows):
            states = states_of(histories, self.space)
            after = np.delete(np.arange(len(states.items)), states.begins)
            state[rows], projected = self._run(states, keep=after)
            query[rows] = unit(projected)
        return state, query

    def predict_next(self, sequences: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Chunks with a chunk of their user before them: rows of `sequences` [m], ascending, and queries.

        Query i [m, D], rows of length 1, is made from the chunks before that row alone.
        """
        histories, rows = histories_from(sequences)
        _, queries = self.encode_positions(sequences)
        later = np.flatnonzero(histories.positions > 0)
        target, before = rows[later], rows[later - 1]
        order = np.argsort(target, kind="stable")
        return target[order], queries[before[order]]

    def targets(self, vectors: np.ndarray | pl.Series) -> np.ndarray:
        """Item vectors [n, D] → candidates [n, D] in the space of the queries, rows of length 1."""
        return self.space.items(matrix(vectors) if isinstance(vectors, pl.Series) else vectors)

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """State [dimension] and query [D] of a user without any chunk: the population's."""
        empty = np.zeros((0, len(self.space.mean)), dtype=np.float32)
        states = _prior_states(self.space, empty)
        state, projected = self._run(states, keep=np.zeros(1, dtype=np.int64))
        return state[0], unit(projected)[0]

    @torch.inference_mode()
    def _run(self, states: States, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States and projections of the states `keep` (ascending); histories of similar length together."""
        wanted = np.full(len(states.items), -1, dtype=np.int64)
        wanted[keep] = np.arange(len(keep))
        state = np.empty((len(keep), self.dimension), dtype=np.float32)
        projected = np.empty((len(keep), len(self.space.mean)), dtype=np.float32)
        pieces = np.stack([states.begins, states.lengths], axis=1)
        order = np.argsort(states.lengths, kind="stable")
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and (end + 1 - begin) * states.lengths[order[end]] <= BATCH_STATES:
                end += 1
            inputs, index = padded(states, pieces[order[begin:end]], self.device)
            place = np.where(index >= 0, wanted[index], -1).ravel()
            chosen = np.flatnonzero(place >= 0)
            output = self.model(*inputs).flatten(0, 1)[torch.from_numpy(chosen).to(self.device)]
            state[place[chosen]] = output.cpu().numpy()
            projected[place[chosen]] = self.model.project(output).cpu().numpy()
            begin = end
        return state, projected

    def _no_users(self) -> tuple[np.ndarray, ...]:
        return (
            np.zeros(0, dtype=object),
            np.zeros((0, self.dimension), dtype=np.float32),
            np.zeros((0, len(self.space.mean)), dtype=np.float32),
            np.zeros(0, dtype=np.int64),
            np.zeros(0, dtype="datetime64[us]"),
        )


def _prior_states(space: ItemSpace, empty: np.ndarray) -> States:
    """The single state of one history without chunks."""
    from user_embeddings_dagster.evaluation.histories import Histories

    none = np.zeros(0, dtype=np.int64)
    nobody = Histories(empty, np.zeros(2, dtype=np.int64), np.array([""]), none, none, none)
    return states_of(nobody, space)
