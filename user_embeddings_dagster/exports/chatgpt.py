"""ChatGPT conversations: export zip, bare conversations.json, one backend conversation, and the connector's JSON.

- Export zip: `conversations.json` (newer exports split it: `conversations-000.json`, …) and `user.json`, of which only
  the account id is read. Without it, the owner is the file's path below the landing folder: one bare file, one person.
- Backend conversation: one object with `mapping` and `current_node`.
- Connector (Vana DataConnect's ChatGPT connector, versions 2 and 3): an object whose `chatgpt.conversations` is the
  list, or holds it as `conversations`, or as `data.conversations` in the personal server's envelope. Each conversation
  has `id`, `create_time` (number or ISO 8601) and `messages`: `id, role, content, content_type, create_time, model`.

Only the path from the root to `current_node` is read; the messages of other branches are counted as `other_branch`
in `Batch.skipped`. A message without a time takes that of the one before it, the first that of its conversation.
`raw_location` is the 0-based index among the messages read from the file; of a rejected record, its conversation's.
"""

import re
from collections.abc import Iterator

import msgspec
import polars as pl

from user_embeddings_dagster.exports import chatgpt_messages as cm
from user_embeddings_dagster.exports import json_source
from user_embeddings_dagster.exports.json_array import ArrayReader
from user_embeddings_dagster.exports.json_repair import decode
from user_embeddings_dagster.exports.json_source import Document
from user_embeddings_dagster.exports.json_window import Malformed, Window
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA, Batch, Format, Fullness, RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES, TIMESTAMP

FLUSH = 5_000  # rows of a batch
_ENVELOPES = 3  # objects around the list of conversations
MEMBER = re.compile(r"conversations(?:[-_]?\d+)?\.json")
_USER = re.compile(r"user\.json")
_SHAPE = re.compile(rb'"mapping"\s*:\s*\{|"chatgpt\.conversations"\s*:|"current_node"\s*:\s*"')
_PREFERRED_NAME = re.compile(r"Preferred name: *([^\n]{1,80})")
_ROW = ("native_thread", "native_id", "native_parent", "role", "created_at", "text", "media_kind")
_DECODER = msgspec.json.Decoder(cm.Conversation, strict=False)


class _User(msgspec.Struct):
    id: str | None = None


def _owner(file: RawFile) -> str:
    """The account that exported: user.json's id, or the file's own path."""
    if json_source.is_zip(file):
        for document in json_source.documents(file, _USER):
            if isinstance(document, Document):
                try:
                    user = msgspec.json.decode(document.read(1 << 20), type=_User)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if user.id:
                    return user.id
    return file.name


class _Reading:
    """One document on its way to batches."""

    def __init__(self, file: RawFile, document: Document, owner: str) -> None:
        self._file, self._document, self._owner = file, document, owner
        self._location = 0  # messages so far
        self._index = 0  # conversations so far
        self._fullness = Fullness(FLUSH)
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list] = {name: [] for name in _ROW}
        self._names: list[tuple[str, str, str, str]] = []
        self._rejected: list[Rejected] = []
        self._skipped = self._characters = 0

    def batches(self) -> Iterator[Batch]:
        """The document's batches, in order."""
        window = Window(self._document)
        try:
            for conversation in self._conversations(window):
                if conversation is not None and conversation.mapping is None and conversation.messages is None:
                    absent = "a conversation without mapping or messages"
                    self._rejected.append(Rejected(self._document.member, self._index, "missing_field", absent))
                elif conversation is not None:
                    self._add(conversation)
                rows = len(self._columns["text"])
                if self._fullness.reached(rows, self._characters, len(self._rejected), window.offset):
                    yield self._batch()
            if window.peek() >= 0:
                raise Malformed("malformed_json")
        except Malformed as error:
            self._reject(error.reason)
        self._rejected += self._document.damage(self._index)
        yield self._batch()

    def _reject(self, reason: str) -> None:
        self._rejected.append(Rejected(self._document.member, self._index, reason, "outside of the conversations"))

    def _conversations(self, window: Window) -> Iterator[cm.Conversation | None]:
        """Conversations; None now and then where there are only rejected ones."""
        first = window.peek()
        if first == 0x5B:
            yield from self._array(window)
        elif first != 0x7B:
            raise Malformed("truncated" if first < 0 else "malformed_json")
        elif b'"chatgpt.conversations"' in window.data or re.search(rb'"conversations"\s*:\s*\[', window.data):
            yield from self._envelope(window)
        else:
            yield decode(_DECODER, window.value())

    def _envelope(self, window: Window, depth: int = 0) -> Iterator[cm.Conversation | None]:
        for key in window.members():
            if key in ("chatgpt.conversations", "conversations") and window.peek() == 0x5B:
                yield from self._array(window)
            elif key in ("chatgpt.conversations", "data") and depth < _ENVELOPES:
                yield from self._envelope(window, depth + 1)
            else:
                window.skip()

    def _array(self, window: Window) -> Iterator[cm.Conversation | None]:
        for part in ArrayReader(window, cm.Conversation).read(self._index):
            self._rejected += [Rejected(self._document.member, *rejected) for rejected in part.rejected]
            for index, conversation in zip(part.indices, part.items, strict=True):
                self._index = index
                yield conversation
            self._index = max([self._index, *part.indices[-1:], *(r[0] for r in part.rejected)]) + 1
            yield None

    def _add(self, conversation: cm.Conversation) -> None:
        """Append the messages of the conversation's path."""
        thread = conversation.conversation_id or conversation.id or f"{self._file.sha256}:{self._index}"
        messages = cm.path(conversation)
        every = sum(node.message is not None for node in (conversation.mapping or {}).values())
        self._skipped += max(0, every - len(messages))
        at, parent = cm.microseconds(conversation.create_time), None
        rows = []
        for name, message in messages:
            text, kind = cm.rendered(message)
            self._characters += len(text)
            role = cm.role(message)
            at = cm.microseconds(message.create_time) or at
            rows.append((thread, name, parent, role, at, text, kind))
            if text or kind:  # an empty message is dropped later: the next one answers the one before it
                parent = name
            if role == "system" and (match := _PREFERRED_NAME.search(text)):
                self._names.append((thread, self._owner, match[1].strip(), "display_name"))
        for column, values in zip(self._columns.values(), zip(*rows, strict=True), strict=False):
            column += values

    def _batch(self) -> Batch:
        n = len(self._columns["text"])
        dtypes = NATIVE_MESSAGES.schema
        is_owner = pl.col("role") == "user"
        frame = pl.DataFrame(
            {
                name: pl.Series(values, dtype=pl.Int64 if name == "created_at" else pl.String)
                for name, values in self._columns.items()
            }
        ).select(
            *(name for name in _ROW if name != "created_at"),
            pl.col("created_at").cast(TIMESTAMP),
            native_author=pl.when(is_owner).then(pl.lit(self._owner)),
            numbering=pl.lit(None, pl.String),
            author_name=pl.lit(None, pl.String),
            edited_at=pl.lit(None, TIMESTAMP),  # an edit starts a branch of its own
            community=pl.lit(None, pl.String),
            thread_shape=pl.lit("tree"),
            is_owner=is_owner,
            is_public=pl.lit(False),
            raw_sha256=pl.lit(self._file.sha256),
            raw_member=pl.lit(self._document.member),
            raw_location=pl.int_range(self._location, self._location + n, dtype=pl.Int64),
        )
        self._location += n
        batch = Batch(
            frame.select(dtypes.names()),
            pl.DataFrame(sorted(set(self._names)), schema=NAMES_SCHEMA, orient="row"),
            tuple(self._rejected),
            self._document.progress(),
            {"other_branch": self._skipped} if self._skipped else {},
        )
        self._clear()
        return batch


def read(file: RawFile) -> Iterator[Batch]:
    """Batches of every conversations file of a zip, or of the file itself."""
    owner = _owner(file)
    for document in json_source.documents(file, MEMBER):
        if isinstance(document, Document):
            yield from _Reading(file, document, owner).batches()
        else:
            yield Batch(rejected=document.rejected)


def matches(file: RawFile) -> bool:
    """Whether a document of the file begins with conversations."""
    named = MEMBER.fullmatch(file.base_name) is not None
    return any(_SHAPE.search(head) or (named and head[:1] in b"[{") for head in json_source.heads(file, MEMBER))


FORMATS = (Format("chatgpt", "chatgpt", matches, read),)
