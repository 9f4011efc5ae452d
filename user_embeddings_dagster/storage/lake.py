"""The lake: tables as Parquet files, one per partition, replaced atomically.

    <root>/tables/<table>/<partition>/<sha256>.parquet   the rows, in canonical order
    <root>/tables/<table>/<partition>/current.json       which file is current, counts, fingerprint

A commit writes the file, syncs it, then renames `current.json` over the old one: a reader (or a process
killed at any moment) sees the old table or the new one, whole. `content_hash` is the SHA-256 of the file, so
the same rows written by the same versions have the same hash. It is compared before rows are read: Polars reads a
file that was overwritten in its middle as other rows, without an error.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import get_native_id
from typing import Any

import polars as pl

from user_embeddings_dagster.keys import file_sha256, sha256_once
from user_embeddings_dagster.schema import Table
from user_embeddings_dagster.storage.durability import Damaged, alone, make_folder, read_json, sync, write_json, writing

UNPARTITIONED = "all"


@dataclass(frozen=True)
class Commit:
    """What is current of one partition: file name, rows, SHA-256 of the file, fingerprint of its inputs.

    `stats` holds the numbers that computing it gave, also by name (never text): a run that reuses it reports them too.
    """

    file: str
    rows: int
    content_hash: str
    fingerprint: str
    stats: Mapping[str, Any] = field(default_factory=dict)


class CorruptTable(Damaged):
    """A committed file is missing or its bytes are not those that were committed."""


class TornBuild(Exception):
    """Tables that belong together were committed by different builds: the last one was killed half way."""


def fingerprint(*parts: object) -> str:
    """Hash of everything a table is computed from: inputs' content hashes, code version, settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def version_of(table: Table, frame: pl.DataFrame) -> str:
    """Stem of the file that a commit of these rows would have, without committing them."""
    content = io.BytesIO()
    table.conform(frame).sort(table.primary_key).write_parquet(content, compression="zstd", row_group_size=100_000)
    return hashlib.sha256(content.getbuffer()).hexdigest()[:32]


class Lake:
    """Tables below one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, table: str, partition: str = UNPARTITIONED) -> Path:
        """Folder of one partition of one table."""
        return self.root / "tables" / table / partition

    def partitions(self, table: str) -> list[str]:
        """Partitions that have a commit, sorted."""
        return sorted(path.parent.name for path in (self.root / "tables" / table).glob("*/current.json"))

    def current(self, table: str, partition: str = UNPARTITIONED) -> Commit | None:
        """The current commit, or None before the first. Raises Damaged."""
        pointer = self.folder(table, partition) / "current.json"
        try:
            return read_json(pointer, Commit, f"remove it, and materialise {table}/{partition} again")
        except FileNotFoundError:
            return None

    def up_to_date(self, table: str, partition: str, wanted: str) -> Commit | None:
        """The current commit if it was computed from inputs with this fingerprint and its file is intact."""
        commit = self.current(table, partition)
        if commit is None or commit.fingerprint != wanted:
            return None
        path = self.folder(table, partition) / commit.file
        if not path.exists() or file_sha256(path) != commit.content_hash:
            return None
        return commit

    def path(self, table: str, partition: str = UNPARTITIONED) -> Path:
        """Path of the current Parquet file, which may be damaged: `read` and `scan` see to that.

        Raises FileNotFoundError before the first commit, CorruptTable if the file is gone, Damaged.
        """
        return self._current_file(table, partition)[0]

    def _current_file(self, table: str, partition: str) -> tuple[Path, Commit]:
        commit = self.current(table, partition)
        if commit is None:
            raise FileNotFoundError(f"{table}/{partition} has not been materialised yet")
        path = self.folder(table, partition) / commit.file
        if path.exists():
            return path, commit
        if self.current(table, partition) != commit:  # replaced by another process since it was read
            return self._current_file(table, partition)
        raise CorruptTable(f"{path}: gone; materialise {table}/{partition} again")

    def _intact_file(self, table: str, partition: str) -> Path:
        while True:
            path, commit = self._current_file(table, partition)  # raises if it is gone for good
            with contextlib.suppress(FileNotFoundError):  # replaced by another process since it was found
                if sha256_once(path) == commit.content_hash:
                    return path
                raise CorruptTable(f"{path}: damaged, not what was committed; materialise {table}/{partition} again")

    def scan(self, table: str, partition: str = UNPARTITIONED) -> pl.LazyFrame:
        """Lazy frame over the current rows of one partition. Raises FileNotFoundError, CorruptTable, Damaged."""
        return pl.scan_parquet(self._intact_file(table, partition))

    def read(self, table: str, partition: str = UNPARTITIONED) -> pl.DataFrame:
        """Current rows of one partition. Raises FileNotFoundError, CorruptTable, Damaged."""
        while True:
            path = self._intact_file(table, partition)  # raises if it is gone for good
            with contextlib.suppress(FileNotFoundError):  # replaced by another process since it was found
                return pl.read_parquet(path)

    def intact(self, tables: Sequence[Table], partition: str = UNPARTITIONED) -> list[pl.DataFrame]:
        """Current rows of each table, in the order given; empty if one is missing or not what was committed."""
        commits = [(table.name, self.current(table.name, partition)) for table in tables]
        whole = [name for name, commit in commits if commit and self.up_to_date(name, partition, commit.fingerprint)]
        return [self.read(name, partition) for name in whole] if len(whole) == len(tables) else []

    def same_build(self, tables: Sequence[str], partition: str = UNPARTITIONED) -> list[Commit]:
        """Current commits of tables that one build writes one after another, in the order given.

        Raises FileNotFoundError before the first commit of one, TornBuild if a killed build left them apart.
        """
        commits = [self.current(table, partition) for table in tables]
        found = [commit for commit in commits if commit is not None]
        if len(found) < len(commits):
            raise FileNotFoundError(f"{' or '.join(tables)} of {partition} has not been materialised yet")
        if len({commit.fingerprint for commit in found}) > 1:
            raise TornBuild(f"{', '.join(tables)} of {partition} are of different builds; materialise them again")
        return found

    def commit(
        self,
        table: Table,
        frame: pl.DataFrame,
        partition: str = UNPARTITIONED,
        fingerprint: str = "",
        stats: Mapping[str, Any] | None = None,
    ) -> Commit:
        """Replace one partition by `frame`, sorted by primary key. Raises ValueError on duplicate keys."""
        frame = table.conform(frame).sort(table.primary_key)
        if frame.select(table.primary_key).is_duplicated().any():
            raise ValueError(f"{table.name}/{partition}: duplicate primary keys {table.primary_key}")
        with self._written(table, frame, partition) as staged:
            return self.commit_file(table.name, staged, frame.height, partition, fingerprint, stats)

    def stage(self, table: str, partition: str = UNPARTITIONED) -> Path:
        """Path for a file to write and then give to `commit_file`; leftovers of killed runs are removed."""
        folder = self.folder(table, partition)
        make_folder(folder)
        for stale in _stale(folder):
            stale.unlink(missing_ok=True)
        return folder / f"staged-{os.getpid()}-{get_native_id()}.parquet"

    @contextlib.contextmanager
    def _written(self, table: Table, frame: pl.DataFrame, partition: str) -> Iterator[Path]:
        """Rows in the order given, staged; the file goes again if it was not made current."""
        with writing(f"table {table.name}/{partition}", self.folder(table.name, partition)):
            staged = self.stage(table.name, partition)
            try:
                frame.write_parquet(staged, compression="zstd", row_group_size=100_000)
                yield staged
            finally:
                staged.unlink(missing_ok=True)

    def commit_file(
        self,
        table: str,
        staged: Path,
        rows: int,
        partition: str = UNPARTITIONED,
        fingerprint: str = "",
        stats: Mapping[str, Any] | None = None,
    ) -> Commit:
        """Make an already written Parquet file (rows in canonical order) the current one.

        Of two processes that commit a partition at the same time the one waits for the other, and the last one wins.
        """
        folder, commit = self.folder(table, partition), _commit_of(staged, rows, fingerprint, stats)
        with alone(folder):
            _make_current(folder, staged, commit)
        return commit

    def purge(self, table: Table, partition: str, gone: pl.Expr) -> int:
        """Remove the rows for which `gone` is true, and whatever killed runs left beside the table; how many.

        The other rows keep their order and values; without any such row the table keeps its bytes. The fingerprint
        is emptied, so that the next materialisation computes the table again from what its inputs are by then.
        """
        folder = self.folder(table.name, partition)
        if self.current(table.name, partition) is None:
            return 0
        with alone(folder):  # what another process commits meanwhile comes before, and is purged, or after
            frame = self.read(table.name, partition)
            kept = frame.filter(~gone.fill_null(False))
            if kept.height < frame.height:
                with self._written(table, table.conform(kept), partition) as staged:
                    _make_current(folder, staged, _commit_of(staged, kept.height))
            current = self.path(table.name, partition).name
            others = [old for old in folder.glob("*.parquet") if old.name != current and not _is_staged(old)]
            _remove(folder, [*others, *_stale(folder), *folder.glob(".current.json.*")])
        return frame.height - kept.height

    def replace(self, table: Table, partition: str, frame: pl.DataFrame) -> Commit:
        """Commit rows in the order given with no fingerprint: the next materialisation computes the table again."""
        with self._written(table, table.conform(frame), partition) as staged:
            return self.commit_file(table.name, staged, frame.height, partition)


def _commit_of(staged: Path, rows: int, fingerprint: str = "", stats: Mapping[str, Any] | None = None) -> Commit:
    """Of a staged file, which is flushed to the disk."""
    digest = file_sha256(staged)
    sync(staged)
    return Commit(f"{digest[:32]}.parquet", rows, digest, fingerprint, dict(stats or {}))


def _is_staged(path: Path) -> bool:
    return path.name.startswith("staged-")


def _stale(folder: Path) -> list[Path]:
    """What processes staged that live no more."""
    staged = folder.glob("staged-*.parquet")
    return [path for path in staged if not Path("/proc", path.stem.split("-")[1]).exists()]


def _make_current(folder: Path, staged: Path, commit: Commit) -> None:
    """To be called by who holds the folder alone."""
    staged.replace(folder / commit.file)
    write_json(folder / "current.json", asdict(commit))
    _remove(folder, [old for old in folder.glob("*.parquet") if old.name != commit.file and not _is_staged(old)])


def _remove(folder: Path, files: Sequence[Path]) -> None:
    """Remove files of a folder so that none comes back after a power loss."""
    for path in files:
        path.unlink(missing_ok=True)
    if files:
        sync(folder)
