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


def with_negatives(
    pairs: pl.DataFrame, negatives: pl.DataFrame, relabelled: pl.DataFrame | None = None
) -> pl.DataFrame:
    """What the item encoder trains on: train and valid pairs with their mined negatives, best first.

    With `relabelled` (RELABELLED_PAIRS), a training chunk's positive is the one chosen there, null for one that was
    left out, and the hard negative chosen there comes before the mined ones. Validation pairs stay as they are.
    """
    ranked = negatives.sort("chunk_id", "rank").group_by("chunk_id", maintain_order=True)
    trained = (
        pairs.filter(pl.col("split") != "test")
        .select(
            *("chunk_id", "user_id", "split", "window_id", "text", "summary_vector"),
            positive_similarity=(pl.col("chunk_vector") * pl.col("summary_vector")).list.sum(),
        )
        .join(ranked.agg(pl.col("negative_chunk_id").alias("negatives")), on="chunk_id", how="left")
        .with_columns(pl.col("negatives").fill_null([]))
        .sort("chunk_id")
    )
    return trained if relabelled is None else _relabelled(trained, pairs, relabelled)


def _relabelled(trained: pl.DataFrame, pairs: pl.DataFrame, relabelled: pl.DataFrame) -> pl.DataFrame:
    chosen = relabelled.select("chunk_id", "positive_chunk_id", "negative_chunk_id")
    targets = pairs.select(positive_chunk_id="chunk_id", target="summary_vector")
    similarity = (
        chosen.join(pairs.select("chunk_id", "chunk_vector"), on="chunk_id")
        .join(targets, on="positive_chunk_id")
        .select("chunk_id", similarity=(pl.col("chunk_vector") * pl.col("target")).list.sum())
    )
    found = pl.col("negative_chunk_id")
    return (
        trained.join(chosen, on="chunk_id", how="left")
        .join(similarity, on="chunk_id", how="left")
        .with_columns(
            positive=pl.when(split="valid").then("chunk_id").otherwise("positive_chunk_id"),
            own_similarity="positive_similarity",
            positive_similarity=pl.coalesce("similarity", "positive_similarity"),
            negatives=pl.when(found.is_null())
            .then("negatives")
            .otherwise(pl.concat_list(found, pl.col("negatives")).list.unique(maintain_order=True)),
        )
        .drop("positive_chunk_id", "negative_chunk_id", "similarity")
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


def ranking_texts(snapshot: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """What rankers read of every training chunk: chunk_id, user_id, speakers, turns, summary; by chunk_id."""
    parts = []
    for name in snapshot["datadao"].unique().sort():
        summaries = lake.scan("chunk_summaries", name).select("chunk_id", summary="text")
        chunks = lake.scan("masked_chunks", name).select("chunk_id", "user_id", "speakers", "turns")
        parts.append(chunks.join(summaries, on="chunk_id", how="left"))
    train = snapshot.lazy().filter(pl.col("split") == "train").select("chunk_id")
    return train.join(pl.concat(parts), on="chunk_id", how="left", validate="1:1").sort("chunk_id").collect()
