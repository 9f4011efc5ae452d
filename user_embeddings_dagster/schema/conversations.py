"""Tables of chunks and of what is read off them: summaries, KOAIs."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, TIMESTAMP, Column, Table

COST = (
    Column("prompt_tokens", COUNT, "tokens that the model read for this row, over all attempts; 0 without a model"),
    Column("completion_tokens", COUNT, "tokens that the model wrote for this row, over all attempts"),
    Column("usd", pl.Float64(), "what they cost at the configured prices, US dollars"),
)

MASKED_CHUNKS = Table(
    "masked_chunks",
    "One row per window of a thread around one SUBJECT's messages, masked.",
    (
        Column("chunk_id", TEXT, "hash of subject, window and masked text (32 hex)"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("thread_id", TEXT, "thread the window is cut from"),
        Column("window_id", TEXT, "hash of the window's messages: chunks that share it differ only in SUBJECT"),
        Column("started_at", TIMESTAMP, "SUBJECT's first message in the window, UTC"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the window, UTC"),
        Column("speakers", pl.List(pl.String), "speaker of each turn: SUBJECT, <P1>, …, ASSISTANT", personal=True),
        Column("turns", pl.List(pl.String), "masked text of each turn, in time order", personal=True),
        Column("text", TEXT, "the turns as 'SPEAKER: text' lines", personal=True),
        Column("message_ids", pl.List(pl.String), "message of each turn"),
        Column("n_subject_turns", COUNT, "turns by SUBJECT"),
        Column("n_tokens", COUNT, "estimated tokens of text"),
        Column("n_masked", COUNT, "names and identifiers replaced by placeholders"),
        Column("context_free", pl.Boolean(), "the thread around SUBJECT's messages is unknown"),
        Column("community", TEXT, "public community (subreddit)", nullable=True),
    ),
    ("chunk_id",),
)

CHUNK_SUMMARIES = Table(
    "chunk_summaries",
    "One row per masked chunk: what SUBJECT contributed in it.",
    (
        Column("summary_id", TEXT, "hash of chunk, summariser and its version (32 hex)"),
        Column("chunk_id", TEXT, "chunk summarised"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("text", TEXT, "SUBJECT-centric summary, masked", personal=True),
        Column("summarizer", TEXT, "extractive, or the language model's name"),
        Column("program_version", TEXT, "version of the summarising program"),
        *COST,
    ),
    ("summary_id",),
)

UNSUMMARISED_CHUNKS = Table(
    "unsummarised_chunks",
    "One row per masked chunk that has no summary, with the reason.",
    (
        Column("chunk_id", TEXT, "chunk without a summary"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("summarizer", TEXT, "extractive, or the language model's name"),
        Column("program_version", TEXT, "version of the summarising program"),
        Column("reason", TEXT, "nothing_contributed, or why the model gave no valid answer: timeout, truncated, …"),
        Column("detail", TEXT, "more of the reason, without any content"),
        Column("attempts", COUNT, "calls made for it"),
        *COST,
    ),
    ("chunk_id",),
)

KOAIS = Table(
    "koais",
    "One row per Knowledge, Opinion, Attribute or Intent that SUBJECT shows in a chunk.",
    (
        Column("koai_id", TEXT, "hash of chunk, extractor, its version, kind and statement (32 hex)"),
        Column("chunk_id", TEXT, "chunk it was read off"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("kind", TEXT, "knowledge, opinion, attribute or intent"),
        Column("statement", TEXT, "one self-contained sentence about SUBJECT, masked", personal=True),
        Column("evidence", pl.List(pl.Int64), "0-based turns of the chunk that it rests on"),
        Column("violations", pl.List(pl.Int64), "numbers of the constraints that the statement violates"),
        Column("extractor", TEXT, "cues, or the language model's name"),
        Column("program_version", TEXT, "version of the extracting program"),
    ),
    ("koai_id",),
)

KOAI_EXTRACTIONS = Table(
    "koai_extractions",
    "One row per masked chunk: how many KOAIs it has, by which extractor, or why none.",
    (
        Column("chunk_id", TEXT, "chunk"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("extractor", TEXT, "cues, or the language model's name"),
        Column("program_version", TEXT, "version of the extracting program"),
        Column("n_koais", COUNT, "rows of the chunk in koais"),
        Column("reason", TEXT, "'' if it has KOAIs, nothing_shown, or why the model gave no valid answer"),
        Column("detail", TEXT, "more of the reason, without any content"),
        Column("attempts", COUNT, "calls made for it"),
        *COST,
    ),
    ("chunk_id",),
)
