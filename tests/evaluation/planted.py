"""Histories with planted structure: people with interests of their own, whose topics drift slowly."""

import numpy as np

from user_embeddings_dagster.evaluation.histories import Histories

DAY = 86_400


def histories(
    n_users: int = 40, chunks: int = 16, dim: int = 24, *, persistence: float = 0.8, common: float = 2.0, seed: int = 0,
    lengths: np.ndarray | None = None,
) -> Histories:  # fmt: skip
    """`persistence`: weight of the person's interest; `common`: length of the direction that everybody shares."""
    rng = np.random.default_rng(seed)
    lengths = np.full(n_users, chunks) if lengths is None else lengths
    person = np.repeat(rng.standard_normal((n_users, dim)), lengths, axis=0)
    shared = np.zeros(dim)
    shared[0] = common * np.sqrt(dim)
    vectors = shared + persistence * person + (1 - persistence) * rng.standard_normal(person.shape)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    gaps = rng.choice([600, 3 * 3_600, 2 * DAY, 9 * DAY], size=len(positions))
    gaps[positions == 0] = 0
    running = np.cumsum(gaps)
    started = 1_700_000_000 + running - np.repeat(running[offsets[:-1]] if n_users else running[:0], lengths)
    return Histories(
        vectors.astype(np.float32), offsets.astype(np.int64), np.array([f"{n:032x}" for n in range(n_users)]),
        started, started + 60, np.array([f"c{n}" for n in range(len(vectors))]),
    )  # fmt: skip
