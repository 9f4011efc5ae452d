"""Telegram dumps of the DFusion DataDAO: the desktop miner's (GramJS) and the web app's (TDLib).

Both are one object: `revision`, `source` ("telegramMiner" or "telegram"), `user` (the owner's Telegram number),
`submission_token` (not read), `chats`: a list of `chat_id` and `contents`, newest message first. Shapes as in
the sample inputs of the DataDAO's own refiner (miner-fileDto.json, webapp-fileDto.json); see `dfusion_messages`.

Accounts, chats and message ids are brought to the form of Telegram Desktop's export, so that one person or one
supergroup met in both is the same. Names are not in these dumps. Nothing is public: they do not say so.
Personal chats and basic groups stay one thread for each owner: what is no plain text reads differently by format, so
that two people's copies would not become one.
"""

import re
from collections.abc import Iterator

import msgspec
import polars as pl

from user_embeddings_dagster.exports import dfusion_messages as dm
from user_embeddings_dagster.exports import json_source
from user_embeddings_dagster.exports.json_array import ArrayReader
from user_embeddings_dagster.exports.json_source import Document
from user_embeddings_dagster.exports.json_window import Malformed, Window
from user_embeddings_dagster.exports.reader import Batch, Format, Fullness, RawFile, Rejected
from user_embeddings_dagster.exports.telegram_columns import integers, seconds
from user_embeddings_dagster.schema import NATIVE_MESSAGES

FLUSH = 20_000  # rows of a batch
_MOST_EMPTY = 20_000  # chats of one document, and more than its messages: the rest is given up
MEMBER = re.compile(r".*\.json")
_CHAT = re.compile(rb'\{\s*"chat_id"\s*:\s*"?-?\d+"?\s*,\s*"contents"\s*:\s*(?=\[)')
_SHAPE = re.compile(rb'"source"\s*:\s*"telegram(?:Miner)?"|"chat_id"\s*:\s*"?-?\d+"?\s*,\s*"contents"\s*:\s*\[')


class _Reading:
    """One document on its way to batches."""

    def __init__(self, file: RawFile, document: Document) -> None:
        self._file, self._document = file, document
        self._window = Window(document)
        self._reader = ArrayReader(self._window, dm.Message, _CHAT)
        with document.again() as other:
            self._owner = _owner(Window(other))
        self._location = 0  # messages so far
        self._rows: list[tuple] = []
        self._characters = 0
        self._rejected: list[Rejected] = []
        self._fullness = Fullness(FLUSH)

    def batches(self) -> Iterator[Batch]:
        """The document's batches, in order."""
        try:
            for key in self._window.members():
                if key != "chats":
                    self._window.skip()
                    continue
                for index in self._window.elements():
                    if index >= max(_MOST_EMPTY, self._location):
                        self._give_up(f"{index} chats, {self._location} messages")
                    yield from self._chat()
        except Malformed as error:
            if not self._reader.lost:
                at = "outside of the messages"
                self._rejected.append(Rejected(self._document.member, self._location, error.reason, at))
            yield from self._remaining()
        self._rejected += self._document.damage(self._location)
        yield self._batch()

    def _give_up(self, flood: str) -> None:
        """Read no more of the document. Raises Malformed."""
        self._rejected.append(Rejected(self._document.member, self._location, "too_many_chats", flood))
        self._window.give_up()
        self._reader.lost = True
        raise Malformed("truncated")

    def _chat(self) -> Iterator[Batch]:
        chat: int | None = None
        for key in self._window.members():
            if key == "chat_id":
                chat = _number(self._window.value())
            elif key == "contents":
                yield from self._contents(chat)
                if self._reader.lost:
                    raise Malformed("truncated")
            else:
                self._window.skip()

    def _remaining(self) -> Iterator[Batch]:
        """Chats found by what they begin with, once the skeleton is lost."""
        window = self._window
        while True:
            match = _CHAT.search(window.data, window.at)
            if match:
                window.at = match.end()
                yield from self._contents(_number(re.findall(rb"-?\d+", match[0])[0]))
            else:
                window.at = max(window.at, len(window.data) - 4096)
                if not window.more():
                    return

    def _contents(self, chat: int | None) -> Iterator[Batch]:
        for part in self._reader.read(self._location):
            self._rejected += [Rejected(self._document.member, *rejected) for rejected in part.rejected]
            self._location += len(part.indices) + len(part.rejected)
            for message, location in zip(part.items, part.indices, strict=True):
                self._add(message, location, chat)
            if self._fullness.reached(len(self._rows), self._characters, len(self._rejected), self._window.offset):
                yield self._batch()

    def _add(self, message: dm.Message, location: int, chat_id: int | None) -> None:
        peer = dm.peer_account(message.peerId)
        chat = peer or (dm.chat_account(chat_id) if chat_id is not None else f"user:{self._file.sha256}")
        number = re.sub("^[a-z]+", "", chat)
        numbering = None if chat.startswith("channel") else f"{number}@{self._owner or self._file.sha256}"
        thread = numbering or number
        text, kind, is_service = dm.rendered(message)
        self._characters += len(text)
        author = dm.author(message, self._owner, chat)
        reply = message.replyTo.replyToMsgId if message.replyTo else None
        reply = reply or (message.reply_to.message_id if message.reply_to else None) or message.reply_to_message_id
        self._rows.append(
            (
                thread, numbering, dm.server_id(message, message.id) or "0", dm.server_id(message, reply), author,
                "service" if is_service else "user", message.date, message.editDate or message.edit_date,
                text, kind, location,
            )
        )  # fmt: skip

    def _batch(self) -> Batch:
        columns = list(zip(*self._rows, strict=True)) or [()] * 11
        thread, numbering, number, reply, author, role, at, edited, text, kind, location = map(list, columns)
        authors = pl.Series("native_author", author, dtype=pl.String)
        frame = pl.DataFrame(
            {
                "native_thread": pl.Series(thread, dtype=pl.String),
                "numbering": pl.Series(numbering, dtype=pl.String),
                "native_id": pl.Series(number, dtype=pl.String),
                "native_parent": pl.Series(reply, dtype=pl.String),
                "native_author": authors,
                "role": pl.Series(role, dtype=pl.String),
                "created_at": seconds(integers(at), 1),
                "edited_at": seconds(integers(edited), 1),
                "text": pl.Series(text, dtype=pl.String),
                "media_kind": pl.Series(kind, dtype=pl.String),
                "is_owner": (authors == (self._owner or "")).fill_null(False),
                "raw_location": pl.Series(location, dtype=pl.Int64),
            }
        ).with_columns(
            author_name=pl.lit(None, pl.String),
            community=pl.lit(None, pl.String),
            thread_shape=pl.lit("linear"),
            is_public=pl.lit(False),
            raw_sha256=pl.lit(self._file.sha256),
            raw_member=pl.lit(self._document.member),
        )
        batch = Batch(
            frame.select(NATIVE_MESSAGES.schema.names()),
            rejected=tuple(self._rejected),
            bytes_read=self._document.progress(),
        )
        self._rows, self._rejected, self._characters = [], [], 0
        return batch


def _number(raw: bytes) -> int | None:
    try:
        return msgspec.json.decode(raw, type=int, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _owner(window: Window) -> str | None:
    """The owner's account, wherever in the document `user` stands."""
    try:
        for key in window.members():
            if key == "user":
                number = _number(window.value())
                return f"user{number}" if number is not None else None
            window.skip()
    except Malformed:
        return None
    return None


def read(file: RawFile) -> Iterator[Batch]:
    """Batches of a dump, or of every dump in a zip."""
    for document in json_source.documents(file, MEMBER):
        if isinstance(document, Document):
            yield from _Reading(file, document).batches()
        else:
            yield Batch(rejected=document.rejected)


def matches(file: RawFile) -> bool:
    """Whether a document of the file begins as a dump does."""
    return any(_SHAPE.search(head) for head in json_source.heads(file, MEMBER))


FORMATS = (Format("telegram_dfusion", "telegram", matches, read),)
