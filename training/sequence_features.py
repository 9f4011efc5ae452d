"""What the sequence encoder starts from: the whitened spaces and the pooled history, without torch.

Two spaces, both whitened (mean and covariance of training users' vectors taken out). The person space holds item
vectors, what SUBJECT says: the mean of a history in it tells people apart. The item space holds item vectors beside
contexts, what the conversation is about: there a history predicts the next chunk.

Both are rotated to the axes along which a history predicts the next chunk, most predictable first: the first d
coordinates are the best d to keep when the state is small. The axes are the eigenvectors of the symmetrised lagged
covariance of pooled history and next chunk, as in time-lagged independent component analysis (Molgedey and Schuster,
Phys. Rev. Lett. 72, 3634, 1994).
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import (
    next_chunk_queries,
    pooled,
    running_mean,
    train_statistics,
    tune_pool,
)
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import unit

TUNING_CHUNKS = 3_000  # validation chunks that decay and mean weight are chosen on
# Weight of the plain mean beside the prediction, where the state has room for both: the mean tells people apart
# better (same-user matching), the decayed mean predicts the next chunk better.
MEAN_SCALE = 8.0
# Weight of the daily rhythm beside the mean of the items (length 1), chosen by matching halves of training users.
RHYTHM_WEIGHT = 0.3
RHYTHM = 2  # coordinates of the rhythm
_DAY = 86_400
GAP_BUCKETS = 28  # log2 of seconds: 2^27 s is 4.3 years
PLACE_BUCKETS = 40  # two per doubling of the number of chunks before


@dataclass(frozen=True)
class ItemSpace:
    """Maps into person space and item space; what the pooled history is made with. All arrays float32.

    mean [D], whitening [D, D]: unit((item - mean) @ whitening) is the person space. context_mean [C],
    context_whitening [C, C], axes [I, I] with I = D + C: the two whitened parts side by side, at length 1, times
    `axes`, is the item space; without contexts (C = 0) it is the person space. prior [I]: the average training user in
    the item space, each user weighing the same.
    """

    mean: np.ndarray
    whitening: np.ndarray
    context_mean: np.ndarray
    context_whitening: np.ndarray
    axes: np.ndarray
    prior: np.ndarray
    decay: float
    mean_weight: float

    @classmethod
    def of_items(
        cls, mean: np.ndarray, whitening: np.ndarray, prior: np.ndarray, decay: float, mean_weight: float
    ) -> "ItemSpace":
        """A space without contexts."""
        nothing = np.zeros((0, 0), dtype=np.float32)
        axes = np.eye(len(mean), dtype=np.float32)
        return cls(mean, whitening, nothing.ravel(), nothing, axes, prior, decay, mean_weight)

    def maps(self, vectors: np.ndarray, contexts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Chunks in item space [n, I] and person space [n, D], rows of length 1, from item vectors and contexts.

        Raises ValueError if the contexts that the space was made with are not given.
        """
        people = unit((np.asarray(vectors, dtype=np.float32) - self.mean) @ self.whitening)
        if len(self.context_mean) == 0:
            return people, people
        if contexts is None:
            raise ValueError("this encoder reads contexts: the chunks' vectors by the frozen text encoder")
        about = unit((np.asarray(contexts, dtype=np.float32) - self.context_mean) @ self.context_whitening)
        return unit(np.concatenate([people, about], axis=1) @ self.axes), people


@dataclass(frozen=True)
class States:
    """Inputs of the model, one row per state: n chunks have n + 1 states, the first before any chunk.

    items [M, I]: the chunk that led to the state (the prior for the first). pools [M, I + D + 2]: decayed mean plus
    weighted mean in the item space, then the daily rhythm and the person space's mean times `MEAN_SCALE`. gaps,
    places [M]: bucket codes. begins [U]: first state of each history; lengths [U]: states of each history. target
    [M]: row of the chunk that comes next, or -1. people [n, D]: the chunks in the person space.
    """

    items: np.ndarray
    pools: np.ndarray
    gaps: np.ndarray
    places: np.ndarray
    begins: np.ndarray
    lengths: np.ndarray
    target: np.ndarray
    people: np.ndarray


def histories_from(sequences: pl.DataFrame) -> tuple[Histories, np.ndarray]:
    """Histories of a frame (user_id, position, ended_at, vector; optional context, datadao, chunk_id), in time order.

    Also the row of the frame that each chunk of the histories is [n]. Raises ValueError on vectors that are
    null, not finite, or of different lengths.
    """
    by = [name for name in ("datadao", "user_id") if name in sequences.columns]
    frame = sequences.with_columns(_row=pl.int_range(pl.len())).sort(*by, "position")
    first = frame.select(pl.struct(by).rle_id().is_first_distinct()).to_series().to_numpy()
    begins = np.flatnonzero(first)
    ended = frame["ended_at"].cast(pl.Datetime("us", "UTC")).dt.epoch("s").to_numpy()
    histories = Histories(
        vectors=matrix(frame["vector"]),
        offsets=np.append(begins, frame.height).astype(np.int64),
        user_ids=frame["user_id"].to_numpy()[begins],
        started=ended,
        ended=ended,
        chunk_ids=(frame["chunk_id"] if "chunk_id" in frame.columns else frame["_row"]).to_numpy(),
        contexts=matrix(frame["context"]) if "context" in frame.columns else None,
    )
    return histories, frame["_row"].to_numpy()


def matrix(vectors: pl.Series) -> np.ndarray:
    """A list or array column as a float32 matrix [n, D], [0, 0] if empty. Raises ValueError if it is none."""
    if len(vectors) == 0:
        return np.zeros((0, 0), dtype=np.float32)
    is_list = isinstance(vectors.dtype, pl.List)
    if vectors.null_count() or (is_list and vectors.list.len().n_unique() > 1):
        raise ValueError("vectors are null or of different lengths")
    flat = vectors.explode(empty_as_null=False).cast(pl.Float32).to_numpy()
    if not np.isfinite(flat).all():
        raise ValueError("vectors hold NaN or infinite values")
    return np.ascontiguousarray(flat.reshape(len(vectors), -1))


def fit_item_space(train: Histories, valid: Histories, ridge: float) -> ItemSpace:
    """Whitening, axes and prior from training users; decay and mean weight by validation MRR.

    Without contexts in `train`, item space and person space are one.
    """
    items = train_statistics(train.vectors, ridge)
    head = _head(valid, TUNING_CHUNKS)
    white = train.with_vectors(items.whitened(train.vectors))
    tuning = tune_pool(head.with_vectors(items.whitened(head.vectors)))
    rotation = _predictive_axes(white, *tuning)
    whitening = (items.whitening @ rotation).astype(np.float32)
    space = ItemSpace.of_items(items.mean, whitening, np.zeros_like(items.mean), *tuning)
    if train.contexts is not None:
        contexts = train_statistics(train.contexts, ridge)
        wide = replace(space, context_mean=contexts.mean, context_whitening=contexts.whitening,
                       axes=np.eye(len(whitening) + len(contexts.mean), dtype=np.float32))  # fmt: skip
        tuning = tune_pool(head.with_vectors(wide.maps(head.vectors, head.contexts)[0]))
        both = train.with_vectors(wide.maps(train.vectors, train.contexts)[0])
        space = replace(wide, axes=_predictive_axes(both, *tuning), decay=tuning[0], mean_weight=tuning[1])
    mapped = train.with_vectors(space.maps(train.vectors, train.contexts)[0])
    return replace(space, prior=unit(running_mean(mapped)[train.last_rows].mean(axis=0)))


def _head(histories: Histories, chunks: int) -> Histories:
    """The first whole histories that hold at most `chunks` chunks together (at least one history)."""
    count = max(1, int(np.searchsorted(histories.offsets, chunks, side="right")) - 1)
    count = min(count, histories.n_histories)
    offsets = histories.offsets
    return histories.ranges(offsets[:count], offsets[1 : count + 1], np.arange(count))


def _predictive_axes(white: Histories, decay: float, mean_weight: float) -> np.ndarray:
    """Orthogonal [d, d]: columns are axes, the one along which history predicts the next chunk best first."""
    following = next_chunk_queries(white)
    dimension = white.vectors.shape[1]
    if len(following) == 0:
        return np.eye(dimension, dtype=np.float32)
    # Between each chunk weighing the same, and each person: else a few long histories would choose the axes.
    weights = 1 / np.sqrt(white.lengths[white.history_of_row[following]])
    history = pooled(white, decay, mean_weight)[following - 1] * weights[:, None]
    lagged = history.T.astype(np.float64) @ white.vectors[following] / weights.sum()
    _, axes = np.linalg.eigh((lagged + lagged.T) / 2)
    axes = axes[:, ::-1]
    # An eigenvector's sign is arbitrary: its largest component is made positive on every machine.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dimension)])
    return (axes * signs).astype(np.float32)


def states_of(histories: Histories, space: ItemSpace) -> States:
    """Inputs of the model for every state of every history; vectors and contexts of `histories` are raw."""
    items, people = space.maps(histories.vectors, histories.contexts)
    whitened = histories.with_vectors(items)
    totals = np.concatenate([np.zeros((1, RHYTHM)), daily_rhythm(histories.ended).cumsum(axis=0, dtype=np.float64)])
    rhythms = totals[1:] - np.repeat(totals[histories.offsets[:-1]], histories.lengths, axis=0)
    rhythms /= histories.positions[:, None] + 1
    long = running_mean(histories.with_vectors(people))
    pools = pools_of(pooled(whitened, space.decay, space.mean_weight), long, rhythms)
    lengths = histories.lengths + 1
    begins = np.cumsum(lengths) - lengths
    n_states = int(lengths.sum())
    rows = np.delete(np.arange(n_states), begins)  # states that follow a chunk
    first = prior_pools(space)
    gaps, places = position_codes(histories.positions, np.diff(histories.ended, prepend=histories.ended[:1]))
    target = np.full(n_states, -1, dtype=np.int64)
    target[rows - 1] = np.arange(len(items))
    return States(
        items=_with_first(n_states, rows, space.prior, items),
        pools=_with_first(n_states, rows, first, pools),
        gaps=_with_first(n_states, rows, np.int64(0), gaps),
        places=_with_first(n_states, rows, np.int64(0), places),
        begins=begins,
        lengths=lengths,
        target=target,
        people=people,
    )


def pools_of(prediction: np.ndarray, long: np.ndarray, rhythms: np.ndarray) -> np.ndarray:
    """Pools [n, I + D + 2]: the baseline's prediction [n, I] in the item space; mean of the items in the person space
    [n, D] (its length plays no part); mean daily rhythm [n, 2]."""
    parts = [prediction, MEAN_SCALE * RHYTHM_WEIGHT * rhythms, MEAN_SCALE * unit(long)]
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


def prior_pools(space: ItemSpace) -> np.ndarray:
    """Pools [I + D + 2] before any chunk: the average user's prediction, and nothing of the person."""
    return np.pad(space.prior, (0, len(space.mean) + RHYTHM))


def daily_rhythm(seconds: np.ndarray) -> np.ndarray:
    """Cosine and sine [n, 2] of the time of day (UTC): their mean is the first circular moment of a person's active
    hours (Fisher 1993, Statistical Analysis of Circular Data, section 2.3)."""
    phase = 2 * np.pi * (seconds % _DAY) / _DAY
    return np.stack([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32)


def position_codes(positions: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n] of the seconds since the user's chunk before and of the number of chunks before; 0 is the state
    before any chunk."""
    gap = 2 + np.log2(np.maximum(gaps, 1)).astype(np.int64).clip(0, GAP_BUCKETS - 3)
    place = (2 * np.log2(positions + 2)).astype(np.int64).clip(0, PLACE_BUCKETS - 1)
    return np.where(positions == 0, 1, gap), place


def _with_first(n: int, rows: np.ndarray, first: np.ndarray | np.integer, rest: np.ndarray) -> np.ndarray:
    """Array of n rows: `rest` at `rows`, `first` everywhere else."""
    out = np.empty((n, *rest.shape[1:]), dtype=rest.dtype)
    out[:] = first
    out[rows] = rest
    return out
