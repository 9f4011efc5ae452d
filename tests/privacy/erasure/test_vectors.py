"""Vectors of the erased leave no byte, whatever share of a table they are (F4)."""

from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.erasure.evidence import PREFIX, _vectors
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lance_tables import LanceTables

ROWS = 10_000


@pytest.mark.parametrize("gone", [1, 50, 900, 5000])
def test_vectors_of_any_share_leave_no_byte_and_others_stay_the_same(gone, tmp_path):
    """F4: 0.01 %, 0.5 %, 9 % and 50 % of the rows, with a BTree, an IVF index and a tag."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    frame = pl.DataFrame({"id": [f"{row:032x}" for row in range(ROWS)], "version": "v", "vector": pl.Series(vectors)})
    lance = LanceTables(tmp_path)
    lance.upsert("d", "t", frame)
    lance.ensure_indices("d", "t")
    dataset = lance.open("d", "t").to_lance()
    dataset.tags.create("release", dataset.version)
    erased = np.linspace(0, ROWS - 1, gone).astype(int)
    canaries = [vectors[row][:6].tobytes() for row in erased[:: max(1, gone // 20)]]
    assert scan(tmp_path, canaries).canaries == set(canaries)
    lance.purge("d", "t", frame["id"].gather(erased).to_list())
    assert not scan(tmp_path, canaries).hits
    others = frame.filter(~pl.col("id").is_in(frame["id"].gather(erased).implode()))
    ids, kept = lance.vectors("d", "t")
    assert ids == others["id"].to_list() and np.array_equal(kept, np.delete(vectors, erased, axis=0))
    assert {index.name for index in lance.open("d", "t").to_lance().describe_indices()} == {"id_idx", "vector_idx"}


def test_a_vector_that_somebody_else_has_too_is_no_trace(tmp_path):
    """F4: two who say the same have the same vector, also in another DataDAO's table."""
    layout = Layout(tmp_path)
    lance = LanceTables(layout.lancedb)
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    for datadao, rows in {"a": [0, 1], "b": [1, 2]}.items():
        ids = [f"{datadao}{row}" for row in rows]
        lance.upsert(datadao, "t", pl.DataFrame({"id": ids, "version": "v", "vector": pl.Series(vectors[rows])}))
    assert _vectors(layout, Journal([], chunks={"a": ["a0", "a1"]})) == {vectors[0][: PREFIX // 4].tobytes()}
    everywhere = Journal([], chunks={"a": ["a0", "a1"], "b": ["b1"]})
    assert _vectors(layout, everywhere) == {vectors[row][: PREFIX // 4].tobytes() for row in (0, 1)}


def test_the_scan_catches_what_optimize_alone_leaves(tmp_path):
    """F4's positive control: rows under a tenth of a fragment keep their bytes through LanceDB's own clean-up."""
    vectors = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    frame = pl.DataFrame({"id": [f"{row:032x}" for row in range(1000)], "version": "v", "vector": pl.Series(vectors)})
    lance, canary = LanceTables(tmp_path), vectors[5][:6].tobytes()
    lance.upsert("d", "t", frame)
    lance.delete("d", "t", frame["id"][:50].to_list())
    lance.open("d", "t").optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
    assert lance.count("d", "t") == 950 and scan(tmp_path, [canary]).hits
    lance.purge("d", "t", [])
    assert not scan(tmp_path, [canary]).hits


def test_a_vector_is_found_in_a_compressed_column(tmp_path):
    vectors = np.random.default_rng(0).integers(0, 3, size=(2000, 8)).astype(np.float32)
    vectors[7] = np.arange(8) + 0.5
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    pq.write_table(pa.table({"vector": array}), tmp_path / "file", compression="zstd")
    canary = vectors[7].tobytes()[:24]
    assert scan(tmp_path, [canary]).canaries == {canary}
