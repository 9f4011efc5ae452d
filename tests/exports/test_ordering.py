"""Rows in any order become a table in order, whose bytes depend on the rows alone."""

import random
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from user_embeddings_dagster.exports import ordering
from user_embeddings_dagster.exports.ordering import GROUP_BYTES, PLACE, Placed, memory_returned, row_group_places
from user_embeddings_dagster.exports.staging import ROW_GROUP

SCHEMA = pl.Schema({"name": pl.String(), "at": pl.Datetime("us", "UTC"), "owner": pl.Boolean()})
ARROW = SCHEMA.to_frame().to_arrow().schema


def rows(places: Sequence[int]) -> pa.RecordBatch:
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
    monkeypatch.setattr(ordering, "_SPREAD", 3)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    groups = [range(begin, min(begin + 10, n)) for begin in range(0, n, 10)]
    placed = Placed(groups, SCHEMA, scratch)
    placed.put(shuffled(n, 7), ["at", "owner"])
    placed.put(shuffled(n, 5), ["name"])
    assert placed.write(tmp_path / "table") == n
    wanted = pa.Table.from_batches([rows(list(range(n)))]).select(ARROW.names).cast(ARROW)
    assert pq.read_table(tmp_path / "table").equals(wanted)
    assert pq.read_metadata(tmp_path / "table").num_row_groups == len(groups)
    assert not list(scratch.iterdir())


def test_bytes_do_not_depend_on_how_rows_arrive(tmp_path):
    """Those of one write of the whole table, whatever came together."""
    n = 60_000
    pq.write_table(
        pa.Table.from_batches([rows(list(range(n)))]).select(ARROW.names).cast(ARROW).combine_chunks(),
        tmp_path / "at once",
        compression="zstd",
        row_group_size=ROW_GROUP,
    )
    groups = row_group_places([np.full(n, 100)])
    for at_once in (1_000, 23_456):
        placed = Placed(groups, SCHEMA, tmp_path)
        placed.put(shuffled(n, at_once), list(SCHEMA))
        placed.write(tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == (tmp_path / "at once").read_bytes()


def test_row_groups_are_bounded_in_rows_and_in_bytes():
    """However the sizes of the rows arrive: those of a flood of long texts have few rows, those of empty ones most."""
    sizes = np.random.default_rng(1).choice([0, 100, 5_000, 1 << 20], 50_000, p=[0.4, 0.4, 0.19, 0.01])
    sizes[20_000:20_100] = 1 << 20
    groups = row_group_places([sizes])
    assert (
        groups
        == row_group_places(np.array_split(sizes, 77))
        == row_group_places([sizes[:0], sizes[:1], sizes[1:], sizes[:0]])
    )
    assert [place for group in groups for place in group] == list(range(len(sizes)))
    assert max(sizes[group.start : group.stop].sum() - sizes[group.stop - 1] for group in groups) < GROUP_BYTES
    assert max(map(len, row_group_places([sizes * 0]))) == ROW_GROUP
    assert row_group_places([]) == row_group_places([sizes[:0]]) == []


@pytest.mark.parametrize("places", [[0, 1, 3, 4], [0, 1, 1, 3], [0, 1, 2]])
def test_a_missing_place_is_noticed(places, tmp_path):
    placed = Placed([range(4)], SCHEMA, tmp_path)
    placed.put([rows(range(4))], ["at", "owner"])
    placed.put([rows(places)], ["name"])
    with pytest.raises(RuntimeError, match="places"):
        placed.write(tmp_path / "table")


def test_arrows_pool_is_as_it_was():
    before = pa.default_memory_pool().backend_name
    with pytest.raises(ValueError, match="x"), memory_returned():
        assert pa.default_memory_pool().backend_name == "system"
        raise ValueError("x")
    assert pa.default_memory_pool().backend_name == before
