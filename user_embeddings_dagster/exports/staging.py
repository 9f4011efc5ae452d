"""Where a build puts rows down between reading and merging: Parquet parts below the lake, gone when it ends."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 16_384  # rows


class Part:
    """One Parquet file that grows by frames of the given schema. Some 30 kB of each are held until it is closed."""

    def __init__(self, path: Path, schema: pl.Schema, compression: str = "lz4") -> None:
        self._polars = schema
        self.schema: pa.Schema = schema.to_frame().to_arrow().schema
        self._writer = pq.ParquetWriter(path, self.schema, compression=compression)
        self.rows = self.frames = 0

    def append(self, frame: pl.DataFrame) -> None:
        """Write the frame as one row group (or more, of ROW_GROUP rows)."""
        if frame.height:
            self._writer.write_table(
                frame.select(self._polars.names()).cast(self._polars).to_arrow().cast(self.schema),
                row_group_size=ROW_GROUP,
            )
            self.rows += frame.height
            self.frames += 1

    def append_row_group(self, table: pa.Table) -> None:
        """Write at most ROW_GROUP rows of the part's Arrow `schema` as one row group."""
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self.rows += table.num_rows

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def row_groups(path: Path) -> Iterator[pl.DataFrame]:
    """The rows of a part, a row group at a time."""
    with pq.ParquetFile(path) as part:
        for number in range(part.num_row_groups):
            yield pl.DataFrame(part.read_row_group(number))


def staging_folder(root: Path, datadao: str) -> Path:
    """An empty folder of this process below `root`; those of killed processes are removed."""
    parent = root / "staging"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{datadao}.*"):
        pid = old.name.rsplit(".", 1)[1]
        if pid == str(os.getpid()) or not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old)
    folder = parent / f"{datadao}.{os.getpid()}"
    folder.mkdir()
    return folder


def even(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows, with the schema's columns and types, in tables of exactly `rows` rows (the last may be shorter).

    Row groups of a fixed size, each column in one piece, make the bytes of a file depend on its rows alone: pyarrow
    ends pages by how rows arrive.
    """
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        held.append(batch.select(schema.names).cast(schema))
        n_held += batch.num_rows
        while n_held >= rows:
            table = pa.Table.from_batches(held)
            held, n_held = table.slice(rows).to_batches(), n_held - rows
            table = table.slice(0, rows).combine_chunks()  # which frees the batches
            yield table
    if n_held:
        yield pa.Table.from_batches(held).combine_chunks()


def write_sorted(batches: Iterable[pa.RecordBatch], path: Path, schema: pl.Schema) -> int:
    """Write narrow rows that come in canonical order as a table's Parquet file; returns how many."""
    part = Part(path, schema, compression="zstd")
    try:
        for table in even(batches, part.schema):
            part.append_row_group(table)
    finally:
        part.close()
    return part.rows
