"""Where a build puts rows down between reading and merging: Parquet parts below the lake, gone when it ends."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 100_000  # rows


class Part:
    """One Parquet file that grows by frames of the given schema."""

    def __init__(self, path: Path, schema: pl.Schema, compression: str = "lz4") -> None:
        self._schema = schema
        self._arrow = schema.to_frame().to_arrow().schema
        self._writer = pq.ParquetWriter(path, self._arrow, compression=compression)
        self.rows = 0

    def append(self, frame: pl.DataFrame) -> None:
        """Write the frame as one row group (or more, of ROW_GROUP rows)."""
        if frame.height:
            self._writer.write_table(
                frame.select(self._schema.names()).cast(self._schema).to_arrow().cast(self._arrow),
                row_group_size=ROW_GROUP,
            )
            self.rows += frame.height

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


def even(batches: Iterable[pa.RecordBatch], rows: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows (the last may be shorter), however they arrived.

    Row groups of a fixed size make the bytes of a file depend on its rows alone.
    """
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        held.append(batch)
        n_held += batch.num_rows
        while n_held >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows)
            held, n_held = table.slice(rows).to_batches(), n_held - rows
    if n_held:
        yield pa.Table.from_batches(held)


def write_sorted(batches: Iterable[pa.RecordBatch], path: Path, schema: pl.Schema) -> int:
    """Write rows that come in canonical order as a table's Parquet file; returns how many."""
    part = Part(path, schema, compression="zstd")
    try:
        for table in even(batches):
            part.append(pl.DataFrame(table))
    finally:
        part.close()
    return part.rows
