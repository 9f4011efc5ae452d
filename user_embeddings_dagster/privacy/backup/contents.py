"""What a backup is: a folder of sealed files named by their ids, and a list of them that only the platform can write.

    <folder>/files/<file id>.sealed
    <folder>/backup.json             written last: without it the backup is unfinished

Nothing in it is in clear, names of files included, and no key lies with it (privacy.backup.key_store): the exports of
a contributor, and the rows about them in contributors.csv and consent.csv, open with that contributor's key alone, so
that destroying the key shreds them in every copy. What many share (dumps, chats) opens with the DataDAO's key, what is
of the platform (tombstones, horizons and receipts, models, scores) with one of its own.

Not in it: tables, vectors, user memories and answers of language models, which are computed again from the exports;
who may access an embedding, and the log of that (access/), of which an older state must not come back; and what links
in the landing folder lead to.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import SUFFIX
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import Damaged, read_json, write_json

LIST = "backup.json"
PLATFORM = "platform"  # whose key is used for what is of the platform; no user_id is like that
FORMAT = 1
ROOT = b"//"  # names of files below the data root begin so, those of exports with the DataDAO
ROWS = b"//rows/"  # and rows of the file that follows, of one person


class _List(msgspec.Struct):
    files: dict[str, int]
    mac: str


class NoBackup(ValueError):
    """The folder holds no backup that this platform has finished."""


@dataclass(frozen=True)
class Told:
    """What was done with how many files, by what; `details` names no person."""

    counts: Mapping[str, int]
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For a terminal."""
        return "\n".join([*(f"{n:8,} {what}" for what, n in self.counts.items() if n), *self.details])


def check_target(target: Path) -> None:
    """Raises ValueError where no folder can be made, because there is a file."""
    if file := next((path for path in (target, *target.parents) if path.is_file()), None):
        raise ValueError(f"{file}: a file, but a backup, or a copy of the keys, goes into a folder of its own")


def sealed_file(folder: Path, file_id: str) -> Path:
    """Where a file of a backup is."""
    return folder / "files" / f"{file_id}{SUFFIX}"


def write_list(folder: Path, sizes: Mapping[str, int], keys: ContributorKeys) -> None:
    """Finish a backup: its files by id, with their bytes, under a keyed hash."""
    files = dict(sorted(sizes.items()))
    write_json(folder / LIST, {"format": FORMAT, "files": files, "mac": _mac(files, keys)})


def read_list(folder: Path, keys: ContributorKeys) -> dict[str, int]:
    """The files of a finished backup, by id, with their bytes. Raises NoBackup."""
    try:
        listed = read_json(folder / LIST, _List)
    except (OSError, Damaged):
        raise NoBackup(f"{folder}: no finished backup") from None
    if not hmac.compare_digest(_mac(listed.files, keys).encode(), listed.mac.encode(errors="replace")):
        raise NoBackup(f"{folder}: not what this platform wrote: another key store, or the list was changed")
    return listed.files


def _mac(files: Mapping[str, int], keys: ContributorKeys) -> str:
    content = json.dumps([FORMAT, sorted(files.items())]).encode()
    return hmac.digest(keys.derived("backup: list of files"), content, "sha256").hex()


def platform_files(layout: Layout) -> list[Path]:
    """Files of the platform that no table can be computed without, or nothing can be computed again."""
    models = [
        path
        for path in layout.models.rglob("*")
        if path.is_file() and not {"inputs", "output.work"} & {*path.relative_to(layout.models).parts}
    ]
    receipts = [*layout.erasures.glob("*.json"), *layout.retention.glob("*.json")]
    named = [layout.erased, layout.erased_names, layout.scores, *models, *receipts]
    return sorted(path for path in named if path.is_file() and not path.name.startswith("."))
