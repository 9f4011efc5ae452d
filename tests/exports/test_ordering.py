"""Rows in any order become a table in order, whose bytes depend on the rows alone."""

import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from user_embeddings_dagster.exports import ordering, staging
from user_embeddings_dagster.exports.ordering import PLACE, Placed, memory_returned

SCHEMA = pl.Schema({"name": pl.String(), "at": pl.Datetime("us", "UTC"), "owner": pl.Boolean()})
ARROW = SCHEMA.to_frame().to_arrow().schema


def rows(places: list[int]) -> pa.RecordBatch:
    columns = {
        "owner": [None if place % 3 else place % 2 == 0 for place in places],
        "at": pa.array(places, pa.timestamp("us", "UTC")),
        PLACE: pa.array(places, pa.int32()),
        "name": [f"{place} é" * (place % 7) for place in places],
        "unused": places,
    }
    return pa.RecordBatch.from_pydict(columns)


def shuffled(n: int, at_once: int) -> list[pa.RecordBatch]:
    places = random.Random(n).sample(range(n), n)
    return [rows(places[begin : begin + at_once]) for begin in range(0, n, at_once)]


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 30, 31, 95, 270])
def test_rows_in_any_order(n, tmp_path, monkeypatch):
    """Row groups of 10 over 3 files at a time: those of 270 rows are spread three times. No scratch file is left."""
    monkeypatch.setattr(ordering, "ROW_GROUP", 10)
    monkeypatch.setattr(staging, "ROW_GROUP", 10)
    monkeypatch.setattr(ordering, "_SPREAD", 3)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert Placed(shuffled(n, 7), n, SCHEMA, scratch).write(tmp_path / "table") == n
    wanted = pa.Table.from_batches([rows(list(range(n)))]).select(ARROW.names).cast(ARROW)
    assert pq.read_table(tmp_path / "table").equals(wanted)
    assert pq.read_metadata(tmp_path / "table").num_row_groups == -(-n // 10)
    assert not list(scratch.iterdir())


def test_bytes_do_not_depend_on_how_rows_arrive(tmp_path):
    """Those of one write of the whole table, whatever came together."""
    n = 60_000
    pq.write_table(
        pa.Table.from_batches([rows(list(range(n)))]).select(ARROW.names).cast(ARROW).combine_chunks(),
        tmp_path / "at once",
        compression="zstd",
    )
    for at_once in (1_000, 23_456):
        Placed(shuffled(n, at_once), n, SCHEMA, tmp_path).write(tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == (tmp_path / "at once").read_bytes()


@pytest.mark.parametrize("places", [[0, 1, 3, 4], [0, 1, 1, 3], [0, 1, 2]])
def test_a_missing_place_is_noticed(places, tmp_path):
    with pytest.raises(RuntimeError, match="places"):
        Placed([rows(places)], 4, SCHEMA, tmp_path).write(tmp_path / "table")


def test_arrows_pool_is_as_it_was():
    before = pa.default_memory_pool().backend_name
    with pytest.raises(ValueError, match="x"), memory_returned():
        assert pa.default_memory_pool().backend_name == "system"
        raise ValueError("x")
    assert pa.default_memory_pool().backend_name == before
