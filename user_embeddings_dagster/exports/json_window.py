"""A window that slides over one JSON document: exact scanning of values in bounded memory.

A document of any size is read in blocks; only the part between the position and the end of the last block is held.
"""

import json
import re
from collections.abc import Iterator
from typing import Protocol

BLOCK = 1 << 20  # bytes read at once
LARGEST_VALUE = 32 << 20  # bytes of one value that is held whole; a longer one counts as broken
DEEPEST_VALUE = 500  # brackets open at once; exports nest about ten

_LONGEST_SCALAR = 4096  # bytes of a number, true, false or null

_SPACE = b" \t\n\r"
_NO_SPACE = re.compile(rb"[^ \t\n\r]")
# A whole string, a bracket, or the quote of a string whose end is not in the window yet. Quantifiers are possessive:
# a hostile string must not make the scan quadratic.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SCALAR_END = re.compile(rb"[\s,\]}]")
_DEPTH = {0x7B: 1, 0x5B: 1, 0x7D: -1, 0x5D: -1, 0x22: 0}


class Readable(Protocol):
    """The one method of a byte stream that is used."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        ...


class Malformed(Exception):
    """The document is not JSON at the current position; `reason` is malformed_json, truncated, too_long or too_deep."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Window:
    """The bytes `data[at:]` are the next of the document; `more` reads another block behind them."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.data = b""
        self.at = 0
        self._before = 0  # bytes of the document before `data`
        self.ended = False
        self.more()
        if self.data.startswith(b"\xef\xbb\xbf"):
            self.at = 3

    def more(self, size: int = 0) -> bool:
        """Read at least `size` bytes on, forgetting what lies before the position; False at the document's end."""
        if self.ended:
            return False
        block = self._stream.read(max(BLOCK, size))
        if not block:
            self.ended = True
            return False
        self.data = self.data[self.at :] + block
        self._before += self.at
        self.at = 0
        return True

    def give_up(self) -> None:
        """Make the document end at the position."""
        self._before += self.at
        self.data, self.at, self.ended = b"", 0, True

    @property
    def offset(self) -> int:
        """Bytes of the document before the position."""
        return self._before + self.at

    def ahead(self, size: int) -> int:
        """Make at least `size` bytes ready if the document has them; how many there are."""
        while len(self.data) - self.at < size and self.more(size):
            pass
        return len(self.data) - self.at

    def peek(self) -> int:
        """The next byte that is not white space, at which the position then stands; -1 at the end."""
        while True:
            if self.at < len(self.data) and self.data[self.at] not in _SPACE:
                return self.data[self.at]
            found = _NO_SPACE.search(self.data, self.at)
            self.at = found.start() if found else len(self.data)
            if not found and not self.more():
                return -1

    def take(self, expected: int) -> bool:
        """Step over the next byte if it is `expected`."""
        if self.peek() != expected:
            return False
        self.at += 1
        return True

    def value_length(self, limit: int = LARGEST_VALUE) -> int:
        """Bytes of the value at the position.

        Raises Malformed: malformed_json, truncated, too_long (over `limit`), too_deep (over DEEPEST_VALUE).
        """
        depth, scanned = 0, 0
        first = self.peek()
        if first not in _DEPTH:
            return self._scalar_length()
        while True:
            # `scanned` counts from the position, which `more` moves to the front of `data`.
            end = min(len(self.data), self.at + limit)
            for token in _TOKEN.finditer(self.data, self.at + scanned, end):
                start, behind = token.span()
                if self.data[start] == 0x22 and behind - start == 1:
                    scanned = start - self.at
                    break
                depth += _DEPTH[self.data[start]]
                scanned = behind - self.at
                if depth <= 0:
                    if depth < 0:
                        raise Malformed("malformed_json")
                    return scanned
                if depth > DEEPEST_VALUE:
                    raise Malformed("too_deep")
            if end == self.at + limit:
                raise Malformed("too_long")
            # Doubling keeps the work linear for a string that spans many blocks.
            if not self.more(len(self.data) - self.at):
                raise Malformed("truncated")

    def _scalar_length(self) -> int:
        if self.peek() in (-1, 0x2C, 0x3A):
            raise Malformed("truncated" if self.peek() == -1 else "malformed_json")
        self.ahead(_LONGEST_SCALAR)
        match = _SCALAR_END.search(self.data, self.at)
        return (match.start() if match else len(self.data)) - self.at

    def skip(self) -> None:
        """Step over the value at the position. Raises Malformed."""
        length = self.value_length()  # may move the position: white space, another block
        self.at += length

    def value(self) -> bytes:
        """The bytes of the value at the position, which is stepped over. Raises Malformed."""
        length = self.value_length()
        self.at += length
        return self.data[self.at - length : self.at]

    def members(self) -> Iterator[str]:
        """Keys of the object at the position, each with the position at its value; the caller steps over it.

        Raises Malformed; nothing is raised, and no key comes, where the value is no object.
        """
        if not self.take(0x7B):
            self.skip()
            return
        while not self.take(0x7D):
            key = self.value() if self.peek() == 0x22 else b""
            if not key or not self.take(0x3A) or self.peek() < 0:
                raise Malformed("truncated" if self.peek() < 0 else "malformed_json")
            yield _text(key)
            if not self.take(0x2C) and self.peek() != 0x7D:
                raise Malformed("truncated" if self.peek() < 0 else "malformed_json")

    def elements(self) -> Iterator[int]:
        """Indices of the array at the position, each with the position at its element; as `members`."""
        if not self.take(0x5B):
            self.skip()
            return
        index = 0
        while not self.take(0x5D):
            if self.peek() < 0:
                raise Malformed("truncated")
            yield index
            index += 1
            if not self.take(0x2C) and self.peek() != 0x5D:
                raise Malformed("truncated" if self.peek() < 0 else "malformed_json")


def _text(raw: bytes) -> str:
    try:
        return json.loads(raw)
    except ValueError:
        raise Malformed("malformed_json") from None
