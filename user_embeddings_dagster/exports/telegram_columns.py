"""Columns of NATIVE_MESSAGES and of the names table, gathered from Telegram messages part by part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import astuple

from user_embeddings_dagster.exports import telegram_messages as tm
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA
from user_embeddings_dagster.schema import NATIVE_MESSAGES, TIMESTAMP

_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_NEVER = 86_400 * 2  # "edited" of 1970-01-01 in any time zone means never

_SETTLED = 256  # pending rows that become Arrow columns: a column costs as much to begin as to fill with 300 rows
_COLUMNS = (
    ("native_author", str), ("author_name", str), ("text", str), ("native_id", int), ("native_parent", int),
    ("date_unixtime", int), ("raw_location", int),
)  # fmt: skip

# Of the fields of a tm.Message as a tuple, which costs less than to fetch one attribute after the other.
_id, _date, _unixtime, _name, _from_id, _reply, _text = map(itemgetter, range(tm.ORDINARY))


@dataclass
class Chat:
    """One chat: its thread, whose message ids it has (None: everybody's), whether it is public, the bot it is with,
    and the names seen in it."""

    thread: str
    numbering: str | None = None
    is_public: bool = False
    bot: str | None = None
    names: set[tuple[str, str]] = field(default_factory=set)
    members: set[str] = field(default_factory=set)


def strings(values: Sequence[str | None]) -> pl.Series:
    """Text as String."""
    return pl.Series(values, dtype=pl.String)


def integers(values: list) -> pl.Series:
    """Whole numbers as Int64; null where a number does not fit."""
    try:
        return pl.Series(values, dtype=pl.Int64)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        return pl.Series([v if v is not None and -(2**63) <= v < 2**63 else None for v in values], dtype=pl.Int64)


def seconds(series: pl.Series, first: int = _FIRST_SECOND) -> pl.Series:
    """Seconds since the epoch (Int64) as UTC; null outside of years 1 to 9999, or before `first`."""
    kept = series.is_between(first, _LAST_SECOND).fill_null(False)
    return (series.set(~kept, None) * 1_000_000).cast(TIMESTAMP)


def times(series: pl.Series, first: int = _FIRST_SECOND) -> pl.Series:
    """Local times as exported (ISO 8601 without zone), taken as UTC; null where they are none."""
    parsed = series.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    return parsed.set((parsed.dt.epoch("s") < first).fill_null(False), None).dt.replace_time_zone("UTC")


class Columns:
    """Rows gathered until `frame` is asked for."""

    def __init__(self, sha256: str, member: str) -> None:
        self._constants = {"raw_sha256": sha256, "raw_member": member}
        self._clear()

    def _clear(self) -> None:
        self._chats: list[tuple[Chat, int]] = []
        self._pending = [[] for _ in _COLUMNS]
        self._parts: list[dict[str, pl.Series]] = []
        self._sparse: dict[str, dict[int, Any]] = {}
        self._new_names: list[tuple[str, str, str, str]] = []
        self._finished = 0
        self.rows = self.characters = 0

    def add(self, chat: Chat, messages: list[tm.Message], locations: Sequence[int]) -> None:
        """Append the messages of one chat.

        They become Arrow columns soon, while they are still in the processor's cache.
        """
        n, fields = len(messages), list(map(astuple, messages))
        texts, names = list(map(_text, fields)), list(map(_name, fields))
        authors, unixtimes = list(map(_from_id, fields)), list(map(_unixtime, fields))
        if not all(map(isinstance, authors, repeat(str))):
            authors = list(map(tm.account, authors))
        for row in [row for row, text in enumerate(texts) if type(text) is not str]:
            texts[row] = self._flat(chat, texts[row])
        for row in tm.special(fields):
            message = messages[row]
            kind = tm.media_kind(message)
            texts[row] = tm.rendered(message, kind, texts[row])
            self._put(self.rows + row, media_kind=kind, edited=message.edited, edited_unixtime=message.edited_unixtime)
            if message.action is not None:
                self._put(self.rows + row, role="service")
                authors[row] = tm.account(message.actor_id) or authors[row]
                names[row] = message.actor or names[row]
                chat.members.update(name for name in message.members or () if name)
        if chat.bot is not None:
            for row in [row for row, author in enumerate(authors) if author == chat.bot]:
                self._put(self.rows + row, role="bot")
        if None in unixtimes:
            for row in [row for row, seconds in enumerate(unixtimes) if seconds is None]:
                self._put(self.rows + row, date=_date(fields[row]))
        told = {*zip(authors, names, strict=True)} - chat.names
        for author, name in sorted((a, n) for a, n in told if a is not None and n is not None):
            self.add_name(chat, author, name)
        numbers, replies = list(map(_id, fields)), list(map(_reply, fields))
        columns = (authors, names, texts, numbers, replies, unixtimes, locations)
        for pending, values in zip(self._pending, columns, strict=True):
            pending += values
        if len(self._pending[0]) >= _SETTLED:
            self._settle()
        if self._chats and self._chats[-1][0] is chat:
            self._chats[-1] = (chat, self._chats[-1][1] + n)
        else:
            self._chats.append((chat, n))
        self.rows += n
        self.characters += sum(map(len, texts))

    def _put(self, row: int, **values: Any) -> None:
        """Note what stands in a row of columns in which mostly nothing does."""
        for name, value in values.items():
            if value is not None:
                self._sparse.setdefault(name, {})[row] = value

    def _filled(self, name: str, default: str | None = None) -> pl.Series:
        """One of the columns of `_put`."""
        as_series, values = integers if name == "edited_unixtime" else strings, self._sparse.get(name)
        if not values:
            return as_series([default]).new_from_index(0, self.rows).alias(name)
        column: list = [default] * self.rows
        for row, value in values.items():
            column[row] = value
        return as_series(column).alias(name)

    def _settle(self) -> None:
        """Turn what is pending into Arrow columns."""
        dtypes = zip(_COLUMNS, self._pending, strict=True)
        self._parts.append({n: strings(v) if kind is str else integers(v) for (n, kind), v in dtypes})
        self._pending: list[list] = [[] for _ in _COLUMNS]

    def _flat(self, chat: Chat, text: tm.Text) -> str:
        """The text; people mentioned by their account, not their handle, are names of the chat."""
        if isinstance(text, list):
            for part in text:
                if not isinstance(part, str) and part.user_id and part.text:
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

    @property
    def pending(self) -> int:
        """Rows gathered; a chat weighs as much as ten."""
        return self.rows + 10 * self._finished

    def finish(self, chat: Chat) -> None:
        """Note that the chat is complete: members without an account are told, under their name."""
        self._finished += 1
        for name in sorted(chat.members - {name for _, name in chat.names}):
            self.add_name(chat, name, name)

    def frame(self, owner: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The gathered rows and names, which are then forgotten. `owner` is the account that exported."""
        names = pl.DataFrame(self._new_names, schema=NAMES_SCHEMA, orient="row")
        if not self.rows:  # an archive may hold a thousand empty documents
            self._clear()
            return NATIVE_MESSAGES.empty(), names
        self._settle()
        column = {name: pl.concat([part[name] for part in self._parts]).alias(name) for name, _ in _COLUMNS}
        chat_of_row = np.repeat(np.arange(len(self._chats)), [n for _, n in self._chats])
        threads = pl.Series("native_thread", [chat.thread for chat, _ in self._chats], dtype=pl.String)
        numberings = pl.Series("numbering", [chat.numbering for chat, _ in self._chats], dtype=pl.String)
        public = pl.Series("is_public", [chat.is_public for chat, _ in self._chats], dtype=pl.Boolean)
        authors = column["native_author"]
        edited = seconds(self._filled("edited_unixtime"), _NEVER)
        frame = pl.DataFrame(
            [
                threads.gather(chat_of_row),
                numberings.gather(chat_of_row),
                public.gather(chat_of_row),
                column["native_id"].cast(pl.String).fill_null("?"),
                column["native_parent"].cast(pl.String),
                *(column[name] for name in ("native_author", "author_name", "text", "raw_location")),
                self._filled("role", "user"),
                self._filled("media_kind"),
                _either(seconds(column["date_unixtime"]), self._filled("date")).alias("created_at"),
                _either(edited, self._filled("edited"), _NEVER).alias("edited_at"),
                (authors == (owner or "")).fill_null(False).alias("is_owner"),
            ]
        ).with_columns(
            community=pl.lit(None, pl.String),
            thread_shape=pl.lit("linear"),
            **{name: pl.lit(value) for name, value in self._constants.items()},
        )
        self._clear()
        return frame.select(NATIVE_MESSAGES.schema.names()), names


def _either(at: pl.Series, local: pl.Series, first: int = _FIRST_SECOND) -> pl.Series:
    if local.null_count() == len(local):
        return at
    return at.zip_with(at.is_not_null(), times(local, first))
