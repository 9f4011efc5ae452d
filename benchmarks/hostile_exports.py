"""Hostile exports through the messages build: what each attack costs, and whether good rows beside it are kept.

Each attack is built in a folder of its own and read in a process of its own. It is withstood if nothing is raised,
the good texts are there, what is bad is located in rejected_records, messages read are kept or counted as dropped,
and no file appears outside of the lake.

    python -m benchmarks.hostile_exports [--megabytes 8] [--only NAME] [--seconds 60]
    python -m benchmarks.hostile_exports --megabytes 1024 --seconds 600      # lines of 1 GB, bombs of 8 and 16
    python -m benchmarks.hostile_exports --mutations 100000                  # mutated exports of every format
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.hostile_attacks import attacks
from benchmarks.hostile_mutations import Fuzzed, fuzz, originals
from benchmarks.hostile_shapes import Attack
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.storage.lake import Lake

DATADAO = "hostile"
PEAK_MB = 256
LARGE = 64  # megabytes of JSON that a naive loader cannot hold in PEAK_MB
SLICE = 10_000  # mutated exports of one format at a time


@dataclass(frozen=True)
class Outcome:
    """What became of one attack; `faults` is empty if it was withstood."""

    faults: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0


def build(root: Path) -> dict[str, Any]:
    """Run the build on root/landing in this process; its figures, or what it raised."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is this build's
    lake, start = Lake(root / "lake"), time.process_time()
    try:
        build_messages(DATADAO, root / "landing", lake, bytes(32), threads=2)
    except Exception as error:  # noqa: BLE001 which is the finding
        return {"raised": f"{type(error).__name__}: {str(error)[:160]}"}
    seconds = time.process_time() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    messages, rejected = lake.scan("messages", DATADAO), lake.scan("rejected_records", DATADAO)
    read = lake.read("raw_files", DATADAO)["n_messages"].sum()
    dropped = lake.read("dropped_messages", DATADAO)["n"].sum()
    return {
        "seconds": seconds,
        "peak_mb": int(status["VmHWM"].split()[0]) / 1024,
        "good": messages.filter(pl.col("text").str.starts_with("good")).select(pl.len()).collect().item(),
        "reasons": sorted(rejected.select(pl.col("reason").unique()).collect()["reason"]),
        "counted": messages.select(pl.len()).collect().item() + dropped == read,
        "staged": len(list((root / "lake" / "staging").iterdir())),
    }


def withstood(chosen: Sequence[Attack], megabytes: int, seconds: float) -> Iterator[tuple[Attack, Outcome]]:
    """The attacks and what became of them: small ones in one process, each of size in a process of its own."""
    batches = [[attack for attack in chosen if not attack.sized], *([attack] for attack in chosen if attack.sized)]
    for batch in filter(None, batches):
        yield from zip(batch, _run(batch, megabytes, seconds), strict=True)


def _run(batch: Sequence[Attack], megabytes: int, seconds: float) -> Iterator[Outcome]:
    """Write the attacks, read them in one process that may write anywhere below a scratch folder, judge each."""
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / f"{number:03}" for number in range(len(batch))]
        for attack, root in zip(batch, roots, strict=True):
            (root / "landing" / DATADAO).mkdir(parents=True)
            attack.write(root / "landing" / DATADAO, megabytes)
        before = _outside(Path(folder))
        places = {"HOME": folder, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-P", "-m", "benchmarks.hostile_exports", "--build", *map(str, roots)]
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **places}, stdout=subprocess.PIPE, text=True)
        cpu = int(seconds * len(batch)) + 10
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu, cpu))
        lines = process.communicate()[0].splitlines()
        escaped = _outside(Path(folder)) != before
        for number, attack in enumerate(batch):
            found = json.loads(lines[number]) if number < len(lines) else {"raised": f"ended by {process.returncode}"}
            yield _judged(attack, found, escaped)


def _judged(attack: Attack, found: dict[str, Any], escaped: bool) -> Outcome:
    if "raised" in found:
        return Outcome((found["raised"],))
    faults = []
    if found["good"] != attack.good:
        faults.append(f"{found['good']} good texts instead of {attack.good}")
    wanted, reasons = attack.reasons, found["reasons"]
    if wanted is not None and (wanted.isdisjoint(reasons) if wanted else reasons):
        faults.append(f"rejected for {reasons or 'nothing'}, expected {sorted(wanted)}")
    if not found["counted"]:
        faults.append("messages read are neither kept nor counted as dropped")
    if escaped or found["staged"]:
        faults.append("files outside of the lake's tables")
    if found["peak_mb"] > PEAK_MB:
        faults.append("memory")
    return Outcome(tuple(faults), tuple(reasons), found["seconds"], found["peak_mb"])


def _outside(root: Path) -> dict[str, int]:
    """Files that are not a lake's, with their sizes."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[1:2] != ("lake",)]
    return {str(path): path.lstat().st_size for path in paths}


def mutate(count: int, only: str) -> int:
    """Mutated exports, format after format in slices, each with the formats' figures so far; returns how many formats
    failed."""
    found = {format: Fuzzed() for format in originals() if only in format}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, count, SLICE):
            seeds = range(start, min(start + SLICE, count))
            for format in found:
                found[format] += fuzz(format, seeds, Path(folder))
                so_far = found[format]
                figures = f"{so_far.accepted:,} messages, {so_far.rejected:,} rejected, slowest {so_far.slowest:.2f} s"
                print(f"{format:20} {seeds.stop:,} mutations, {len(so_far.failures)} failures, {figures}", flush=True)
    seconds, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.0f} s CPU, peak {peak:.0f} MB")
    return sum(bool(one.failures) for one in found.values())


NAIVE = """
import json, sys
json.load(open(sys.argv[1], "rb"))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def naive_peak(megabytes: int) -> float:
    """Positive control: peak MB of the standard library on a file of small chats; infinite over 2 GB."""
    attack = next(attack for attack in attacks() if attack.name == "many chats")
    with tempfile.TemporaryDirectory() as folder:
        attack.write(Path(folder), megabytes)
        (path,) = Path(folder).iterdir()
        process = subprocess.Popen([sys.executable, "-c", NAIVE, str(path)], stdout=subprocess.PIPE, text=True)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (2 << 30, 2 << 30))
        peak = process.communicate()[0]
    return int(peak) / 1024 if peak else float("inf")


def main() -> int:
    """Print the table; returns 1 if an attack was not withstood."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60, help="processor time allowed for one attack")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--mutations", type=int, default=0, help="instead of the attacks: mutated exports a format")
    parser.add_argument("--build", type=Path, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        for root in options.build:
            print(json.dumps(build(root)), flush=True)
        return 0
    if options.mutations:
        return mutate(options.mutations, options.only)
    chosen = [attack for attack in attacks() if options.only in attack.name]
    failed = 0
    for attack, outcome in withstood(chosen, options.megabytes, options.seconds):
        failed += bool(outcome.faults)
        verdict = "; ".join(outcome.faults) or ", ".join(outcome.reasons) or "read"
        figures = f"{outcome.seconds:6.1f} s CPU {outcome.peak_mb:5.0f} MB"
        print(f"{'FAILED' if outcome.faults else 'ok':6} {attack.name:48} {figures}  {verdict}", flush=True)
    if not options.only:
        peak = naive_peak(options.megabytes)
        failed += peak <= PEAK_MB and options.megabytes >= LARGE
        print(f"control many chats by the standard library {peak:24.0f} MB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
