"""JSON documents of a raw file: the file itself, or the members of a zip that are wanted, as streams.

Members are decompressed while they are read and never written to disk, so their names cannot lead anywhere.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO

from user_embeddings_dagster.exports.archive import BROKEN, Archive, is_zip
from user_embeddings_dagster.exports.reader import RawFile, Rejected

MAX_DOCUMENTS = 1_000  # of an archive; each costs milliseconds, however little it holds
HEADS = 16  # documents looked at: the first may be broken
HEAD = 64 << 10  # bytes looked at to tell formats apart
_STEP = 16 << 10  # bytes read at a time: what a damaged place takes with it


class Document:
    """One JSON document as a stream: `member` of an archive, or the file itself ("").

    The stream ends where its archive is damaged, and `damaged` says so.
    """

    def __init__(self, member: str, opened: Callable[[], IO[bytes]], share: float = 1.0) -> None:
        self.member = member
        self._step = _STEP if member else 1 << 30
        self.damaged = False
        self._opened, self._stream = opened, opened()
        self._share = share  # bytes of the raw file per byte of the stream
        self._taken = 0.0

    @contextmanager
    def again(self) -> Iterator["Document"]:
        """The same document from its start, beside this one."""
        other = Document(self.member, self._opened)
        try:
            yield other
        finally:
            other.close()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """As a stream's, but b"" once the archive is damaged."""
        steps: list[bytes] = []
        left = size
        while left and not self.damaged:
            try:
                step = self._stream.read(min(left, self._step) if left > 0 else self._step)
            except BROKEN:
                self.damaged = True
                break
            if not step:
                break
            steps.append(step)
            left -= len(step) if left > 0 else 0
        data = b"".join(steps)
        self._taken += len(data) * self._share
        return data

    def progress(self) -> int:
        """Bytes of the raw file taken since the last call."""
        whole = int(self._taken)
        self._taken -= whole
        return whole

    def damage(self, location: int) -> tuple[Rejected, ...]:
        """The rejected rest of the document, if its archive is damaged."""
        if not self.damaged:
            return ()
        return (Rejected(self.member, location, "damaged_archive", "the member cannot be decompressed further"),)


@dataclass(frozen=True)
class Unreadable:
    """What of a raw file cannot be opened at all."""

    rejected: tuple[Rejected, ...]


def documents(file: RawFile, wanted: re.Pattern[str]) -> Iterator[Document | Unreadable]:
    """The file, or its members whose base name matches `wanted`, in the order of their names."""
    if not is_zip(file):
        with closing(Document("", file.open)) as document:
            yield document
        return
    try:
        archive = Archive(file)
    except BROKEN:
        yield Unreadable((Rejected("", 0, "damaged_archive", "no readable directory of members"),))
        return
    with archive:
        if archive.rejected:
            yield Unreadable(archive.rejected)
        members = [member for member in archive.members if wanted.fullmatch(member.name.rsplit("/", 1)[-1])]
        members.sort(key=lambda member: member.name)
        for index, member in enumerate(members):
            if index >= MAX_DOCUMENTS:
                left = f"this document and {len(members) - index - 1} after it"
                yield Unreadable((Rejected(member.name, 0, "too_many_documents", left),))
                return
            try:
                share = member.compressed / max(1, member.size)
                document = Document(member.name, partial(archive.open, member), share)
            except BROKEN:
                yield Unreadable((Rejected(member.name, 0, "damaged_archive", "the member cannot be opened"),))
                continue
            with closing(document):
                yield document


def heads(file: RawFile, wanted: re.Pattern[str]) -> Iterator[bytes]:
    """The first bytes of the file's first wanted documents. Never raises on bad content."""
    found = (document for document in documents(file, wanted) if isinstance(document, Document))
    for document in islice(found, HEADS):
        yield document.read(HEAD)
