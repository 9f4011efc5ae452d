"""Training pairs: a chunk's text, its summary's frozen vector, its split."""

from collections.abc import Callable

import polars as pl

from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, StaleVectors

VECTOR = pl.List(pl.Float32)
RANKED_TEXTS = {
    **{"chunk_id": pl.String, "user_id": pl.String, "speakers": pl.List(pl.String), "turns": pl.List(pl.String)},
    "summary": pl.String,
}


def of_snapshot(snapshot: pl.DataFrame, table: str, read: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    """One row per chunk of the snapshot, as `read(datadao)` has it of the chunk's own DataDAO, by chunk_id.

    Another DataDAO may hold the same chunk. Raises ValueError with the number of chunks that are not there, or if the
    snapshot is empty.
    """
    if snapshot.is_empty():
        raise ValueError("nobody who has consented to it has chunks in the training snapshot")
    parts = [
        read(datadao).join(mine.select("chunk_id"), on="chunk_id", how="semi")
        for (datadao,), mine in sorted(snapshot.partition_by("datadao", as_dict=True).items())
    ]
    rows = pl.concat(parts).sort("chunk_id")
    if missing := snapshot.height - rows.height:
        raise ValueError(f"{missing} chunks of the snapshot are not in {table}: materialise both again")
    return rows


def vector_frame(lance: LanceTables, table: str, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Vectors of the chunks of a snapshot (datadao, chunk_id) in one table: chunk_id, vector (list of float32); sorted.

    Raises StaleVectors if they are by more than one encoder, ValueError if a chunk has none.
    """
    if snapshot.is_empty():
        return pl.DataFrame(schema={"chunk_id": pl.String, "vector": VECTOR})
    frame = of_snapshot(snapshot, table, lambda datadao: _vectors(lance, datadao, table))
    if frame["version"].n_unique() > 1:
        raise StaleVectors(f"{table}: by {frame['version'].n_unique()} encoders: materialise it for every DataDAO")
    return frame.drop("version")


def _vectors(lance: LanceTables, datadao: str, table: str) -> pl.DataFrame:
    rows = lance.read(datadao, table, ["id", "version", "vector"])
    return rows.select("version", pl.col("vector").cast(VECTOR), chunk_id="id")


def training_pairs(snapshot: pl.DataFrame, lake: Lake, lance: LanceTables) -> pl.DataFrame:
    """One row per snapshot chunk: chunk_id, datadao, user_id, split, window_id, text, chunk and summary vector."""
    read = lambda name: lake.scan("masked_chunks", name).select("chunk_id", "text").collect()  # noqa: E731
    texts = of_snapshot(snapshot, "masked_chunks", read)
    return (
        snapshot.select("chunk_id", "datadao", "user_id", "split", "window_id", "position", "ended_at")
        .join(texts, on="chunk_id", how="left", validate="1:1")
        .join(
            vector_frame(lance, "chunk_embeddings", snapshot).rename({"vector": "chunk_vector"}),
            on="chunk_id",
            how="left",
        )
        .join(
            vector_frame(lance, "summary_embeddings", snapshot).rename({"vector": "summary_vector"}),
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
    What was mined or chosen of people who have withdrawn since is not among the pairs any more, and left out.
    """
    there = pairs.select("chunk_id", "split")
    mined = negatives.join(there, on="chunk_id").join(
        there.rename({"chunk_id": "negative_chunk_id"}), on=["negative_chunk_id", "split"], how="semi"
    )
    ranked = mined.sort("chunk_id", "rank").group_by("chunk_id", maintain_order=True)
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
    known = pairs.filter(split="train")["chunk_id"].implode()
    chosen = relabelled.select(
        "chunk_id",
        *(
            pl.when(pl.col(name).is_in(known)).then(name).alias(name)
            for name in ("positive_chunk_id", "negative_chunk_id")
        ),
    )
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
    rows = snapshot.filter(pl.col("split").is_in(splits)).select(
        "datadao", "user_id", "split", "position", "started_at", "ended_at", "chunk_id", "window_id", "thread_id"
    )
    return (
        rows.join(vector_frame(lance, "item_embeddings", rows), on="chunk_id", how="left", validate="1:1")
        .join(
            vector_frame(lance, "chunk_embeddings", rows).rename({"vector": "context"}),
            on="chunk_id",
            how="left",
            validate="1:1",
        )
        .sort("datadao", "user_id", "position")
    )


def ranking_texts(snapshot: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """What rankers read of every training chunk: chunk_id, user_id, speakers, turns, summary; by chunk_id."""

    def read(name: str) -> pl.DataFrame:
        summaries = lake.scan("chunk_summaries", name).select("chunk_id", summary="text")
        chunks = lake.scan("masked_chunks", name).select("chunk_id", "user_id", "speakers", "turns")
        return chunks.join(summaries, on="chunk_id", how="left").collect()

    train = snapshot.filter(split="train")
    return pl.DataFrame(schema=RANKED_TEXTS) if train.is_empty() else of_snapshot(train, "masked_chunks", read)
