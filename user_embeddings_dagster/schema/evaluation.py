"""Tables of what was measured."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, Column, Table

SCORES = Table(
    "scores",
    "One row per metric of one model on one evaluation set.",
    (
        Column("asset", TEXT, "asset that measured it"),
        Column("datadao", TEXT, "DataDAO slug, or 'all'"),
        Column("model", TEXT, "model or baseline measured"),
        Column("metric", TEXT, "recall@1, mrr, …"),
        Column("slice", TEXT, "part of the set: 'all', 'gap<20min', 'history=5', …"),
        Column("value", pl.Float64(), "the measured value", nullable=True),
        Column("ci_low", pl.Float64(), "lower end of the 95% bootstrap interval over users", nullable=True),
        Column("ci_high", pl.Float64(), "upper end of the 95% bootstrap interval over users", nullable=True),
        Column("n", COUNT, "queries (or users) the value is an average of"),
        Column("n_users", COUNT, "users resampled for the interval"),
        Column("seed", COUNT, "seed of the bootstrap and any sampling"),
        Column("split_hash", TEXT, "hash of the user split"),
        Column("candidate_set", TEXT, "what was ranked: 'full:2911', 'window:3.1', …; 'none: …' says why nothing was"),
        Column("version", TEXT, "version of the encoder or baseline measured"),
    ),
    ("asset", "datadao", "model", "metric", "slice"),
)

DATA_FUNNEL = Table(
    "data_funnel",
    "One row per stage of the pipeline and DataDAO.",
    (
        Column("datadao", TEXT, "DataDAO slug, or 'all' for stages that are not counted by DataDAO"),
        Column("stage_order", COUNT, "0-based order of the stage"),
        Column("stage", TEXT, "records_read, messages, chunks, …"),
        Column("n", COUNT, "samples that reach the stage"),
        Column("n_tokens", COUNT, "estimated tokens at the stage", nullable=True),
        Column("n_users", COUNT, "users at the stage", nullable=True),
        Column(
            "estimated_usd",
            pl.Float64(),
            "estimated cost at the configured price per million tokens, or what was paid",
            nullable=True,
        ),
        Column(
            "caps",
            TEXT,
            'configured caps and what each left out: {"max_users": {"cap": 400, "left_out": 31}}; '
            "left_out null: not counted by DataDAO",
            nullable=True,
        ),
        Column("dropped", COUNT, "samples left out on the way to the stage, where reasons are counted", nullable=True),
        Column("drop_reasons", TEXT, 'how many of them by reason: {"too_little_said": 12}', nullable=True),
    ),
    ("datadao", "stage_order"),
)
