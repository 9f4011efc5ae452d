"""What flushing costs (F16): commits with their flushes and, alternating in the same run, with fsync made a no-op.

    python -m benchmarks.flush_cost [--rounds 10]

Vectors: shards of 1,000 chunks x 384. Table: 20,000 rows. Medians; run it where the data will lie (TMPDIR).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl

from benchmarks.commit_stages import scores
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables


def shard(number: int, rows: int = 1000) -> pl.DataFrame:
    """Rows of a vector table, all new."""
    ids = [f"{number * rows + i:032x}" for i in range(rows)]
    vectors = np.random.default_rng(number).normal(size=(rows, 384)).astype(np.float32)
    return pl.DataFrame({"id": ids, "version": ["v"] * rows}).with_columns(vector=pl.Series(vectors))


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flush-") as folder:
        tables, lake = LanceTables(Path(folder, "lancedb")), Lake(Path(folder))
        rows = {kind: scores("a", kind, 20_000) for kind in "ab"}
        commits: dict[str, Callable[[int], object]] = {
            "vectors, shard of 1,000": lambda n: tables.upsert("dao", "t", shard(n)),
            "Parquet table, 20,000 rows": lambda n: lake.commit(SCORES, rows["ab"[n // 2 % 2]], "zig"),
        }
        for name, commit in commits.items():
            commit(0)
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(2, 2 + 2 * options.rounds):
                flushed = bool(turn % 2)
                with mock.patch.object(os, "fsync", os.fsync if flushed else lambda _: None):
                    started = time.perf_counter()
                    commit(turn)
                    seconds[flushed].append(time.perf_counter() - started)
            kept, without = statistics.median(seconds[True]), statistics.median(seconds[False])
            print(f"{name}: {kept * 1000:.1f} ms flushed, {without * 1000:.1f} ms not, ratio {kept / without:.2f}")


if __name__ == "__main__":
    main()
