"""Many canaries at once in many bytes: by the first eight bytes of each form, in a table of bits.

A hundred thousand canaries, each in some twenty forms, are too many for an automaton. A form is found where its
first eight bytes stand (a bit for a hash of them, then the sorted list, then the whole form); a fragment where its
first FRAGMENT or eight do. Letters are compared in lower case; the forms are those of `privacy.audit.canaries`.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np

from benchmarks.leaks.kinds import RARE_WORD, SHORTEST, Canary
from user_embeddings_dagster.privacy.audit.canaries import forms

_BITS = 26
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_LOWER = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
FRAGMENT = 5  # characters of a word of rare letters; of anything else as many as chance does not repeat:
_DIGITS, _MIXED, _HEX = 11, 10, 14
_HEXADECIMAL = re.compile("[0-9a-fx]*")
COMMON = 4  # canaries that share the beginning of a fragment, which then tells of none of them
_ORDINARY = frozenset({"awake", "awoke", "evoke", "ejavu", "kazak"})  # "revoked" and "DejaVu" are in every log


class Patterns:
    """What each canary may look like (`of`), each pattern of `width` bytes or more, width <= 8."""

    def __init__(
        self, canaries: list[Canary], of: Callable[[Canary], Iterable[bytes]], width: int = SHORTEST, common: int = 0
    ) -> None:
        self._width, self._mask = width, np.uint64((1 << (8 * width)) - 1)
        self._patterns = lru_cache(100_000)(lambda place: tuple(p for p in of(canaries[place]) if len(p) >= width))
        heads, places = array("Q"), array("q")
        for place, canary in enumerate(canaries):
            own = {int.from_bytes(pattern[:width], "little") for pattern in of(canary) if len(pattern) >= width}
            heads.extend(own)
            places.extend([place] * len(own))
        ordered = np.frombuffer(heads, np.uint64) if heads else np.empty(0, np.uint64)
        order = np.argsort(ordered, kind="stable")
        self._heads, self._places = ordered[order], np.frombuffer(places, np.int64)[order] if heads else order
        if common:
            values, counts = np.unique(self._heads, return_counts=True)
            kept = np.isin(self._heads, values[counts < common])
            self._heads, self._places = self._heads[kept], self._places[kept]
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[self._hashed(self._heads)] = True

    @staticmethod
    def _hashed(heads: np.ndarray) -> np.ndarray:
        return ((heads * _FACTOR) >> np.uint64(64 - _BITS)).astype(np.int64)

    def found(self, data: bytes) -> set[int]:
        """Whose patterns stand in `data`, whose letters are in lower case."""
        found: set[int] = set()
        if not len(self._heads):
            return found
        padded = np.frombuffer(data + bytes(16), np.uint8)
        for shift in range(8):
            size = (len(padded) - shift) // 8
            heads = padded[shift : shift + 8 * size].view(np.uint64) & self._mask
            at = np.flatnonzero(self._table[self._hashed(heads)])
            values = heads[at]
            first = np.minimum(np.searchsorted(self._heads, values), len(self._heads) - 1)
            known = self._heads[first] == values
            at, values = at[known] * 8 + shift, values[known]
            order = np.argsort(values, kind="stable")
            ends = np.flatnonzero(np.diff(values[order])) + 1
            for places in np.split(at[order], ends) if len(order) else ():
                found |= self._of_head(data, places.tolist())
        return found

    def _of_head(self, data: bytes, places: list[int]) -> set[int]:
        """Whose patterns stand at these places of `data`, which all begin alike."""
        by_length = self._beginning(int.from_bytes(data[places[0] : places[0] + self._width], "little"))
        wanted = {whose for patterns in by_length.values() for owners in patterns.values() for whose in owners}
        found: set[int] = set()
        for at in places:
            for length, patterns in by_length.items():
                found.update(patterns.get(data[at : at + length], ()))
            if len(found) == len(wanted):
                break
        return found

    def _beginning(self, head: int) -> dict[int, dict[bytes, list[int]]]:
        """The patterns that begin so, by length, and whose they are."""
        low, high = (
            np.searchsorted(self._heads, np.uint64(head)),
            np.searchsorted(self._heads, np.uint64(head), side="right"),
        )
        by_length: dict[int, dict[bytes, list[int]]] = {}
        for whose in self._places[low:high].tolist():
            for pattern in self._patterns(whose):
                if int.from_bytes(pattern[: self._width], "little") == head:
                    by_length.setdefault(len(pattern), {}).setdefault(pattern, []).append(whose)
        return by_length


class Finder:
    """Finds canaries in bytes, in every form; and their fragments in text."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        known = list(canaries)
        self._whole = Patterns(known, written)
        self._folded = Patterns(known, lambda one: (n.casefold().encode() for n in one.needles if not n.isascii()))
        self._words = Patterns(known, lambda one: (f for f in fragments(one) if len(f) < SHORTEST), FRAGMENT)
        self._parts = Patterns(known, lambda one: (f for f in fragments(one) if len(f) >= SHORTEST), common=COMMON)

    def whole(self, data: bytes) -> set[int]:
        """Places of the canaries that stand in `data` in any form."""
        found = self._whole.found(data.translate(_LOWER))
        if not data.isascii():
            found |= self._folded.found(data.decode("utf-8", "ignore").casefold().encode())
        return found

    def parts(self, text: bytes) -> set[int]:
        """Places of the canaries of which a fragment stands in a text."""
        folded = text.decode("utf-8", "ignore").casefold().encode()
        return self._words.found(folded) | self._parts.found(folded)


def written(canary: Canary) -> Iterator[bytes]:
    """Every form of the value (UTF-8, UTF-16, hexadecimal, base64), and its parts as they are."""
    whole = canary.needles[: canary.wholes]
    yield from (form.encode("latin-1") for needle in whole for form in forms(needle))
    yield from (needle.encode().translate(_LOWER) for needle in canary.needles[canary.wholes :])


def fragments(canary: Canary) -> set[bytes]:
    """Parts of a canary that no other text has by chance, folded.

    FRAGMENT letters in a row of a word of rare letters; three words of a seed phrase; of anything else as many
    characters as chance does not repeat in what the platform writes (hashes, times, numbers).
    """
    found: set[str] = set()
    for needle in canary.needles:
        if canary.whole_words:
            words = needle.split()
            found |= {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
            continue
        folded = needle.casefold()
        for word in RARE_WORD.finditer(folded):
            found |= {word[0][at : at + FRAGMENT] for at in range(len(word[0]) - FRAGMENT + 1)} - _ORDINARY
        if RARE_WORD.search(folded) or not unicodedata.is_normalized("NFKC", folded):
            continue
        plain = re.sub(r"[^a-z0-9]", "", folded)
        size = _DIGITS if plain.isdigit() else _HEX if _HEXADECIMAL.fullmatch(plain) else _MIXED
        size = min(size, len(folded))
        for at in range(len(folded) - size + 1):
            part = folded[at : at + size]
            # Of a mixed value too ("SK" and hexadecimal digits) a part may stand in a hash.
            needed = _HEX if size == _MIXED and _HEXADECIMAL.fullmatch(part) else size
            if at + needed <= len(folded):
                found.add(folded[at : at + needed])
    return {part.encode() for part in found}
