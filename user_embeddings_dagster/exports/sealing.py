"""Raw exports of a landing folder, sealed: each under the key of whoever contributed it (privacy.sealed).

A file that one contributor owns (a data request, an account export, a ChatGPT zip) is sealed under their key. One that
holds many people (a public dump, a single chat, a zip of several accounts), and one that no reader knows, is sealed
under a key of the DataDAO: erasing a person rewrites it. contributors.csv, consent.csv and datadao.json are the
operator's to edit and stay in clear; so do links, because what they lead to is outside of the data root.

The clear file is removed last, once the sealed one is on the disk and was read back. Killed at any point, sealing is
resumed by doing it again.
"""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from user_embeddings_dagster.exports.bounds import bounded
from user_embeddings_dagster.exports.landing import export_paths
from user_embeddings_dagster.exports.opening import clear_path, has_room, sealed_path, sealed_reader, sealed_twin
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.reddit import data_request
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.keys import file_sha256, user_id
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed import SealedReader, SealedWriter
from user_embeddings_dagster.privacy.sealed_format import LEFTOVER, Shredded, Tampered, is_sealed

SETTLED = 5.0  # seconds since its last change, where the file system does not tell whether a file is being written
_BLOCK = 1 << 20
SEALED, LINK, IN_USE, CHANGED, LONG_NAME = "sealed", "links", "in_use", "changed", "long_names"


@dataclass(frozen=True)
class Sealing:
    """What became of the files that lay in clear: `sealed`, and left as they are: `links` to outside, files `in_use`
    by who writes them, `changed` while they were sealed, and those with `long_names`."""

    counts: Mapping[str, int]

    @property
    def sealed(self) -> int:
        """Files sealed."""
        return self.counts.get(SEALED, 0)

    @property
    def left(self) -> dict[str, int]:
        """Files left in clear, by reason."""
        return {reason: n for reason, n in sorted(self.counts.items()) if reason != SEALED and n}


def datadao_owner(datadao: str) -> str:
    """Whose key what holds many people is sealed under; no user_id has that form."""
    return f"datadao:{datadao}"


def raw_name(folder: Path, path: Path) -> bytes:
    """What a raw file of a DataDAO's folder is sealed as: <DataDAO>/<path below the folder>."""
    return os.fsencode(f"{folder.name}/{clear_path(path).relative_to(folder).as_posix()}")


def unsealed(folder: Path) -> list[Path]:
    """Exports that lie in clear."""
    return [path for path in export_paths(folder) if not is_sealed(path)]


def seal_folder(
    folder: Path,
    key: bytes,
    keys: ContributorKeys,
    links: Mapping[str, str],
    owners: Mapping[str, set[str]] | None = None,
    progress: Callable[[int, int], None] = lambda number, files: None,
) -> Sealing:
    """Seal every export of a DataDAO's folder that lies in clear; done already, it does nothing.

    `owners`: by name of the files, the contributors whose own export each is, as far as a reading has told; the others
    are read for it. `links`: of contributors.csv.
    """
    _remove_unfinished(folder)
    counts: Counter[str] = Counter()
    paths = unsealed(folder)
    known = Owners(folder, key, links, keys, owners)
    for number, path in enumerate(paths, 1):
        counts[_sealed(folder, path, keys, lambda path=path: known.owner(path))] += 1
        progress(number, len(paths))
    return Sealing(counts)


def _remove_unfinished(folder: Path) -> None:
    for leftover in folder.rglob(f".*{LEFTOVER}"):
        leftover.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing, and sealed files whose name is that of a file in clear."""
    _remove_unfinished(folder)
    for path in unsealed(folder):
        if twin := sealed_twin(path):
            twin.unlink()


def _text_name(folder: Path, path: Path) -> str:
    return raw_name(folder, path).decode("utf-8", "backslashreplace").partition("/")[2]


class Owners:
    """Under whose key each file of a DataDAO's folder goes; `known` as `seal_folder` has it."""

    def __init__(
        self,
        folder: Path,
        key: bytes,
        links: Mapping[str, str],
        keys: ContributorKeys,
        known: Mapping[str, set[str]] | None = None,
    ) -> None:
        self._folder, self._key, self._links, self._keys = folder, key, dict(links), keys
        self._known = dict(known or {})
        self._requests: dict[str, set[str]] | None = None

    def owner(self, path: Path) -> str:
        """The one contributor of the file, or the DataDAO."""
        found = self._of(path)
        return min(found) if len(found) == 1 else datadao_owner(self._folder.name)

    def _of(self, path: Path) -> set[str]:
        name = _text_name(self._folder, path)
        if name not in self._known:
            self._known[name] = owners_of(RawFile(path, name, "", self._keys), self._key, self._links)
        if self._known[name] or (request := data_request(name)) is None:
            return self._known[name]
        return self._of_request(request, name)

    def _of_request(self, request: str, name: str) -> set[str]:
        """A bare file of a data request that holds no message belongs to whom the others belong."""
        if self._requests is None:
            self._requests = {}
            for other in export_paths(self._folder):
                other_name = _text_name(self._folder, other)
                if (theirs := data_request(other_name)) is None or other_name == name:
                    continue
                found = {sealed_owner} if (sealed_owner := self._sealed_owner(other)) else self._known.get(other_name)
                if found is None:
                    found = owners_of(RawFile(other, other_name, "", self._keys), self._key, self._links)
                self._requests.setdefault(theirs, set()).update(found)
        return self._requests.get(request, set())

    def _sealed_owner(self, path: Path) -> str | None:
        if not is_sealed(path):
            return None
        try:
            with SealedReader(path, self._keys) as reader:
                return reader.owner if reader.owner != datadao_owner(self._folder.name) else None
        except (Shredded, Tampered):
            return None


def owners_of(file: RawFile, key: bytes, links: dict[str, str]) -> set[str]:
    """user_ids of those whose own export the file is; nobody's, if it is public or no reader knows it."""
    format = detect(file)
    found: set[str] = set()
    if format is None or format.is_public:
        return found
    for batch in bounded(format.read(file)):
        accounts = batch.messages.filter(pl.col("is_owner"))["native_author"].drop_nulls().unique()
        found |= {user_id(key, format.platform, account.casefold(), links) for account in accounts}
    return found


def _sealed(folder: Path, path: Path, keys: ContributorKeys, owner: Callable[[], str]) -> str:
    """Seal one file and remove it; what became of it."""
    if path.is_symlink() or not path.resolve().is_relative_to(folder.parent.resolve()):
        return LINK
    target, name = sealed_path(path), raw_name(folder, path)
    if not has_room(target):
        return LONG_NAME
    with path.open("rb", buffering=0) as stream:
        before = os.fstat(stream.fileno())
        if _in_use(stream.fileno(), before.st_mtime):
            return IN_USE
        if not _holds(target, path, keys):  # as after a kill, or when the same is dropped again
            with SealedWriter(target, keys, owner(), name) as writer:
                while block := stream.read(_BLOCK):
                    writer.write(block)
                if _changed(path, before) or _in_use(stream.fileno(), before.st_mtime):
                    return CHANGED
                writer.commit(before.st_mtime_ns)
            with sealed_reader(target, keys) as reader:
                reader.verify(hashed=False)
        if _changed(path, before) or _in_use(stream.fileno(), before.st_mtime):
            return CHANGED  # it lies there both ways, and the clear one counts
        path.unlink()
    return SEALED


def _holds(target: Path, path: Path, keys: ContributorKeys) -> bool:
    """The sealed file is there, whole, and of the same content; it is then as old as the clear one."""
    if not target.is_file() or not is_sealed(target):
        return False
    try:
        with sealed_reader(target, keys) as reader:
            if reader.sha256 != file_sha256(path):
                return False
            reader.verify()
    except (Shredded, Tampered):
        return False
    at = path.stat().st_mtime_ns
    os.utime(target, ns=(at, at))
    return True


def _changed(path: Path, before: os.stat_result) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return True
    return any(getattr(now, part) != getattr(before, part) for part in ("st_ino", "st_dev", "st_size", "st_mtime_ns"))


def _in_use(descriptor: int, changed_at: float) -> bool:
    """Somebody has the file open for writing: a lease is not granted then (fcntl(2), F_SETLEASE)."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):  # a network file system, another system than Linux, or a file of somebody else
        return abs(time.time() - changed_at) < SETTLED
    return False
