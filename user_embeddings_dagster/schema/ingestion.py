"""Tables from raw files to messages."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, TIMESTAMP, Column, Table, columns

PROVENANCE = (
    Column("raw_sha256", TEXT, "SHA-256 of the raw file the row was read from"),
    Column("raw_member", TEXT, "archive member, or '' when the file is not an archive"),
    Column("raw_location", COUNT, "place in the member: 1-based line (NDJSON, CSV) or 0-based index (JSON)"),
)

RAW_FILES = Table(
    "raw_files",
    "One row per raw file of a DataDAO's landing folder.",
    (
        Column("datadao", TEXT, "DataDAO slug"),
        Column("raw_sha256", TEXT, "SHA-256 of the file's bytes"),
        Column("raw_file", TEXT, "path below the DataDAO's landing folder", personal=True),
        Column("bytes", COUNT, "size in bytes"),
        Column("format", TEXT, "export format by the registry's name, or 'unknown'"),
        Column("n_messages", COUNT, "messages read, before deduplication"),
        Column("n_rejected", COUNT, "records rejected, each located in rejected_records"),
    ),
    ("datadao", "raw_file"),
)

# What a reader yields: native identifiers, before they are hashed. Never written anywhere in this form.

NATIVE_MESSAGES = Table(
    "native_messages",
    "One row per record of a raw export.",
    columns(
        (
            Column("native_thread", TEXT, "thread id as the platform writes it", personal=True),
            Column("native_id", TEXT, "message id as the platform writes it", personal=True),
            Column(
                "numbering",
                TEXT,
                "whose ids these are, where each account numbers messages itself; null if all count alike",
                personal=True,
                nullable=True,
            ),
            Column("native_parent", TEXT, "id of the message replied to", personal=True, nullable=True),
            Column(
                "native_author",
                TEXT,
                "account id or name; null if deleted or none",
                personal=True,
                nullable=True,
            ),
            Column("author_name", TEXT, "display name as exported", personal=True, nullable=True),
            Column("role", TEXT, "user, assistant, system, tool, service, bot or deleted"),
            Column("created_at", TIMESTAMP, "when it was written, UTC; null if unknown", nullable=True),
            Column("edited_at", TIMESTAMP, "last edit, UTC", nullable=True),
            Column("text", TEXT, "text, media as a typed placeholder such as [voice]", personal=True),
            Column("media_kind", TEXT, "photo, voice, video, file, sticker, … or null", nullable=True),
            Column("community", TEXT, "public community (subreddit), else null", nullable=True),
            Column("thread_shape", TEXT, "'tree' (replies) or 'linear' (chat)"),
            Column("is_owner", pl.Boolean(), "the author is the owner of this export, who contributed it"),
            Column("is_public", pl.Boolean(), "from a public source, where every author may be a subject"),
        ),
        PROVENANCE,
    ),
    ("raw_sha256", "raw_member", "raw_location"),
)

MESSAGES = Table(
    "messages",
    "One row per distinct message of a DataDAO, whatever platform it came from.",
    columns(
        (
            Column("message_id", TEXT, "keyed hash of platform, thread (or numbering) and native id (32 hex)"),
            Column("datadao", TEXT, "DataDAO slug"),
            Column("platform", TEXT, "reddit, telegram or chatgpt"),
            Column("thread_id", TEXT, "keyed hash of the thread (32 hex)"),
            Column("thread_shape", TEXT, "'tree' or 'linear'"),
            Column("parent_id", TEXT, "message_id replied to, whether or not it is in the table", nullable=True),
            Column(
                "author_id",
                TEXT,
                "user_id of the author: keyed hash (32 hex); null if unknown",
                nullable=True,
            ),
            Column("role", TEXT, "user, assistant, system, tool, service, bot or deleted"),
            Column("is_subject", pl.Boolean(), "the author contributed to this DataDAO (or the source is public)"),
            Column("created_at", TIMESTAMP, "when it was written, UTC", nullable=True),
            Column("edited_at", TIMESTAMP, "last edit, UTC", nullable=True),
            Column("text", TEXT, "text as exported", personal=True),
            Column("media_kind", TEXT, "kind of the attached media", nullable=True),
            Column("community", TEXT, "public community (subreddit)", nullable=True),
        ),
        PROVENANCE,
    ),
    ("message_id",),
)

PARTICIPANTS = Table(
    "participants",
    "One row per name by which a person is known in a thread.",
    (
        Column("datadao", TEXT, "DataDAO slug"),
        Column("thread_id", TEXT, "thread the person takes part in"),
        Column("author_id", TEXT, "user_id of the person"),
        Column("name", TEXT, "the name, as written", personal=True),
        Column("name_kind", TEXT, "handle, display_name, first_name or native_id"),
    ),
    ("thread_id", "author_id", "name"),
)

REJECTED_RECORDS = Table(
    "rejected_records",
    "One row per record (or rest of a file) that could not be read, with its place and reason.",
    columns(
        (
            Column("datadao", TEXT, "DataDAO slug"),
            Column("raw_file", TEXT, "path below landing", personal=True),
        ),
        PROVENANCE,
        (
            Column("reason", TEXT, "short code: malformed_json, truncated, missing_field, unsafe_member, …"),
            Column("detail", TEXT, "what was wrong, without any content of the record"),
        ),
    ),
    ("raw_sha256", "raw_member", "raw_location", "reason"),
)

DROPPED_MESSAGES = Table(
    "dropped_messages",
    "One row per stage, reason and raw file for which messages were dropped.",
    (
        Column("datadao", TEXT, "DataDAO slug"),
        Column("raw_sha256", TEXT, "raw file"),
        Column(
            "reason",
            TEXT,
            "exact_duplicate, near_duplicate, bot, deleted_author, empty, …; see evaluation/funnel.py",
        ),
        Column("n", COUNT, "messages dropped"),
    ),
    ("raw_sha256", "reason"),
)
