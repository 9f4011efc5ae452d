"""Everything that can be done to a log of accesses without its keys, and verifiers that miss some of it (F6).

A tampering gives the file's bytes anew; the first entry that differs is the one that the verification must name.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from user_embeddings_dagster.privacy.access.keys import AccessKeys
from user_embeddings_dagster.privacy.access.log import AccessLog, Entry, Head, beginning, entry_mac, line_hash
from user_embeddings_dagster.privacy.access.verification import Verification, verify_bytes

Verifier = Callable[["Written", bytes], Verification]


@dataclass(frozen=True)
class Written:
    """A log as it was written: its lines, each with its end, and its head."""

    keys: AccessKeys
    lines: tuple[bytes, ...]
    head: Head

    @property
    def data(self) -> bytes:
        """The file."""
        return b"".join(self.lines)


def written(folder: Path, n: int, seed: int, secret: bytes) -> Written:
    """A log of `n` entries below `folder`."""
    rng, keys = random.Random(seed), AccessKeys(secret)
    people = [rng.randbytes(16).hex() for _ in range(7)]
    log = AccessLog(folder / f"{seed}.jsonl", folder / f"{seed}.head", keys, clock=lambda: 1_700_000_000 + seed)
    log.begin()
    for _ in range(n):
        event = rng.choice(["read", "update", "remove", "grant", "proof", "erase"])
        log.append(event, rng.choice(["allowed", "refused"]), person=rng.choice(people), datadao="alpha")
    return Written(keys, tuple(log.path.read_bytes().splitlines(keepends=True)), log.head())


def verified(log: Written, data: bytes) -> Verification:
    """The verification of these bytes under the log's head."""
    return verify_bytes(_lines(data[: log.head.size]), data[log.head.size :], log.head, log.keys.entries(log.head.log))


def _lines(data: bytes) -> list[bytes]:
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def first_difference(log: Written, data: bytes) -> int | None:
    """Number of the first entry that is not where and what it was; None if there is none."""
    found = _lines(data)
    for number, line in enumerate(log.lines):
        if number >= len(found) or found[number] != line:
            return number
    return len(log.lines) if len(found) > len(log.lines) else None


def every_tampering(log: Written, other: Written) -> Iterator[tuple[str, bytes]]:
    """(kind, bytes): every byte edited, every cut, every two entries exchanged, moved, repeated, planted."""
    data, lines = log.data, log.lines
    for place in range(len(data)):
        for mask in (1, 0x20, 0x80):
            yield "edit", data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
        yield "byte removed", data[:place] + data[place + 1 :]
        yield "byte added", data[:place] + b"0" + data[place:]
        yield "truncation", data[:place]
    for i in range(len(lines)):
        for j in range(i + 1, len(lines) + 1):
            yield "cut", b"".join((*lines[:i], *lines[j:]))
            if j < len(lines):
                swapped = [*lines]
                swapped[i], swapped[j] = lines[j], lines[i]
                yield "reorder", b"".join(swapped)
            for k in (i, j):
                moved = [*lines[:i], *lines[i + 1 :]]
                moved.insert(k if k <= i else k - 1, lines[i])
                if tuple(moved) != lines:
                    yield "reorder", b"".join(moved)
        for k in range(len(lines) + 1):
            yield "insertion", b"".join((*lines[:k], lines[i], *lines[k:]))
            yield "insertion", b"".join((*lines[:k], other.lines[i], *lines[k:]))
        yield "swap", b"".join((*lines[:i], *other.lines[i:]))
        yield "swap", b"".join((*other.lines[: i + 1], *lines[i + 1 :]))
        yield "swap", b"".join((*lines[:i], other.lines[i], *lines[i + 1 :]))
        yield "rechained", rechained(log, i)
        yield "extension", data + lines[i] + (other.lines[i] if i % 2 else b"")


def rechained(log: Written, number: int, *, cut: bool = False) -> bytes:
    """An entry changed or cut out, and what follows numbered and chained anew: without keys."""
    entries = [msgspec.json.decode(line, type=Entry) for line in log.lines]
    entries[number] = msgspec.structs.replace(entries[number], outcome="allowed", person="0" * 32)
    if cut:
        del entries[number]
    last, lines = beginning(log.head.platform, log.head.log), []
    for place, entry in enumerate(entries):
        line = msgspec.json.encode(msgspec.structs.replace(entry, number=place, previous=last))
        last = line_hash(line)
        lines.append(line + b"\n")
    return b"".join(lines)


def random_tampering(log: Written, other: Written, rng: random.Random) -> tuple[str, bytes]:
    """One of a kind."""
    data, lines = log.data, [*log.lines]
    place, i, j = rng.randrange(len(data)), *sorted(rng.sample(range(len(lines)), 2))
    kind = rng.choice(["edit", "cut", "reorder", "insertion", "truncation", "swap", "rechained"])
    if kind == "edit":
        changed = rng.choice([value for value in range(256) if value != data[place]])
        return kind, data[:place] + bytes([changed]) + data[place + 1 :]
    if kind == "truncation":
        return kind, data[:place] if rng.random() < 0.5 else b"".join(lines[:i])
    if kind == "rechained":
        return kind, rechained(log, i, cut=rng.random() < 0.5)
    if kind == "cut":
        del lines[i:j]
    elif kind == "reorder":
        rest = lines[i : j + 1]
        while rest == lines[i : j + 1]:
            rng.shuffle(rest)
        lines[i : j + 1] = rest
    elif kind == "insertion":
        lines.insert(i, rng.choice([lines[j], other.lines[i]]))
    else:
        lines[i:j] = other.lines[i:j]
    return kind, b"".join(lines)


# Verifiers that look at less.


def without_head(log: Written, data: bytes) -> Verification:
    """The chain and the entries: a log cut short is still a chain."""
    lines = _lines(data)
    head = replace_head(log.head, len(lines), lines)
    return verify_bytes(lines, b"", head, log.keys.entries(log.head.log))


def without_macs(log: Written, data: bytes) -> Verification:
    """The chain alone, up to wherever it ends: anybody can chain anew."""
    lines = _lines(data)
    return verify_bytes(lines, b"", replace_head(log.head, len(lines), lines), None)


def replace_head(head: Head, count: int, lines: list[bytes]) -> Head:
    """A head that fits these lines."""
    last = line_hash(lines[-1].removesuffix(b"\n")) if lines else beginning(head.platform, head.log)
    return msgspec.structs.replace(head, count=count, size=sum(map(len, lines)), hash=last)


def without_chain(log: Written, data: bytes) -> Verification:
    """Every entry for itself: whatever is cut or put elsewhere was written once."""
    for number, line in enumerate(_lines(data)):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Verification(number, "", False, number)
        if entry_mac(log.keys.entries(log.head.log), entry) != entry.mac:
            return Verification(number, "", False, number)
    return Verification(len(log.lines), "", True)


BLIND: dict[str, Verifier] = {"no head": without_head, "no MACs, no head": without_macs, "no chain": without_chain}
