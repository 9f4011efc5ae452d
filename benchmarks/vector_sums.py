"""What comparing the files of vector tables costs (F20): commits and reads with it and, alternating, without.

    python -m benchmarks.vector_sums [--rounds 20]

A commit of 1,000 vectors x 384 (median); a count, one vector and all vectors of a table, as the first of a process and
later (least of so many).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from benchmarks.flush_cost import shard
from user_embeddings_dagster import keys
from user_embeddings_dagster.storage import lance_tables
from user_embeddings_dagster.storage.lance_tables import LanceTables

SHARD = 20_000


def without() -> ExitStack:
    """Neither noted nor compared."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(lance_tables, "record", lambda *_: None))
    stack.enter_context(mock.patch.object(lance_tables, "verified", lambda _, open_table: open_table()))
    return stack


def seconds(work: Callable[[], object]) -> float:
    """It takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sums-") as folder:
        tables = LanceTables(Path(folder))
        kept, bare = [], []
        for number in range(options.rounds):
            kept.append(seconds(lambda number=number: tables.upsert("dao", "kept", shard(number))))
            with without():
                bare.append(seconds(lambda number=number: tables.upsert("dao", "bare", shard(number))))
        a, b = statistics.median(kept[1:]), statistics.median(bare[1:])
        print(f"commit of 1,000: {a * 1000:.1f} ms with, {b * 1000:.1f} without, ratio {a / b:.2f}", flush=True)
        for n in (SHARD, 10 * SHARD):
            for number in range(n // SHARD):
                tables.upsert("dao", f"t{n}", shard(number, SHARD))
            tables.ensure_indices("dao", f"t{n}")
            reads: dict[str, Callable[[str], object]] = {
                "count": lambda table: tables.count("dao", table),
                "one vector": lambda table: tables.vectors("dao", table, [f"{5:032x}"]),
                "all vectors": lambda table: tables.vectors("dao", table),
            }
            for name, read in reads.items():
                first, later, never = [], [], []
                for _ in range(max(2, options.rounds // 5)):
                    keys._sha256_of.cache_clear()
                    first.append(seconds(lambda read=read, n=n: read(f"t{n}")))
                    later.append(seconds(lambda read=read, n=n: read(f"t{n}")))
                    with without():
                        never.append(seconds(lambda read=read, n=n: read(f"t{n}")))
                told = ", ".join(f"{min(kind) * 1000:.1f}" for kind in (first, later, never))
                print(f"{n:,} vectors, {name}: {told} ms (first of a process, later, without)", flush=True)


if __name__ == "__main__":
    main()
