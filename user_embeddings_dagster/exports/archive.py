"""Zip archives from strangers, read member by member: nothing is ever extracted to a path.

An archive that a contributor uploads may hold path traversal, links, duplicate names, encrypted members or a
bomb (1 GiB from 1 MB); each unusable member becomes a located rejected record and the others are read.
"""

import io
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from user_embeddings_dagster.exports.reader import RawFile, Rejected

MAX_MEMBERS = 50_000
MAX_MEMBER_BYTES = 8 << 30  # uncompressed
MAX_ARCHIVE_BYTES = 32 << 30  # uncompressed, all members
MAX_DIRECTORY = 8 << 20  # bytes; a member takes about 100 there, and five times that in memory
MAX_RATIO = 200  # uncompressed over compressed; JSON of repeated keys reaches about 30
_RATIO_FREE = 16 << 20  # bytes below which any ratio is harmless
_BUFFER = 64 << 10  # bytes
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """One readable file of an archive."""

    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        """Path inside of the archive."""
        return self.info.filename

    @property
    def size(self) -> int:
        """Uncompressed bytes, as the archive says."""
        return self.info.file_size

    @property
    def compressed(self) -> int:
        """Bytes in the archive, as it says."""
        return self.info.compress_size


def _reason(info: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """Why a member must not be read, or None."""
    parts = info.filename.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in parts[0] or "\0" in info.filename:
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


class _File(io.BufferedReader):
    """The file below an archive, of which no directory over MAX_DIRECTORY is read: zipfile takes it in one read."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's. Raises BadZipFile."""
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile("too many members")
        return super().read(size)


class Archive:
    """A zip file: `members` are safe to open; `rejected` says which are not and why (location: member index)."""

    def __init__(self, file: Path | RawFile) -> None:
        """Read the archive's directory. Raises one of BROKEN if there is none."""
        self._file = _File(cast(io.RawIOBase, file.open("rb", buffering=0)), _BUFFER)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except BaseException:
            self._file.close()
            raise
        size = self._file.seek(0, io.SEEK_END)
        # Members may share their bytes (Fifield 2019, "A better zip bomb"), each with a harmless ratio of its own.
        most = min(MAX_ARCHIVE_BYTES, max(_RATIO_FREE, MAX_RATIO * size))
        self.members: list[Member] = []
        rejected = []
        seen: set[str] = set()
        total = 0
        for index, info in enumerate(self._zip.infolist()):
            if index >= MAX_MEMBERS:
                rejected.append(Rejected("", index, "too_many_members", "this archive member and all after it"))
                break
            reason = _reason(info, seen)
            if reason is None and (total := total + info.file_size) > most:
                reason = "archive_too_large"
            seen.add(info.filename)
            if reason:
                rejected.append(Rejected("", index, reason, "archive member left unread"))
            elif not info.is_dir():
                self.members.append(Member(info))
        self.rejected = tuple(rejected)

    def named(self, *names: str) -> list[Member]:
        """Members whose file name, in whatever folder, is one of `names`, in the archive's order."""
        return [member for member in self.members if member.name.rsplit("/", 1)[-1] in names]

    def open(self, member: Member) -> IO[bytes]:
        """A stream of the member's bytes, at most `member.size` of them.

        Reading raises one of BROKEN where the member is damaged or not as long as the archive says.
        """
        return self._zip.open(member.info)  # by its name, the last of two equal ones would be opened

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_zip(file: Path | RawFile) -> bool:
    """The file starts as a zip archive does."""
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
