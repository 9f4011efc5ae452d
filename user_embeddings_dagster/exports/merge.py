"""The set work of the messages table: merging copies, dropping duplicates and empties, naming subjects.

DuckDB does it out of core, on everything but texts: fingerprints stand for them, and a number for the message whose
text it is. At the end texts and the other columns pass by in no order, and `ordering` puts them in theirs.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from user_embeddings_dagster.exports.ordering import PLACE, Placed, row_group_places, to_arrow, to_numpy
from user_embeddings_dagster.exports.staging import write_sorted
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS, REJECTED_RECORDS

_BATCH = 8_192  # rows that leave DuckDB at a time
NEAR_MICROSECONDS = 24 * 3600 * 1_000_000  # since the last time the author said the same

TooLittleMemory = duckdb.OutOfMemoryException

# A numbering whose thread is known from another export of the same account: all of it belongs there.
_PLACES = """
    CREATE TEMP TABLE places AS
    SELECT numbering, min(thread_id) AS thread_id FROM staged WHERE numbering <> thread_id
    GROUP BY numbering HAVING min(thread_id) = max(thread_id);
"""

# Copies of one message: the contributor's own first, then those with text, those of a thread that is known to others,
# then by place. `dropped` are the losers; `fill` is what the winners lack, of those of whose copies
# some have a field and some have not.
_COPIES = """
    CREATE TEMP TABLE repeated AS SELECT hash(message_id) AS id FROM staged GROUP BY id HAVING count(*) > 1;

    CREATE TEMP TABLE ranked AS
    SELECT seq, part, message_id, row_number() OVER (
        PARTITION BY message_id ORDER BY
            is_owner DESC, n_bytes = 0, numbering IS NOT DISTINCT FROM thread_id,
            raw_sha256, raw_member, raw_location, seq
    ) AS copy FROM staged WHERE hash(message_id) IN (FROM repeated);

    DROP TABLE repeated;

    CREATE TEMP TABLE dropped AS SELECT seq, part, 'exact_duplicate' AS reason FROM ranked WHERE copy > 1;

    CREATE TEMP TABLE lacking AS
    SELECT message_id FROM staged SEMI JOIN ranked USING (seq) GROUP BY message_id
    HAVING count(*) FILTER (n_bytes > 0) NOT IN (0, count(*)) OR count(media_kind) NOT IN (0, count(*))
        OR count(parent_id) NOT IN (0, count(*)) OR count(created_at) NOT IN (0, count(*))
        OR count(edited_at) NOT IN (0, count(*)) OR count(community) NOT IN (0, count(*));

    CREATE TEMP TABLE fill AS
    SELECT message_id,
        first(text_seq ORDER BY copy) FILTER (n_bytes > 0) AS text_seq,
        first(n_bytes ORDER BY copy) FILTER (n_bytes > 0) AS n_bytes,
        first(text_hash ORDER BY copy) FILTER (n_bytes > 0) AS text_hash,
        first(near_hash ORDER BY copy) FILTER (n_bytes > 0) AS near_hash,
        first(media_kind ORDER BY copy) FILTER (media_kind IS NOT NULL) AS media_kind,
        first(parent_id ORDER BY copy) FILTER (parent_id IS NOT NULL) AS parent_id,
        first(created_at ORDER BY copy) FILTER (created_at IS NOT NULL) AS created_at,
        first(edited_at ORDER BY copy) FILTER (edited_at IS NOT NULL) AS edited_at,
        first(community ORDER BY copy) FILTER (community IS NOT NULL) AS community
    FROM staged JOIN (SELECT seq, copy FROM ranked SEMI JOIN lacking USING (message_id)) USING (seq)
    GROUP BY message_id;

    DROP TABLE ranked;
    DROP TABLE lacking;

    CREATE TEMP VIEW filled AS
    SELECT s.* REPLACE (
        coalesce(p.thread_id, s.thread_id) AS thread_id,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.text_seq, s.text_seq) AS text_seq,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.n_bytes, s.n_bytes) AS n_bytes,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.text_hash, s.text_hash) AS text_hash,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.near_hash, s.near_hash) AS near_hash,
        coalesce(s.media_kind, f.media_kind) AS media_kind,
        coalesce(s.parent_id, f.parent_id) AS parent_id,
        coalesce(s.created_at, f.created_at) AS created_at,
        coalesce(s.edited_at, f.edited_at) AS edited_at,
        coalesce(s.community, f.community) AS community
    ) FROM staged s LEFT JOIN fill f USING (message_id) LEFT JOIN places p ON s.thread_id = p.numbering;
"""

# One conversation as several accounts exported it, each with message ids of its own: the nth time that an author says
# the same in a second is the same message in all of them, and so is the one message of a second that was edited. An
# author's own export wins. What a message answers is taken from a copy in whose export that is, and told by its winner.
_CONVERSATIONS = """
    CREATE TEMP TABLE shared AS
    SELECT thread_id FROM filled WHERE numbering IS NOT NULL
    GROUP BY thread_id HAVING min(numbering) <> max(numbering);

    CREATE TEMP TABLE said AS
    SELECT seq, part, message_id, parent_id, thread_id, numbering, author_id, created_at, role, media_kind, is_owner,
        edited_at IS NOT NULL AS edited, text_hash, raw_sha256, raw_member, raw_location
    FROM filled SEMI JOIN shared USING (thread_id) ANTI JOIN dropped USING (seq) WHERE numbering IS NOT NULL;

    CREATE TEMP TABLE copies AS
    WITH counted AS (
        SELECT *, count(*) OVER (PARTITION BY thread_id, author_id, created_at, role, media_kind, numbering) AS n
        FROM said
    ), keyed AS (
        SELECT * REPLACE (
            IF(created_at IS NOT NULL AND bool_or(edited) OVER moment AND max(n) OVER moment = 1, NULL, text_hash)
            AS text_hash
        ) FROM counted WINDOW moment AS (PARTITION BY thread_id, author_id, created_at, role, media_kind)
    ), repeated AS (
        SELECT *, row_number() OVER (
            PARTITION BY thread_id, author_id, created_at, role, media_kind, text_hash, numbering
            ORDER BY raw_sha256, raw_member, raw_location, seq
        ) AS nth FROM keyed
    )
    SELECT seq, part, message_id, parent_id, first_value(message_id) OVER one AS winner, row_number() OVER one AS copy
    FROM repeated WINDOW one AS (
        PARTITION BY thread_id, author_id, created_at, role, media_kind, text_hash, nth
        ORDER BY is_owner DESC, raw_sha256, raw_member, raw_location, seq
    );

    DROP TABLE said;

    INSERT INTO dropped SELECT seq, part, 'exact_duplicate' FROM copies WHERE copy > 1;

    CREATE TEMP TABLE answers AS
    SELECT c.winner AS message_id,
        first(coalesce(p.winner, c.parent_id) ORDER BY p.winner IS NULL, c.copy) AS parent_id
    FROM copies c LEFT JOIN copies p ON p.message_id = c.parent_id
    WHERE c.parent_id IS NOT NULL GROUP BY c.winner;

    DROP TABLE copies;

    CREATE TEMP VIEW merged AS
    SELECT f.* REPLACE (coalesce(a.parent_id, f.parent_id) AS parent_id)
    FROM filled f LEFT JOIN answers a USING (message_id);
"""

# Ids have 128 bits in hexadecimal digits: as UUIDs they are in the same order, in a third of the memory.
# 64-bit hashes stand for texts, compared only within one author; and only within one thread where others may have
# exported the same conversation, because what is said in both copies belongs to both.
_EMPTY_AND_DUPLICATES = f"""
    CREATE TEMP TABLE narrow AS
    SELECT seq, part, message_id::UUID AS message_id, author_id::UUID AS author_id, created_at, is_owner,
        text_hash, near_hash, IF(numbering IS NULL, NULL, thread_id::UUID) AS within,
        n_bytes = 0 AND media_kind IS NULL AS empty, role = 'deleted' AS deleted,
        author_id IS NOT NULL AND created_at IS NOT NULL AND role = 'user' AND media_kind IS NULL AS comparable
    FROM merged ANTI JOIN dropped USING (seq);

    INSERT INTO dropped SELECT seq, part, IF(deleted, 'deleted_author', 'empty') FROM narrow WHERE empty;

    INSERT INTO dropped SELECT seq, part, 'exact_duplicate' FROM narrow WHERE comparable AND NOT empty
    QUALIFY row_number() OVER (
        PARTITION BY author_id, within, created_at, text_hash ORDER BY is_owner DESC, message_id
    ) > 1;

    INSERT INTO dropped SELECT seq, part, 'near_duplicate' FROM narrow ANTI JOIN dropped USING (seq)
    WHERE comparable AND near_hash IS NOT NULL
    QUALIFY epoch_us(created_at) - lag(epoch_us(created_at)) OVER (
        PARTITION BY author_id, within, near_hash ORDER BY created_at, message_id
    ) <= {NEAR_MICROSECONDS};

    DROP TABLE narrow;
"""

_ORDER = """
    SELECT seq, text_seq, n_bytes FROM merged ANTI JOIN dropped USING (seq)
    ORDER BY thread_id::UUID, created_at NULLS FIRST, message_id::UUID
"""

_MESSAGES = """
    SELECT * EXCLUDE (part, is_owner, is_public, numbering, text_seq, n_bytes, text_hash, near_hash),
        role = 'user' AND author_id IS NOT NULL AND (
            is_owner OR (is_public AND NOT EXISTS (FROM owners)) OR author_id IN (SELECT author_id FROM owners)
        ) AS is_subject
    FROM merged
"""
_KEPT = "CREATE TEMP TABLE kept AS SELECT DISTINCT thread_id FROM merged ANTI JOIN dropped USING (seq)"

_PARTICIPANTS = """
    SELECT datadao, thread_id, author_id, name, min(name_kind) AS name_kind
    FROM (
        SELECT n.* REPLACE (coalesce(p.thread_id, n.thread_id) AS thread_id)
        FROM names n LEFT JOIN places p ON n.thread_id = p.numbering
    ) SEMI JOIN kept USING (thread_id)
    WHERE author_id IS NOT NULL GROUP BY ALL ORDER BY thread_id, author_id, name
"""

_REJECTED = """
    SELECT datadao, raw_file, raw_sha256, raw_member, raw_location, reason, min(detail) AS detail
    FROM rejected GROUP BY ALL
    ORDER BY raw_sha256, raw_member, raw_location, reason
"""


def memory_for(rows: int) -> int:
    """MB of DuckDB's share for so many messages of few copies; what it cannot hold it spills below the lake.

    Too little, and it fails. With one thread .6 million messages with as many names were merged in 32 MB, not in 28;
    two million in 36. Ten million need more, and are begun again.
    """
    return min(31 + rows * 3 // 1_000_000, 600)


def most_memory() -> int:
    """MB of half this machine's memory: what DuckDB may have at most."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2_000_000


class Merge:
    """One DataDAO's staged parts (`messages-*`, `names-*`, `rejected-*`) becoming tables.

    DuckDB has one thread, as each holds a piece of every sorted run: a whole build takes 6 to 15% longer than with two.
    """

    def __init__(self, folder: Path, owners: pl.Series, memory: int) -> None:
        self._folder = folder
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": f"{memory}MB",
                "threads": 1,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
                "enable_external_file_cache": False,
            }
        )
        self._duckdb.execute("SET max_streaming_buffer_size = '1MB'")  # before rows leave it
        self._staged("messages").project("* EXCLUDE (text), seq AS text_seq").create_view("staged")
        self._staged("names").create_view("names")
        self._staged("rejected").create_view("rejected")
        self._duckdb.register("owners", pl.DataFrame({"author_id": owners}).to_arrow())

    def _staged(self, kind: str) -> duckdb.DuckDBPyRelation:
        return self._duckdb.read_parquet(str(self._folder / f"{kind}-*.parquet"))

    def decide(self) -> pl.DataFrame:
        """Merge copies and choose what is dropped: columns part, reason, n."""
        self._duckdb.execute(_PLACES)
        self._duckdb.execute(_COPIES)
        self._duckdb.execute(_CONVERSATIONS)
        self._duckdb.execute(_EMPTY_AND_DUPLICATES)
        counts = self._duckdb.sql("SELECT part, reason, count(*) AS n FROM dropped GROUP BY ALL ORDER BY ALL")
        return pl.DataFrame(counts.to_arrow_table())

    def write_participants(self, path: Path) -> int:
        """The rows of PARTICIPANTS in the threads of messages that are kept, by primary key; returns how many."""
        self._duckdb.execute(_KEPT)
        return write_sorted(self._stream(_PARTICIPANTS), path, PARTICIPANTS.schema)

    def write_rejected(self, path: Path) -> int:
        """The rows of REJECTED_RECORDS by primary key; returns how many."""
        return write_sorted(self._stream(_REJECTED), path, REJECTED_RECORDS.schema)

    def messages(self) -> Placed:
        """The rows of MESSAGES, to be written by thread, time and id; the last that can be asked of this: it is closed.

        In memory are 4 bytes a message: its place in that order.
        """
        (staged,) = self._duckdb.sql("SELECT count(*) FROM staged").fetchall()[0]
        places = np.full(staged, -1, np.int32)
        elsewhere: list[np.ndarray] = []  # pairs of a message and the one whose text it has
        groups = row_group_places(self._in_order(places, elsewhere))
        placed = Placed(groups, MESSAGES.schema, self._folder)
        placed.put(_placed(self._stream(_MESSAGES), places), [name for name in MESSAGES.schema if name != "text"])
        self.close()  # whose memory the texts need
        for message, of_text in elsewhere:
            places[of_text], places[message] = places[message], -1
        placed.put(_placed(self._texts(), places), ["text"])
        return placed

    def _in_order(self, places: np.ndarray, elsewhere: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Bytes of each text in the order of the messages, whose place is set in `places` by their seq."""
        kept = 0
        for batch in self._stream(_ORDER):
            message, of_text = to_numpy(batch["seq"]), to_numpy(batch["text_seq"])
            places[message] = np.arange(kept, kept + batch.num_rows)
            kept += batch.num_rows
            if (differs := message != of_text).any():
                elsewhere.append(np.stack([message[differs], of_text[differs]]))
            yield to_numpy(batch["n_bytes"])

    def _texts(self) -> Iterator[pa.RecordBatch]:
        """Number and text of all that is staged."""
        for file in sorted(self._folder.glob("messages-*.parquet")):
            with pq.ParquetFile(file, pre_buffer=False) as part:
                for number in range(part.num_row_groups):
                    yield from part.iter_batches(1_024, [number], ["seq", "text"], use_threads=False)

    def _stream(self, query: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._duckdb.sql(query).to_arrow_reader(_BATCH)
        except OSError as error:  # which Arrow makes of what DuckDB raises after the first rows
            raise TooLittleMemory(str(error)) if "Out of Memory Error" in str(error) else error from None

    def close(self) -> None:
        """Free memory and spill files."""
        self._duckdb.close()


def _placed(batches: Iterable[pa.RecordBatch], places: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows that have a place, with it."""
    for batch in batches:
        place = places[to_numpy(batch["seq"])]
        placed = batch.append_column(PLACE, to_arrow(place))
        yield placed if place.min(initial=0) >= 0 else placed.filter(to_arrow(place >= 0))
