"""The contract of every export reader: a raw file in, batches of messages, names and rejected records out.

A module for one platform lists its formats in `FORMATS: tuple[Format, ...]`; `registry` puts them together.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from user_embeddings_dagster.schema import NATIVE_MESSAGES

BATCH_BYTES = 32 << 20  # of a document
BATCH_REJECTED = 10_000  # records

NAMES_SCHEMA = pl.Schema(
    {
        "native_thread": pl.String(),
        "native_author": pl.String(),
        "name": pl.String(),
        "name_kind": pl.String(),
    }
)


@dataclass(frozen=True)
class RawFile:
    """One file as it was dropped: `name` is its path below the DataDAO's landing folder (posix)."""

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class Rejected:
    """A record (or the rest of a file) that could not be read: its place and reason, never its content."""

    member: str
    location: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Batch:
    """Part of a raw file, in file order.

    `messages` has the columns of `schema.NATIVE_MESSAGES`; `names` those of `NAMES_SCHEMA`, with name_kind
    handle, display_name, first_name or native_id; `bytes_read` counts the bytes of the raw file (as it lies
    on disk) that this batch took, so that their sum shows how far the reader is; `skipped` counts records left
    out on purpose, by reason (other_branch: regenerated answers off the conversation's current path).
    """

    messages: pl.DataFrame = field(default_factory=NATIVE_MESSAGES.empty)
    names: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=NAMES_SCHEMA))
    rejected: tuple[Rejected, ...] = ()
    bytes_read: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)


class Fullness:
    """Whether what a reader gathered is to be handed on as a batch: whatever grows, memory does not."""

    def __init__(self, rows: int) -> None:
        self._rows, self._start = rows, 0

    def reached(self, rows: int, rejected: int, offset: int) -> bool:
        """`offset` counts the bytes of the document so far; True starts the next batch there."""
        full = rows >= self._rows or rejected >= BATCH_REJECTED or offset - self._start >= BATCH_BYTES
        if full:
            self._start = offset
        return full


@dataclass(frozen=True)
class Format:
    """One export format.

    `matches` looks at a file's content (its first kilobytes, or an archive's member names) and never raises
    on bad content; `read` streams the file in bounded memory and turns bad content into rejected records.
    `native_author` in the batches is the account on `platform`. A public format has no owner and is read
    after the contributors' own exports, whose threads it hydrates.
    """

    name: str
    platform: str
    matches: Callable[[RawFile], bool]
    read: Callable[[RawFile], Iterator[Batch]]
    is_public: bool = False
