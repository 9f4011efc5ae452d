"""A table's rows put in their order by where each belongs, in memory that does not grow with them.

A sort of whole rows needs a piece of every sorted run at once, and so more memory the more rows there are. Here rows
come in any order with the place that a sort of narrow rows gave them; they are spread over scratch files, one for each
row group of the table (of each 64 row groups, where there are more than 64), and each file is put in order alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc

from user_embeddings_dagster.exports.staging import ROW_GROUP, Part

PLACE = "place"
_PLACE = pa.field(PLACE, pa.int64())
GROUP_BYTES = 4 << 20  # of a row group's rows, about
_SPREAD = 64  # scratch files that are open at once
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
_TOGETHER = 2 << 20  # bytes of rows that are spread at once: of fewer, each file would get few at a time


def row_group_places(sizes: Iterable[np.ndarray]) -> list[range]:
    """The places of each row group of a table, from the bytes of each row in order: at most ROW_GROUP rows, and of
    GROUP_BYTES no more than the last row brings with it."""
    starts: list[int] = []
    rows = n_bytes = 0
    last = -1
    for size in sizes:
        weights = np.maximum(size, GROUP_BYTES // ROW_GROUP)
        ends = n_bytes + np.cumsum(weights)
        groups = (ends - weights) // GROUP_BYTES
        starts += (rows + np.flatnonzero(np.diff(groups, prepend=last))).tolist()
        if len(size):
            rows, n_bytes, last = rows + len(size), int(ends[-1]), int(groups[-1])
    return [range(begin, end) for begin, end in zip(starts, [*starts[1:], rows], strict=True)] if rows else []


class Placed:
    """The rows of a table in files of the folder `scratch`, which are gone when the table is written.

    `groups` are the places of the table's row groups in turn. Some columns may come before others.
    """

    def __init__(self, groups: list[range], schema: pl.Schema, scratch: Path) -> None:
        self._groups, self._schema, self._scratch = groups, schema, scratch
        self._pieces: list[tuple[pa.Schema, list[Path]]] = []

    def put(self, batches: Iterable[pa.RecordBatch], columns: list[str]) -> None:
        """Spread the rows' `columns`, which come with each row's place in the column `place`."""
        schema = _arrow(self._schema)
        schema = pa.schema([schema.field(name) for name in columns]).append(_PLACE)
        self._pieces.append((schema, _spread(batches, _parts(self._groups), schema, self._scratch)))

    def write(self, path: Path) -> int:
        """Write the table's Parquet file, whose bytes depend on the rows alone; how many.

        In memory is one row group, and once. Raises RuntimeError if a place is missing or there twice.
        """
        part = Part(path, self._schema, compression="zstd")
        pieces = [_in_turn(files, self._groups, schema, self._scratch) for schema, files in self._pieces]
        try:
            for places, *files in zip(self._groups, *pieces, strict=True):
                columns = {}
                for file, (schema, _) in zip(files, self._pieces, strict=True):
                    columns |= _in_order(file, schema, places)
                    file.unlink()
                part.append_row_group(pa.table(columns).select(part.schema.names))
        finally:
            part.close()
        return part.rows


@contextmanager
def memory_returned() -> Iterator[None]:
    """Arrow takes memory from malloc here, and so gives back what it frees: its own pool keeps it for later."""
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.system_memory_pool().release_unused()
        pa.set_memory_pool(pool)


def to_numpy(column: Any) -> np.ndarray:
    """An Arrow column as an array. Arrow's own way imports pandas, which is 30 MB."""
    return pl.Series(column).to_numpy()


def to_arrow(values: np.ndarray) -> Any:
    """An array as an Arrow column, likewise."""
    return pl.Series(values).to_arrow()


def _arrow(schema: pl.Schema) -> pa.Schema:
    return schema.to_frame().to_arrow().schema


def _parts(groups: list[range]) -> list[list[range]]:
    """The row groups in at most _SPREAD parts."""
    width = 1
    while width * _SPREAD < len(groups):
        width *= _SPREAD
    return [groups[begin : begin + width] for begin in range(0, len(groups), width)]


def _in_turn(files: list[Path], groups: list[range], schema: pa.Schema, scratch: Path) -> Iterator[Path]:
    """A file for each row group in turn; `files` are those of the parts of `groups`."""
    for file, part in zip(files, _parts(groups), strict=True):
        if len(part) == 1:
            yield file
        else:
            smaller = _spread(_batches(file), _parts(part), schema, scratch)
            file.unlink()
            yield from _in_turn(smaller, part, schema, scratch)


def _spread(
    batches: Iterable[pa.RecordBatch], parts: list[list[range]], schema: pa.Schema, scratch: Path
) -> list[Path]:
    """A file for each part of the places: Arrow's, as a Parquet writer keeps something of each piece till the end."""
    files = [scratch / f"{schema.names[0]}-{part[0].start}-{part[-1].stop}.arrow" for part in parts]
    starts = [part[0].start for part in parts]
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_file(file, schema, options=_COMPRESSED)) for file in files]
        for rows in _together(batches, schema):
            places = to_numpy(rows[PLACE])
            order = np.argsort(places)
            begins = np.searchsorted(places[order], starts).tolist()
            rows = rows.take(to_arrow(order)).combine_chunks()
            for writer, begin, end in zip(writers, begins, [*begins[1:], len(order)], strict=True):
                if begin < end:
                    writer.write_table(rows.slice(begin, end - begin))
            del rows  # before the next come
            pa.default_memory_pool().release_unused()
    return files


def _together(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of about _TOGETHER bytes, with the schema's columns and types."""
    held: list[pa.RecordBatch] = []
    n_bytes = 0
    for batch in batches:
        held.append(batch.select(schema.names).cast(schema))
        if (n_bytes := n_bytes + held[-1].nbytes) >= _TOGETHER:
            yield pa.Table.from_batches(held)
            held, n_bytes = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _batches(file: Path, columns: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """The file's pieces in turn, of all columns or of some."""
    options = pa.ipc.IpcReadOptions(included_fields=columns, use_threads=False)
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source, options=options) as content:
        for number in range(content.num_record_batches):
            yield content.get_batch(number)


def _in_order(file: Path, schema: pa.Schema, places: range) -> dict[str, Any]:
    """The file's columns in order of its rows' places, each in one piece: pyarrow ends pages by how rows arrive."""

    def column(number: int) -> Any:
        pa.default_memory_pool().release_unused()
        return pa.Table.from_batches(_batches(file, [number])).column(0).combine_chunks()

    found = to_numpy(column(schema.get_field_index(PLACE)))
    order = np.argsort(found)
    if not np.array_equal(found[order], places):
        raise RuntimeError(f"{len(found)} rows for {len(places)} places")
    indices = to_arrow(order)
    return {name: column(number).take(indices) for number, name in enumerate(schema.names) if name != PLACE}
