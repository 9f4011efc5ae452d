"""Columns of NATIVE_MESSAGES and of the names table, gathered from Telegram messages part by part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter

import numpy as np
import polars as pl

from user_embeddings_dagster.exports import telegram_messages as tm
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA
from user_embeddings_dagster.schema import NATIVE_MESSAGES, TIMESTAMP

_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_FIRST_SECOND = 86_400 * 2  # "edited" of 1970-01-01 in any time zone means never

_id, _unixtime, _date = attrgetter("id"), attrgetter("date_unixtime"), attrgetter("date")
_name, _from_id, _text = attrgetter("name"), attrgetter("from_id"), attrgetter("text")
_reply = attrgetter("reply_to_message_id")


@dataclass
class Chat:
    """One chat: its thread, whether it is public, the bot or partner it is with, and the names seen in it."""

    thread: str
    is_public: bool = False
    bot: str | None = None
    names: set[tuple[str, str]] = field(default_factory=set)
    members: set[str] = field(default_factory=set)


def integers(values: list) -> pl.Series:
    """Whole numbers as Int64; null where a number does not fit."""
    try:
        return pl.Series(values, dtype=pl.Int64)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        return pl.Series([v if v is not None and -(2**63) <= v < 2**63 else None for v in values], dtype=pl.Int64)


def seconds(values: list, first: int = -62_135_596_800) -> pl.Series:
    """Seconds since the epoch as UTC; null outside of years 1 to 9999 (or before `first`)."""
    series = integers(values)
    kept = series.is_between(first, _LAST_SECOND)
    return (series.set(~kept.fill_null(False), None) * 1_000_000).cast(TIMESTAMP)


def times(values: list[str | None], first: int = -62_135_596_800) -> pl.Series:
    """Local times as exported (ISO 8601 without zone), taken as UTC; null where they are none."""
    parsed = pl.Series(values, dtype=pl.String).str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    epoch = parsed.dt.epoch("s")
    return parsed.set((epoch < first).fill_null(False), None).dt.replace_time_zone("UTC")


class Columns:
    """Rows gathered until `frame` is asked for."""

    def __init__(self, sha256: str, member: str) -> None:
        self._constants = {"raw_sha256": sha256, "raw_member": member}
        self._clear()

    def _clear(self) -> None:
        self._chats: list[tuple[Chat, int]] = []
        self._ids: list[int] = []
        self._unixtimes: list[int | None] = []
        self._dates: list[str | None] = []
        self._edited: list[str | None] = []
        self._edited_at: list[int | None] = []
        self._authors: list[str | None] = []
        self._author_names: list[str | None] = []
        self._texts: list[str] = []
        self._replies: list[int | None] = []
        self._roles: list[str] = []
        self._media: list[str | None] = []
        self._locations: list[int] = []
        self._new_names: list[tuple[str, str, str, str]] = []
        self.rows = 0

    def add(self, chat: Chat, messages: list[tm.Message], locations: Sequence[int]) -> None:
        """Append the messages of one chat."""
        n = len(messages)
        texts, names = list(map(_text, messages)), list(map(_name, messages))
        authors = list(map(_from_id, messages))
        if not all(map(isinstance, authors, repeat(str))):
            authors = list(map(tm.account, authors))
        edited: list[str | None] = [None] * n
        edited_at: list[int | None] = [None] * n
        media: list[str | None] = [None] * n
        roles = ["user"] * n if chat.bot is None else ["bot" if a == chat.bot else "user" for a in authors]
        for row, fields in enumerate(map(tm.rare, messages)):
            if fields == tm.NOTHING_RARE:
                if type(texts[row]) is not str:
                    texts[row] = self._flat(chat, texts[row])
                continue
            message = messages[row]
            media[row] = kind = tm.media_kind(message)
            if type(texts[row]) is not str:
                self._flat(chat, texts[row])
            texts[row] = tm.rendered(message, kind)
            edited[row], edited_at[row] = message.edited, message.edited_unixtime
            if message.action is not None:
                roles[row] = "service"
                authors[row] = tm.account(message.actor_id) or authors[row]
                names[row] = message.actor or names[row]
                chat.members.update(name for name in message.members or () if name)
        self._chats.append((chat, n))
        self._ids += map(_id, messages)
        unixtimes = list(map(_unixtime, messages))
        self._unixtimes += unixtimes
        self._dates += map(_date, messages) if None in unixtimes else repeat(None, n)
        self._edited += edited
        self._edited_at += edited_at
        self._authors += authors
        self._author_names += names
        self._texts += texts
        self._replies += map(_reply, messages)
        self._roles += roles
        self._media += media
        self._locations += locations
        self.rows += n
        new = set(zip(authors, names, strict=True)) - chat.names
        for author, name in sorted((author, name) for author, name in new if author and name):
            self.add_name(chat, author, name)

    def _flat(self, chat: Chat, text: tm.Text) -> str:
        """The text; people mentioned by their account, not their handle, are names of the chat."""
        for part in text if isinstance(text, list) else ():
            if isinstance(part, tm.Entity) and part.user_id and part.text:
                self.add_name(chat, f"user{part.user_id}".replace("useruser", "user"), part.text.lstrip("@"))
        return tm.flat(text)

    def add_name(self, chat: Chat, author: str, name: str, kind: str = "display_name") -> None:
        """A name of a person in a chat; of a display name also its first word, as the first name."""
        if (author, name) in chat.names or not name.strip():
            return
        chat.names.add((author, name))
        self._new_names.append((chat.thread, author, name, kind))
        first = name.split()[0]
        if kind == "display_name" and first != name:
            self.add_name(chat, author, first, "first_name")

    def finish(self, chat: Chat) -> None:
        """Add the members of the chat that are known by name only, under that name."""
        known = {name for _, name in chat.names}
        for name in sorted(chat.members - known):
            self.add_name(chat, name, name)

    def frame(self, owner: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The gathered rows and names, which are then forgotten. `owner` is the account that exported."""
        chat_of_row = np.repeat(np.arange(len(self._chats)), [n for _, n in self._chats])
        chats = pl.DataFrame(
            {
                "native_thread": pl.Series([chat.thread for chat, _ in self._chats], dtype=pl.String),
                "is_public": pl.Series([chat.is_public for chat, _ in self._chats], dtype=pl.Boolean),
            }
        )[chat_of_row]
        authors = pl.Series("native_author", self._authors, dtype=pl.String)
        frame = chats.with_columns(
            pl.Series("native_id", integers(self._ids)).cast(pl.String).fill_null("?"),
            pl.Series("native_parent", integers(self._replies)).cast(pl.String),
            authors,
            pl.Series("author_name", self._author_names, dtype=pl.String),
            pl.Series("role", self._roles, dtype=pl.String),
            _either(seconds(self._unixtimes), self._dates).alias("created_at"),
            _either(seconds(self._edited_at, _FIRST_SECOND), self._edited, _FIRST_SECOND).alias("edited_at"),
            pl.Series("text", self._texts, dtype=pl.String).fill_null(""),
            pl.Series("media_kind", self._media, dtype=pl.String),
            pl.Series("raw_location", self._locations, dtype=pl.Int64),
            community=pl.lit(None, pl.String),
            thread_shape=pl.lit("linear"),
            is_owner=(authors == owner).fill_null(False) if owner else pl.lit(False),
            **{name: pl.lit(value) for name, value in self._constants.items()},
        )
        names = pl.DataFrame(self._new_names, schema=NAMES_SCHEMA, orient="row")
        self._clear()
        return frame.select(NATIVE_MESSAGES.schema.names()), names


def _either(at: pl.Series, local: list[str | None], first: int = -62_135_596_800) -> pl.Series:
    if not any(local):
        return at
    return at.zip_with(at.is_not_null(), times(local, first))
