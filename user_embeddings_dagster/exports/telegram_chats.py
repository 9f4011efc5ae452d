"""The chats of a Telegram Desktop export one after the other, also of one whose skeleton is broken."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from user_embeddings_dagster.exports.json_array import ArrayReader, Part
from user_embeddings_dagster.exports.json_source import Document
from user_embeddings_dagster.exports.json_window import Malformed, Window
from user_embeddings_dagster.exports.reader import Rejected

# An object's scalar members before its messages: where a chat begins, seen from inside a broken one.
_CHAT = re.compile(rb'\{(?:\s*"[^"\\]{0,40}"\s*:\s*(?:"(?:[^"\\]|\\.)*+"|[-+.\w]+)\s*,){0,8}\s*"messages"\s*:\s*(?=\[)')
_MOST_EMPTY = 20_000  # chats of one document, and more than its messages: the rest is given up


class Person(msgspec.Struct):
    """Whose account was exported."""

    user_id: int | None = None
    first_name: str = ""
    last_name: str = ""
    username: str = ""


class Header(msgspec.Struct):
    """What a chat says of itself before its messages."""

    name: str | None = None
    type: str = ""
    id: int | None = None


class _Lost(Exception):
    """The skeleton around the messages cannot be followed any further."""


class Walk:
    """One pass over a document, chat by chat; `read` gives the messages of the chat at hand."""

    def __init__(self, document: Document, item: type) -> None:
        self.window = Window(document)
        self.person: Person | None = None
        self.location = 0  # messages so far
        self._n_chats = 0
        self.single = True  # the messages at hand are those of the document's one chat
        self.rejected: list[Rejected] = []
        self._member = document.member
        self._reader = ArrayReader(self.window, item, _CHAT)

    def read(self) -> Iterator[Part]:
        """Parts of the messages at the position."""
        for part in self._reader.read(self.location):
            self.location += len(part.indices) + len(part.rejected)
            self.rejected += [Rejected(self._member, *rejected) for rejected in part.rejected]
            yield part

    def chats(self) -> Iterator[tuple[Header, int]]:
        """Header so far and offset of each chat; the position is then at its messages, which the caller reads."""
        try:
            yield from self._root()
            if self.window.peek() < 0:
                return
            raise Malformed("malformed_json")
        except Malformed as error:
            self.rejected.append(Rejected(self._member, self.location, error.reason, "outside of the messages"))
        except _Lost:
            pass
        yield from self._remaining()

    def _root(self) -> Iterator[tuple[Header, int]]:
        header, window = Header(), self.window
        if window.peek() != 0x7B:
            raise Malformed("truncated" if window.peek() < 0 else "malformed_json")
        for key in window.members():
            if key in ("chats", "left_chats"):
                for inner in window.members():
                    if inner != "list":
                        window.skip()
                        continue
                    for _ in window.elements():
                        self.single = False
                        self._count()
                        yield from self._chat(Header())
            elif key == "personal_information":
                self.person = _decoded(window.value(), Person)
            else:
                yield from self._value(header, key)

    def _count(self) -> None:
        """One more chat. Raises _Lost, and gives the document up, in a flood of empty ones."""
        self._n_chats += 1
        if self._n_chats > max(_MOST_EMPTY, self.location):
            flood = f"{self._n_chats} chats, {self.location} messages"
            self.rejected.append(Rejected(self._member, self.location, "too_many_chats", flood))
            self.window.give_up()
            raise _Lost

    def _chat(self, header: Header) -> Iterator[tuple[Header, int]]:
        for key in self.window.members():
            yield from self._value(header, key)

    def _value(self, header: Header, key: str) -> Iterator[tuple[Header, int]]:
        if key == "messages":
            self.window.peek()
            yield header, self.window.offset
            if self._reader.lost:
                raise _Lost
        elif key in ("name", "type", "id"):
            value = _decoded(b'{"%s":%s}' % (key.encode(), self.window.value()), Header)
            setattr(header, key, getattr(value, key) if value else getattr(header, key))
        else:
            self.window.skip()

    def _remaining(self) -> Iterator[tuple[Header, int]]:
        """Chats found by what they begin with, once the skeleton is lost."""
        window = self.window
        while True:
            match = _CHAT.search(window.data, window.at)
            if match:
                window.at = match.end()
                header = _decoded(match[0][: match[0].rindex(b'"messages"')].rstrip(b", \t\r\n") + b"}", Header)
                yield header or Header(), window.offset
            else:
                window.at = max(window.at, len(window.data) - 4096)
                if not window.more():
                    return


def _decoded(raw: bytes, kind: type) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
