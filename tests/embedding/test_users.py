"""User embeddings as rows: written once, stale ones removed, and a DataDAO without chunks is no error."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.embedding.users import TABLE, user_histories, write_users
from user_embeddings_dagster.schema import MASKED_CHUNKS
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables


@dataclass
class Encoded:
    """States as the sequence encoder gives them."""

    user_ids: np.ndarray
    state: np.ndarray
    projected: np.ndarray
    n_chunks: np.ndarray
    last_chunk_at: np.ndarray


def encoded(n: int, dimension: int = 4) -> Encoded:
    state, projected = (np.random.default_rng(seed).standard_normal((n, d)) for seed, d in ((0, dimension), (1, 3)))
    return Encoded(
        np.array([f"user{i}" for i in range(n)], dtype=object),
        state.astype(np.float32),
        projected.astype(np.float32),
        np.arange(1, n + 1),
        np.array([f"2024-01-0{i + 1}" for i in range(n)], dtype="datetime64[us]"),
    )


@pytest.fixture
def lance(tmp_path) -> LanceTables:
    return LanceTables(tmp_path / "lancedb")


def test_rows_that_are_equal_are_not_written_again_and_stale_ones_go(lance):
    """C67."""
    first = write_users(lance, "dao", encoded(3), "v1")
    again = write_users(lance, "dao", encoded(3), "v1")
    fewer = write_users(lance, "dao", encoded(2), "v1")
    assert (first.written, again.written, again.content_hash) == (3, 0, first.content_hash)
    assert (fewer.written, fewer.deleted, fewer.rows) == (0, 1, 2)
    row = lance.read("dao", TABLE, ["id", "n_chunks", "last_chunk_at", "version"]).row(1, named=True)
    assert (row["id"], row["n_chunks"], row["version"]) == ("user1", 2, "v1")
    assert row["last_chunk_at"].isoformat() == "2024-01-02T00:00:00+00:00"


def test_another_count_of_chunks_alone_rewrites_the_row(lance):
    write_users(lance, "dao", encoded(3), "v1")
    states = encoded(3)
    states.n_chunks[1] = 7
    assert write_users(lance, "dao", states, "v1").written == 1


def test_another_dimension_replaces_the_table(lance):
    write_users(lance, "dao", encoded(3), "v1")
    assert write_users(lance, "dao", encoded(3, dimension=6), "v2").written == 3
    assert lance.dimension("dao", TABLE) == 6


def test_a_datadao_without_chunks_has_no_users_and_no_table(tmp_path, lance):
    lake = Lake(tmp_path)
    lake.commit(MASKED_CHUNKS, MASKED_CHUNKS.empty(), "dao")
    histories = user_histories(lake, lance, "dao")
    assert histories.height == 0 and histories.schema["vector"] == pl.List(pl.Float32)
    result = write_users(lance, "dao", encoded(0), "v1")
    assert (result.written, result.rows, lance.exists("dao", TABLE)) == (0, 0, False)
    assert lance.stored_vectors("dao", TABLE).shape == (0, 0)
