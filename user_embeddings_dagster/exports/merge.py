"""The set work of the messages table: merging copies, dropping duplicates and empties, naming subjects.

DuckDB does it out of core; every decision is made on narrow tables and texts pass by once, at the end.
"""

from pathlib import Path

import duckdb
import polars as pl

from user_embeddings_dagster.exports.staging import write_sorted
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS, REJECTED_RECORDS

NEAR_MIN_CHARACTERS = 20  # of normalised text: shorter ones ("thanks a lot") are said again in good faith
NEAR_MICROSECONDS = 24 * 3600 * 1_000_000  # since the last time the author said the same

# Copies of one message: the contributor's own first, then those with text, then by place. `copies` are the
# losers; `fill` is what the winners lack.
_COPIES = """
    CREATE TEMP TABLE ranked AS
    SELECT seq, part, message_id, row_number() OVER (
        PARTITION BY message_id ORDER BY is_owner DESC, text = '', raw_sha256, raw_member, raw_location, seq
    ) AS copy, count(*) OVER (PARTITION BY message_id) AS n FROM staged;

    CREATE TEMP TABLE dropped AS SELECT seq, part, 'exact_duplicate' AS reason FROM ranked WHERE copy > 1;

    CREATE TEMP TABLE fill AS
    SELECT message_id,
        first(text ORDER BY copy) FILTER (text <> '') AS text,
        first(media_kind ORDER BY copy) FILTER (media_kind IS NOT NULL) AS media_kind,
        first(parent_id ORDER BY copy) FILTER (parent_id IS NOT NULL) AS parent_id,
        first(created_at ORDER BY copy) FILTER (created_at IS NOT NULL) AS created_at,
        first(edited_at ORDER BY copy) FILTER (edited_at IS NOT NULL) AS edited_at,
        first(community ORDER BY copy) FILTER (community IS NOT NULL) AS community
    FROM staged JOIN (SELECT seq, copy FROM ranked WHERE n > 1) USING (seq) GROUP BY message_id;

    DROP TABLE ranked;

    CREATE TEMP VIEW merged AS
    SELECT s.* REPLACE (
        CASE WHEN s.text = '' THEN coalesce(f.text, '') ELSE s.text END AS text,
        coalesce(s.media_kind, f.media_kind) AS media_kind,
        coalesce(s.parent_id, f.parent_id) AS parent_id,
        coalesce(s.created_at, f.created_at) AS created_at,
        coalesce(s.edited_at, f.edited_at) AS edited_at,
        coalesce(s.community, f.community) AS community
    ) FROM staged s LEFT JOIN fill f USING (message_id);
"""

# 64-bit hashes stand for texts, compared only within one author.
_EMPTY_AND_DUPLICATES = f"""
    CREATE TEMP TABLE narrow AS
    SELECT seq, part, message_id, author_id, created_at, is_owner,
        text = '' AND media_kind IS NULL AS empty, role = 'deleted' AS deleted,
        author_id IS NOT NULL AND created_at IS NOT NULL AND role = 'user' AND media_kind IS NULL AS comparable,
        IF(comparable, hash(text), NULL) AS text_hash,
        IF(comparable AND length(text) >= {NEAR_MIN_CHARACTERS}, trim(regexp_replace(
            lower(text), '[^\\p{{L}}\\p{{M}}\\p{{N}}]+', ' ', 'g')), NULL) AS plain,
        IF(length(plain) >= {NEAR_MIN_CHARACTERS}, hash(plain), NULL) AS near_hash
    FROM merged ANTI JOIN dropped USING (seq);

    INSERT INTO dropped SELECT seq, part, IF(deleted, 'deleted_author', 'empty') FROM narrow WHERE empty;

    INSERT INTO dropped SELECT seq, part, 'exact_duplicate' FROM narrow WHERE comparable AND NOT empty
    QUALIFY row_number() OVER (
        PARTITION BY author_id, created_at, text_hash ORDER BY is_owner DESC, message_id
    ) > 1;

    INSERT INTO dropped SELECT seq, part, 'near_duplicate' FROM narrow ANTI JOIN dropped USING (seq)
    WHERE near_hash IS NOT NULL
    QUALIFY epoch_us(created_at) - lag(epoch_us(created_at)) OVER (
        PARTITION BY author_id, near_hash ORDER BY created_at, message_id
    ) <= {NEAR_MICROSECONDS};

    DROP TABLE narrow;
"""

_MESSAGES = """
    SELECT * EXCLUDE (seq, part, is_owner, is_public),
        role = 'user' AND author_id IS NOT NULL AND (
            is_owner OR (is_public AND NOT EXISTS (FROM owners)) OR author_id IN (SELECT author_id FROM owners)
        ) AS is_subject
    FROM merged ANTI JOIN dropped USING (seq)
    ORDER BY thread_id, created_at NULLS FIRST, message_id
"""

_PARTICIPANTS = """
    SELECT datadao, thread_id, author_id, name, min(name_kind) AS name_kind
    FROM names SEMI JOIN kept USING (thread_id)
    WHERE author_id IS NOT NULL GROUP BY ALL ORDER BY thread_id, author_id, name
"""

_REJECTED = """
    SELECT datadao, raw_file, raw_sha256, raw_member, raw_location, reason, min(detail) AS detail
    FROM rejected GROUP BY ALL
    ORDER BY raw_sha256, raw_member, raw_location, reason
"""


class Merge:
    """One DataDAO's staged parts (`messages-*`, `names-*`, `rejected-*`) becoming tables."""

    def __init__(self, folder: Path, owners: pl.Series, memory: str, threads: int) -> None:
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
            }
        )
        self._view("staged", folder / "messages-*.parquet")
        self._view("names", folder / "names-*.parquet")
        self._view("rejected", folder / "rejected-*.parquet")
        self._duckdb.register("owners", pl.DataFrame({"author_id": owners}).to_arrow())

    def _view(self, name: str, files: Path) -> None:
        self._duckdb.read_parquet(str(files)).create_view(name)

    def decide(self) -> pl.DataFrame:
        """Merge copies and choose what is dropped: columns part, reason, n."""
        self._duckdb.execute(_COPIES)
        self._duckdb.execute(_EMPTY_AND_DUPLICATES)
        counts = self._duckdb.sql("SELECT part, reason, count(*) AS n FROM dropped GROUP BY ALL ORDER BY ALL")
        return pl.DataFrame(counts.to_arrow_table())

    def write_messages(self, path: Path) -> int:
        """The rows of MESSAGES by thread, time and id; returns how many."""
        return self._write(_MESSAGES, path, MESSAGES.schema)

    def write_participants(self, path: Path, messages: Path) -> int:
        """The rows of PARTICIPANTS in the threads of the messages file, by primary key."""
        self._view("kept", messages)
        return self._write(_PARTICIPANTS, path, PARTICIPANTS.schema)

    def write_rejected(self, path: Path) -> int:
        """The rows of REJECTED_RECORDS by primary key."""
        return self._write(_REJECTED, path, REJECTED_RECORDS.schema)

    def _write(self, query: str, path: Path, schema: pl.Schema) -> int:
        return write_sorted(self._duckdb.sql(query).to_arrow_reader(20_000), path, schema)

    def close(self) -> None:
        """Free memory and spill files."""
        self._duckdb.close()
