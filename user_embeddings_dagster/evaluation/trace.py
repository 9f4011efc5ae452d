"""Forward lineage of one raw record: its message, the chunks that hold it, and the scores they took part in (C7)."""

from collections.abc import Sequence

import polars as pl

from user_embeddings_dagster.evaluation.splits import split_hash

ROLES = {"train": "trained on", "valid": "tuned on", "test": "evaluated on"}

Frame = pl.DataFrame | pl.LazyFrame


def chunks_of_record(
    messages: Frame, chunks: Frame, *, raw_sha256: str, raw_member: str, raw_location: int
) -> pl.DataFrame:
    """`message_id`, `chunk_id`: the chunks that hold the message read from this place of this raw file."""
    record = messages.lazy().filter(raw_sha256=raw_sha256, raw_member=raw_member, raw_location=raw_location)
    turns = chunks.lazy().select("chunk_id", pl.col("message_ids").alias("message_id")).explode("message_id")
    return turns.join(record.select("message_id"), on="message_id").select("message_id", "chunk_id").unique().sort(
        "message_id", "chunk_id"
    ).collect()  # fmt: skip


def scores_of_chunks(
    chunk_ids: Sequence[str] | pl.Series, snapshot: pl.DataFrame, scores: pl.DataFrame
) -> pl.DataFrame:
    """Score rows that depend on any of these chunks, with `role`: evaluated on, tuned on or trained on.

    A score depends on a chunk if it was measured on this snapshot (equal `split_hash`) and on the chunk's DataDAO,
    on all, or on a difference with it; chunks that were trained or tuned on count for every DataDAO, because the
    encoders are shared. Per slice this is an upper bound: the chunk was available to it.
    """
    mine = snapshot.filter(pl.col("chunk_id").is_in(list(chunk_ids))).select("datadao", "split").unique()
    here = scores.filter(pl.col("split_hash") == split_hash(snapshot)) if mine.height else scores.clear()
    parts = [scores.clear().with_columns(role=pl.lit("", pl.String))]
    for split, role in ROLES.items():
        datadaos = mine.filter(split=split)["datadao"].to_list()
        if not datadaos:
            continue
        used = here if split != "test" else here.filter(pl.col("datadao").is_in([*datadaos, "all"]))
        parts.append(used.with_columns(role=pl.lit(role)))
    return pl.concat(parts).sort("role", *scores.columns)
