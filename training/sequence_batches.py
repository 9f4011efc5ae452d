"""Batches of whole histories for the sequence encoder: packed without padding, a function of the step alone.

That makes resuming exact without a sampler's state: step s draws the same histories in every run.
"""

from dataclasses import dataclass

import numpy as np
import torch

from training.cpc import Keys
from training.sequence_features import Histories, States
from training.sequence_model import Inputs


@dataclass(frozen=True)
class Corpus:
    """One split on the device: states, items as keys, and who, where and when each chunk is."""

    states: States
    items: torch.Tensor
    keys: Keys

    @property
    def n_chunks(self) -> int:
        """Chunks of the split."""
        return len(self.items)


@dataclass(frozen=True)
class Batch:
    """Packed inputs of M states, the queries among them and the chunks they are scored against.

    `queries` [Q]: rows of the states that have a next chunk; `key_rows` [K]: chunk rows of the corpus;
    `positives` [Q]: index into `key_rows`.
    """

    inputs: Inputs
    queries: torch.Tensor
    key_rows: torch.Tensor
    positives: torch.Tensor


def corpus_of(histories: Histories, states: States, windows: np.ndarray, datadaos: np.ndarray, device: str) -> Corpus:
    """A split's corpus; `windows`, `datadaos` [n] are those of the chunks, in the histories' order."""
    tensor = {
        "histories": histories.history_of_row,
        "people": np.unique(histories.user_ids, return_inverse=True)[1][histories.history_of_row],
        "windows": np.unique(windows, return_inverse=True)[1],
        "positions": histories.positions,
        "times": histories.ended,
        "datadaos": np.unique(datadaos, return_inverse=True)[1],
    }
    keys = Keys(**{name: torch.from_numpy(np.array(v, np.int64)).to(device) for name, v in tensor.items()})
    items = np.delete(states.items, states.begins, axis=0)
    return Corpus(states, torch.from_numpy(items).to(device), keys)


def segments(states: States, max_length: int) -> np.ndarray:
    """(begin, length) [S, 2] of the pieces that histories are trained in, `max_length` states at most.

    A piece that is a history's last state alone has nothing to predict and is left out: the loss of a batch of
    such pieces would be the mean of nothing.
    """
    pieces = -(-states.lengths // max_length)
    owner = np.repeat(np.arange(len(states.lengths)), pieces)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = states.begins[owner] + index * max_length
    ends = np.minimum(begins + max_length, states.begins[owner] + states.lengths[owner])
    return np.stack([begins, ends - begins], axis=1)[states.target[begins] >= 0]


def epoch_batches(pieces: np.ndarray, batch_chunks: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Batches of one epoch: rows of `pieces` in random order, at most `batch_chunks` states (or one piece)."""
    order = np.random.default_rng([seed, epoch]).permutation(len(pieces))
    ends = np.cumsum(pieces[order, 1])
    batches, first, begin = [], 0, 0
    while first < len(order):
        last = max(first + 1, int(np.searchsorted(ends, begin + batch_chunks, side="right")))
        batches.append(order[first:last])
        first, begin = last, int(ends[last - 1])
    return batches


class Sampler:
    """Batch of any step, from the seed and the step alone."""

    def __init__(self, corpus: Corpus, max_length: int, batch_chunks: int, extra_keys: int, seed: int) -> None:
        self.corpus, self.batch_chunks, self.extra_keys, self.seed = corpus, batch_chunks, extra_keys, seed
        self.pieces = segments(corpus.states, max_length)
        self._epoch, self._first_step = -1, 0
        self._batches: list[np.ndarray] = []

    def batch(self, step: int) -> Batch:
        """Batch of 0-based `step`; steps are asked for in ascending order."""
        while step >= self._first_step + len(self._batches):
            self._first_step += len(self._batches)
            self._epoch += 1
            self._batches = epoch_batches(self.pieces, self.batch_chunks, self.seed, self._epoch)
        rows = self._batches[step - self._first_step]
        rng = np.random.default_rng([self.seed, step, 1])
        return assemble(self.corpus, self.pieces[rows], self.extra_keys, rng)


def assemble(corpus: Corpus, pieces: np.ndarray, extra_keys: int, rng: np.random.Generator | None) -> Batch:
    """Batch of some pieces; keys are their own next chunks and `extra_keys` drawn from the split."""
    inputs, index = packed(corpus.states, pieces, str(corpus.items.device))
    target = corpus.states.target[index]
    queries = np.flatnonzero(target >= 0)
    positives = target[queries]
    drawn = positives
    if rng is not None and extra_keys:
        extra = rng.choice(corpus.n_chunks, size=min(extra_keys, corpus.n_chunks), replace=False)
        drawn = np.union1d(positives, extra)
    key_rows, device = np.unique(drawn), corpus.items.device
    return Batch(
        inputs,
        torch.from_numpy(queries).to(device),
        torch.from_numpy(key_rows).to(device),
        torch.from_numpy(np.searchsorted(key_rows, positives)).to(device),
    )


def packed(states: States, pieces: np.ndarray, device: str) -> tuple[Inputs, np.ndarray]:
    """Inputs of pieces (begin, length) [B, 2] one after the other, and the state of each row [M]."""
    lengths = pieces[:, 1]
    since = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = since + np.repeat(pieces[:, 0], lengths)
    arrays = (states.items[index], states.pools[index], states.gaps[index], states.places[index], since)
    return Inputs(*(torch.from_numpy(array).to(device) for array in arrays)), index
