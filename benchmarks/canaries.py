"""Canaries: texts that must not be on a disk, looked for in every file of a folder, decoded (benchmarks.decoding).

    python -m benchmarks.canaries FOLDER CANARY…

A canary is found verbatim, in any case, as UTF-8 or UTF-16, hexadecimal, and in base64 at each of its three
alignments, in contents and in names of files. Show that a scan sees what is there before believing that it sees
nothing.
"""

import argparse
import base64
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl

from benchmarks.decoding import Undecoded, views

SHORTEST = 8  # bytes: of anything shorter, base64 forms turn up by chance


@dataclass(frozen=True)
class Hit:
    """A canary in a file: `read_as` says how ("bytes", "parquet", "zip/gzip unescaped", "name", …)."""

    file: str
    read_as: str
    canary: str
    count: int


@dataclass(frozen=True)
class Scan:
    """What a scan found. `undecoded` files begin like a format and could not be read: no scan of them is clean."""

    hits: tuple[Hit, ...]
    files: int
    undecoded: tuple[str, ...]

    @property
    def by_file(self) -> dict[str, int]:
        """Number of hits by file, over all ways of reading it."""
        counts: Counter[str] = Counter()
        for hit in self.hits:
            counts[hit.file] += hit.count
        return dict(sorted(counts.items()))

    @property
    def canaries(self) -> set[str]:
        """Those that were found."""
        return {hit.canary for hit in self.hits}


def scan(root: Path, canaries: Iterable[str]) -> Scan:
    """Look for the canaries in every file below `root`. Raises ValueError if one is under 8 bytes."""
    search = Search(canaries)
    hits, undecoded = [], []
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for path in files:
        name = str(path.relative_to(root))
        found: Counter[tuple[str, str]] = Counter()
        try:
            for read_as, data in chain([("name", os.fsencode(name))], views(path)):
                for canary, n in search.count(data).items():
                    found[read_as, canary] += n
        except Undecoded as error:
            undecoded.append(f"{name} ({error})")
        hits += [Hit(name, read_as, canary, n) for (read_as, canary), n in found.items()]
    return Scan(tuple(hits), len(files), tuple(undecoded))


class Search:
    """One pass over the bytes for all forms of all canaries (Aho-Corasick)."""

    def __init__(self, canaries: Iterable[str]) -> None:
        self._canary_of = {form: canary for canary in canaries for form in forms(canary)}
        self._folded = any(not canary.isascii() for canary in self._canary_of.values())

    def count(self, data: bytes) -> Counter[str]:
        """Occurrences by canary."""
        texts = [data.decode("latin-1")]
        if self._folded and not data.isascii():
            texts.append(data.decode("utf-8", "ignore").casefold().encode().decode("latin-1"))
        found = pl.Series(texts).str.extract_many(list(self._canary_of), ascii_case_insensitive=True, overlapping=True)
        counts = [Counter(self._canary_of[_lower(match)] for match in matches) for matches in found.to_list()]
        return max(counts, key=lambda counter: counter.total())


def forms(canary: str) -> set[str]:
    """How a canary may be written, as Latin-1 text of its bytes with A-Z in lower case."""
    raw = canary.encode()
    if len(raw) < SHORTEST:
        raise ValueError(f"canary of {len(raw)} bytes: needs {SHORTEST}")
    cases = canary, canary.casefold(), canary.upper()
    written = {text.encode(encoding) for text in cases for encoding in ("utf-8", "utf-16-le", "utf-16-be")}
    for content in (raw, canary.encode("utf-16-le")):
        written |= {content.hex().encode(), *_base64(content)}
    return {_lower(form.decode("latin-1")) for form in written}


def _base64(raw: bytes) -> set[bytes]:
    """The characters that depend on these bytes alone, wherever in a base64 text they begin; both alphabets."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        begin = -(-before * 8 // 6)  # characters that the bytes before have a part in
        end = (before + len(raw)) * 8 // 6  # without those that the bytes after have a part in
        found |= {encoded[begin:end], encoded[begin:end].translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def _lower(text: str) -> str:
    """ASCII letters in lower case, as `ascii_case_insensitive` sees them."""
    return text.encode("latin-1").lower().decode("latin-1")


def main() -> int:
    """Print what was found by file; returns 1 if anything was, or if a file could not be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("canary", nargs="+")
    options = parser.parse_args()
    result = scan(options.folder, options.canary)
    for file, count in result.by_file.items():
        print(f"{count:8} {file}")
    for name in result.undecoded:
        print(f"undecoded: {name}")
    print(f"{sum(result.by_file.values())} hits in {len(result.by_file)} of {result.files} files")
    return 1 if result.hits or result.undecoded else 0


if __name__ == "__main__":
    sys.exit(main())
