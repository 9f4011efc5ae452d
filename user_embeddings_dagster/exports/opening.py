"""The one way to the bytes of a raw file, whether it lies there in clear or sealed (privacy.sealed).

Everything that reads a raw file opens it here; no clear copy of a sealed one is made. What is told of a sealed file is
told of its content: name, bytes, SHA-256. Where a file lies there both ways, the clear one counts: it is a new drop
under an old name, or a process was killed between sealing it and removing it.
"""

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed import SealedReader
from user_embeddings_dagster.privacy.sealed_format import SUFFIX, NotOurs, Tampered, is_sealed, read_header

LONGEST_NAME = 255  # bytes
_BUFFER = 64 << 10  # bytes: a read of a sealed file is slower to begin than one of the system's


class NoKeys(Exception):
    """A sealed file is to be read without the key store."""


def clear_path(path: Path) -> Path:
    """Where the file lies, or would lie, in clear."""
    return path.with_name(path.name.removesuffix(SUFFIX)) if is_sealed(path) else path


def beside(path: Path, name: str) -> Path | None:
    """The file of that name in the same folder, clear or sealed; None if there is none."""
    clear = path.with_name(name)
    return clear if clear.is_file() else sealed_twin(clear)


def sealed_path(path: Path) -> Path:
    """Where a clear file lies once it is sealed."""
    return path.with_name(path.name + SUFFIX)


def sealed_twin(path: Path) -> Path | None:
    """The sealed file of a clear one's name; None if there is none."""
    twin = sealed_path(path)
    return twin if has_room(twin) and twin.is_file() and is_sealed(twin) else None


def has_room(path: Path) -> bool:
    """The file system takes a name of that length."""
    return len(os.fsencode(path.name)) <= LONGEST_NAME


def remove(path: Path) -> None:
    """Remove a raw file, and with a clear one what an older state of it was sealed to."""
    twin = sealed_twin(path)
    path.unlink()
    if twin:
        twin.unlink()


def content_size(path: Path) -> int:
    """Bytes of content, as the header says; of the file, if its header is none."""
    try:
        return read_header(path).size if is_sealed(path) else path.stat().st_size
    except NotOurs:
        return path.stat().st_size


def content_sha256(path: Path, keys: ContributorKeys | None) -> str:
    """SHA-256 of the content; of a sealed file, from its header, which vouches for it."""
    if not is_sealed(path):
        return file_sha256(path)
    with sealed_reader(path, keys) as reader:
        return reader.sha256


def sealed_reader(path: Path, keys: ContributorKeys | None) -> SealedReader:
    """A sealed file's content. Raises NoKeys, Shredded, NotOurs, and Tampered where it was sealed as another file."""
    if keys is None:
        raise NoKeys("a sealed raw file cannot be read without the keys")
    reader = SealedReader(path, keys)
    if not os.fsencode(f"/{clear_path(path).as_posix()}").endswith(b"/" + reader.name):
        reader.close()
        raise Tampered(path, reader.header.file_id, 0, "is that of a file of another name")
    return reader


def open_raw(path: Path, keys: ContributorKeys | None, buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:
    """The content as a stream, from which any place can be read; `buffering` 0 gives a raw one."""
    if not is_sealed(path):
        return cast(BinaryIO, path.open("rb", buffering=buffering))
    reader = sealed_reader(path, keys)
    return cast(BinaryIO, io.BufferedReader(reader, max(buffering, _BUFFER)) if buffering else reader)
