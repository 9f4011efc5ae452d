"""Written means on the disk: what is acknowledged survives a power loss, not only a kill.

A file's bytes and its name are two things: the bytes are safe after fsync of the file, the name (a creation, a rename,
a removal) after fsync of its folder.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

_Kept = TypeVar("_Kept")
_FULL = ("No space left on device", "disk is full")  # of Arrow, Lance, DuckDB; of SQLite
_SCARCE = 1 << 18  # bytes; below it SQLite may fail to grow its shared index, and says no more than "disk I/O error"


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and flush the entry of each that was not there."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(absent):
        sync(folder.parent)


class Damaged(Exception):
    """A file of ours is not what was written there. No ValueError: nothing may take it for a record to be left out."""


_PUT_BACK = "put back a copy of it"


def read_json(path: Path, kind: type[_Kept], remedy: str = _PUT_BACK) -> _Kept:
    """What `write_json` wrote, of a kind such as list[str] or a dataclass. Raises Damaged naming the file,
    FileNotFoundError."""
    return checked_json(path.read_bytes(), kind, path, remedy)


def checked_json(content: bytes, kind: type[_Kept], what: object, remedy: str = _PUT_BACK) -> _Kept:
    """JSON of a kind. Raises Damaged, which names `what` it is, says `remedy` and quotes nothing of it."""
    try:
        value = json.loads(content)
    except ValueError:
        raise Damaged(f"{what}: damaged, not JSON; {remedy}") from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:  # an empty one of another kind would count as nothing kept
        raise Damaged(f"{what}: damaged, no {kind.__name__} in JSON; {remedy}") from None


class DiskFull(OSError):
    """There was no room to write something; what was there before stands."""


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Name what was being written, and where, when the disk is full: libraries often name neither. Raises DiskFull."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or any(sign in str(error) for sign in _FULL)
        if not full and not ("disk I/O error" in str(error) and scarce(path)):
            raise
        message = f"{what}: no space left on the disk of {path}; what was there before stands, run it again"
        raise DiskFull(errno.ENOSPC, message) from None


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Name a LanceDB table that Lance cannot read. Raises Damaged; some damage Lance does not see, or dies of."""
    try:
        yield
    except RuntimeError:  # Lance's, of any kind; its text is long, and may name the file or not
        raise Damaged(f"{folder}: damaged, or cannot be read now; remove it, and materialise it again") from None


def scarce(path: Path) -> bool:
    """Whether next to nothing is left on the disk of the nearest folder above that exists."""
    status = os.statvfs(next(folder for folder in path.parents if folder.exists()))
    return status.f_bavail * status.f_frsize < _SCARCE


@contextmanager
def alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder alone among the processes that ask for it; a killed one lets go. Not reentrant.

    Raises BlockingIOError if it is held and we are not to `wait`.
    """
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def keep_alone(folder: Path) -> int:
    """Hold a folder alone until this process ends, also as the program that it becomes by exec; the descriptor.

    What the process starts does not hold it. Raises BlockingIOError if it is held.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    os.set_inheritable(descriptor, True)
    return descriptor


@contextmanager
def together(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a folder, as others may at the same time, while nobody holds it `alone`; `waiting` is called if one does."""
    with _opened(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of its own, which holds what is locked by it until the end, whatever a forked process keeps."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that the file is whole or absent: temporary file, fsync, rename, fsync of the folder."""
    with writing(path.name, path):
        make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path.name, path):
        with temporary.open("w") as stream:
            json.dump(value, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync(path.parent)


class SyncedTree:
    """The files below a folder, each flushed once: for a library that writes and never flushes (Lance).

    The first `sync` flushes everything that is there, also what a killed process left unflushed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._flushed: dict[str, tuple[int, int, int]] = {}

    def sync(self) -> int:
        """Flush every file that is new or changed since the last call, then the folders; returns the files."""
        found: dict[str, tuple[int, int, int]] = {}
        folders = [self.folder]
        for place, names, files in os.walk(self.folder):
            folders += [Path(place, name) for name in names]
            for name in files:
                path = Path(place, name)
                try:
                    status = path.stat()
                except FileNotFoundError:  # cleaned up by another process
                    continue
                found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
        new = [path for path, status in found.items() if self._flushed.get(path) != status]
        for path in map(Path, new):
            _sync_if_there(path)
        if new or len(found) < len(self._flushed):
            for folder in reversed(folders):
                _sync_if_there(folder)
            sync(self.folder.parent)
        self._flushed = found
        return len(new)


def _sync_if_there(path: Path) -> None:
    try:
        sync(path)
    except FileNotFoundError:  # removed by another process since it was seen
        return
