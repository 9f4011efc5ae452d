"""The contract of every export reader: a raw file in, batches of messages, names and rejected records out.

A module for one platform lists its formats in `FORMATS: tuple[Format, ...]`; `registry` puts them together.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import DEFAULT_BUFFER_SIZE
from pathlib import Path
from typing import BinaryIO

import polars as pl

from user_embeddings_dagster.exports.opening import beside, clear_path, content_sha256, content_size, open_raw
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import NotOurs
from user_embeddings_dagster.schema import NATIVE_MESSAGES

BATCH_BYTES = 32 << 20  # of a document
BATCH_CHARACTERS = 1 << 20  # of texts, each of which is copied several times on its way to the staged part
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
    """One file as it was dropped: `name` is its path below the DataDAO's landing folder (posix).

    Where it lies at `path` sealed, name and sha256 are those of its content, and `keys` open it.
    """

    path: Path
    name: str
    sha256: str
    keys: ContributorKeys | None = None

    def open(self, mode: str = "rb", buffering: int = DEFAULT_BUFFER_SIZE) -> BinaryIO:
        """The content as a stream of bytes. Raises as exports.opening does."""
        if mode != "rb":
            raise ValueError(f"a raw file is read as bytes, not {mode!r}")
        return open_raw(self.path, self.keys, buffering)

    def beside(self, ending: str, other: str) -> "RawFile | None":
        """The file in the same folder that is named like this one but for the `ending`; its hash is not told."""
        name = clear_path(self.path).name
        path = beside(self.path, name[: len(name) - len(ending)] + other)
        return RawFile(path, f"{self.name[: len(self.name) - len(ending)]}{other}", "", self.keys) if path else None

    @property
    def base_name(self) -> str:
        """The last part of the name."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return content_size(self.path)


def raw_file(folder: Path, path: Path, keys: ContributorKeys | None) -> RawFile:
    """A file of a DataDAO's landing folder. Raises OSError, NoKeys, Shredded, Tampered.

    One that begins as a sealed file and is none of this platform's is taken as it lies there: no reader knows it.
    """
    name = os.fsencode(clear_path(path).relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    try:
        return RawFile(path, name, content_sha256(path, keys), keys)
    except NotOurs:
        return RawFile(path, name, file_sha256(path), keys)


@dataclass(frozen=True)
class ForeignLink(RawFile):
    """A link that is not followed: `sha256` is that of its name."""

    @property
    def size(self) -> int:
        """It has no content."""
        return 0


def foreign_link(folder: Path, path: Path) -> ForeignLink:
    """A link in a DataDAO's landing folder that the operator did not make."""
    name = os.fsencode(path.relative_to(folder).as_posix())
    return ForeignLink(path, name.decode("utf-8", "backslashreplace"), hashlib.sha256(b"link:" + name).hexdigest())


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

    def reached(self, rows: int, characters: int, rejected: int, offset: int) -> bool:
        """Rows with so many characters of text, and records that were rejected, since the last batch; `offset` counts
        the bytes of the document so far. True starts the next batch there."""
        full = rows >= self._rows or characters >= BATCH_CHARACTERS
        full = full or rejected >= BATCH_REJECTED or offset - self._start >= BATCH_BYTES
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
