"""Pushshift and arctic_shift dumps: Reddit comments and submissions as (compressed) NDJSON, every schema era.

DuckDB parses chunks of whole lines into the named columns (Pushshift, Baumgartner et al. 2020, ICWSM, section
"Data": one object per line). A line it cannot use is read again alone by the strict decoder of the standard
library, which either reads it or says where and why not: no bad line costs its neighbours anything.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import duckdb
import polars as pl

from user_embeddings_dagster.exports.lines import Chunk, chunks, is_json, peek
from user_embeddings_dagster.exports.reader import BATCH_REJECTED, Batch, Format, RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES

_MAX_OBJECT = 1 << 20  # bytes of a line for DuckDB, which reads in buffers of twice that
# Lines of a chunk beyond which they are too short (160 bytes) to be messages, and DuckDB's frame of them too long.
_MOST_LINES = 100_000
_NOT_BLANK = re.compile(rb"\S")
_REMOVED = "('[deleted]', '[removed]')"


@dataclass(frozen=True)
class _Kind:
    """Comment or submission: the keys that are read (all others are skipped) and what becomes of them.

    Ids come bare or with their type prefix; parent_id is a base-10 number from 2021 on, null for a reply to
    the submission; times are int, string or float seconds; a profile (u_name) is named like its person.
    """

    keys: tuple[str, ...]
    select: str

    def query(self, source: str) -> str:
        """SQL over `source`, which has the keys as columns: created_utc DOUBLE, all others VARCHAR."""
        return f"""
            SELECT {self.select},
                IF(author IN {_REMOVED} OR author = '', NULL, author) AS native_author,
                created_utc AS created_at,
                TRY_CAST(edited AS DOUBLE) AS edited_at,
                IF(starts_with(subreddit, 'u_'), NULL, subreddit) AS community
            FROM {source}
        """

    def types(self) -> dict[str, pl.DataType]:
        """Polars types of the keys."""
        return {key: pl.Float64() if key == "created_utc" else pl.String() for key in self.keys}


_COMMON = ("id", "author", "created_utc", "edited", "subreddit")
COMMENT = _Kind(
    (*_COMMON, "link_id", "parent_id", "body"),
    f"""IF(starts_with(link_id, 't3_'), link_id, 't3_' || link_id) AS native_thread,
        IF(starts_with(id, 't1_'), id, 't1_' || id) AS native_id,
        CASE WHEN parent_id[3] = '_' THEN parent_id
             WHEN parent_id IS NULL OR parent_id = '' THEN native_thread
             WHEN TRY_CAST(parent_id AS BIGINT) >= 0 THEN 't1_' || lower(to_base(parent_id::BIGINT, 36))
             ELSE 't1_' || parent_id END AS native_parent,
        IF(body IN {_REMOVED}, '', body) AS text,
        NULL::VARCHAR AS media_kind""",
)
SUBMISSION = _Kind(
    (*_COMMON, "title", "selftext", "is_video", "post_hint"),
    f"""IF(starts_with(id, 't3_'), id, 't3_' || id) AS native_thread,
        native_thread AS native_id,
        NULL::VARCHAR AS native_parent,
        CASE WHEN selftext IS NULL OR selftext = '' OR selftext IN {_REMOVED} THEN title
             ELSE title || chr(10) || chr(10) || selftext END AS text,
        CASE WHEN is_video = 'true' THEN 'video' WHEN post_hint = 'image' THEN 'photo' END AS media_kind""",
)
_MAX_SECONDS = 253_402_300_799  # 9999-12-31, the last second that datetime can hold
_REQUIRED = ("native_thread", "native_id", "text")
_PARSED = {
    **dict.fromkeys(("native_thread", "native_id", "native_parent", "text", "media_kind", "native_author"), pl.String),
    **dict.fromkeys(("created_at", "edited_at"), pl.Float64),
    "community": pl.String,
}


def connect(threads: int) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that downloads no extension and does not cache the files it reads."""
    return duckdb.connect(
        config={
            "threads": threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,
        }
    )


def _parse(connection: duckdb.DuckDBPyConnection, chunk: Chunk) -> pl.DataFrame:
    """One row per non-blank line, in order; required columns null where DuckDB could not read the line."""
    kind = _kind_of(chunk)
    columns = ", ".join(
        f"{key}: '{'DOUBLE' if dtype == pl.Float64() else 'VARCHAR'}'" for key, dtype in kind.types().items()
    )
    source = f"""read_ndjson(?, columns = {{{columns}}}, compression = 'none',
                             ignore_errors = true, maximum_object_size = {_MAX_OBJECT})"""
    try:
        return pl.DataFrame(connection.sql(kind.query(source), params=[chunk.path]).to_arrow_table())
    except duckdb.Error:  # a line of over _MAX_OBJECT bytes: `_repair` reads the chunk line by line
        return pl.DataFrame(schema=_PARSED)


def _kind_of(chunk: Chunk) -> _Kind:
    """What the chunk's first readable line is; lines of the other kind are read one by one."""
    with open(chunk.path, "rb") as stream:  # noqa: PTH123 (a descriptor, not a path of ours)
        for line in islice(stream, 20):
            record = _strict(line)
            if not isinstance(record, str):
                return record[0]
    return COMMENT


def _strict(line: bytes) -> tuple[_Kind, dict[str, str | float | None]] | str:
    """Kind and wanted keys of one line as DuckDB would give them, or a reason code why there are none."""
    try:
        record = json.loads(line.decode("utf-8-sig"), parse_constant=_no_json)
    except (ValueError, RecursionError):
        return "malformed_json"
    if not isinstance(record, dict):
        return "not_an_object"
    is_comment = record.get("body") is not None and record.get("link_id") is not None
    if record.get("id") is None or not (is_comment or record.get("title") is not None):
        return "missing_field"
    kind = COMMENT if is_comment else SUBMISSION
    values: dict[str, str | float | None] = {key: _as_text(record.get(key)) for key in kind.keys}
    try:
        values["created_utc"] = float(record["created_utc"])
    except (KeyError, TypeError, ValueError, OverflowError):
        values["created_utc"] = None
    return kind, values


def _no_json(constant: str) -> None:
    raise ValueError  # NaN, Infinity and -Infinity, which the standard library would read


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()  # a lone surrogate is no character: it becomes "?"


def _lines(content: bytes, first: int) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each line that is not blank."""
    number, at = first, 0
    while found := _NOT_BLANK.search(content, at):
        start = content.rfind(b"\n", at, found.start()) + 1 or at
        number += content.count(b"\n", at, start)
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield number, content[start:end]
        number, at = number + 1, end + 1


def _streamed_lines(chunk: Chunk) -> Iterator[tuple[int, bytes]]:
    """As `_lines`, of a chunk that is not copied."""
    number = chunk.first_line
    with open(chunk.path, "rb") as stream:  # noqa: PTH123 (a descriptor, not a path of ours)
        while block := stream.read(1 << 20) + stream.readline():
            yield from _lines(block, number)
            number += block.count(b"\n")


def _repair(
    connection: duckdb.DuckDBPyConnection, chunk: Chunk, parsed: pl.DataFrame
) -> tuple[pl.DataFrame, list[Rejected]]:
    """`parsed` with line numbers, its unread rows read again one by one."""
    numbered = list(_lines(chunk.content(), chunk.first_line))
    if len(numbered) == parsed.height:
        strict = pl.lit(pl.Series([is_json(line) for _, line in numbered], dtype=pl.Boolean))
        usable = pl.all_horizontal(pl.col(_REQUIRED).is_not_null()) & strict
        parsed = parsed.with_columns(raw_location=pl.Series([number for number, _ in numbered], dtype=pl.Int64))
        used = parsed.select(usable.alias("used")).to_series()
        unread = [numbered[row] for row in (~used).arg_true()]
        parsed = parsed.filter(used)
    else:  # DuckDB saw other lines than we do: trust none of its line numbers
        parsed, unread = parsed.clear().with_columns(raw_location=pl.lit(0, pl.Int64)), numbered
    read, rejected = _read_again(connection, unread)
    parsed = pl.concat([parsed, *read], how="vertical_relaxed")
    return parsed.sort("raw_location"), rejected


def _read_again(
    connection: duckdb.DuckDBPyConnection, lines: Iterable[tuple[int, bytes]]
) -> tuple[list[pl.DataFrame], list[Rejected]]:
    """Numbered lines by the strict decoder: a frame as `_parse` gives, with raw_location, for each kind there is."""
    rejected: list[Rejected] = []
    records: dict[_Kind, list[dict]] = {COMMENT: [], SUBMISSION: []}
    for number, line in lines:
        record = _strict(line)
        if isinstance(record, str):
            rejected.append(Rejected("", number, record, f"line of {len(line)} bytes"))
        else:
            records[record[0]].append(record[1] | {"raw_location": number})
    read = []
    for kind, again in records.items():
        if again:
            frame = pl.DataFrame(again, schema={**kind.types(), "raw_location": pl.Int64()})
            connection.register("again", frame.to_arrow())
            rows = pl.DataFrame(connection.sql(kind.query("again")).to_arrow_table())
            read.append(rows.with_columns(frame["raw_location"]))
    return read, rejected


def _batches(connection: duckdb.DuckDBPyConnection, chunk: Chunk, sha256: str) -> Iterator[Batch]:
    if chunk.n_lines > _MOST_LINES:
        lines = _streamed_lines(chunk)
        while part := list(islice(lines, BATCH_REJECTED)):
            read, rejected = _read_again(connection, part)
            yield _batch(pl.concat(read, how="vertical_relaxed") if read else pl.DataFrame(), rejected, 0, sha256)
        yield Batch(rejected=chunk.rejected, bytes_read=chunk.bytes_read)
        return
    parsed, rejected = pl.DataFrame(), []
    if chunk.size:
        parsed = _parse(connection, chunk)
        whole = parsed.height == chunk.n_lines and not sum(parsed[name].null_count() for name in _REQUIRED)
        if whole and chunk.is_json():
            parsed = parsed.with_columns(
                raw_location=pl.int_range(chunk.first_line, chunk.first_line + chunk.n_lines, dtype=pl.Int64)
            )
        else:
            parsed, rejected = _repair(connection, chunk, parsed)
    yield _batch(parsed, (*rejected, *chunk.rejected), chunk.bytes_read, sha256)


def _batch(parsed: pl.DataFrame, rejected: Sequence[Rejected], bytes_read: int, sha256: str) -> Batch:
    if parsed.is_empty():
        return Batch(rejected=tuple(rejected), bytes_read=bytes_read)
    messages = parsed.with_columns(
        _time("created_at"),
        _time("edited_at"),
        numbering=pl.lit(None, pl.String),
        author_name="native_author",
        role=pl.when(pl.col("native_author").is_null()).then(pl.lit("deleted")).otherwise(pl.lit("user")),
        thread_shape=pl.lit("tree"),
        is_owner=pl.lit(False),
        is_public=pl.lit(True),
        raw_sha256=pl.lit(sha256),
        raw_member=pl.lit(""),
    ).select(NATIVE_MESSAGES.schema.names())
    names = messages.select("native_thread", "native_author", name="native_author", name_kind=pl.lit("handle")).filter(
        pl.col("native_author").is_not_null()
    )
    return Batch(messages, names, tuple(rejected), bytes_read)


def _time(column: str) -> pl.Expr:
    """Seconds since 1970 (float) to a time in UTC; null where no calendar has it."""
    seconds = pl.col(column)
    inside = seconds.is_between(0, _MAX_SECONDS)
    return (
        pl.when(inside).then(seconds * 1_000_000).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    ).alias(column)


def read(file: RawFile) -> Iterator[Batch]:
    """Messages of a dump, about 6 MB of JSON a batch; every author may be a subject (`is_public`).

    A line that is not one JSON object with an id and either body and link_id or title is rejected with its
    1-based line number, and so is the point from which the file cannot be decompressed.
    """
    connection = connect(len(os.sched_getaffinity(0)))
    try:
        for chunk in chunks(file):
            yield from _batches(connection, chunk, file.sha256)
    finally:
        connection.close()


def matches(file: RawFile) -> bool:
    """One of the first lines is a JSON object with the keys of a Reddit comment or submission."""
    for line in islice(peek(file).split(b"\n"), 20):
        record = _strict(line)
        if not isinstance(record, str) and record[1]["subreddit"] and record[1]["created_utc"] is not None:
            return True
    return False


FORMATS = (Format("pushshift", "reddit", matches, read, is_public=True),)
