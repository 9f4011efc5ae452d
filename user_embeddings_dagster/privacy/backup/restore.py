"""Restoring a backup (privacy.backup.contents), without bringing back who was erased since it was made.

What the files say of people (tombstones, names, rows of consent.csv) is read before any of them is restored, so that
what cannot be understood leaves nothing half restored, or restored with the erased in it.

What is there already stays: a file is restored where there is none. A file whose key was destroyed is told as
shredded, one that is not what was sealed as damaged, and the others are restored. Tombstones are those of the platform
and of the backup together; of exports that many share, the records of the erased are cut out before they come into the
landing folder. Tables are not in a backup: materialise the DataDAOs again.

    tombstones, people's rows → files of the platform → exports into staging/restoring/ → the erased cut out there
        → exports into landing/ → models marked → pointers to the promoted models

Killed at any point, it is resumed by running it again: what is in staging/ is thrown away, and a DataDAO of which an
export is missing is staged whole, because a name to cut out of one file may be told by another alone. Where nobody was
erased, nothing is staged.
"""

import csv
import io
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from user_embeddings_dagster.exports.landing import LINKS, raw_paths
from user_embeddings_dagster.exports.opening import clear_path, sealed_path
from user_embeddings_dagster.exports.registry import FORMATS
from user_embeddings_dagster.exports.sealing import remove_leftovers
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.backup.contents import ROOT, ROWS, Told, read_list, sealed_file
from user_embeddings_dagster.privacy.backup.write import copy_file
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.erasure.erase import alone
from user_embeddings_dagster.privacy.erasure.raw_files import Found, cut_out, search
from user_embeddings_dagster.privacy.lineage import descendants
from user_embeddings_dagster.privacy.sealed import SealedReader
from user_embeddings_dagster.privacy.sealed_format import Shredded, Tampered
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import checked_json, make_folder, sync
from user_embeddings_dagster.storage.models import POINTER, Models

SHREDDED, DAMAGED, MISSING = "shredded: their key was destroyed", "damaged, left out", "missing in the backup"
_NOTHING_YET = "nothing was restored; restore another backup"
_Rows = tuple[list[str], list[tuple[int, dict[str, str]]]]  # header, (line, row)


def restore(layout: Layout, source: Path, announce: Callable[[str], None] = lambda line: None) -> Told:
    """Restore what is not there. Raises NoBackup, ErasureRunning, FileNotFoundError without the key store, Damaged
    where the platform's or the backup's files about people are not what they are to be: nothing is restored then."""
    for path in (layout.key, layout.master_key, layout.contributor_keys):
        if not path.exists():
            raise FileNotFoundError(f"{path}: restore the key store first, a backup does not hold it")
    key = load_or_create_key(layout.key)
    with alone(layout), ContributorKeys.of(layout) as keys:
        restoring = _Restoring(layout, key, keys)
        files = {sealed_file(source, file_id): size for file_id, size in read_list(source, keys).items()}
        for path, size in files.items():
            restoring.learn(path, size)
        restoring.begin()
        for path, size in files.items():
            if path not in restoring.pointers:
                restoring.take(path, size)
        announce("leaving out who was erased")
        restoring.leave_out()
        for path in sorted(restoring.pointers):
            restoring.take(path, files[path])
    return Told(restoring.counts, tuple(restoring.details))


class _Restoring:
    """Files on their way back. `tombstones` and `names`: of the platform, and of what was learned from the backup.

    `pointers`: files of the backup that promote a model; taken once the models are marked.
    """

    def __init__(self, layout: Layout, key: bytes, keys: ContributorKeys) -> None:
        self._layout, self._key, self._keys = layout, key, keys
        self.counts: Counter[str] = Counter()
        self.details: list[str] = []
        self.tombstones = Tombstones.load(layout.erased, key)
        self.names = ErasedNames.load(layout.erased_names, key)
        self.pointers: set[Path] = set()
        self._rows: dict[Path, list[_Rows]] = defaultdict(list)
        self._staging = layout.root / "staging" / "restoring"
        self._incomplete: set[str] = set()  # DataDAOs of which an export is missing

    def learn(self, path: Path, size: int) -> None:
        """Take in what a file says of people, if it is one that does; `take` tells what cannot be read. Raises Damaged,
        ValueError for a name that would leave the data root."""
        if not path.is_file() or path.stat().st_size != size:
            return
        with suppress(Shredded, Tampered), SealedReader(path, self._keys) as reader:
            target = self._target(reader.name.removeprefix(ROWS))
            what = f"{path}, which is {target.relative_to(self._layout.root)}"
            if reader.name.startswith(ROWS):
                self._rows[target].append(checked_json(_content(reader), _Rows, what, _NOTHING_YET))
            elif target == self._layout.erased:
                names = checked_json(_content(reader), list[str], what, _NOTHING_YET)
                self.tombstones = Tombstones(self._key, self.tombstones.names | set(names))
            elif target == self._layout.erased_names:
                self.names |= ErasedNames.parsed(_content(reader), self._key, what, _NOTHING_YET)
            elif target.is_relative_to(self._layout.models) and target.name == POINTER:
                self.pointers.add(path)
            elif not reader.name.startswith(ROOT) and not _stands(target):
                self._incomplete.add(self._below(target).parts[0])

    def begin(self) -> None:
        """What a killed restore staged goes; who was erased, and who grants what, is there before any export is."""
        if self._staging.exists():
            shutil.rmtree(self._staging)
        if self.tombstones:
            self.tombstones.save(self._layout.erased)
            self.names.save(self._layout.erased_names)
        self._write_rows()

    def take(self, path: Path, size: int) -> None:
        """Put one file in its place, once every frame of it has been read."""
        if not path.is_file() or path.stat().st_size != size:
            self.counts[MISSING if not path.is_file() else DAMAGED] += 1
            return
        try:
            with SealedReader(path, self._keys) as reader:
                reader.verify()
                self._place(path, reader)
        except Shredded:
            self.counts[SHREDDED] += 1
        except Tampered as error:
            self.counts[DAMAGED] += 1
            self.details.append(str(error))

    def _place(self, path: Path, reader: SealedReader) -> None:
        reader.seek(0)
        if reader.name.startswith(ROWS):
            return  # learned
        target = self._target(reader.name)
        if target in (self._layout.erased, self._layout.erased_names):
            return  # learned
        if reader.name.startswith(ROOT):
            self._write(target, reader, path.stat().st_mtime_ns)
        elif self.tombstones and self._below(target).parts[0] in self._incomplete:
            copy_file(path, sealed_path(self._staging / self._below(target)))
        else:
            self._place_export(path, target)

    def _place_export(self, path: Path, target: Path) -> None:
        if _stands(target):
            self.counts["there already"] += 1
        else:
            copy_file(path, sealed_path(target))
            self.counts["exports restored"] += 1

    def _below(self, target: Path) -> Path:
        return target.relative_to(self._layout.landing)

    def _target(self, name: bytes) -> Path:
        """Below the data root, whatever the name: who holds the key store could have sealed another."""
        below = name.removeprefix(ROOT) if name.startswith(ROOT) else b"landing/" + name
        parts = PurePosixPath(os.fsdecode(below)).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError("a file of the backup is named so that it would leave the data root")
        return self._layout.root.joinpath(*parts)

    def _write(self, target: Path, content: io.RawIOBase | io.BytesIO, mtime_ns: int | None = None) -> None:
        if target.exists():
            self.counts["there already"] += 1
            return
        make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.restoring")
        with temporary.open("wb") as stream:
            while block := content.read(1 << 20):
                stream.write(block)
        sync(temporary)
        if mtime_ns is not None:
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
        temporary.replace(target)
        sync(target.parent)
        self.counts["files of the platform restored"] += 1

    def _write_rows(self) -> None:
        """contributors.csv and consent.csv, of the rows of everybody whose key is there."""
        for target, parts in sorted(self._rows.items()):
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, parts[0][0], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for _, row in sorted((pair for _, rows in parts for pair in rows), key=lambda p: p[0]))
            self._write(target, io.BytesIO(text.getvalue().encode()))

    def leave_out(self) -> None:
        """Cut the erased out of what was staged, put the rest in its place, and mark the models trained on them."""
        for name in sorted(self._incomplete):
            staged, folder = self._staging / name, self._layout.landing / name
            if staged.exists():
                self._cut(staged, folder)
            for path in raw_paths(staged) if staged.exists() else ():
                self._place_export(path, folder / clear_path(path).relative_to(staged))
            if folder.exists():
                remove_leftovers(folder)
        if self._staging.exists():
            shutil.rmtree(self._staging)
        for version, people in descendants(Models(self._layout.models), self.tombstones.names):
            if people - version.tainted:
                version.taint(people)
                self.counts["models marked: trained on somebody who was erased"] += 1

    def _cut(self, staged: Path, folder: Path) -> None:
        """Cut the erased out of the exports of a DataDAO; their own are removed."""
        if (folder / LINKS).exists():
            shutil.copyfile(folder / LINKS, staged / LINKS)  # whose the accounts are
        found = list(search(staged, self._key, self.tombstones, self._keys))
        names = {name for one in found for name in one.names}
        names |= {name for one in found if one.known and not one.own for name in _names_in(one, self.names)}
        for one in found:
            if one.own:
                one.file.path.unlink()
                self.counts["exports of the erased, not restored"] += 1
            elif one.known:
                self.counts["exports from which the erased were cut out"] += cut_out(one, names)
        (staged / LINKS).unlink(missing_ok=True)


def _stands(target: Path) -> bool:
    """Whether an export is there, in clear, as a link or sealed."""
    return target.exists() or target.is_symlink() or sealed_path(target).exists()


def _content(reader: SealedReader) -> bytes:
    """All of it, once every frame has been read."""
    reader.verify()
    reader.seek(0)
    return reader.read()


def _names_in(found: Found, known: ErasedNames) -> set[tuple[str, str]]:
    names: set[tuple[str, str]] = set()
    for batch in FORMATS[found.format].read(found.file):
        names |= known.found_in(batch.messages["text"]) | known.found_in(batch.names["name"])
    return names
