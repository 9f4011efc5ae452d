"""Restoring a backup (privacy.backup.contents), without bringing back who was erased since it was made.

What the files say of people (tombstones, names, rows of consent.csv) is read before any of them is restored, so that
what cannot be understood leaves nothing half restored, or restored with the erased in it.

What is there already stays: a file is restored where there is none. A file whose key was destroyed is told as
shredded, one that is not what was sealed as damaged, and the others are restored. Tombstones are those of the platform
and of the backup together; of exports that many share, the records of the erased are cut out as they are restored.
Tables are not in a backup: materialise the DataDAOs again.
"""

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from user_embeddings_dagster.exports.opening import sealed_path
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
from user_embeddings_dagster.storage.models import Models

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
        for path, size in files.items():
            restoring.take(path, size)
        restoring.write_rows()
        announce("leaving out who was erased")
        if restoring.tombstones:
            restoring.tombstones.save(layout.erased)
            restoring.names.save(layout.erased_names)
            restoring.leave_out()
    return Told(restoring.counts, tuple(restoring.details))


class _Restoring:
    """Files on their way back. `tombstones` and `names`: of the platform, and of what was learned from the backup."""

    def __init__(self, layout: Layout, key: bytes, keys: ContributorKeys) -> None:
        self._layout, self._key, self._keys = layout, key, keys
        self.counts: Counter[str] = Counter()
        self.details: list[str] = []
        self.tombstones = Tombstones.load(layout.erased, key)
        self.names = ErasedNames.load(layout.erased_names, key)
        self._rows: dict[Path, list[_Rows]] = defaultdict(list)
        self._touched: set[Path] = set()

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
        elif target.exists() or target.is_symlink() or sealed_path(target).exists():
            self.counts["there already"] += 1
        else:
            copy_file(path, sealed_path(target))
            self._touched.add(self._layout.landing / target.relative_to(self._layout.landing).parts[0])
            self.counts["exports restored"] += 1

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

    def write_rows(self) -> None:
        """contributors.csv and consent.csv, of the rows of everybody whose key is there."""
        for target, parts in sorted(self._rows.items()):
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, parts[0][0], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for _, row in sorted((pair for _, rows in parts for pair in rows), key=lambda p: p[0]))
            self._write(target, io.BytesIO(text.getvalue().encode()))

    def leave_out(self) -> None:
        """Cut the erased out of what was restored, and mark the models trained on them."""
        for folder in sorted(self._touched):
            remove_leftovers(folder)
            found = list(search(folder, self._key, self.tombstones, self._keys))
            names = {name for one in found for name in one.names}
            names |= {name for one in found if one.known and not one.own for name in _names_in(one, self.names)}
            for one in found:
                if one.own:
                    one.file.path.unlink()
                    self.counts["exports of the erased, not restored"] += 1
                elif one.known:
                    self.counts["exports from which the erased were cut out"] += cut_out(one, names)
        for version, people in descendants(Models(self._layout.models), self.tombstones.names):
            if people - version.tainted:
                version.taint(people)
                self.counts["models marked: trained on somebody who was erased"] += 1


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
