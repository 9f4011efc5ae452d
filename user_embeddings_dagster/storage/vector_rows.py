"""Rows of the vector tables between Polars and Arrow: columns, types, and the mark of the primary key."""

import numpy as np
import polars as pl
import pyarrow as pa

PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}
REQUIRED = ("id", "version", "vector")


def arrow_rows(frame: pl.DataFrame) -> pa.Table:
    """`frame` as Arrow with the types of a LanceDB table: list columns become fixed-size float32 vectors.

    Raises ValueError if a required column is absent, an id is null or repeated, or a vector is null, not
    finite or of another length than the first; the message names columns and counts, never a value.
    """
    if missing := [name for name in REQUIRED if name not in frame.columns]:
        raise ValueError(f"rows lack the columns {missing}")
    if repeated := frame.height - frame["id"].n_unique():
        raise ValueError(f"{repeated} of {frame.height} ids are repeated")
    columns = {name: _column(frame[name]) for name in frame.columns}
    fields = [
        pa.field(name, column.type, nullable=name not in REQUIRED, metadata=PRIMARY_KEY if name == "id" else None)
        for name, column in columns.items()
    ]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))


def _column(series: pl.Series) -> pa.Array:
    """One column as Arrow; nulls in a required column raise."""
    if series.name in REQUIRED and series.null_count():
        raise ValueError(f"{series.name}: {series.null_count()} nulls")
    if not series.dtype.is_nested():
        array = series.to_arrow()
        return array.cast(pa.string()) if series.dtype == pl.String else array
    matrix = stacked(series)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def stacked(series: pl.Series) -> np.ndarray:
    """A list or array column as a matrix [rows, d] float32; ValueError if ragged or not finite."""
    if series.len() == 0:
        width = getattr(series.dtype, "size", 0)
        return np.empty((0, width), dtype=np.float32)
    as_lists = series.cast(pl.List(pl.Float32))
    width = int(as_lists.list.len()[0] or 0)
    if as_lists.list.len().n_unique() != 1 or width == 0:
        raise ValueError(f"{series.name}: vectors of different lengths")
    flat = as_lists.explode().to_numpy()
    if not np.isfinite(flat).all():
        raise ValueError(f"{series.name}: values that are not finite")
    return np.ascontiguousarray(flat, dtype=np.float32).reshape(-1, width)
