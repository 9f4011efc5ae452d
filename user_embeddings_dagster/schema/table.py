"""What a table is: grain, columns, types, descriptions, primary key."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")
TEXT = pl.String()
COUNT = pl.Int64()


@dataclass(frozen=True)
class Column:
    """One column: Polars type, what it holds (with unit), and whether its content is personal."""

    name: str
    dtype: pl.DataType
    description: str
    personal: bool = False
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the lake; `grain` starts with "One row per"."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

    @property
    def schema(self) -> pl.Schema:
        """Column names and Polars types, in order."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    def empty(self) -> pl.DataFrame:
        """No rows, the right columns."""
        return pl.DataFrame(schema=self.schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with this table's columns in order and cast to their types.

        Raises ValueError naming the columns (never their values) that are missing or wrongly null.
        """
        missing = [name for name in self.schema if name not in frame.columns]
        if missing:
            raise ValueError(f"{self.name}: missing columns {missing}")
        try:
            frame = frame.select(pl.col(c.name).cast(c.dtype) for c in self.columns)
        except pl.exceptions.PolarsError:
            wrong = [f"{n}: {frame.schema[n]} is not {t}" for n, t in self.schema.items() if frame.schema[n] != t]
            raise ValueError(f"{self.name}: columns that do not cast: {wrong}") from None
        nulls = frame.select(pl.col(c.name).null_count() for c in self.columns if not c.nullable).row(0, named=True)
        wrong = {name: count for name, count in nulls.items() if count}
        if wrong:
            raise ValueError(f"{self.name}: null values in columns that allow none: {wrong}")
        return frame


def columns(*groups: Iterable[Column]) -> tuple[Column, ...]:
    """Groups of columns, one after another."""
    return tuple(column for group in groups for column in group)
