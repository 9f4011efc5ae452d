"""Canaries: what must not be on a disk, looked for in every file of a folder, decoded (audit.decoding).

A canary is a text, or bytes such as the start of a float32 vector. A text is found verbatim, in any case, as UTF-8 or
UTF-16, hexadecimal, and in base64 at each of its three alignments, in contents and in names of files; bytes as they
are, in hexadecimal and in base64. Show that a scan sees what is there before believing that it sees nothing.
"""

import base64
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl

from user_embeddings_dagster.privacy.audit.decoding import Undecoded, views
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys

SHORTEST = 8  # bytes: of anything shorter, base64 forms turn up by chance
BATCH = 64 << 20  # bytes


@dataclass(frozen=True)
class Hit:
    """A canary in a file: `read_as` says how ("bytes", "parquet", "zip/gzip unescaped", "name", …)."""

    file: str
    read_as: str
    canary: str | bytes
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
    def canaries(self) -> set[str | bytes]:
        """Those that were found."""
        return {hit.canary for hit in self.hits}


def scan(root: Path, canaries: Iterable[str | bytes], keys: ContributorKeys | None = None) -> Scan:
    """Look for the canaries in every file below `root`, with `keys` also inside of sealed files.

    Raises ValueError if one is under 8 bytes.
    """
    search = Search(canaries)
    found: Counter[tuple[str, str, str | bytes]] = Counter()
    undecoded: list[str] = []
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for together in _batches(root, files, undecoded, keys):
        counts = search.count_each([data for _, _, data in together])
        for (name, read_as, _), counted in zip(together, counts, strict=True):
            found.update({(name, read_as, canary): n for canary, n in counted.items()})
    return Scan(tuple(Hit(*key, n) for key, n in found.items()), len(files), tuple(undecoded))


def _batches(
    root: Path, files: Iterable[Path], undecoded: list[str], keys: ContributorKeys | None
) -> Iterator[list[tuple[str, str, bytes]]]:
    """(file, how it was read, bytes) of all files, BATCH bytes together: the automaton is built once for each."""
    held: list[tuple[str, str, bytes]] = []
    size = 0
    for path in files:
        name = str(path.relative_to(root))
        try:
            for read_as, data in chain([("name", os.fsencode(name))], views(path, keys)):
                held.append((name, read_as, data))
                size += len(data)
                if size >= BATCH:
                    yield held
                    held, size = [], 0
        except Undecoded as error:
            undecoded.append(f"{name} ({error})")
    if held:
        yield held


class Search:
    """One pass over the bytes for all forms of all canaries (Aho-Corasick)."""

    def __init__(self, canaries: Iterable[str | bytes]) -> None:
        self._canary_of = {form: canary for canary in canaries for form in forms(canary)}
        self._folded = any(isinstance(canary, str) and not canary.isascii() for canary in self._canary_of.values())

    def count(self, data: bytes) -> Counter[str | bytes]:
        """Occurrences by canary."""
        return self.count_each([data])[0]

    def count_each(self, contents: Sequence[bytes]) -> list[Counter[str | bytes]]:
        """Occurrences by canary in each of them."""
        counts: list[Counter[str | bytes]] = [Counter() for _ in contents]
        self._add(counts, list(range(len(contents))), [data.decode("latin-1") for data in contents])
        if self._folded:
            other = [place for place, data in enumerate(contents) if not data.isascii()]
            folded = [
                contents[place].decode("utf-8", "ignore").casefold().encode().decode("latin-1") for place in other
            ]
            self._add(counts, other, folded)
        return counts

    def _add(self, counts: list[Counter[str | bytes]], places: list[int], texts: list[str]) -> None:
        """The larger of the counts so far and those in the texts."""
        column = pl.Series(texts, dtype=pl.String)
        found = column.str.extract_many(list(self._canary_of), ascii_case_insensitive=True, overlapping=True)
        for place, matches in zip(places, found.to_list(), strict=True):
            counts[place] |= Counter(self._canary_of[_lower(match)] for match in matches)


def forms(canary: str | bytes) -> set[str]:
    """How a canary may be written, as Latin-1 text of its bytes with A-Z in lower case."""
    raw = canary if isinstance(canary, bytes) else canary.encode()
    if len(raw) < SHORTEST:
        raise ValueError(f"canary of {len(raw)} bytes: needs {SHORTEST}")
    if isinstance(canary, bytes):
        return {_lower(form.decode("latin-1")) for form in (raw, raw.hex().encode(), *_base64(raw))}
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
