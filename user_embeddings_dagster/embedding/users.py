"""User embeddings: from every chunk of a user to one row."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from user_embeddings_dagster.mining.pairs import vector_frame
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables

TABLE = "user_embeddings"


class States(Protocol):
    """What the sequence encoder says of each user (training.sequence_inference.UserStates)."""

    @property
    def user_ids(self) -> np.ndarray:
        """[n]"""
        ...

    @property
    def state(self) -> np.ndarray:
        """[n, dimension] float32"""
        ...

    @property
    def projected(self) -> np.ndarray:
        """[n, D] float32, in the item space"""
        ...

    @property
    def n_chunks(self) -> np.ndarray:
        """[n] int64"""
        ...

    @property
    def last_chunk_at(self) -> np.ndarray:
        """[n] datetime64[us], UTC"""
        ...


@dataclass(frozen=True)
class UserRows:
    """Rows written and deleted, rows in the table now, content hash of the table."""

    written: int
    deleted: int
    rows: int
    content_hash: str


def user_histories(lake: Lake, lance: LanceTables, datadao: str) -> pl.DataFrame:
    """Every chunk of every user of a DataDAO: datadao, user_id, position, started_at, ended_at, chunk_id,
    vector."""
    order = ["ended_at", "started_at", "chunk_id"]
    columns = ["datadao", "user_id", "started_at", "ended_at", "chunk_id", "window_id", "thread_id"]
    chunks = lake.scan("masked_chunks", datadao).select(columns).collect().sort("user_id", *order)
    # A DataDAO without chunks has no vector table.
    names = [datadao] if chunks.height else []
    return (
        chunks.with_columns(position=pl.int_range(pl.len()).over("user_id"))
        .join(vector_frame(lance, "item_embeddings", names), on="chunk_id", how="inner", validate="1:1")
        .sort("user_id", "position")
    )


def write_users(
    lance: LanceTables,
    datadao: str,
    states: States,
    version: str,
) -> UserRows:
    """Make the table hold exactly these users; rows that are equal already are not written again."""
    wanted = pl.DataFrame(
        {
            "id": pl.Series(states.user_ids, dtype=pl.String),
            "n_chunks": states.n_chunks,
            "last_chunk_at": pl.Series(states.last_chunk_at).cast(pl.Datetime("us", "UTC")),
            "version": pl.Series([version] * len(states.user_ids), dtype=pl.String),
            "vector": pl.Series(states.state),
            "projected": pl.Series(states.projected),
        }
    )
    if lance.dimension(datadao, TABLE) not in (None, states.state.shape[1]):
        lance.drop(datadao, TABLE)
    changed, deleted = wanted, 0
    if lance.exists(datadao, TABLE):
        deleted = lance.keep_only(datadao, TABLE, wanted["id"].to_list())
        present = lance.read(datadao, TABLE, wanted.columns)
        changed = wanted.filter(~_same(wanted, present))
    written = lance.upsert(datadao, TABLE, changed)
    if written or deleted:
        lance.compact(datadao, TABLE)
        lance.ensure_indices(datadao, TABLE)
    return UserRows(written, deleted, wanted.height, lance.content_hash(datadao, TABLE))


def _same(wanted: pl.DataFrame, present: pl.DataFrame) -> pl.Series:
    """Whether each wanted row stands in the table already, bit for bit."""
    joined = wanted.join(present, on="id", how="left", suffix="_present", maintain_order="left")
    equal = pl.all_horizontal(
        pl.col(name).cast(pl.List(pl.Float32)).eq_missing(pl.col(f"{name}_present").cast(pl.List(pl.Float32)))
        if name in ("vector", "projected")
        else pl.col(name).eq_missing(pl.col(f"{name}_present"))
        for name in wanted.columns
        if name != "id"
    )
    return joined.select(equal.alias("same"))["same"]
