"""Embed a table of texts into LanceDB, once per content: what is present is not encoded again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.storage.lance_tables import LanceTables

SHARD_ROWS = 1024


@dataclass(frozen=True)
class EmbedResult:
    """Rows encoded, found present, deleted as stale, in the table now; the table's content hash; wall
    seconds."""

    embedded: int
    reused: int
    deleted: int
    rows: int
    content_hash: str
    seconds: float
    vector_index: str


def embed_table(
    frame: pl.DataFrame,
    encoder: TextEncoder,
    tables: LanceTables,
    datadao: str,
    table: str,
    *,
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Make the Lance table hold exactly the vectors of `frame`'s texts by this encoder.

    `frame` has id, user_id, ended_at and text. A row is present if id, encoder version and the hash of its
    text agree; the others are encoded shard by shard, each committed whole. A shard is a run of
    `shard_rows` of the whole sorted id list: what is encoded together, and so every bit of the vectors,
    does not depend on where an earlier run was killed. `progress(rows done, rows to encode)` is called
    after each shard. Raises ValueError on repeated or null ids.
    """
    started = time.monotonic()
    wanted = _wanted(frame)
    if tables.dimension(datadao, table) not in (None, encoder.dimension):
        tables.drop(datadao, table)  # of another base encoder: no row can be reused
    deleted = tables.keep_only(datadao, table, wanted["id"].to_list()) if tables.exists(datadao, table) else 0
    missing = _missing(wanted, encoder.version, tables, datadao, table)
    shards = missing.with_columns(shard=pl.col("position") // shard_rows)
    done = 0
    for shard in shards.partition_by("shard", maintain_order=True):
        vectors = encoder.encode(shard["text"].to_list(), progress and _within(progress, done, missing.height))
        rows = shard.select("id", "user_id", "ended_at", "content", version=pl.lit(encoder.version))
        tables.upsert(datadao, table, rows.with_columns(vector=pl.Series(vectors)))
        done += shard.height
    if progress and done:
        progress(done, done)
    vector_index = "flat"
    if tables.exists(datadao, table):
        if missing.height or deleted:
            tables.compact(datadao, table)
        vector_index = tables.ensure_indices(datadao, table).vector_index
    return EmbedResult(
        embedded=missing.height,
        reused=wanted.height - missing.height,
        deleted=deleted,
        rows=wanted.height,
        content_hash=tables.content_hash(datadao, table),
        seconds=time.monotonic() - started,
        vector_index=vector_index,
    )


def _within(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one shard as progress of the whole."""
    return lambda done, _: progress(before + done, total)


def _wanted(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows by id, with the hash of their text and their position in the sorted id list."""
    if frame["id"].null_count() or frame["id"].is_duplicated().any():
        raise ValueError("ids to embed are null or repeated")
    text_hash = pl.col("text").map_elements(content_id, return_dtype=pl.String)
    return frame.sort("id").with_columns(content=text_hash).with_row_index("position")


def _missing(wanted: pl.DataFrame, version: str, tables: LanceTables, datadao: str, table: str) -> pl.DataFrame:
    """Rows of `wanted` that the table does not hold with this text and this encoder version."""
    if not tables.exists(datadao, table):
        return wanted
    present = tables.read(datadao, table, ["id", "content", "version"]).filter(pl.col("version") == version)
    return wanted.join(present, on=["id", "content"], how="anti", maintain_order="left")
