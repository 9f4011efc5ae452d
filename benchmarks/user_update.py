"""One more chunk of a user: the stored memory advanced by a step, beside encoding the whole history again.

    python -m benchmarks.user_update [--lengths 64 512 4096] [--rounds 30]

Both read what they need from disk and write the user's memory back: the step reads one memory, the re-encoding
reads every item vector and context of the user. Weights are random (their values cost nothing), on MiniLM's
384 dimensions; one thread; the median of the rounds, sides in turns. A round is one re-encoding, and 16 users
advanced one after another, each alone, of which the mean is taken: nobody loads a model to advance one user.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from training.sequence_features import ItemSpace
from training.sequence_inference import SequenceEncoder
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.storage.user_memories import UserMemories

D = 384
ITEM = 2 * D
STEPS = 16
KINDS = {
    "recurrence": {"mixer": "recurrence"},
    "attention, window 64": {"mixer": "attention", "window": 64},
    "attention, full": {"mixer": "attention", "window": 8192},
}


def encoder_of(dimension: int, **settings) -> SequenceEncoder:
    """An encoder with random weights and a random item space."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    item, context = (np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32) for _ in range(2))
    axes = np.linalg.qr(rng.standard_normal((2 * D, ITEM)))[0].astype(np.float32)
    zeros, prior = np.zeros(D, np.float32), unit(rng.standard_normal(ITEM))
    space = ItemSpace(zeros, item, zeros, context, axes, prior, 0.3, 0.25)
    model = SequenceModel(SequenceSettings(dimension=dimension, seed=0, **settings), ITEM, D)
    with torch.no_grad():
        model.output.weight.normal_(std=0.05)
    return SequenceEncoder(model, space, "random")


def history(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors beside contexts [length, 2 · 384] and end times [length] in seconds."""
    rng = np.random.default_rng(length)
    return unit(rng.standard_normal((length, 2 * D))), np.cumsum(rng.integers(60, 100_000, length))


def frame_of(vectors: np.ndarray, ended: np.ndarray) -> pl.DataFrame:
    """The history as the encoder takes it."""
    return pl.DataFrame(
        {
            "user_id": ["u"] * len(ended),
            "position": np.arange(len(ended)),
            "ended_at": pl.Series(ended * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "vector": pl.Series(np.ascontiguousarray(vectors[:, :D])),
            "context": pl.Series(np.ascontiguousarray(vectors[:, D:])),
        }
    )


def median_seconds(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in taken.items()}


def measure(kind: str, length: int, rounds: int, folder: Path) -> None:
    """Print both costs, their ratio, the largest difference of the states, the bytes of the memory."""
    encoder = encoder_of(1024, **KINDS[kind])
    vectors, ended = history(length + 1)
    path = folder / "vectors.npy"
    np.save(path, vectors)
    store = UserMemories(folder / f"{length}-{kind}.sqlite")
    before = encoder.encode_users(frame_of(vectors[:-1], ended[:-1]))
    users = [f"u{n}" for n in range(STEPS)]
    store.write([(user, "v", length, "h") for user in users], np.repeat(before.memory, STEPS, axis=0))
    results: dict[str, np.ndarray] = {}

    def steps() -> None:
        for user in users:
            _, memory = store.read([user])
            memory, state, _ = encoder.advance(memory, vectors[-1:, :D], vectors[-1:, D:], ended[-1:])
            # Written under another name: the next round must start from the same memory.
            store.write([(f"{user}, advanced", "v", length + 1, "h")], memory)
            results["step"] = state

    def again() -> None:
        users = encoder.encode_users(frame_of(np.load(path), ended))
        store.write([("w", "v", length + 1, "h")], users.memory)
        results["again"] = users.state

    seconds = median_seconds({"step": steps, "again": again}, rounds)
    seconds["step"] /= STEPS
    difference = float(np.abs(results["step"] - results["again"]).max())
    ratio = seconds["again"] / seconds["step"]
    print(
        f"{kind:<21} history {length:>5}: step {seconds['step'] * 1e3:7.3f} ms, "
        f"re-encoding {seconds['again'] * 1e3:8.2f} ms, 1/{ratio:.0f}; "
        f"difference {difference:.1e}; {before.memory.shape[1]:,} bytes a user",
        flush=True,
    )
    store.close()


def main() -> None:
    """Every kind at every length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for length in options.lengths:
                rounds = options.rounds if kind != "attention, full" else 3
                measure(kind, length, rounds, Path(folder))


if __name__ == "__main__":
    main()
