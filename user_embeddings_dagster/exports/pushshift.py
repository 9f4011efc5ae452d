"""Pushshift and arctic_shift dumps: Reddit comments and submissions as (compressed) NDJSON, every schema era.

Polars parses chunks of whole lines into the named columns (Pushshift, Baumgartner et al. 2020, ICWSM, section
"Data": one object per line), as strictly as RFC 8259. A line it cannot use is read again alone by the strict decoder
of the standard library, which either reads it or says where and why not: no bad line costs its neighbours anything.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from user_embeddings_dagster.exports.lines import Chunk, chunks, numbered, peek
from user_embeddings_dagster.exports.reader import BATCH_REJECTED, Batch, Format, RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES

# Lines of a chunk beyond which they are too short (160 bytes) to be messages, and the frame of them too long.
_MOST_LINES = 100_000
_MAX_LINE = 1 << 20  # bytes of a line for Polars, which takes up to 55 times as much for what it skips
_FEW = 32  # lines that are read one by one where one of them cannot be parsed
_REMOVED = ("[deleted]", "[removed]")
_DIGITS = pl.Series(list("0123456789abcdefghijklmnopqrstuvwxyz"))


@dataclass(frozen=True, eq=False)
class _Kind:
    """Comment or submission: the keys that are read (all others are skipped) and what becomes of them.

    Ids come bare or with their type prefix; parent_id is a base-10 number from 2021 on, null for a reply to
    the submission; times are int, string or float seconds; a profile (u_name) is named like its person.
    """

    keys: tuple[str, ...]
    columns: dict[str, pl.Expr]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The keys as they are parsed: numbers and booleans as they are written."""
        return dict.fromkeys(self.keys, pl.String())

    def columns_of(self, parsed: pl.DataFrame) -> pl.DataFrame:
        """The messages' columns of a frame that has the keys."""
        if "parent_id" in parsed.columns:
            parsed = parsed.with_columns(_parents(parsed["parent_id"]))
        return parsed.select(**_COMMON_COLUMNS, **self.columns)


def _prefixed(key: str, prefix: str) -> pl.Expr:
    name = pl.col(key)
    return pl.when(name.str.starts_with(prefix)).then(name).otherwise(prefix + name)


def _parents(parents: pl.Series) -> pl.Series:
    """Base-10 numbers as the names of comments, in base 36; others as they are."""
    numeric = parents.str.contains("^[0-9]{1,18}$")
    if not numeric.any():
        return parents
    number = pl.col("n").cast(pl.Int64, strict=False)
    digits = [pl.lit(_DIGITS).gather(number // 36**place % 36) for place in range(11, -1, -1)]  # 36**12 > 10**18
    name = "t1_" + pl.concat_str(digits).str.strip_chars_start("0")
    named = pl.when(number == 0).then(pl.lit("t1_0")).otherwise(name)
    chosen = pl.when(pl.lit(numeric)).then(named).otherwise("n")
    return parents.to_frame("n").select(chosen.alias(parents.name)).to_series()


def _seconds(key: str) -> pl.Expr:
    """A time, by number or text, in UTC; null where it is none or no calendar has it."""
    seconds = pl.col(key).cast(pl.Float64, strict=False)
    microseconds = pl.when(seconds.is_between(0, _MAX_SECONDS)).then(seconds * 1_000_000)
    return microseconds.cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


_MAX_SECONDS = 253_402_300_799  # 9999-12-31, the last second that datetime can hold
_COMMON = ("id", "author", "created_utc", "edited", "subreddit")
_author, _subreddit, _body, _selftext = map(pl.col, ("author", "subreddit", "body", "selftext"))
_COMMON_COLUMNS = {
    "native_author": pl.when(~_author.is_in([*_REMOVED, ""])).then(_author),
    "created_at": _seconds("created_utc"),
    "edited_at": _seconds("edited"),
    "community": pl.when(~_subreddit.str.starts_with("u_")).then(_subreddit),
}
_thread, _parent = _prefixed("link_id", "t3_"), pl.col("parent_id")
_OF_COMMENTS = ("body", "link_id")  # what has both is one, also with a title
COMMENT = _Kind(
    (*_COMMON, *_OF_COMMENTS, "parent_id"),
    {
        "native_thread": _thread,
        "native_id": _prefixed("id", "t1_"),
        "native_parent": pl.when(_parent.str.slice(2, 1) == "_")
        .then(_parent)
        .when(_parent.is_null() | (_parent == ""))
        .then(_thread)
        .otherwise("t1_" + _parent),
        "text": pl.when(_body.is_in(_REMOVED)).then(pl.lit("")).otherwise(_body),
        "media_kind": pl.lit(None, pl.String),
    },
)
SUBMISSION = _Kind(
    (*_COMMON, "title", "selftext", "is_video", "post_hint", *_OF_COMMENTS),
    {
        "native_thread": _prefixed("id", "t3_"),
        "native_id": _prefixed("id", "t3_"),
        "native_parent": pl.lit(None, pl.String),
        "text": pl.when(_selftext.is_null() | _selftext.is_in([*_REMOVED, ""]))
        .then(pl.col("title"))
        .otherwise(pl.col("title") + "\n\n" + _selftext),
        "media_kind": pl.when(pl.col("is_video") == "true")
        .then(pl.lit("video"))
        .when(pl.col("post_hint") == "image")
        .then(pl.lit("photo")),
    },
)
_REQUIRED = ("native_thread", "native_id", "text")


def _parse(kind: _Kind, content: bytes) -> pl.DataFrame | None:
    """One row per line that is not blank, in order; None if one of them is no JSON object, or over _MAX_LINE.

    In `whole`, whether a row is of the kind, has all that it must have, and no null character: of half a surrogate pair
    Polars makes one, and a text that has one is read again.
    """
    if _longer(content):
        return None
    try:
        parsed = pl.read_ndjson(content, schema=kind.schema)
    except pl.exceptions.PolarsError:
        return None
    nulls = [pl.col(key).str.contains("\0", literal=True).fill_null(False) for key in kind.keys]
    odd = parsed.select(pl.any_horizontal(nulls)).to_series()
    if kind is SUBMISSION:
        odd |= parsed.select(pl.all_horizontal(pl.col(_OF_COMMENTS).is_not_null())).to_series()
    columns = kind.columns_of(parsed)
    return columns.with_columns(whole=pl.all_horizontal(pl.col(_REQUIRED).is_not_null()) & ~odd)


def _longer(content: bytes) -> bool:
    """Whether a line has over _MAX_LINE bytes."""
    at = 0
    while len(content) - at > _MAX_LINE:
        at = content.rfind(b"\n", at, at + _MAX_LINE + 1) + 1 or len(content) + 1
    return at > len(content)


def _kind_of(lines: Iterable[bytes]) -> _Kind:
    """What the first readable line is; lines of the other kind are read one by one."""
    for line in islice(lines, 20):
        record = _strict(line)
        if not isinstance(record, str):
            return record[0]
    return COMMENT


def _strict(line: bytes) -> tuple[_Kind, dict[str, str | None]] | str:
    """Kind and wanted keys of one line as Polars would give them, or a reason code why there are none."""
    try:
        record = json.loads(line.decode("utf-8-sig"), parse_constant=_no_json, object_pairs_hook=_first)
    except (ValueError, RecursionError):
        return "malformed_json"
    if not isinstance(record, dict):
        return "not_an_object"
    is_comment = record.get("body") is not None and record.get("link_id") is not None
    if record.get("id") is None or not (is_comment or record.get("title") is not None):
        return "missing_field"
    kind = COMMENT if is_comment else SUBMISSION
    return kind, {key: _as_text(record.get(key)) for key in kind.keys}


def _first(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(reversed(pairs))  # of a key that stands twice Polars takes the first


def _no_json(constant: str) -> None:
    raise ValueError  # NaN, Infinity and -Infinity, which the standard library would read


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # "45296.0" would be no number of a parent
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # a lone surrogate is no character: it becomes "?"


def _repaired(kind: _Kind, lines: Sequence[tuple[int, bytes]]) -> tuple[list[pl.DataFrame], list[Rejected]]:
    """Frames with raw_location of numbered lines, the unusable among them read again one by one."""
    parsed = _parse(kind, b"\n".join(line for _, line in lines))
    if parsed is None and len(lines) > _FEW:
        middle = len(lines) // 2
        halves = [_repaired(kind, half) for half in (lines[:middle], lines[middle:])]
        return [frame for frames, _ in halves for frame in frames], [r for _, rejected in halves for r in rejected]
    if parsed is None or parsed.height != len(lines):
        return _read_again(lines)
    whole = parsed["whole"]
    used = parsed.with_columns(raw_location=pl.Series([number for number, _ in lines], dtype=pl.Int64)).filter(whole)
    read, rejected = _read_again([lines[row] for row in (~whole).arg_true()])
    return [used, *read], rejected


def _read_again(lines: Iterable[tuple[int, bytes]]) -> tuple[list[pl.DataFrame], list[Rejected]]:
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
            frame = pl.DataFrame(again, schema={**kind.schema, "raw_location": pl.Int64()})
            columns = kind.columns_of(frame)
            read.append(columns.with_columns(whole=pl.lit(True), raw_location=frame["raw_location"]))
    return read, rejected


def _batches(chunk: Chunk, sha256: str) -> Iterator[Batch]:
    if chunk.n_lines > _MOST_LINES:
        lines = chunk.numbered()
        while part := list(islice(lines, BATCH_REJECTED)):
            read, rejected = _read_again(part)
            yield _batch(read, rejected, 0, sha256)
        yield Batch(rejected=chunk.rejected, bytes_read=chunk.bytes_read)
        return
    content, read, rejected = chunk.content(), [], []
    kind = _kind_of(line for _, line in numbered(content, 0))
    parsed = _parse(kind, content) if content else None
    if parsed is not None and parsed.height == chunk.n_lines and parsed["whole"].all():
        numbers = pl.int_range(chunk.first_line, chunk.first_line + chunk.n_lines, dtype=pl.Int64)
        read = [parsed.with_columns(raw_location=numbers)]
    elif content:
        read, rejected = _repaired(kind, list(numbered(content, chunk.first_line)))
    yield _batch(read, (*rejected, *chunk.rejected), chunk.bytes_read, sha256)


def _batch(read: Sequence[pl.DataFrame], rejected: Sequence[Rejected], bytes_read: int, sha256: str) -> Batch:
    if not any(frame.height for frame in read):
        return Batch(rejected=tuple(rejected), bytes_read=bytes_read)
    messages = (
        pl.concat(read)
        .sort("raw_location")
        .with_columns(
            numbering=pl.lit(None, pl.String),
            author_name="native_author",
            role=pl.when(pl.col("native_author").is_null()).then(pl.lit("deleted")).otherwise(pl.lit("user")),
            thread_shape=pl.lit("tree"),
            is_owner=pl.lit(False),
            is_public=pl.lit(True),
            raw_sha256=pl.lit(sha256),
            raw_member=pl.lit(""),
        )
        .select(NATIVE_MESSAGES.schema.names())
    )
    names = messages.select("native_thread", "native_author", name="native_author", name_kind=pl.lit("handle")).filter(
        pl.col("native_author").is_not_null()
    )
    return Batch(messages, names, tuple(rejected), bytes_read)


def read(file: RawFile) -> Iterator[Batch]:
    """Messages of a dump, about 6 MB of JSON a batch; every author may be a subject (`is_public`).

    A line that is not one JSON object with an id and either body and link_id or title is rejected with its
    1-based line number, and so is the point from which the file cannot be decompressed.
    """
    for chunk in chunks(file):
        yield from _batches(chunk, file.sha256)


def matches(file: RawFile) -> bool:
    """One of the first lines is a JSON object with the keys of a Reddit comment or submission."""
    for line in islice(peek(file).split(b"\n"), 20):
        record = _strict(line)
        if not isinstance(record, str) and record[1]["subreddit"] and record[1]["created_utc"] is not None:
            return True
    return False


FORMATS = (Format("pushshift", "reddit", matches, read, is_public=True),)
