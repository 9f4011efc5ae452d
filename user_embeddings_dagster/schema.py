"""Every table of the lake, declared once: grain, columns, types, descriptions, primary key.

`personal=True` marks columns that carry what a person wrote or is called. Nothing from such a column may
reach metadata, logs, exceptions, run config or partition keys.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Column:
    """One column: Polars type, what it holds (with unit), and whether its content is personal."""

    name: str
    dtype: pl.DataType
    description: str
    personal: bool = False
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the lake; `grain` starts with "One row per"."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

    @property
    def schema(self) -> pl.Schema:
        """Column names and Polars types, in order."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    def empty(self) -> pl.DataFrame:
        """No rows, the right columns."""
        return pl.DataFrame(schema=self.schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with this table's columns in order and cast to their types.

        Raises ValueError naming the columns (never their values) that are missing or wrongly null.
        """
        missing = [name for name in self.schema if name not in frame.columns]
        if missing:
            raise ValueError(f"{self.name}: missing columns {missing}")
        try:
            frame = frame.select(pl.col(c.name).cast(c.dtype) for c in self.columns)
        except pl.exceptions.PolarsError:
            wrong = [f"{n}: {frame.schema[n]} is not {t}" for n, t in self.schema.items() if frame.schema[n] != t]
            raise ValueError(f"{self.name}: columns that do not cast: {wrong}") from None
        nulls = frame.select(pl.col(c.name).null_count() for c in self.columns if not c.nullable).row(0, named=True)
        wrong = {name: count for name, count in nulls.items() if count}
        if wrong:
            raise ValueError(f"{self.name}: null values in columns that allow none: {wrong}")
        return frame


def _columns(*groups: Iterable[Column]) -> tuple[Column, ...]:
    return tuple(column for group in groups for column in group)


_TEXT = pl.String()
_COUNT = pl.Int64()
_PROVENANCE = (
    Column("raw_sha256", _TEXT, "SHA-256 of the raw file the row was read from"),
    Column("raw_member", _TEXT, "archive member, or '' when the file is not an archive"),
    Column("raw_location", _COUNT, "place in the member: 1-based line (NDJSON, CSV) or 0-based index (JSON)"),
)

_COST = (
    Column("prompt_tokens", _COUNT, "tokens that the model read for this row, over all attempts; 0 without a model"),
    Column("completion_tokens", _COUNT, "tokens that the model wrote for this row, over all attempts"),
    Column("usd", pl.Float64(), "what they cost at the configured prices, US dollars"),
)

RAW_FILES = Table(
    "raw_files",
    "One row per raw file of a DataDAO's landing folder.",
    (
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("raw_sha256", _TEXT, "SHA-256 of the file's bytes"),
        Column("raw_file", _TEXT, "path below the DataDAO's landing folder", personal=True),
        Column("bytes", _COUNT, "size in bytes"),
        Column("format", _TEXT, "export format by the registry's name, or 'unknown'"),
        Column("n_messages", _COUNT, "messages read, before deduplication"),
        Column("n_rejected", _COUNT, "records rejected, each located in rejected_records"),
    ),
    ("datadao", "raw_file"),
)

# What a reader yields: native identifiers, before they are hashed. Never written anywhere in this form.
NATIVE_MESSAGES = Table(
    "native_messages",
    "One row per record of a raw export.",
    _columns(
        (
            Column("native_thread", _TEXT, "thread id as the platform writes it", personal=True),
            Column("native_id", _TEXT, "message id as the platform writes it", personal=True),
            Column("native_parent", _TEXT, "id of the message replied to", personal=True, nullable=True),
            Column(
                "native_author",
                _TEXT,
                "account id or name; null if deleted or none",
                personal=True,
                nullable=True,
            ),
            Column("author_name", _TEXT, "display name as exported", personal=True, nullable=True),
            Column("role", _TEXT, "user, assistant, system, tool, service, bot or deleted"),
            Column("created_at", TIMESTAMP, "when it was written, UTC; null if unknown", nullable=True),
            Column("edited_at", TIMESTAMP, "last edit, UTC", nullable=True),
            Column("text", _TEXT, "text, media as a typed placeholder such as [voice]", personal=True),
            Column("media_kind", _TEXT, "photo, voice, video, file, sticker, … or null", nullable=True),
            Column("community", _TEXT, "public community (subreddit), else null", nullable=True),
            Column("thread_shape", _TEXT, "'tree' (replies) or 'linear' (chat)"),
            Column("is_owner", pl.Boolean(), "the author is the owner of this export, who contributed it"),
            Column("is_public", pl.Boolean(), "from a public source, where every author may be a subject"),
        ),
        _PROVENANCE,
    ),
    ("raw_sha256", "raw_member", "raw_location"),
)

MESSAGES = Table(
    "messages",
    "One row per distinct message of a DataDAO, whatever platform it came from.",
    _columns(
        (
            Column("message_id", _TEXT, "keyed hash of platform, thread and native id (32 hex)"),
            Column("datadao", _TEXT, "DataDAO slug"),
            Column("platform", _TEXT, "reddit, telegram or chatgpt"),
            Column("thread_id", _TEXT, "keyed hash of the thread (32 hex)"),
            Column("thread_shape", _TEXT, "'tree' or 'linear'"),
            Column("parent_id", _TEXT, "message_id replied to, whether or not it is in the table", nullable=True),
            Column(
                "author_id",
                _TEXT,
                "user_id of the author: keyed hash (32 hex); null if unknown",
                nullable=True,
            ),
            Column("role", _TEXT, "user, assistant, system, tool, service, bot or deleted"),
            Column("is_subject", pl.Boolean(), "the author contributed to this DataDAO (or the source is public)"),
            Column("created_at", TIMESTAMP, "when it was written, UTC", nullable=True),
            Column("edited_at", TIMESTAMP, "last edit, UTC", nullable=True),
            Column("text", _TEXT, "text as exported", personal=True),
            Column("media_kind", _TEXT, "kind of the attached media", nullable=True),
            Column("community", _TEXT, "public community (subreddit)", nullable=True),
        ),
        _PROVENANCE,
    ),
    ("message_id",),
)

PARTICIPANTS = Table(
    "participants",
    "One row per name by which a person is known in a thread.",
    (
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("thread_id", _TEXT, "thread the person takes part in"),
        Column("author_id", _TEXT, "user_id of the person"),
        Column("name", _TEXT, "the name, as written", personal=True),
        Column("name_kind", _TEXT, "handle, display_name, first_name or native_id"),
    ),
    ("thread_id", "author_id", "name"),
)

REJECTED_RECORDS = Table(
    "rejected_records",
    "One row per record (or rest of a file) that could not be read, with its place and reason.",
    _columns(
        (
            Column("datadao", _TEXT, "DataDAO slug"),
            Column("raw_file", _TEXT, "path below landing", personal=True),
        ),
        _PROVENANCE,
        (
            Column("reason", _TEXT, "short code: malformed_json, truncated, missing_field, unsafe_member, …"),
            Column("detail", _TEXT, "what was wrong, without any content of the record"),
        ),
    ),
    ("raw_sha256", "raw_member", "raw_location", "reason"),
)

DROPPED_MESSAGES = Table(
    "dropped_messages",
    "One row per stage, reason and raw file for which messages were dropped.",
    (
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("raw_sha256", _TEXT, "raw file"),
        Column(
            "reason",
            _TEXT,
            "exact_duplicate, near_duplicate, bot, deleted_author, empty, …; see evaluation/funnel.py",
        ),
        Column("n", _COUNT, "messages dropped"),
    ),
    ("raw_sha256", "reason"),
)

MASKED_CHUNKS = Table(
    "masked_chunks",
    "One row per window of a thread around one SUBJECT's messages, masked.",
    (
        Column("chunk_id", _TEXT, "hash of subject, window and masked text (32 hex)"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("thread_id", _TEXT, "thread the window is cut from"),
        Column("window_id", _TEXT, "hash of the window's messages: chunks that share it differ only in SUBJECT"),
        Column("started_at", TIMESTAMP, "SUBJECT's first message in the window, UTC"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the window, UTC"),
        Column("speakers", pl.List(pl.String), "speaker of each turn: SUBJECT, <P1>, …, ASSISTANT", personal=True),
        Column("turns", pl.List(pl.String), "masked text of each turn, in time order", personal=True),
        Column("text", _TEXT, "the turns as 'SPEAKER: text' lines", personal=True),
        Column("message_ids", pl.List(pl.String), "message of each turn"),
        Column("n_subject_turns", _COUNT, "turns by SUBJECT"),
        Column("n_tokens", _COUNT, "estimated tokens of text"),
        Column("n_masked", _COUNT, "names and identifiers replaced by placeholders"),
        Column("context_free", pl.Boolean(), "the thread around SUBJECT's messages is unknown"),
        Column("community", _TEXT, "public community (subreddit)", nullable=True),
    ),
    ("chunk_id",),
)

CHUNK_SUMMARIES = Table(
    "chunk_summaries",
    "One row per masked chunk: what SUBJECT contributed in it.",
    (
        Column("summary_id", _TEXT, "hash of chunk, summariser and its version (32 hex)"),
        Column("chunk_id", _TEXT, "chunk summarised"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("text", _TEXT, "SUBJECT-centric summary, masked", personal=True),
        Column("summarizer", _TEXT, "extractive, or the language model's name"),
        Column("program_version", _TEXT, "version of the summarising program"),
        *_COST,
    ),
    ("summary_id",),
)

UNSUMMARISED_CHUNKS = Table(
    "unsummarised_chunks",
    "One row per masked chunk that has no summary, with the reason.",
    (
        Column("chunk_id", _TEXT, "chunk without a summary"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("summarizer", _TEXT, "extractive, or the language model's name"),
        Column("program_version", _TEXT, "version of the summarising program"),
        Column("reason", _TEXT, "nothing_contributed, or why the model gave no valid answer: timeout, truncated, …"),
        Column("detail", _TEXT, "more of the reason, without any content"),
        Column("attempts", _COUNT, "calls made for it"),
        *_COST,
    ),
    ("chunk_id",),
)

KOAIS = Table(
    "koais",
    "One row per Knowledge, Opinion, Attribute or Intent that SUBJECT shows in a chunk.",
    (
        Column("koai_id", _TEXT, "hash of chunk, extractor, its version, kind and statement (32 hex)"),
        Column("chunk_id", _TEXT, "chunk it was read off"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("kind", _TEXT, "knowledge, opinion, attribute or intent"),
        Column("statement", _TEXT, "one self-contained sentence about SUBJECT, masked", personal=True),
        Column("evidence", pl.List(pl.Int64), "0-based turns of the chunk that it rests on"),
        Column("violations", pl.List(pl.Int64), "numbers of the constraints that the statement violates"),
        Column("extractor", _TEXT, "cues, or the language model's name"),
        Column("program_version", _TEXT, "version of the extracting program"),
    ),
    ("koai_id",),
)

KOAI_EXTRACTIONS = Table(
    "koai_extractions",
    "One row per masked chunk: how many KOAIs it has, by which extractor, or why none.",
    (
        Column("chunk_id", _TEXT, "chunk"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("extractor", _TEXT, "cues, or the language model's name"),
        Column("program_version", _TEXT, "version of the extracting program"),
        Column("n_koais", _COUNT, "rows of the chunk in koais"),
        Column("reason", _TEXT, "'' if it has KOAIs, nothing_shown, or why the model gave no valid answer"),
        Column("detail", _TEXT, "more of the reason, without any content"),
        Column("attempts", _COUNT, "calls made for it"),
        *_COST,
    ),
    ("chunk_id",),
)

TRAINING_SNAPSHOT = Table(
    "training_snapshot",
    "One row per chunk that training and evaluation may use, with its user's split.",
    (
        Column("chunk_id", _TEXT, "chunk"),
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("user_id", _TEXT, "the SUBJECT"),
        Column("split", _TEXT, "train, valid or test: by user, from a keyed hash"),
        Column("position", _COUNT, "0-based place in the user's history in this DataDAO, by ended_at"),
        Column("started_at", TIMESTAMP, "SUBJECT's first message in the chunk, UTC"),
        Column("ended_at", TIMESTAMP, "SUBJECT's last message in the chunk, UTC"),
        Column("window_id", _TEXT, "window the chunk is cut from"),
        Column("thread_id", _TEXT, "thread the chunk is cut from"),
    ),
    ("chunk_id",),
)

HARD_NEGATIVES = Table(
    "hard_negatives",
    "One row per training chunk and mined negative.",
    (
        Column("chunk_id", _TEXT, "training chunk (the query)"),
        Column("negative_chunk_id", _TEXT, "training chunk whose summary is the negative"),
        Column("rank", _COUNT, "1-based rank among the accepted negatives"),
        Column("similarity", pl.Float32(), "cosine of the negative's summary to the query's own summary"),
    ),
    ("chunk_id", "negative_chunk_id"),
)

RELABELLED_PAIRS = Table(
    "relabelled_pairs",
    "One row per training chunk whose positive and hard negative were chosen by ranking its nearest summaries.",
    (
        Column("chunk_id", _TEXT, "training chunk (the query)"),
        Column("positive_chunk_id", _TEXT, "training chunk whose summary ranks first: the chunk itself, or another"),
        Column("negative_chunk_id", _TEXT, "training chunk whose summary is the hard negative (rank k)"),
        Column("own_rank", _COUNT, "1-based fused rank of the chunk's own summary"),
        Column("positive_score", pl.Float64(), "reciprocal-rank fusion score of the positive"),
        Column("own_score", pl.Float64(), "reciprocal-rank fusion score of the own summary"),
        Column("ranker", _TEXT, "what ranked: the two rankers, or the language model's name"),
    ),
    ("chunk_id",),
)

SCORES = Table(
    "scores",
    "One row per metric of one model on one evaluation set.",
    (
        Column("asset", _TEXT, "asset that measured it"),
        Column("datadao", _TEXT, "DataDAO slug, or 'all'"),
        Column("model", _TEXT, "model or baseline measured"),
        Column("metric", _TEXT, "recall@1, mrr, …"),
        Column("slice", _TEXT, "part of the set: 'all', 'gap<20min', 'history=5', …"),
        Column("value", pl.Float64(), "the measured value", nullable=True),
        Column("ci_low", pl.Float64(), "lower end of the 95% bootstrap interval over users", nullable=True),
        Column("ci_high", pl.Float64(), "upper end of the 95% bootstrap interval over users", nullable=True),
        Column("n", _COUNT, "queries (or users) the value is an average of"),
        Column("n_users", _COUNT, "users resampled for the interval"),
        Column("seed", _COUNT, "seed of the bootstrap and any sampling"),
        Column("split_hash", _TEXT, "hash of the user split"),
        Column("candidate_set", _TEXT, "what was ranked: 'full:2911', 'window:3.1', …"),
        Column("version", _TEXT, "version of the encoder or baseline measured"),
    ),
    ("asset", "datadao", "model", "metric", "slice"),
)

DATA_FUNNEL = Table(
    "data_funnel",
    "One row per stage of the pipeline and DataDAO.",
    (
        Column("datadao", _TEXT, "DataDAO slug"),
        Column("stage_order", _COUNT, "0-based order of the stage"),
        Column("stage", _TEXT, "records_read, messages, chunks, …"),
        Column("n", _COUNT, "samples that reach the stage"),
        Column("n_tokens", _COUNT, "estimated tokens at the stage", nullable=True),
        Column("n_users", _COUNT, "users at the stage", nullable=True),
        Column(
            "estimated_usd",
            pl.Float64(),
            "estimated cost at the configured price per million tokens",
            nullable=True,
        ),
    ),
    ("datadao", "stage_order"),
)

ERASURES = Table(
    "erasures",
    "One row per erased contributor and store.",
    (
        Column("person", _TEXT, "pseudonym of the contributor: a keyed hash of their user_id, which no table holds"),
        Column("store", _TEXT, "tables/<table>, lancedb/<table>, landing, user_memories, cache, keys, models, …"),
        Column("removed", _COUNT, "rows, records, entries, keys or folders removed; for models: versions marked"),
        Column("hits_before", _COUNT, "times that the person's canaries were found in it before"),
        Column("hits_after", _COUNT, "times that they are found in it now"),
        Column("undecoded", _COUNT, "files that could not be decoded, so that nothing is known of them"),
        Column("evidence_hash", _TEXT, "hash of the canaries looked for and of what both scans found"),
        Column("checkpoints", pl.List(pl.String), "model versions trained on the person"),
    ),
    ("person", "store"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_FILES, MESSAGES, PARTICIPANTS, REJECTED_RECORDS, DROPPED_MESSAGES, MASKED_CHUNKS, CHUNK_SUMMARIES,
        UNSUMMARISED_CHUNKS, KOAIS, KOAI_EXTRACTIONS, TRAINING_SNAPSHOT, HARD_NEGATIVES, RELABELLED_PAIRS, SCORES,
        DATA_FUNNEL, ERASURES,
    )
}  # fmt: skip
