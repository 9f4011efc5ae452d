"""Writing a backup (privacy.backup.contents)."""

import csv
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from user_embeddings_dagster.exports.build import contributor_links, plain_text
from user_embeddings_dagster.exports.landing import GRANTS, LINKS, STATEMENT, datadao_folders, export_paths, stands
from user_embeddings_dagster.exports.sealing import Owners, datadao_owner, raw_name
from user_embeddings_dagster.keys import keyed_id, load_or_create_key
from user_embeddings_dagster.privacy.backup.contents import (
    LIST,
    PLATFORM,
    ROOT,
    ROWS,
    Told,
    check_target,
    platform_files,
    sealed_file,
    write_list,
)
from user_embeddings_dagster.privacy.consent.grants import persons
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.erasure.erase import alone
from user_embeddings_dagster.privacy.sealed import SealedReader, SealedWriter
from user_embeddings_dagster.privacy.sealed_format import LEFTOVER, SUFFIX, Shredded, Tampered, is_sealed, read_header
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import make_folder, sync

_BLOCK = 1 << 20


def back_up(layout: Layout, target: Path, announce: Callable[[str], None] = lambda line: None) -> Told:
    """Write a backup into a new or empty folder; one that a killed process left unfinished is begun again.

    Every sealed export is read to its end before it is copied; one that is damaged is told and left out. Raises
    ValueError if the folder holds anything else, is a file or inside of the data root, or a contributors.csv or
    consent.csv cannot be read, ErasureRunning, Damaged for the files of who was erased.
    """
    check_target(target)
    if target.resolve().is_relative_to(layout.root.resolve()):
        raise ValueError(f"{target}: inside of the data root, and lost with it; a backup goes to another place")
    _make_ready(target)
    key = load_or_create_key(layout.key)
    with alone(layout), ContributorKeys.of(layout) as keys:
        Tombstones.load(layout.erased, key)  # of damaged ones no backup is made: it could not be restored
        ErasedNames.load(layout.erased_names, key)
        writing = _Backup(layout, target, key, keys)
        for folder in datadao_folders(layout.landing):
            announce(f"exports of {folder.name}")
            writing.exports(folder)
            writing.about(folder)
        announce("models, scores, tombstones")
        for path in platform_files(layout):
            name = ROOT + os.fsencode(path.relative_to(layout.root).as_posix())
            writing.add("files of the platform", PLATFORM, name, path)
        sync(target / "files")
        write_list(target, writing.sizes, keys)
    return Told(writing.counts, tuple(writing.details))


def _make_ready(target: Path) -> None:
    make_folder(target / "files")
    files = sorted((target / "files").iterdir())
    unfinished = all(path.name.endswith((SUFFIX, LEFTOVER)) for path in files)
    if (target / LIST).exists() or not unfinished or [path.name for path in target.iterdir()] != ["files"]:
        raise ValueError(f"{target} holds something already: a backup goes into a folder of its own")
    for path in files:
        path.unlink()


class _Backup:
    """A backup that is being written."""

    def __init__(self, layout: Layout, target: Path, key: bytes, keys: ContributorKeys) -> None:
        self._layout, self._target, self._key, self._keys = layout, target, key, keys
        self.sizes: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.details: list[str] = []

    def exports(self, folder: Path) -> None:
        """The exports of a DataDAO: sealed ones as they are, the others sealed on their way."""
        owners = Owners(folder, self._key, contributor_links(folder / LINKS), self._keys)
        for path in export_paths(folder):
            if is_sealed(path):
                self._copy(path)
            elif path.is_symlink():
                self.counts["links left out: what they lead to is not in the data root"] += 1
            else:
                self.add("exports sealed on their way", owners.owner(path), raw_name(folder, path), path)

    def _copy(self, path: Path) -> None:
        try:
            with SealedReader(path, self._keys) as reader:
                reader.verify(hashed=False)
        except Shredded:
            self.counts["exports left out: shredded"] += 1
            return
        except Tampered as error:
            self.counts["exports left out: damaged"] += 1
            self.details.append(str(error))
            return
        file_id = read_header(path).file_id.hex()
        copy = sealed_file(self._target, file_id)
        copy_file(path, copy)
        self.sizes[file_id] = copy.stat().st_size
        self.counts["exports"] += 1

    def about(self, folder: Path) -> None:
        """contributors.csv and consent.csv, each person's rows by themselves, and datadao.json."""
        for file in (LINKS, GRANTS):
            if stands(folder / file):
                name = ROWS + f"{folder.name}/{file}".encode()
                for owner, rows in self._rows(folder, file).items():
                    self._write("people's rows", owner, name, io.BytesIO(json.dumps(rows).encode()))
        if stands(statement := folder / STATEMENT):
            name = ROOT + f"landing/{folder.name}/{STATEMENT}".encode()
            self.add("files of the platform", datadao_owner(folder.name), name, statement)

    def _rows(self, folder: Path, file: str) -> dict[str, list]:
        """[header, [[line, row], …]] by whose rows these are; what is nobody's is the DataDAO's.

        Raises ValueError naming the file and the line that cannot be read.
        """
        links = contributor_links(folder / LINKS)
        reader = csv.DictReader(io.StringIO(plain_text(folder / file), newline=""), restkey="", restval="")
        try:
            rows = [{name: value for name, value in row.items() if name} for row in reader]
        except csv.Error:
            raise ValueError(f"{folder.name}/{file}, line {reader.reader.line_num}: not a CSV file") from None
        found: dict[str, list] = defaultdict(lambda: [list(reader.fieldnames or ()), []])
        for line, row in enumerate(rows):
            try:
                owner = (
                    keyed_id(self._key, "contributor", (row.get("contributor") or "").strip())
                    if file == LINKS
                    else persons(self._key, links, row)[0]
                )
            except ValueError:
                owner = datadao_owner(folder.name)
            found[owner][1].append([line, row])
        return found

    def add(self, what: str, owner: str, name: bytes, path: Path) -> None:
        """Seal a file that lies in clear."""
        with path.open("rb", buffering=0) as stream:
            self._write(what, owner, name, stream, path.stat().st_mtime_ns)

    def _write(
        self, what: str, owner: str, name: bytes, content: io.RawIOBase | io.BytesIO, mtime_ns: int | None = None
    ) -> None:
        with SealedWriter(self._target / "files" / f"new{SUFFIX}", self._keys, owner, name) as writer:
            for block in iter(lambda: content.read(_BLOCK), b""):
                writer.write(block)
            copy = sealed_file(self._target, writer.file_id.hex())
            writer.commit(mtime_ns, copy)
        self.sizes[writer.file_id.hex()] = copy.stat().st_size
        self.counts[what] += 1


def copy_file(path: Path, copy: Path) -> None:
    """Copy a sealed file as it is, whole or not at all, with its time."""
    make_folder(copy.parent)
    temporary = copy.with_name(f".{read_header(path).file_id.hex()}{LEFTOVER}")
    try:
        with path.open("rb", buffering=0) as source, temporary.open("wb") as into:
            for block in _blocks(source):
                into.write(block)
        sync(temporary)
        stat = path.stat()
        os.utime(temporary, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    sync(copy.parent)


def _blocks(stream: io.RawIOBase) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block
