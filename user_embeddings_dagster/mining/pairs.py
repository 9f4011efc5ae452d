"""Training pairs: a chunk's text, its summary's frozen vector, its split."""

import polars as pl

from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables

VECTOR = pl.List(pl.Float32)


def vector_frame(lance: LanceTables, table: str, datadaos: list[str]) -> pl.DataFrame:
    """Vectors of one table over DataDAOs: chunk_id, vector (list of float32), sorted by chunk_id."""
    schema = {"chunk_id": pl.String, "vector": VECTOR}
    frames = [pl.DataFrame(schema=schema)]
    for datadao in datadaos:
        ids, vectors = lance.vectors(datadao, table)
        frames.append(pl.DataFrame({"chunk_id": ids, "vector": list(vectors)}, schema))
    return pl.concat(frames).sort("chunk_id")


def training_pairs(snapshot: pl.DataFrame, lake: Lake, lance: LanceTables) -> pl.DataFrame:
    """One row per snapshot chunk: chunk_id, datadao, user_id, split, window_id, text, chunk and summary vector."""
    names = snapshot["datadao"].unique().sort().to_list()
    texts = pl.concat(lake.scan("masked_chunks", name).select("chunk_id", "text") for name in names).collect()
    return (
        snapshot.select("chunk_id", "datadao", "user_id", "split", "window_id", "position", "ended_at")
        .join(texts, on="chunk_id", how="left", validate="1:1")
        .join(
            vector_frame(lance, "chunk_embeddings", names).rename({"vector": "chunk_vector"}),
            on="chunk_id",
            how="left",
        )
        .join(
            vector_frame(lance, "summary_embeddings", names).rename({"vector": "summary_vector"}),
            on="chunk_id",
            how="left",
        )
        .sort("chunk_id")
    )


def with_negatives(pairs: pl.DataFrame, negatives: pl.DataFrame) -> pl.DataFrame:
    """What the item encoder trains on: train and valid pairs with their mined negatives, best first."""
    ranked = negatives.sort("chunk_id", "rank").group_by("chunk_id", maintain_order=True)
    return (
        pairs.filter(pl.col("split") != "test")
        .select(
            *("chunk_id", "user_id", "split", "window_id", "text", "summary_vector"),
            positive_similarity=(pl.col("chunk_vector") * pl.col("summary_vector")).list.sum(),
        )
        .join(ranked.agg(pl.col("negative_chunk_id").alias("negatives")), on="chunk_id", how="left")
        .with_columns(pl.col("negatives").fill_null([]))
        .sort("chunk_id")
    )


def sequences(snapshot: pl.DataFrame, lance: LanceTables, splits: tuple[str, ...] = ("train", "valid")) -> pl.DataFrame:
    """Histories of item vectors: datadao, user_id, split, position, ended_at, chunk_id, window_id, vector, context.

    `context` is the vector of the whole chunk by the frozen text encoder: what the conversation is about, where the
    item vector is about SUBJECT.
    """
    names = snapshot["datadao"].unique().sort().to_list()
    return (
        snapshot.filter(pl.col("split").is_in(splits))
        .select(
            "datadao",
            "user_id",
            "split",
            "position",
            "started_at",
            "ended_at",
            "chunk_id",
            "window_id",
            "thread_id",
        )
        .join(vector_frame(lance, "item_embeddings", names), on="chunk_id", how="left", validate="1:1")
        .join(
            vector_frame(lance, "chunk_embeddings", names).rename({"vector": "context"}),
            on="chunk_id",
            how="left",
            validate="1:1",
        )
        .sort("datadao", "user_id", "position")
    )
