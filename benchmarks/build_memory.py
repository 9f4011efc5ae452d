"""Peak memory of the whole build of one export (reading, hashing, merging, five tables), by its size.

    python -m benchmarks.build_memory [--megabytes 200 400 878] [--formats pushshift telegram chatgpt texts]
    python -m benchmarks.build_memory --copies 5 10 20 72    # the merge alone, of so many times 141,242 messages

Each build is a process of its own. Its peak is VmHWM, reset by /proc/self/clear_refs when the build has been imported
and at each stage; in RSS are also the pages of libraries that the process has touched. The messages table's hash tells
whether two versions of the build make the same bytes.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.ingestion_json import generate
from benchmarks.reddit_dump import write_dump
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.fingerprints import fingerprints
from user_embeddings_dagster.exports.merge import Merge, memory_for
from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.exports.ordering import memory_returned
from user_embeddings_dagster.exports.reader import raw_file
from user_embeddings_dagster.exports.reading import Reading
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.storage.lake import Lake

DATADAO = "large"
COMMENT = 1416  # bytes of JSON of a comment of 2021
FORMATS = {"pushshift": [200, 400, 878], "telegram": [300], "chatgpt": [300], "texts": [1000]}


def write(format: str, megabytes: int, landing: Path) -> None:
    """An export of about that many megabytes of JSON; the same arguments give the same bytes.

    `texts` is a Telegram chat in which every text has 1 MB.
    """
    landing.mkdir(parents=True)
    if format == "pushshift":
        write_dump(landing / "RC_2021-06.zst", "comments-2021", megabytes * 1_000_000 // COMMENT, 21)
    elif format == "texts":
        (landing / "result.json").write_text("".join(_texts(megabytes)))
    else:
        layout, name = ("pretty", "result.json") if format == "telegram" else ("default", "conversations.json")
        generate(format, layout, megabytes, landing / name)


def _texts(n: int) -> Iterator[str]:
    words = " ".join(f"{number * 7919 % 99991}" for number in range(170_000))[:1_000_000]
    yield '{"name": "Long", "type": "public_supergroup", "id": 77, "messages": ['
    for id in range(n):
        message = {"id": id, "type": "message", "date_unixtime": str(1_600_000_000 + 90_000 * id), "from": "A"}
        yield ("," if id else "") + json.dumps(message | {"from_id": f"user{id % 7}", "text": f"{id} {words}"})
    yield "]}"


def _peak() -> int:
    """Megabytes since the last call."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return int(status["VmHWM"].split()[0]) // 1024


def build(root: Path, threads: int) -> dict[str, Any]:
    """Build root/landing in this process: peak MB by stage, seconds, CPU seconds, rows, hash of all tables."""
    peaks, stage = {"imported": _peak()}, "read"

    def progress(now: str, _: dict[str, Any]) -> None:
        nonlocal stage
        if now == "merge":
            peaks["read"], stage = _peak(), now

    start, cpu = time.perf_counter(), time.process_time()
    result = build_messages(
        DATADAO, root / "landing", Lake(root / "lake"), bytes(32), progress=progress, threads=threads
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peaks[stage] = _peak()
    hashes = [commit.content_hash for _, commit in sorted(result.commits.items())]
    return {
        "peaks": peaks,
        "seconds": seconds,
        "cpu": cpu,
        "rows": result.stats["n_messages"],
        "hash": hashlib.sha256("".join(hashes).encode()).hexdigest()[:16],
    }


def copied(root: Path, copies: int) -> int:
    """Put down in root/stage so many copies of what a dump of 200 MB has staged, under ids of their own; rows."""
    write("pushshift", 200, root / "landing" / DATADAO)
    (stage := root / "stage").mkdir()
    normaliser = Normaliser(DATADAO, bytes(32), {}, 2)
    (read := root / "read").mkdir()
    nobody = Tombstones(bytes(32), frozenset()), ErasedNames(bytes(32))
    reading = Reading(DATADAO, read, normaliser, lambda *_: None, *nobody)
    reading.read([raw_file(root / "landing" / DATADAO, root / "landing" / DATADAO / "RC_2021-06.zst", None)])
    normaliser.close()
    rows = pl.read_parquet(f"{read}/messages-*.parquet")
    for copy in range(copies):
        ids = {name: pl.lit(f"{copy:02x}") + pl.col(name).str.slice(2) for name in ("message_id", "thread_id")}
        own = rows.with_columns(
            seq=pl.col("seq") + copy * reading.n_staged, text=pl.format("{}-{}", "text", copy), **ids
        )
        part = fingerprints(own)
        part.write_parquet(stage / f"messages-{copy}.parquet", compression="lz4", row_group_size=5_000)
    for path in [*read.glob("names-*"), *read.glob("rejected-*")]:
        path.rename(stage / path.name)
    return reading.n_staged * copies


def merge(stage: Path, rows: int) -> dict[str, Any]:
    """Merge what is staged in this process: peak MB, seconds, CPU seconds, rows, hash of the messages."""
    peaks, start, cpu = {"imported": _peak()}, time.perf_counter(), time.process_time()
    with memory_returned():
        merge = Merge(stage, pl.Series("author_id", [], pl.String), memory_for(rows))
        merge.decide()
        merge.write_participants(stage / "participants.parquet")
        messages = merge.messages()
        merge.close()
        peaks["merge"] = _peak()
        written = messages.write(stage / "table.parquet")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peaks["write"] = _peak()
    return {"peaks": peaks, "seconds": seconds, "cpu": cpu, "rows": written,
            "hash": file_sha256(stage / "table.parquet")[:16]}  # fmt: skip


def main() -> None:
    """Print a line for each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=tuple(FORMATS), default=list(FORMATS))
    parser.add_argument(
        "--megabytes", type=int, nargs="+", help="default: 200, 400, 878 of a dump, 300 of others, 1,000 texts"
    )
    parser.add_argument("--threads", type=int, default=2, help="that hash ids while reading")
    parser.add_argument("--copies", type=int, nargs="+", help="measure the merge alone, of so many copies of a dump")
    for hidden in ("--build", "--write", "--merge"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        return write(options.formats[0], options.megabytes[0], options.write)
    if options.build:
        return print(json.dumps(build(options.build, options.threads)))
    if options.merge:
        return print(json.dumps(merge(options.merge, options.copies[0])))
    command = [sys.executable, "-m", "benchmarks.build_memory"]
    for copies in options.copies or ():
        with tempfile.TemporaryDirectory() as root:
            rows = copied(Path(root), copies)
            tell(f"{copies} copies", [*command, "--merge", f"{root}/stage", "--copies", str(rows)])
    for format in () if options.copies else options.formats:
        for megabytes in options.megabytes or FORMATS[format]:
            with tempfile.TemporaryDirectory() as root:
                export = ["--formats", format, "--megabytes", str(megabytes)]
                subprocess.run([*command, "--write", f"{root}/landing/{DATADAO}", *export], check=True)
                tell(f"{format} {megabytes} MB", [*command, "--build", root, "--threads", str(options.threads)])
    return None


def tell(what: str, command: list[str]) -> None:
    """Run a measurement in a process of its own and print its line."""
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    peaks = ", ".join(f"{stage} {peak}" for stage, peak in found["peaks"].items())
    cost = f"{found['seconds']:5.1f} s {found['cpu']:5.1f} s CPU"
    print(f"{what:18} {found['rows']:10,} messages  peak MB: {peaks}  {cost}  {found['hash']}", flush=True)


if __name__ == "__main__":
    main()
