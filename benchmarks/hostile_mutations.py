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
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.hostile_shapes import CSV_HEAD, SHAPES, zipped
from user_embeddings_dagster.exports.bounds import bounded
from user_embeddings_dagster.exports.lines import compression
from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA, Format, RawFile, Rejected
from user_embeddings_dagster.exports.registry import FORMATS, detect
from user_embeddings_dagster.schema import NATIVE_MESSAGES

SECONDS = 5.0  # of processor time for one file
GROUP = 64  # files
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


@dataclass(frozen=True)
class Read:
    """What a reader gave for one file, before ids are hashed."""

    messages: list[pl.DataFrame]
    names: list[pl.DataFrame]
    n_rejected: int

    @property
    def n_accepted(self) -> int:
        """Messages."""
        return sum(frame.height for frame in self.messages)


def read(format: Format, file: RawFile) -> Read:
    """The batches of a file; AssertionError where a law is broken; else what the reader raises."""
    start = time.process_time()
    detect(file)
    messages, names, rejected = list[pl.DataFrame](), list[pl.DataFrame](), list[Rejected]()
    places: Counter[tuple[str, int]] = Counter()
    for batch in bounded(format.read(file)):
        assert batch.messages.schema == NATIVE_MESSAGES.schema
        assert batch.names.schema == NAMES_SCHEMA
        places.update(zip(batch.messages["raw_member"], batch.messages["raw_location"], strict=True))
        messages.append(batch.messages)
        names.append(batch.names)
        rejected += batch.rejected
    assert time.process_time() - start < SECONDS, "too slow"
    assert all(record.reason and record.location >= 0 for record in rejected), "a rejected record without its place"
    assert not places or max(places.values()) == 1, "two messages at one place"
    found = Read(messages, names, len(rejected))
    total = records(format.name, file.path.read_bytes())
    counted = f"{found.n_accepted} + {len(rejected)} of {total} records"
    assert total is None or found.n_accepted + len(rejected) == total, counted
    return found


def normalise(format: Format, found: Iterable[Read], normaliser: Normaliser) -> None:
    """Hash the ids of all that was read, as a build does; raises what the normaliser raises."""
    messages = [frame for one in found for frame in one.messages if frame.height]
    names = [frame for one in found for frame in one.names if frame.height]
    if messages:
        native = pl.concat(messages)
        assert normaliser.messages(native, format.platform).height == native.height
    if names:
        normaliser.participants(pl.concat(names), format.platform)


def check(format: Format, file: RawFile, normaliser: Normaliser) -> tuple[int, int]:
    """Messages and rejected records of a file; AssertionError where a law is broken; else what reading raises."""
    found = read(format, file)
    normalise(format, [found], normaliser)
    return found.n_accepted, found.n_rejected


@dataclass(frozen=True)
class Fuzzed:
    """What `fuzz` saw; `failures` are the numbers of the mutations (seeds) and what was broken."""

    accepted: int = 0
    rejected: int = 0
    slowest: float = 0.0  # seconds of processor time
    failures: tuple[str, ...] = ()

    def __add__(self, other: "Fuzzed") -> "Fuzzed":
        slowest, failures = max(self.slowest, other.slowest), self.failures + other.failures
        return Fuzzed(self.accepted + other.accepted, self.rejected + other.rejected, slowest, failures)


def fuzz(format: str, seeds: Iterable[int], folder: Path, report: Callable[[str], None] = print) -> Fuzzed:
    """A mutated export of a format for each seed; the same seed gives the same file.

    What is read of GROUP files is normalised together, and one by one where that fails.
    """
    name, data = originals()[format]
    file = RawFile(folder / name, name, "0" * 64)
    total, group = Fuzzed(), dict[int, Read]()
    with closing(Normaliser("fuzz", bytes(32), {}, threads=1)) as normaliser:
        for seed in seeds:
            file.path.write_bytes(mutated(data, random_mutations(random.Random(seed))))
            start = time.process_time()
            failures: tuple[str, ...] = ()
            try:
                group[seed] = read(FORMATS[format], file)
            except Exception as error:  # noqa: BLE001 which is the finding
                failures = (_failure(seed, error),)
            total += Fuzzed(slowest=time.process_time() - start, failures=failures)
            if len(group) == GROUP:
                total += _normalised(FORMATS[format], group, normaliser)
                group.clear()
        total += _normalised(FORMATS[format], group, normaliser)
    for failure in total.failures:
        report(f"FAILED {format}, seed {failure}")
    return total


def _normalised(format: Format, group: dict[int, Read], normaliser: Normaliser) -> Fuzzed:
    failures = []
    try:
        normalise(format, group.values(), normaliser)
    except Exception:  # noqa: BLE001 told below, file by file
        for seed, one in group.items():
            try:
                normalise(format, [one], normaliser)
            except Exception as error:  # noqa: BLE001 which is the finding
                failures.append(_failure(seed, error))
        failures = failures or ["a group fails of which no file does"]
    accepted = sum(one.n_accepted for one in group.values())
    return Fuzzed(accepted, sum(one.n_rejected for one in group.values()), 0.0, tuple(failures))


def _failure(seed: int, error: Exception) -> str:
    return f"{seed}: {type(error).__name__}: {str(error)[:120]}"
