"""Whether the log of accesses is what was written: chain, entries, head, and heads that were kept elsewhere (C18)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from user_embeddings_dagster.privacy.access.log import AccessLog, Head, LogDamaged, beginning, fault, line_hash

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Verification:
    """`count` good entries up to the hash `head`. If not `verified`: the number of the `first_bad` entry, or None
    where no entry can be named, and the `reason`. `torn`: bytes that a killed process left of an entry that nobody was
    told of; the next append cuts them off."""

    count: int
    head: str
    verified: bool
    first_bad: int | None = None
    reason: str = ""
    torn: int = 0


def verify(log: AccessLog, kept: Sequence[Head] = ()) -> Verification:
    """Check the whole log; `kept`: heads of it from earlier (anchors), which must be on its chain."""
    with log.unchanging():
        try:
            head = log.head()
        except LogDamaged as error:
            return Verification(0, "", False, None, str(error))
        size = log.path.stat().st_size if log.path.exists() else 0
        tail = b"" if size < head.size else log.tail(head)
    return verify_bytes(_lines(log.path, head.size), tail, head, log.mac_key(head), kept)


def verify_bytes(
    lines: Iterable[bytes], tail: bytes, head: Head, mac_key: bytes | None, kept: Sequence[Head] = ()
) -> Verification:
    """Check the lines up to the head's size (the last one without its end if it has none), then what follows."""
    count, last = 0, beginning(head.platform, head.log)
    anchored: dict[int, set[str]] = {}
    for anchor in kept:
        if (anchor.platform, anchor.log) != (head.platform, head.log) or not anchor.genuine:
            return Verification(0, "", False, None, "a head kept elsewhere is not of this log")
        anchored.setdefault(anchor.count, set()).add(anchor.hash)

    def bad(reason: str, number: int | None = None) -> Verification:
        number = count if number is None else number
        return Verification(count, last, False, number, f"entry {number} {reason}")

    for line in lines:
        if not line.endswith(b"\n"):
            return bad("is cut short")
        if wrong := fault(line[:-1], count, last, mac_key):
            return bad(wrong)
        count, last = count + 1, line_hash(line[:-1])
        if anchored.get(count, {last}) != {last}:
            return bad("is another than was anchored", count - 1)
    if count < head.count:
        return bad(f"is missing: there should be {head.count}")
    if count > head.count or last != head.hash:
        return bad("is not the last one that the head counts", min(count - 1, head.count))
    torn = 0
    if tail:
        line, ended, rest = tail.partition(b"\n")
        if not ended:
            torn = len(tail)
        elif wrong := fault(line, count, last, mac_key):
            return bad(wrong)
        else:
            count, last = count + 1, line_hash(line)
            if rest:
                return bad("is more than the head counts")
    if anchored.get(count, {last}) != {last}:
        return bad("is another than was anchored", count - 1)
    if anchored and max(anchored) > count:
        return bad(f"is missing: {max(anchored)} were anchored")
    return Verification(count, last, True, torn=torn)


def _lines(path: Path, size: int) -> Iterable[bytes]:
    """Lines of the first `size` bytes of a file, with their ends."""
    if not path.exists():
        return
    left, held = size, b""
    with path.open("rb") as stream:
        while left and (block := stream.read(min(left, _BLOCK))):
            left -= len(block)
            *whole, held = (held + block).split(b"\n")
            yield from (line + b"\n" for line in whole)
    if held:
        yield held
