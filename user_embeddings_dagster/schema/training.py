"""Tables that trainings read."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, TIMESTAMP, Column, Table

TRAINING_SNAPSHOT = Table(
    "training_snapshot",
    "One row per chunk that training and evaluation may use, with its user's split.",
    (
        Column("chunk_id", TEXT, "chunk"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("split", TEXT, "train, valid or test: by user, from a keyed hash"),
        Column("position", COUNT, "0-based place in the user's history in this DataDAO, by ended_at"),
        Column("started_at", TIMESTAMP, "SUBJECT's first message in the chunk, UTC"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("window_id", TEXT, "window the chunk is cut from"),
        Column("thread_id", TEXT, "thread the chunk is cut from"),
    ),
    ("chunk_id",),
)

HARD_NEGATIVES = Table(
    "hard_negatives",
    "One row per training chunk and mined negative.",
    (
        Column("chunk_id", TEXT, "training chunk (the query)"),
        Column("negative_chunk_id", TEXT, "training chunk whose summary is the negative"),
        Column("rank", COUNT, "1-based rank among the accepted negatives"),
        Column("similarity", pl.Float32(), "cosine of the negative's summary to the query's own summary"),
    ),
    ("chunk_id", "negative_chunk_id"),
)

RELABELLED_PAIRS = Table(
    "relabelled_pairs",
    "One row per training chunk whose positive and hard negative were chosen by ranking its nearest summaries.",
    (
        Column("chunk_id", TEXT, "training chunk (the query)"),
        Column("positive_chunk_id", TEXT, "training chunk whose summary ranks first: the chunk itself, or another"),
        Column("negative_chunk_id", TEXT, "training chunk whose summary is the hard negative (rank k)"),
        Column("own_rank", COUNT, "1-based fused rank of the chunk's own summary"),
        Column("positive_score", pl.Float64(), "reciprocal-rank fusion score of the positive"),
        Column("own_score", pl.Float64(), "reciprocal-rank fusion score of the own summary"),
        Column("ranker", TEXT, "what ranked: the two rankers, or the language model's name"),
    ),
    ("chunk_id",),
)
