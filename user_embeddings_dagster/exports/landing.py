"""The landing folder: one folder per DataDAO, into which contributors' exports are dropped."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from user_embeddings_dagster.exports.opening import clear_path, content_size, sealed_twin
from user_embeddings_dagster.storage.durability import read_json, write_json

SLUG = re.compile(r"(?!all\Z)[a-z0-9][a-z0-9_-]{0,62}")  # "all": scores of all DataDAOs together
LINKS = "contributors.csv"
LINKED = ".linked.json"  # beside the DataDAOs' folders, where no contributor writes: which links the operator made
GRANTS = "consent.csv"
STATEMENT = "datadao.json"
ABOUT = frozenset({LINKS, GRANTS, STATEMENT})  # files about a DataDAO: no exports


class MissingExports(FileNotFoundError):
    """What a DataDAO's exports are read from is not there, and will not be until somebody puts it there."""


class BadFile(ValueError):
    """A file about a DataDAO cannot be read as what it is, until somebody mends it."""


@dataclass(frozen=True)
class Drop:
    """What lies in one DataDAO's landing folder. `signature` changes when a file is added, changed or removed."""

    datadao: str
    n_files: int
    n_bytes: int
    newest: float  # modification time of the newest file, seconds since the epoch
    signature: str


def landing_folder(landing: Path, datadao: str) -> Path:
    """The folder of a DataDAO. Raises MissingExports where it is not: a disk that is not mounted is no withdrawal."""
    folder = landing / datadao
    if not folder.is_dir():
        raise MissingExports(
            f"{datadao}: no landing folder; put it back, or, to take the DataDAO out, leave an empty one there, "
            "materialise prepare_datadao, and delete the partition then (docs/operations.md, New data)"
        )
    return folder


def stands(path: Path) -> bool:
    """Whether there is a file about a DataDAO. Raises BadFile for what has its name and is none: that is not absent."""
    if (path.exists() or path.is_symlink()) and not path.is_file():
        raise BadFile(f"{path.parent.name}/{path.name}: no file, but a folder or a link to what is not there")
    return path.is_file()


def datadao_folders(landing: Path) -> list[Path]:
    """The folders below `landing`, in the order of their names; also those whose name is no slug."""
    return sorted(path for path in landing.glob("*") if path.is_dir())


def raw_paths(folder: Path) -> list[Path]:
    """Every file below a DataDAO's folder, in the order of their names; hidden files are left out.

    A sealed file is in the place of its content's name, and left out where the content lies there in clear too. Raises
    OSError where a folder may not be read: its files would count as taken away.
    """
    paths = []
    for top, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [path for name in names if not name.startswith(".") and (path := Path(top, name)).is_file()]
    named = {clear_path(path): path for path in sorted(paths, reverse=True)}  # the clear name sorts first, and wins
    return [named[name] for name in sorted(named)]


def _unreadable(error: OSError) -> None:
    raise error


def link(folder: Path, target: Path, place: str) -> None:
    """A link in a DataDAO's folder to an export of the operator's, noted as one that may be followed.

    A link of ours that led there from another place is removed: the export would be read twice. Raises FileExistsError
    if something that is no link of ours is in the way, such as a contributor's drop.
    """
    made, to = folder / place, str(target.absolute())
    noted = folder.parent / LINKED
    known = read_json(noted, dict) if noted.exists() else {}

    def is_ours(name: str) -> bool:
        path = folder.parent / name
        return path.is_symlink() and known.get(name) == str(path.readlink())

    key = made.relative_to(folder.parent).as_posix()
    taken = [path for path in made.parents[: len(Path(place).parts) - 1] if path.is_symlink() or path.is_file()]
    if not is_ours(key) and (made.is_symlink() or made.exists()):
        taken.append(made)
    if twin := sealed_twin(made):  # it would count as replaced by what lies in clear beside it
        taken.append(twin)
    if taken:
        raise FileExistsError(f"{taken[0]}: in the place of a link to {target}; nothing was replaced, move one of them")
    stale = {name for name in known if name != key and name.startswith(f"{folder.name}/") and known[name] == to}
    for name in filter(is_ours, stale):
        (folder.parent / name).unlink()
    write_json(noted, {name: known[name] for name in known.keys() - stale} | {key: to})
    made.parent.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    made.symlink_to(to)


def foreign_links(folder: Path) -> list[Path]:
    """Links below a DataDAO's folder that `link` did not make: a contributor's may lead to anything on the machine."""
    noted = folder.parent / LINKED
    known = read_json(noted, dict) if noted.exists() else {}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_symlink() and known.get(path.relative_to(folder.parent).as_posix()) != str(path.readlink())
    )


def broken_links(folder: Path) -> list[Path]:
    """Links below a DataDAO's folder that lead to nothing now: an export was moved, or a disk is not there."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() and not path.exists())


def export_paths(folder: Path) -> list[Path]:
    """The raw files of a DataDAO that are exports."""
    return [path for path in raw_paths(folder) if path.parent != folder or path.name not in ABOUT]


def scan(landing: Path) -> tuple[list[Drop], int, list[str]]:
    """The drops below `landing`, how many folders were passed over because their name is no slug, and the DataDAOs that
    were because something in them may not be read.

    Sizes and times are compared, not contents: a scan of a large bucket must stay cheap. Reading hashes contents.
    Sealing a file changes nothing: its content's name and size count, and it keeps the time.
    """
    drops, unnamed, unread = [], 0, []
    for folder in datadao_folders(landing):
        if not SLUG.fullmatch(folder.name):
            unnamed += 1
            continue
        try:
            entries = [
                (str(clear_path(path).relative_to(folder)), content_size(path), path.stat())
                for path in raw_paths(folder)
            ]
        except OSError:  # of one contributor's upload: the other DataDAOs are none the worse for it
            unread.append(folder.name)
            continue
        if not entries:
            continue
        listing = "\n".join(f"{name}\t{size}\t{stat.st_mtime_ns}" for name, size, stat in entries)
        drops.append(
            Drop(
                folder.name,
                len(entries),
                sum(size for _, size, _ in entries),
                max(stat.st_mtime for *_, stat in entries),
                hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:32],
            )
        )
    return drops, unnamed, unread
