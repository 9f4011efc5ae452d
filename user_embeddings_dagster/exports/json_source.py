"""JSON documents of a raw file: the file itself, or the members of a zip that are wanted, as streams.

Members are decompressed while they are read and never written to disk, so their names cannot lead anywhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from user_embeddings_dagster.exports.archive import BROKEN, Archive, is_zip
from user_embeddings_dagster.exports.reader import RawFile, Rejected

HEAD = 64 << 10  # bytes looked at to tell formats apart
_STEP = 16 << 10  # bytes read at a time: what a damaged place takes with it


class Document:
    """One JSON document as a stream: `member` of an archive, or the file itself ("").

    The stream ends where its archive is damaged, and `damaged` says so.
    """

    def __init__(self, member: str, stream: IO[bytes], share: float = 1.0) -> None:
        self.member = member
        self._step = _STEP if member else 1 << 30
        self.damaged = False
        self._stream = stream
        self._share = share  # bytes of the raw file per byte of the stream
        self._taken = 0.0

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
    if not is_zip(file.path):
        with file.path.open("rb") as stream:
            yield Document("", stream)
        return
    try:
        archive = Archive(file.path)
    except BROKEN:
        yield Unreadable((Rejected("", 0, "damaged_archive", "no readable directory of members"),))
        return
    with archive:
        if archive.rejected:
            yield Unreadable(archive.rejected)
        for member in sorted(archive.members, key=lambda member: member.name):
            if not wanted.fullmatch(PurePosixPath(member.name).name):
                continue
            try:
                stream = archive.open(member)
            except BROKEN:
                yield Unreadable((Rejected(member.name, 0, "damaged_archive", "the member cannot be opened"),))
                continue
            with stream:
                yield Document(member.name, stream, member.compressed / max(1, member.size))


def head(file: RawFile, wanted: re.Pattern[str]) -> bytes:
    """The first bytes of the file's first wanted document; b"" if there is none. Never raises on bad content."""
    for document in documents(file, wanted):
        if isinstance(document, Document):
            return document.read(HEAD)
    return b""
