"""Peak memory of the whole build of one export (reading, hashing, merging, five tables), by its size.

    python -m benchmarks.build_memory [--megabytes 200 400 878] [--formats pushshift telegram chatgpt] [--threads 2]

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
from pathlib import Path
from typing import Any

from benchmarks.ingestion_json import generate
from benchmarks.reddit_dump import write_dump
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.storage.lake import Lake

DATADAO = "large"
COMMENT = 1416  # bytes of JSON of a comment of 2021
FORMATS = {"pushshift": [200, 400, 878], "telegram": [300], "chatgpt": [300]}


def write(format: str, megabytes: int, landing: Path) -> None:
    """An export of about that many megabytes of JSON; the same arguments give the same bytes."""
    landing.mkdir(parents=True)
    if format == "pushshift":
        write_dump(landing / "RC_2021-06.zst", "comments-2021", megabytes * 1_000_000 // COMMENT, 21)
    else:
        layout, name = ("pretty", "result.json") if format == "telegram" else ("default", "conversations.json")
        generate(format, layout, megabytes, landing / name)


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


def main() -> None:
    """Print a line for each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=tuple(FORMATS), default=list(FORMATS))
    parser.add_argument("--megabytes", type=int, nargs="+", help="default: 200, 400 and 878 of a dump, 300 of others")
    parser.add_argument("--threads", type=int, default=2)
    for hidden in ("--build", "--write"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        return write(options.formats[0], options.megabytes[0], options.write)
    if options.build:
        return print(json.dumps(build(options.build, options.threads)))
    command = [sys.executable, "-m", "benchmarks.build_memory"]
    for format in options.formats:
        for megabytes in options.megabytes or FORMATS[format]:
            with tempfile.TemporaryDirectory() as root:
                export = ["--formats", format, "--megabytes", str(megabytes)]
                subprocess.run([*command, "--write", f"{root}/landing/{DATADAO}", *export], check=True)
                run = [*command, "--build", root, "--threads", str(options.threads)]
                found = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)
                peaks = ", ".join(f"{stage} {peak}" for stage, peak in found["peaks"].items())
                print(
                    f"{format:10} {megabytes:5} MB {found['rows']:9,} messages  peak MB: {peaks}  "
                    f"{found['seconds']:5.1f} s {found['cpu']:5.1f} s CPU  {found['hash']}",
                    flush=True,
                )
    return None


if __name__ == "__main__":
    main()
