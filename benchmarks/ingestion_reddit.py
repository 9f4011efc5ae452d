"""Reddit dumps: our reader beside the customary loop, on one made-up dump of each era.

    python benchmarks/ingestion_reddit.py [--rows 200000] [--rounds 3] [--window 27]

The customary loop is zstandard's stream_reader, io.TextIOWrapper and json.loads per line, in two forms: `fields`
appends the raw fields to lists; `frame` also does per row what the reader does (ids, times, deleted authors,
removed texts) and ends in the same frame, which is compared with ours value by value. Every measurement is a
process of its own (start and imports are not timed); sides take turns; the best round of each counts. CPU seconds
stand beside the wall clock, because a busy machine stretches mostly the latter.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.reddit_dump import ERAS, write_dump
from user_embeddings_dagster.exports import pushshift
from user_embeddings_dagster.exports.reader import RawFile

COMMON = ("id", "author", "created_utc", "edited", "subreddit")
COMMENT = (*COMMON, "link_id", "parent_id", "body")
SUBMISSION = (*COMMON, "title", "selftext", "is_video", "post_hint")
COMPARED = (
    "native_thread", "native_id", "native_parent", "native_author", "role", "created_at", "edited_at", "text",
    "media_kind", "community", "raw_location",
)  # fmt: skip
REMOVED = ("[deleted]", "[removed]")


def _records(path: Path) -> Iterator[dict]:
    with path.open("rb") as raw:
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw)
        for line in io.TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def customary_fields(path: Path) -> int:
    """The customary loop: raw fields into lists; returns the number of rows."""
    names = COMMENT if path.name.startswith("comments") else SUBMISSION
    columns: dict[str, list] = {name: [] for name in names}
    for record in _records(path):
        for name in names:
            columns[name].append(record.get(name))
    return len(columns["id"])


def _comment(record: dict) -> tuple:
    body = record["body"]
    text = "" if body in REMOVED else body
    return record["link_id"], "t1_" + record["id"], record["parent_id"] or record["link_id"], text, None


def _submission(record: dict) -> tuple:
    selftext, title = record["selftext"], record["title"]
    text = title if not selftext or selftext in REMOVED else title + "\n\n" + selftext
    kind = "video" if record["is_video"] else "photo" if record.get("post_hint") == "image" else None
    return "t3_" + record["id"], "t3_" + record["id"], None, text, kind


def customary_frame(path: Path) -> pl.DataFrame:
    """The customary loop that ends in the reader's frame."""
    columns: dict[str, list] = {name: [] for name in COMPARED}
    of_kind = _comment if path.name.startswith("comments") else _submission
    for number, record in enumerate(_records(path), 1):
        thread, name, parent, text, kind = of_kind(record)
        author, edited = record["author"], record["edited"]
        deleted = author in (*REMOVED, "")
        columns["native_thread"].append(thread)
        columns["native_id"].append(name)
        columns["native_parent"].append(parent)
        columns["native_author"].append(None if deleted else author)
        columns["role"].append("deleted" if deleted else "user")
        columns["created_at"].append(datetime.fromtimestamp(int(record["created_utc"]), UTC))
        columns["edited_at"].append(datetime.fromtimestamp(edited, UTC) if edited else None)
        columns["text"].append(text)
        columns["media_kind"].append(kind)
        columns["community"].append(None if record["subreddit"].startswith("u_") else record["subreddit"])
        columns["raw_location"].append(number)
    return pl.DataFrame(columns)


def frame_rows(path: Path) -> int:
    """Rows of the customary loop's frame."""
    return customary_frame(path).height


def ours(path: Path) -> int:
    """Every batch of the reader, one at a time as in production; returns the number of rows."""
    return sum(batch.messages.height for batch in pushshift.read(RawFile(path, path.name, "0" * 64)))


def compare(path: Path) -> bool:
    """Whether both sides give the same values in every compared column."""
    batches = pushshift.read(RawFile(path, path.name, "0" * 64))
    frame = pl.concat([batch.messages.select(COMPARED) for batch in batches])
    return frame.equals(customary_frame(path).cast(frame.schema))


SIDES = {"ours": ours, "fields": customary_fields, "frame": frame_rows}


def measure(side: str, path: Path) -> tuple[float, float, int, float]:
    """Wall seconds, CPU seconds, rows and peak memory (MB) of one side, in the process that calls this."""
    cpu, wall = time.process_time(), time.perf_counter()
    rows = SIDES[side](path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _alone(function, *arguments):
    """The result of a call in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _era(era: str, path: Path, rows: int, rounds: int) -> None:
    best = dict.fromkeys(SIDES, (float("inf"), float("inf"), 0.0))
    for _ in range(rounds):
        for side, before in best.items():
            wall, cpu, read, memory = _alone(measure, side, path)
            if read != rows:
                raise SystemExit(f"{era}: {side} read {read} rows, not {rows}")
            best[side] = min(before[0], wall), min(before[1], cpu), max(before[2], memory)
    if not _alone(compare, path):
        raise SystemExit(f"{era}: the two sides did not read the same rows")
    for side, (wall, cpu, memory) in best.items():
        print(
            f"  {side:<7}{rows / wall:>10,.0f} rows/s {wall:7.2f} s wall {cpu:7.2f} s CPU {memory:7,.0f} MB peak; "
            f"ours is {wall / best['ours'][0]:4.1f} times as fast by wall, {cpu / best['ours'][1]:4.1f} by CPU",
            flush=True,
        )


def main() -> None:
    """Print rows per second, seconds and peak memory of each side for each era."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=27, help="log2 of the zstd window")
    parser.add_argument("--eras", nargs="+", default=list(ERAS), choices=ERAS)
    arguments = parser.parse_args()
    for era in arguments.eras:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{era}.zst"
            size = write_dump(path, era, arguments.rows, arguments.window)
            print(
                f"{era}: {arguments.rows:,} rows, {size / 1e6:,.0f} MB as NDJSON, {path.stat().st_size / 1e6:,.0f} MB "
                f"zstd; {len(os.sched_getaffinity(0))} processors, load average {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            _era(era, path, arguments.rows, arguments.rounds)
    print("the same rows on both sides in every era")


if __name__ == "__main__":
    main()
