"""Processes that write the same rows at once, and a checker of their history: nothing twice, nothing lost or mixed.

    python -m benchmarks.concurrent_writers [--writers 8] [--rounds 8] [--store NAME]

Vector tables, on the local disk and on moto's S3: each writer merges batches of ids that all share, half of them new,
all writers at the same moment, reads after each, and writes down when each began and ended. The checker wants each id
once; every id of every acknowledged batch; and of each id a value that was not overwritten by a batch that began after
its own had ended. Tables, user memories and
scores: each writer replaces the same partition as a whole; a reader must always see the rows of one writer, all of
them. Controls: without the primary key's mark ids appear twice; a writer to the final path is seen torn.
"""

import argparse
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.commit_stages import scores
from benchmarks.write_history import History, Read, Verdict, Write, check
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage import lance_tables, vector_rows
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, arrow_rows
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories

os.environ.setdefault("PYTHONWARNINGS", "ignore")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["benchmarks.concurrent_writers", "lancedb", "lance"])
IDS, BATCH = 60, 25
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def vectors(place: str, options: dict[str, str], marked: bool, writers: int, rounds: int) -> Verdict:
    """The verdict on `writers` processes that merge overlapping ids into one table."""
    if options:
        _created(place, options, marked)
    return check(_run(_merge_batches, (place, options, marked), writers, rounds, _read_vectors))


def _merge_batches(number: int, rounds: int, barrier, place: str, options: dict[str, str], marked: bool) -> History:
    history, generator = History(), random.Random(number)
    if not marked:
        mock.patch.object(vector_rows, "PRIMARY_KEY", None).start()  # for the rest of this process
    for turn in range(rounds):
        first = turn * IDS // 2  # half of the ids are new to the table
        ids = tuple(f"{i:032x}" for i in sorted(generator.sample(range(first, first + IDS), BATCH)))
        name = f"{number}-{turn}"
        barrier.wait()
        began = time.monotonic()
        _upsert(place, options, _rows(name, ids))
        history.writes.append(Write(name, ids, began, time.monotonic()))
        history.reads.append(_read_vectors(place, options, marked))
    return history


def _upsert(place: str, options: dict[str, str], rows: pl.DataFrame) -> None:
    """By our own method; on S3, which that does not know, by the same merge."""
    if not options:
        LanceTables(Path(place)).upsert("dao", "t", rows)
        return
    lance_tables.merge(_database(place, options).open_table("t"), arrow_rows(rows))


def _database(place: str, options: dict[str, str]) -> Any:
    import lancedb

    return lancedb.connect(place, storage_options=options)


def _rows(name: str, ids: Sequence[str]) -> pl.DataFrame:
    values = np.full((len(ids), 8), 1, dtype=np.float32)
    return pl.DataFrame({"id": ids, "version": [name] * len(ids)}).with_columns(vector=pl.Series(values))


def _created(place: str, options: dict[str, str], marked: bool) -> None:
    """An empty table on S3, made by one process: of several that create one at once, one may replace the other's."""
    schema = arrow_rows(_rows("none", ["none"])).schema
    fields = [part if marked else part.remove_metadata() for part in schema]
    _database(place, options).create_table("t", schema=pa.schema(fields))


def _read_vectors(place: str, options: dict[str, str], _: bool) -> Read:
    began = time.monotonic()
    if options:
        arrow = _database(place, options).open_table("t").search().select(["id", "version"]).to_arrow()
    else:
        arrow = LanceTables(Path(place)).read("dao", "t", ["id", "version"]).to_arrow()
    ids, names = arrow["id"].to_pylist(), arrow["version"].to_pylist()
    return Read(dict(zip(ids, names, strict=True)), len(ids) - len(set(ids)), began, time.monotonic())


@contextmanager
def moto_s3() -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket on moto's server in this process: the place of a database, and the options to reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        ).create_bucket(Bucket="bucket")
        yield "s3://bucket/dao", {key.lower(): value for key, value in KEYS.items()} | {
            "endpoint": url, "allow_http": "true", "aws_endpoint": url,
        }  # fmt: skip
    finally:
        server.stop()


def _commit_table(root: Path, name: str, n: int) -> None:
    Lake(root).commit(SCORES, scores("a", name, n), "zig", name)


def _read_table(root: Path) -> list[str]:
    return Lake(root).read("scores", "zig")["version"].to_list()


def _overwrite(root: Path, name: str, n: int) -> None:
    """Control: to the final path, in two parts. Were the pauses equal, all writers would end and read at once."""
    lines = scores("a", name, n).write_csv().splitlines(keepends=True)
    with (root / "scores.csv").open("w") as stream:
        stream.writelines(lines[: n // 2])
        stream.flush()
        time.sleep(random.uniform(0.01, 0.1))
        stream.writelines(lines[n // 2 :])


def _read_overwritten(root: Path) -> list[str]:
    return pl.read_csv(root / "scores.csv")["version"].to_list()


def _write_memories(root: Path, name: str, n: int) -> None:
    with UserMemories(root / "zig.sqlite") as memories:
        memories.write([(f"{i:032x}", name, 1, "h") for i in range(n)], np.zeros((n, 64), dtype=np.uint8))


def _read_memories(root: Path) -> list[str]:
    users = [f"{i:032x}" for i in range(SIZES["user memories"])]
    with UserMemories(root / "zig.sqlite") as memories:
        return [row[1] for row in memories.read(users)[0]]


def _write_scores(root: Path, name: str, n: int) -> None:
    ScoreTable(root / "scores.duckdb").replace("a", scores("a", name, n))


def _read_scores(root: Path) -> list[str]:
    return ScoreTable(root / "scores.duckdb").read()["version"].to_list()


WHOLE: dict[str, tuple[Callable[[Path, str, int], None], Callable[[Path], list[str]]]] = {
    "Parquet table": (_commit_table, _read_table),
    "user memories": (_write_memories, _read_memories),
    "scores": (_write_scores, _read_scores),
    "control: written to the final path": (_overwrite, _read_overwritten),
}
SIZES = {"Parquet table": 4000, "user memories": 600, "scores": 200, "control: written to the final path": 500}


def whole(store: str, root: Path, writers: int, rounds: int) -> Verdict:
    """The verdict on processes that replace the same rows as a whole: `twice` counts reads of a mixture."""
    return check(_run(_replace_all, (store, root), writers, rounds, _read_whole))


def _replace_all(number: int, rounds: int, barrier, store: str, root: Path) -> History:
    history = History()
    barrier.wait()
    for turn in range(rounds):
        name, began = f"{number}-{turn}", time.monotonic()
        WHOLE[store][0](root, name, SIZES[store])
        history.writes.append(Write(name, ("all",), began, time.monotonic()))
        history.reads.append(_read_whole(store, root))
    return history


def _read_whole(store: str, root: Path) -> Read:
    began = time.monotonic()
    try:
        names = Counter(WHOLE[store][1](root))
    except pl.exceptions.PolarsError:  # torn
        return Read({}, 1, began, time.monotonic())
    mixed = len(names) != 1 or names.total() != SIZES[store]
    return Read({"all": next(iter(names), "")}, int(mixed), began, time.monotonic())


def _run(
    writer: Callable[..., History], arguments: tuple, writers: int, rounds: int, read: Callable[..., Read]
) -> History:
    """Run the writers at once; their histories together, with a read after all."""
    barrier, results = FORKS.Barrier(writers), FORKS.SimpleQueue()
    started = [
        FORKS.Process(target=_guarded, args=(results, writer, number, rounds, barrier, *arguments))
        for number in range(writers)
    ]
    for process in started:
        process.start()
    history = History()
    for _ in started:
        while results.empty() and any(process.is_alive() for process in started):
            if any(process.exitcode for process in started):  # it died without a word: the others wait for it
                barrier.abort()
            time.sleep(0.002)
        if results.empty():
            raise RuntimeError(f"writers ended with {[process.exitcode for process in started]}, without a result")
        found = results.get()
        history.writes += found.writes
        history.reads += found.reads
        history.errors += found.errors
    for process in started:
        process.join()
    history.reads.append(read(*arguments))
    return history


def _guarded(results, writer: Callable[..., History], *arguments) -> None:
    try:
        found = writer(*arguments)
    except Exception as error:  # noqa: BLE001 - a writer that fails is the finding
        arguments[2].abort()  # the others wait for it at the barrier
        found = History(errors=[f"{type(error).__name__}: {str(error)[:160]}"])
    results.put(found)
    os._exit(0)


def main() -> int:
    """Run the experiment; returns 1 on a bad verdict or a control that is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--store", default="", help="only the stores whose name contains this")
    options = parser.parse_args()
    size, failed = (options.writers, options.rounds), False
    with tempfile.TemporaryDirectory(prefix="writers-") as folder, moto_s3() as (place, access):
        experiments: dict[str, Callable[[], Verdict]] = {
            "vectors, local": lambda: vectors(f"{folder}/marked", {}, True, *size),
            "vectors, S3": lambda: vectors(place, access, True, *size),
            "control: vectors, local, no mark": lambda: vectors(f"{folder}/unmarked", {}, False, *size),
            "control: vectors, S3, no mark": lambda: vectors(f"{place}-unmarked", access, False, *size),
        }
        for number, store in enumerate(WHOLE):
            root = Path(folder, str(number))
            root.mkdir()
            experiments[store] = lambda store=store, root=root: whole(store, root, *size)
        for name, experiment in experiments.items():
            if options.store not in name:
                continue
            started = time.monotonic()
            verdict = experiment()
            print(
                f"{name:36} {verdict.writes:4} writes acknowledged, {verdict.twice:4} twice or mixed,"
                f" {verdict.lost:4} lost, {len(verdict.errors)} errors, {time.monotonic() - started:.1f} s",
                flush=True,
            )
            for error in sorted(verdict.errors, key=lambda text: "BrokenBarrier" in text)[:3]:
                print(f"    {error}")
            failed |= verdict.good == name.startswith("control")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
