"""Batches of whole histories for the sequence encoder: bucketed by length, a function of the step alone.

That makes resuming exact without a sampler's state: step s draws the same histories in every run.
"""

from dataclasses import dataclass

import numpy as np
import torch

from training.cpc import Keys
from training.sequence_features import Histories, States

BUCKET_BATCHES = 8  # batches that are sorted by length together: little padding, still mixed every epoch


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
    """Padded inputs [B, L, …], the queries among them and the chunks they are scored against.

    `queries` [Q]: flat index (row · L + place) of each state that has a next chunk; `key_rows` [K]: chunk
    rows of the corpus; `positives` [Q]: index into `key_rows`.
    """

    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    queries: torch.Tensor
    key_rows: torch.Tensor
    positives: torch.Tensor


def corpus_of(histories: Histories, states: States, windows: np.ndarray, device: str) -> Corpus:
    """A split's corpus; `windows` [n] are the window ids of the chunks, in the histories' order."""
    tensor = {
        "histories": histories.history_of_row,
        "people": np.unique(histories.user_ids, return_inverse=True)[1][histories.history_of_row],
        "windows": np.unique(windows, return_inverse=True)[1],
        "positions": histories.positions,
        "times": histories.ended,
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
    """Batches of one epoch: rows of `pieces`, at most `batch_chunks` padded states (or one piece)."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(pieces))
    mean = max(1.0, float(pieces[:, 1].mean()))
    bucket = max(1, int(BUCKET_BATCHES * batch_chunks / mean))
    batches: list[np.ndarray] = []
    for begin in range(0, len(order), bucket):
        part = order[begin : begin + bucket]
        part = part[np.argsort(pieces[part, 1], kind="stable")]
        first = 0
        for last in range(1, len(part) + 1):
            full = last == len(part) or (last + 1 - first) * pieces[part[last], 1] > batch_chunks
            if full:
                batches.append(part[first:last])
                first = last
    return [batches[i] for i in rng.permutation(len(batches))]


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
    inputs, index = padded(corpus.states, pieces, str(corpus.items.device))
    target = np.where(index >= 0, corpus.states.target[index], -1).ravel()
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


def padded(
    states: States, pieces: np.ndarray, device: str
) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], np.ndarray]:
    """Model inputs of pieces (begin, length) [B, 2], padded at the end; the state of each place or -1."""
    length = int(pieces[:, 1].max())
    offsets = np.arange(length)
    index = np.where(offsets[None, :] < pieces[:, 1:], pieces[:, :1] + offsets[None, :], -1)
    # Padding repeats a valid state: its output is never read, and nothing before it can see it.
    safe = np.where(index >= 0, index, pieces[:, :1])
    arrays = (states.items, states.pools, states.gaps, states.places)
    items, pools, gaps, places = (torch.from_numpy(array[safe]).to(device) for array in arrays)
    return (items, pools, gaps, places), index
