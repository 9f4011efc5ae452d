"""Mutated exports: valid ones with bits flipped, parts cut out, doubled, swapped or replaced, through the readers.

`check` states what holds of any bytes: a reader returns messages and located rejected records and raises nothing, in
bounded time, and where it can be told how many records a file has, each was accepted or rejected.
"""

import csv
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile_shapes import CSV_HEAD, SHAPES, zipped
from user_embeddings_dagster.exports.bounds import bounded
from user_embeddings_dagster.exports.lines import compression
from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.exports.reader import Format, RawFile, Rejected
from user_embeddings_dagster.exports.registry import FORMATS, detect
from user_embeddings_dagster.schema import NATIVE_MESSAGES

SECONDS = 5.0  # of processor time for one file
KINDS = ("flip", "cut", "remove", "double", "swap", "insert")
TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", rb"\u", rb"\ud800", rb"\xe9", b"\0", b"\n", b"\r", b"\xff", b"NaN",
    b"null", b"true", b"-1e999", b"9" * 40, b"{}", b"[]", b'""', b'"id":', b'"mapping":', b'"messages": [', b"},{",
    b"[" * 2000, "\u202e".encode(), b"PK\x01\x02", b"PK\x05\x06", b"\x28\xb5\x2f\xfd", b"BZh9", b"\x1f\x8b", b"'; DROP",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One change: `at` and `to` are places in the file, from 0 to 1; `token` is one of TOKENS, or the bit to flip."""

    kind: str
    at: float
    to: float
    token: int


def mutated(data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """The bytes with the changes made, in order."""
    for change in mutations:
        at, to = sorted((int(change.at * len(data)), int(change.to * len(data))))
        if change.kind == "cut":
            data = data[:at]
        elif change.kind == "remove":
            data = data[:at] + data[to:]
        elif change.kind == "double":
            data = data[:to] + data[at:]
        elif change.kind == "swap":
            middle = (at + to) // 2
            data = data[:at] + data[middle:to] + data[at:middle] + data[to:]
        elif change.kind == "insert":
            data = data[:at] + TOKENS[change.token % len(TOKENS)] + data[at:]
        elif at < len(data):
            data = data[:at] + bytes((data[at] ^ (1 << change.token % 8),)) + data[at + 1 :]
    return data


def random_mutations(rng: random.Random) -> list[Mutation]:
    """One to six changes, mostly of neighbouring bytes."""
    found = []
    for _ in range(rng.randint(1, 6)):
        at = rng.random()
        to = rng.random() if rng.random() < 0.2 else min(1.0, at + rng.random() * 0.05)
        found.append(Mutation(rng.choice(KINDS), at, to, rng.randrange(1000)))
    return found


def originals() -> dict[str, tuple[str, bytes]]:
    """A file name and valid content for each format of the registry that has messages."""
    found = {name: (shape.file, shape.good(8)) for name, shape in SHAPES.items()}
    rows = SHAPES["reddit_request_csv"].good(8)
    statistics = b"statistic,value\naccount name,ann\n"
    content = zipped(("comments.csv", rows), ("statistics.csv", statistics))
    return found | {"reddit_request_zip": ("export_ann_20240101.zip", content)}


def records(format: str, data: bytes) -> int | None:
    """How many records an independent parser finds in a file; None where it cannot tell."""
    try:
        if format == "pushshift":
            if compression(data[:8]) != "none":
                return None
            return sum(bool(line.strip()) for line in data.split(b"\n"))
        if format == "reddit_request_csv":
            rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
            return sum(map(bool, rows[1:])) if rows and rows[0] == CSV_HEAD.decode().strip().split(",") else None
        document = json.loads(data, object_pairs_hook=_unique)
        if format == "telegram_desktop":
            return len(document["messages"]) if isinstance(document["messages"], list) else None
        if format == "telegram_dfusion":
            return sum(len(chat["contents"]) if isinstance(chat["contents"], list) else 1 for chat in document["chats"])
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error):
        return None
    return None  # a conversation becomes as many messages as its path has


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def check(format: Format, file: RawFile, normaliser: Normaliser) -> tuple[int, int]:
    """Messages and rejected records of a file; AssertionError where a law is broken; else what the reader raises."""
    start = time.process_time()
    detect(file)
    accepted, rejected = 0, list[Rejected]()
    places: Counter[tuple[str, int]] = Counter()
    for batch in bounded(format.read(file)):
        assert batch.messages.schema == NATIVE_MESSAGES.schema
        places.update(batch.messages.select("raw_member", "raw_location").iter_rows())
        accepted += batch.messages.height
        rejected += batch.rejected
        normaliser.messages(batch.messages, format.platform)
        normaliser.participants(batch.names, format.platform)
    assert time.process_time() - start < SECONDS, "too slow"
    assert all(record.reason and record.location >= 0 for record in rejected), "a rejected record without its place"
    assert not places or max(places.values()) == 1, "two messages at one place"
    total = records(format.name, file.path.read_bytes())
    assert total is None or accepted + len(rejected) == total, f"{accepted} + {len(rejected)} of {total} records"
    return accepted, len(rejected)


@dataclass(frozen=True)
class Fuzzed:
    """What `fuzz` saw; `failures` are the numbers of the mutations (seeds) and what was broken."""

    accepted: int
    rejected: int
    slowest: float  # seconds of processor time
    failures: tuple[str, ...]


def fuzz(format: str, count: int, folder: Path, report: Callable[[str], None] = print) -> Fuzzed:
    """`count` mutated exports of a format; the same count gives the same files."""
    name, data = originals()[format]
    file = RawFile(folder / name, name, "0" * 64)
    normaliser = Normaliser("fuzz", bytes(32), {}, threads=1)
    accepted, rejected, slowest, failures = 0, 0, 0.0, list[str]()
    for seed in range(count):
        file.path.write_bytes(mutated(data, random_mutations(random.Random(seed))))
        start = time.process_time()
        try:
            kept, lost = check(FORMATS[format], file, normaliser)
        except Exception as error:  # noqa: BLE001 which is the finding
            failures.append(f"{seed}: {type(error).__name__}: {str(error)[:120]}")
            report(f"FAILED {format}, seed {failures[-1]}")
            continue
        accepted, rejected = accepted + kept, rejected + lost
        slowest = max(slowest, time.process_time() - start)
    normaliser.close()
    return Fuzzed(accepted, rejected, slowest, tuple(failures))
