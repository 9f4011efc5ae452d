"""Zip archives from strangers, read member by member: nothing is ever extracted to a path.

An archive that a contributor uploads may hold path traversal, links, duplicate names, encrypted members or a
bomb (1 GiB from 1 MB); each unusable member becomes a located rejected record and the others are read.
"""

import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from user_embeddings_dagster.exports.reader import Rejected

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 8 << 30  # uncompressed
MAX_ARCHIVE_BYTES = 32 << 30  # uncompressed, all members
MAX_RATIO = 200  # uncompressed over compressed; JSON of repeated keys reaches about 30
_RATIO_FREE = 16 << 20  # bytes below which any ratio is harmless
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """One readable file of an archive."""

    name: str
    size: int  # uncompressed bytes, as the archive says
    compressed: int


def _reason(info: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """Why a member must not be read, or None."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in info.filename.split("/")[0] or "\0" in info.filename:
        return "unsafe_path"
    if info.flag_bits & 0x1:
        return "encrypted_member"
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "not_a_regular_file"
    if info.filename in seen:
        return "duplicate_member"
    if info.file_size > MAX_MEMBER_BYTES:
        return "member_too_large"
    if info.file_size > _RATIO_FREE and info.file_size > MAX_RATIO * max(1, info.compress_size):
        return "compression_ratio"
    return None


class Archive:
    """A zip file: `members` are safe to open; `rejected` says which are not and why (location: member index)."""

    def __init__(self, path: Path) -> None:
        """Read the archive's directory. Raises one of BROKEN if there is none."""
        self._zip = zipfile.ZipFile(path)
        self.members: list[Member] = []
        rejected = []
        seen: set[str] = set()
        total = 0
        for index, info in enumerate(self._zip.infolist()):
            reason = _reason(info, seen)
            if reason is None and index >= MAX_MEMBERS:
                reason = "too_many_members"
            if reason is None and (total := total + info.file_size) > MAX_ARCHIVE_BYTES:
                reason = "archive_too_large"
            seen.add(info.filename)
            if reason:
                rejected.append(Rejected("", index, reason, "archive member left unread"))
            elif not info.is_dir():
                self.members.append(Member(info.filename, info.file_size, info.compress_size))
        self.rejected = tuple(rejected)

    def named(self, *names: str) -> list[Member]:
        """Members whose file name, in whatever folder, is one of `names`, in the archive's order."""
        return [member for member in self.members if PurePosixPath(member.name).name in names]

    def open(self, member: Member) -> IO[bytes]:
        """A stream of the member's bytes, at most `member.size` of them.

        Reading raises one of BROKEN where the member is damaged or not as long as the archive says.
        """
        return self._zip.open(member.name)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_zip(path: Path) -> bool:
    """The file starts as a zip archive does."""
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
