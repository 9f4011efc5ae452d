"""Vector tables in LanceDB: one database per DataDAO, rows keyed by content, safe to repeat after a kill.

    <root>/<datadao>/chunk_embeddings.lance      id = chunk_id, vector of the masked chunk, base encoder
    <root>/<datadao>/summary_embeddings.lance    id = chunk_id, vector of its summary, base encoder
    <root>/<datadao>/item_embeddings.lance       id = chunk_id, vector of the masked chunk, item encoder
    <root>/<datadao>/user_embeddings*.lance      id = user_id, one table per embedding dimension

Every table has the columns `id`, `version` (of the encoder) and `vector`; a caller may add others, the same in every
write. `id` is a non-null field marked as unenforced primary key: without the mark, two writers that `merge_insert` the
same new ids at once both insert them, without an error. Lance itself never flushes a file to the disk: every method
that writes does so before it returns, and before older versions are removed. Nor does it see that a file was changed:
whatever opens a table compares its files first (storage.lance_sums).
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from user_embeddings_dagster.storage.durability import SyncedTree, alone, make_folder, reading, sync, writing
from user_embeddings_dagster.storage.lance_sums import record, verified
from user_embeddings_dagster.storage.vector_rows import arrow_rows, stacked

INDEX_ROWS = 4096  # below it a flat scan is exact and takes a few milliseconds
RETRIES = timedelta(minutes=30)  # of a merge beside other writers; LanceDB gives up after 30 s
FILTER_IDS = 2000  # ids in one IN expression
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class IndexInfo:
    """What `ensure_indices` found or built: "BTREE" or "none", "IVF_FLAT" or "flat"."""

    rows: int
    id_index: str
    vector_index: str


class StaleVectors(Exception):
    """Vectors by another encoder than the one whose space is meant: they cannot be compared."""


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a {what}: {name!r} (expected {_NAME.pattern})")
    return name


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), FILTER_IDS):
        yield list(ids[start : start + FILTER_IDS])


def merge(table: Any, rows: pa.Table) -> None:
    """Insert or replace rows of a LanceDB table, local or on S3, by id, in one commit; safe beside other writers."""
    upsert = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    upsert.execute(rows, timeout=RETRIES)


class LanceTables:
    """LanceDB databases below one root, `root/<datadao>/`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._trees: dict[Path, SyncedTree] = {}

    @contextmanager
    def _writing(self, datadao: str, table: str) -> Iterator[None]:
        """What is written inside is on the disk at the end."""
        with writing(f"vectors {datadao}/{table}", self.folder(datadao, table)):
            yield
            self._flush(datadao, table)

    def _flush(self, datadao: str, table: str) -> None:
        folder = self.folder(datadao, table)
        self._trees.setdefault(folder, SyncedTree(folder)).sync()
        record(folder, self._database(datadao).open_table(table).to_lance())

    def _database(self, datadao: str) -> Any:
        import lancedb

        return lancedb.connect(self.root / _checked(datadao, "DataDAO slug"))

    def folder(self, datadao: str, table: str) -> Path:
        """Folder of the table's files. Raises ValueError on a name that is no plain slug."""
        return self.root / _checked(datadao, "DataDAO slug") / f"{_checked(table, 'table name')}.lance"

    def exists(self, datadao: str, table: str) -> bool:
        """Whether the table has a committed version: a process killed while creating it leaves none."""
        return any((self.folder(datadao, table) / "_versions").glob("*.manifest"))

    def open(self, datadao: str, table: str) -> Any:
        """The LanceDB table itself. Raises FileNotFoundError if it has not been created, Damaged."""
        if not self.exists(datadao, table):
            raise FileNotFoundError(f"{datadao}/{table} has not been materialised yet")
        with reading(self.folder(datadao, table)):
            return verified(self.folder(datadao, table), lambda: self._database(datadao).open_table(table))

    def drop(self, datadao: str, table: str) -> None:
        """Remove the table, if it exists: at once for every reader, then its files."""
        folder = self.folder(datadao, table)
        dropped = folder.with_suffix(".dropped")
        shutil.rmtree(dropped, ignore_errors=True)  # of a process killed while removing
        if folder.exists():
            folder.rename(dropped)
            sync(folder.parent)
            shutil.rmtree(dropped)
            sync(folder.parent)

    def dimension(self, datadao: str, table: str, column: str = "vector") -> int | None:
        """Length of the table's vectors, or None if there is no table."""
        return self.open(datadao, table).schema.field(column).type.list_size if self.exists(datadao, table) else None

    def count(self, datadao: str, table: str) -> int:
        """Rows in the table; 0 if there is no table."""
        return self.open(datadao, table).count_rows() if self.exists(datadao, table) else 0

    def upsert(self, datadao: str, table: str, frame: pl.DataFrame) -> int:
        """Insert or replace rows by id, in one commit; returns the rows written.

        Raises ValueError on columns or vector length other than the table's, repeated ids, nulls, NaN.
        """
        rows = arrow_rows(frame)
        if not rows.num_rows:
            return 0
        with self._writing(datadao, table):
            if not self.exists(datadao, table):
                database = self.folder(datadao, table).parent
                make_folder(database)
                # Two that create it at the same time: the second one's version would replace the first one's rows.
                with alone(database):
                    if not self.exists(datadao, table):
                        self._database(datadao).create_table(table, schema=rows.schema, exist_ok=True)
            target = self.open(datadao, table)
            if not target.schema.equals(rows.schema):
                stored, given = _described(target.schema), _described(rows.schema)
                raise ValueError(f"{datadao}/{table} has {stored}, the rows {given}")
            merge(target, rows)
            return rows.num_rows

    def read(self, datadao: str, table: str, columns: Sequence[str], ids: Sequence[str] | None = None) -> pl.DataFrame:
        """The named columns, of the given ids (of all by default), sorted by id; ids not present are absent."""
        from lancedb.expr import col

        target = self.open(datadao, table)
        wanted = list(dict.fromkeys(["id", *columns]))
        searches = [target.search()]
        if ids is not None:
            searches = [target.search().where(col("id").isin(batch)) for batch in _batches(list(dict.fromkeys(ids)))]
        with reading(self.folder(datadao, table)):
            parts = [search.select(wanted).to_arrow() for search in searches]
        empty = pa.schema([target.schema.field(name) for name in wanted]).empty_table()
        frame = pl.from_arrow(pa.concat_tables([empty, *parts]))
        assert isinstance(frame, pl.DataFrame)
        return frame.sort("id").select(list(dict.fromkeys(columns)))

    def ids(self, datadao: str, table: str, version: str | None = None) -> list[str]:
        """Ids in the table, of one encoder version if given, sorted; empty if there is no table."""
        if not self.exists(datadao, table):
            return []
        frame = self.read(datadao, table, ["id", "version"])
        return (frame if version is None else frame.filter(pl.col("version") == version))["id"].to_list()

    def require_version(self, datadao: str, table: str, version: str) -> None:
        """Raises StaleVectors unless every row is by this encoder version; a table that is not there is empty."""
        if not self.exists(datadao, table):
            return
        rows = self.read(datadao, table, ["version"])["version"]
        if stale := (rows != version).sum():
            raise StaleVectors(f"{datadao}: {stale} of {len(rows)} {table} are by another encoder: materialise {table}")

    def vectors(self, datadao: str, table: str, ids: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
        """Ids and their vectors [n, d] float32, sorted by id; of all rows by default."""
        frame = self.read(datadao, table, ["id", "vector"], ids)
        return frame["id"].to_list(), stacked(frame["vector"])

    def stored_vectors(self, datadao: str, table: str) -> np.ndarray:
        """Vectors [n, d] float32 of all rows, sorted by id; [0, 0] if there is no table: a DataDAO without chunks."""
        return self.vectors(datadao, table)[1] if self.exists(datadao, table) else np.empty((0, 0), dtype=np.float32)

    def delete(self, datadao: str, table: str, ids: Sequence[str]) -> int:
        """Delete rows by id; returns the rows deleted."""
        from lancedb.expr import col

        with self._writing(datadao, table):
            target = self.open(datadao, table)
            return sum(target.delete(col("id").isin(batch)).num_deleted_rows for batch in _batches(ids))

    def keep_only(self, datadao: str, table: str, ids: Sequence[str]) -> int:
        """Delete every row whose id is not among `ids`; returns the rows deleted."""
        stale = sorted(set(self.ids(datadao, table)) - set(ids))
        return self.delete(datadao, table, stale) if stale else 0

    def content_hash(self, datadao: str, table: str) -> str:
        """SHA-256 over every column of all rows by id: the same whatever the order of writing."""
        digest = hashlib.sha256()
        if self.exists(datadao, table):
            frame = self.read(datadao, table, sorted(self.open(datadao, table).schema.names))
            for series in frame:
                digest.update(series.name.encode())
                if series.dtype.is_nested():
                    digest.update(stacked(series).tobytes())
                else:
                    parts = [str(value).encode() for value in series.cast(pl.String)]
                    digest.update(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
        return digest.hexdigest()

    def search(
        self, datadao: str, table: str, queries: np.ndarray, k: int, ids: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The `k` rows nearest by cosine to each query vector [n, d], among `ids` if given.

        Columns: query (row of `queries`), id, similarity (cosine); by query, then descending similarity,
        then id. A search among given ids scans them: through the index it would lose rows of a selective
        filter.
        """
        from lancedb.expr import col

        query = self.open(datadao, table).search(np.asarray(queries, dtype=np.float32), vector_column_name="vector")
        query = query.distance_type("cosine").limit(k).select(["id", "_distance"])
        if ids is not None:
            query = query.where(col("id").isin(list(ids)), prefilter=True).bypass_vector_index()
        found = pl.from_arrow(query.to_arrow())
        assert isinstance(found, pl.DataFrame)
        if "query_index" not in found.columns:
            found = found.with_columns(query_index=pl.lit(0))
        return found.select(
            query=pl.col("query_index").cast(pl.Int64), id="id", similarity=1 - pl.col("_distance")
        ).sort("query", -pl.col("similarity"), "id")

    def ensure_indices(self, datadao: str, table: str, index_rows: int = INDEX_ROWS) -> IndexInfo:
        """A BTREE on id, and from `index_rows` rows on an IVF_FLAT (cosine) on the vectors, covering all rows.

        An index that exists is brought up to date, not rebuilt. Below the threshold search is a flat scan.
        """
        from lancedb.index import BTree, IvfFlat

        with self._writing(datadao, table):
            target = self.open(datadao, table)
            rows = target.count_rows()
            present = {index.columns[0] for index in target.list_indices()}
            if "id" not in present and rows:
                target.create_index("id", config=BTree())
            if "vector" not in present and rows >= index_rows:
                target.create_index("vector", config=IvfFlat(distance_type="cosine"))
            if present:
                target.to_lance().optimize.optimize_indices()
                target.checkout_latest()
            built = {index.columns[0] for index in target.list_indices()}
            return IndexInfo(rows, "BTREE" if "id" in built else "none", "IVF_FLAT" if "vector" in built else "flat")

    def compact(self, datadao: str, table: str, keep: timedelta = timedelta(hours=1)) -> int:
        """Merge small files, extend the indices to new rows, remove versions older than `keep`; returns data files.

        A reader of a version older than `keep` fails; deleted rows are not yet gone from the disk.
        """
        with self._writing(datadao, table):
            dataset = self.open(datadao, table).to_lance()
            dataset.optimize.compact_files()
            dataset.optimize.optimize_indices()
            self._flush(datadao, table)
            dataset.cleanup_old_versions(keep)
            return len(self.open(datadao, table).to_lance().get_fragments())

    def purge(self, datadao: str, table: str, ids: Sequence[str]) -> None:
        """Delete rows by id so that no byte of them stays: not in older versions, deletion files or indices.

        `delete` alone marks rows, and `optimize` rewrites a fragment only once a tenth of it is marked: every marked
        row is compacted away here, tags (which hold versions) are dropped, the indices built anew, and every older
        version and unfinished file removed. A concurrent reader or writer of the table fails: there must be none.
        """
        with self._writing(datadao, table):
            self.delete(datadao, table, ids)
            dataset = self.open(datadao, table).to_lance()
            for tag in list(dataset.tags.list()):
                dataset.tags.delete(tag)
            dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
            dataset = self.open(datadao, table).to_lance()
            indexed = {field for index in dataset.describe_indices() for field in index.field_names}
            for index in dataset.describe_indices():
                dataset.drop_index(index.name)
            if indexed:
                self.ensure_indices(datadao, table, index_rows=1 if "vector" in indexed else INDEX_ROWS)
            self._flush(datadao, table)
            self.open(datadao, table).to_lance().cleanup_old_versions(timedelta(0), delete_unverified=True)


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
