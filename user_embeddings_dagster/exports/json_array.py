"""Arrays of millions of objects, decoded slice by slice straight into typed structs.

A slice ends where the bytes between two elements (`},⏎  {"id": …, "type"`, learned from the elements before)
are found again near its end. That is a guess, which costs one search; the decoder then proves it: `[` + slice + `]`
is a valid array only if the slice holds whole elements. Where it is no array, the exact scanner goes element by
element, so that the result is right for every layout, and a broken element costs itself alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from user_embeddings_dagster.exports.json_repair import (
    TRAILING,
    TRUNCATED,
    decode,
    ends,
    fault,
    has_lone_surrogate,
    repair,
)
from user_embeddings_dagster.exports.json_window import LARGEST_VALUE, Malformed, Window

SLICE = 256 << 10  # bytes decoded at once: what fits the second-level cache decodes twice as fast as 4 MB
SHORT = 512 << 10  # bytes of an element beyond which one that holds a separator is taken to have lost its end
MARGIN = 4096  # bytes seen behind a place, so that what begins there can be recognised
UNGUESSED = 1 << 20  # bytes scanned exactly once no separator was found in GUESS bytes
MANY = 10_000  # elements of a part that are scanned one by one
IN_VAIN = 100_000  # separators passed over, none of them before an element: the rest of the document is given up
GUESS = 4 << 20  # bytes searched for the next separator before the exact scanner is asked

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FIRST_KEYS = re.compile(
    rb"\{\s*(" + _STRING + rb")\s*:\s*(?:(?:" + _STRING + rb"|[-+.\w]+)\s*,\s*(" + _STRING + rb")\s*:)?", re.DOTALL
)
_BETWEEN = re.compile(rb"\s*,\s*\{\s*")
_ANY_SEPARATOR = re.compile(rb'\}\s*,\s*\{\s*"')


@dataclass(frozen=True)
class Part:
    """Consecutive elements: those decoded, their indices, and (index, reason, detail) of those that were not."""

    items: list[Any]
    indices: Sequence[int]
    rejected: tuple[tuple[int, str, str], ...] = ()


class ArrayReader:
    """Arrays of objects of one shape in one document; what is learned of the layout is kept from array to array.

    `stop` matches where the owner of another array begins: a search for the next good element ends there.
    """

    def __init__(self, window: Window, item: type, stop: re.Pattern[bytes] | None = None) -> None:
        self._window = window
        self._many = msgspec.json.Decoder(list[item], strict=False)
        self._one = msgspec.json.Decoder(item, strict=False)
        self._stop = stop
        self._separator = b""
        self._start: re.Pattern[bytes] | None = None
        self._careful_until = -1  # offset in the document: elements before it are scanned exactly
        self._in_vain = 0  # separators that no element follows, since the search began
        self.lost = False  # the last array was broken and its end was not found

    def read(self, first: int = 0) -> Iterator[Part]:
        """Parts of the array at the position, with indices from `first`; the position ends behind the array."""
        self.lost = False
        window, index = self._window, first
        if window.peek() != 0x5B:
            yield Part([], (), ((index, "wrong_type", "not an array"),))
            try:
                window.skip()
            except Malformed:
                self.lost = True
            return
        window.at += 1
        while not self._closed():
            part = self._slice(index) if window.offset >= self._careful_until else None
            part = part or self._scanned(index)
            index += len(part.indices) + len(part.rejected)
            yield part
            if self.lost:
                return

    def _closed(self) -> bool:
        self._window.take(0x2C)
        return self._window.take(0x5D)

    def _slice(self, index: int) -> Part | None:
        """Elements up to a guessed end; None if that was no sequence of whole elements."""
        window = self._window
        if window.peek() != 0x7B:
            return None
        if (cut := self._cut()) is None:
            if self._separator:  # searched in vain: not again for every element of a flood of small ones
                self._careful_until = window.offset + UNGUESSED
            return None
        payload = b"".join((b"[", memoryview(window.data)[window.at : cut], b"]"))
        items = self._items(payload)
        if isinstance(items, int):  # the array ended inside the slice
            payload = payload[:items].rstrip()
            cut = window.at + len(payload) - 2  # at the closing bracket: one was added in front
            items = self._items(payload)
        if not isinstance(items, list):
            self._careful_until = window.offset + cut - window.at
            return None
        window.at = cut
        return Part(items, range(index, index + len(items)))

    def _items(self, payload: bytes) -> list[Any] | int | None:
        """The decoded array, or where its end is followed by something else, or None."""
        for attempt in (lambda: payload, lambda: repair(payload)):
            try:
                return self._many.decode(attempt())
            except msgspec.ValidationError:
                return None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                match = TRAILING.search(str(error)) if isinstance(error, msgspec.DecodeError) else None
                if match and attempt() == payload:
                    return int(match[1]) - 1  # counted from one
        return None

    def _cut(self) -> int | None:
        """Place in the window behind the last element of the next slice; None if no good guess."""
        window = self._window
        if not self._separator:
            return None
        window.ahead(SLICE + MARGIN)
        at = window.data.rfind(self._separator, window.at, window.at + SLICE)
        while at >= 0 and not self._begins(at):
            at = window.data.rfind(self._separator, window.at, at)
        size = SLICE
        while at < 0 and not window.ended and size < GUESS:
            size *= 4
            window.ahead(size + MARGIN)
            start = window.at + max(0, size // 4 - MARGIN)
            at = window.data.find(self._separator, start, window.at + size)
            while at >= 0 and not self._begins(at):
                at = window.data.find(self._separator, at + 1, window.at + size)
        if at >= 0:
            return at + 1
        return len(window.data) if window.ended else None

    def _begins(self, at: int) -> bool:
        """Whether an element of the learned shape begins behind the separator at `at`."""
        start = self._window.data.index(b"{", at)
        return self._start is not None and self._start.match(self._window.data, start) is not None

    def _learn(self, raw: bytes) -> None:
        """Keep the bytes between this element and the next, and the two keys that elements begin with."""
        window = self._window
        window.ahead(MARGIN)
        between = _BETWEEN.match(window.data, window.at)
        keys = _FIRST_KEYS.match(raw)
        if not between or not keys or self._separator[1:] == between[0]:
            return
        self._separator = b"}" + between[0]
        pattern = rb"\{\s*" + re.escape(keys[1]) + rb"\s*:"
        if keys[2]:
            pattern += rb"\s*(?:" + _STRING + rb"|[-+.\w]+)\s*,\s*" + re.escape(keys[2]) + rb"\s*:"
        self._start = re.compile(pattern, re.DOTALL)

    def _scanned(self, index: int) -> Part:
        """Elements by exact scanning: one, or as many as a slice that did not decode."""
        window = self._window
        items, indices, rejected = [], [], []
        while True:
            length, start, self._in_vain = 0, window.offset, 0
            try:
                length = self._length()
                items.append(decode(self._one, window.data[window.at : window.at + length]))
                indices.append(index)
                window.at += length
                if start >= self._careful_until:
                    self._learn(window.data[window.at - length : window.at])
            except Malformed as error:
                self._pass(length, error.reason)
                ended = self.lost and window.peek() < 0
                reason = "malformed_json" if error.reason in ("truncated", "too_long") and not ended else error.reason
                reason = "too_many_rejected" if self.lost and self._in_vain > IN_VAIN else reason
                rejected.append((index, reason, f"{window.offset - start} bytes passed over"))
            index += 1
            if len(items) + len(rejected) >= MANY:
                return Part(items, indices, tuple(rejected))
            if self.lost or window.offset >= self._careful_until or (window.take(0x2C) and window.peek() == 0x5D):
                return Part(items, indices, tuple(rejected))
            if window.peek() == 0x5D:
                return Part(items, indices, tuple(rejected))

    def _length(self) -> int:
        """Bytes of the element at the position. One that gets long and holds a separator has lost its end."""
        window, limit = self._window, SHORT
        while True:
            try:
                return window.value_length(limit)
            except Malformed as error:
                if error.reason != "too_long" or limit >= LARGEST_VALUE:
                    raise
            longer = True
            while longer:
                if self._separator and self._next(window.at + 1, window.at + limit) is not None:
                    raise Malformed("malformed_json")
                if limit >= LARGEST_VALUE:
                    raise Malformed("too_long")
                limit *= 8
                longer = window.ahead(limit) >= limit and self._goes_on(limit)

    def _goes_on(self, limit: int) -> bool:
        """Whether the next `limit` bytes begin a longer value; False also where only the scanner can tell.

        Of many small values the decoder tells it fifty times sooner than the scanner. Raises Malformed where no value
        begins like this, mended or not.
        """
        raw = self._window.data[self._window.at : self._window.at + limit]
        error = fault(raw)
        if error == TRUNCATED and not has_lone_surrogate(raw):
            return True
        if not ends(error) and limit < LARGEST_VALUE:  # else too large to be mended in bounded memory
            error = fault(repair(raw))
            if error != TRUNCATED and not ends(error):
                raise Malformed("malformed_json")
            return error == TRUNCATED
        return False

    def _pass(self, length: int, reason: str) -> None:
        """Step over a broken element: by its length if that is certain, else to the next separator."""
        window = self._window
        start = window.at
        certain = length > 0 and (reason == "wrong_type" or self._next(start + 1, start + length) is None)
        if certain:
            window.at += length
            if window.peek() in (0x2C, 0x5D):
                return
            window.at -= 1  # it was no element's end; what comes next may begin right here
        self._resynchronise()

    def _next(self, start: int, end: int) -> int | None:
        """Place of the next separator between two places in the window."""
        if self._separator:
            at = self._window.data.find(self._separator, start, end)
            while at >= 0 and not self._begins(at):
                self._in_vain += 1
                if self._in_vain > IN_VAIN:
                    return None
                at = self._window.data.find(self._separator, at + 1, end)
            return at if at >= 0 else None
        match = _ANY_SEPARATOR.search(self._window.data, start, end)
        return match.start() if match else None

    def _resynchronise(self) -> None:
        """Move behind the end of the element before the next separator; `lost` if none comes.

        Gives the document up in a flood of separators that no element follows: broken elements by the hundred thousand
        are stepped over one by one, and must not hold up the exports beside them.
        """
        window = self._window
        window.at += 1
        self._in_vain = 0
        while True:
            stop = self._stop.search(window.data, window.at) if self._stop else None
            end = stop.start() if stop else len(window.data)
            at = self._next(window.at, end)
            if at is not None:
                window.at = at + 1
                return
            if self._in_vain > IN_VAIN:
                window.at, self.lost = end, True
                window.give_up()
                return
            if stop:
                window.at, self.lost = end, True
                return
            window.at = max(window.at, len(window.data) - MARGIN)
            if not window.more():
                window.at, self.lost = len(window.data), True
                return
