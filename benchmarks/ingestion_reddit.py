"""Reddit dumps: our reader beside the customary loop, on one made-up dump, in one process.

    python benchmarks/ingestion_reddit.py [--rows 500000] [--rounds 3] [--window 27]

The customary loop is zstandard's stream_reader, io.TextIOWrapper and json.loads per line, in two forms: `fields`
appends the nine raw fields to lists; `frame` also does per row what the reader does (ids, times, deleted authors,
removed texts) and ends in the same frame, which is compared with ours value by value. Sides take turns; the
best round of each counts. CPU seconds stand beside the wall clock, because a busy machine stretches only the latter.
"""

import argparse
import io
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import polars as pl
import zstandard

from user_embeddings_dagster.exports import pushshift
from user_embeddings_dagster.exports.reader import RawFile

FIELDS = ("id", "author", "created_utc", "edited", "subreddit", "link_id", "parent_id", "body")
COMPARED = (
    "native_thread", "native_id", "native_parent", "native_author", "role", "created_at", "edited_at", "text",
    "community", "raw_location",
)  # fmt: skip
WORDS = [f"{a}{b}" for a in ("ta", "re", "mo", "si", "ka", "lu", "né", "vo", "qu", "the") for b in range(400)]


def comment(rng: Random, number: int) -> dict:
    """One comment with the keys of a dump of 2018."""
    body = " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
    if rng.random() < 0.4:
        body = body.replace(" ", "\n\n", 1) + ' "quoted" \U0001f642'
    link = f"9k{number // 40:x}"
    return {
        "author": "[deleted]" if rng.random() < 0.05 else f"user{rng.randint(0, 50_000)}",
        "author_cakeday": None, "author_flair_background_color": None, "author_flair_css_class": None,
        "author_flair_richtext": [], "author_flair_text": None, "author_flair_type": "text",
        "author_fullname": f"t2_{rng.randint(0, 10**8):x}", "body": body, "can_gild": True, "can_mod_post": False,
        "collapsed": False, "collapsed_reason": None, "controversiality": 0, "created_utc": 1_538_352_000 + number,
        "distinguished": None, "edited": 1_538_352_060 + number if rng.random() < 0.05 else False, "gilded": 0,
        "id": f"e6{number:x}", "is_submitter": False, "link_id": f"t3_{link}", "no_follow": True,
        "parent_id": f"t1_e6{max(0, number - 5):x}", "permalink": f"/r/sub/comments/{link}/title/e6{number:x}/",
        "removal_reason": None, "retrieved_on": 1_540_000_000, "score": rng.randint(-5, 200), "send_replies": True,
        "stickied": False, "subreddit": f"sub{rng.randint(0, 300)}", "subreddit_id": "t5_2qh1i",
        "subreddit_name_prefixed": "r/sub", "subreddit_type": "public",
    }  # fmt: skip


def write_dump(path: Path, rows: int, window_log: int) -> int:
    """Write a .zst dump of `rows` comments, the same for the same arguments; returns its size as NDJSON."""
    rng, size = Random(0), 0
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(path.open("wb")) as out:
        for number in range(rows):
            line = json.dumps(comment(rng, number), separators=(",", ":")).encode() + b"\n"
            size += len(line)
            out.write(line)
    return size


def _records(path: Path):
    with path.open("rb") as raw:
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw)
        for line in io.TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def customary_fields(path: Path) -> int:
    """The customary loop: raw fields into lists; returns the number of rows."""
    columns: dict[str, list] = {name: [] for name in FIELDS}
    for record in _records(path):
        for name in FIELDS:
            columns[name].append(record[name])
    return len(columns["id"])


def customary_frame(path: Path) -> pl.DataFrame:
    """The customary loop that ends in the reader's frame."""
    columns: dict[str, list] = {name: [] for name in COMPARED}
    for number, record in enumerate(_records(path), 1):
        author = record["author"]
        deleted = author in ("[deleted]", "[removed]", "")
        edited, body = record["edited"], record["body"]
        columns["native_thread"].append(record["link_id"])
        columns["native_id"].append("t1_" + record["id"])
        columns["native_parent"].append(record["parent_id"] or record["link_id"])
        columns["native_author"].append(None if deleted else author)
        columns["role"].append("deleted" if deleted else "user")
        columns["created_at"].append(datetime.fromtimestamp(int(record["created_utc"]), UTC))
        columns["edited_at"].append(datetime.fromtimestamp(edited, UTC) if edited else None)
        columns["text"].append("" if body in ("[deleted]", "[removed]") else body)
        columns["community"].append(None if record["subreddit"].startswith("u_") else record["subreddit"])
        columns["raw_location"].append(number)
    return pl.DataFrame(columns)


def ours(path: Path) -> int:
    """Every batch of the reader, one at a time as in production; returns the number of rows."""
    return sum(batch.messages.height for batch in pushshift.read(RawFile(path, path.name, "0" * 64)))


def _measure(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds and result of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    """Print rows per second of both sides, their ratio and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=27, help="log2 of the zstd window")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "RC.zst"
        size = write_dump(path, arguments.rows, arguments.window)
        print(f"{arguments.rows:,} comments, {size / 1e6:,.0f} MB as NDJSON, {path.stat().st_size / 1e6:,.0f} MB zstd")
        best: dict[str, tuple[float, float]] = {}
        memory = 0.0
        for number in range(arguments.rounds):
            sides: dict[str, Callable[[], object]] = {"ours": lambda: ours(path)}
            sides |= {"fields": lambda: customary_fields(path), "frame": lambda: customary_frame(path)}
            for name, work in sides.items():
                wall, cpu, result = _measure(work)
                if name == "ours" and not number:
                    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                rows = result.height if isinstance(result, pl.DataFrame) else result
                if rows != arguments.rows:
                    raise SystemExit(f"{name} read {rows} rows, not {arguments.rows}")
                before = best.get(name, (wall, cpu))
                best[name] = min(before[0], wall), min(before[1], cpu)
                print(f"  round {number + 1} {name:<7} {wall:6.2f} s wall {cpu:6.2f} s CPU", flush=True)
        theirs = customary_frame(path)
        batches = pushshift.read(RawFile(path, path.name, "0" * 64))
        frame = pl.concat([batch.messages.select(COMPARED) for batch in batches])
        if not frame.equals(theirs.cast(frame.schema)):
            raise SystemExit("the two sides did not read the same rows")
    print(f"same rows on both sides; our peak RSS {memory:,.0f} MB; {len(os.sched_getaffinity(0))} processors")
    for name, (wall, cpu) in best.items():
        print(
            f"{name:<7} {arguments.rows / wall:>10,.0f} rows/s "
            f"ours is {wall / best['ours'][0]:5.1f} times as fast by wall, {cpu / best['ours'][1]:5.1f} by CPU"
        )


if __name__ == "__main__":
    main()
