"""Reddit data requests: a contributor's own posts and comments, as the zip or as its bare CSV files.

The rows carry no parent's text: `build` hydrates their threads from public dumps where there are any. The owner
is the `account name` of statistics.csv; without that file it is the name in `export_<name>_<date>.zip`, or the
zip's stem, or for bare CSV files what precedes `comments.csv` or `posts.csv` in their path (so that both get the
same account).
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import polars as pl

from user_embeddings_dagster.exports.archive import BROKEN, Archive, is_zip
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA, Batch, Format, RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES

COMMENTS, POSTS, STATISTICS = "comments.csv", "posts.csv", "statistics.csv"
NEEDED = {
    COMMENTS: ("id", "permalink", "date", "subreddit", "link", "parent", "body"),
    POSTS: ("id", "permalink", "date", "subreddit", "title", "body"),
}
# Data minimisation: files of the archive that are never opened. Of the two above, other columns are not read.
UNREAD_FILES = (
    "account_gender.csv", "approved_submitter_subreddits.csv", "birthdate.csv", "chat_history.csv",
    "checkfile.csv", "comment_headers.csv", "comment_votes.csv", "drafts.csv", "friends.csv", "gilded_content.csv",
    "gold_received.csv", "hidden_posts.csv", "ip_logs.csv", "linked_identities.csv", "linked_phone_number.csv",
    "message_headers.csv", "messages.csv", "moderated_subreddits.csv", "multireddits.csv", "payouts.csv",
    "persona.csv", "poll_votes.csv", "post_headers.csv", "post_votes.csv", "purchases.csv", "saved_comments.csv",
    "saved_posts.csv", "scheduled_posts.csv", "sensitive_ads_preferences.csv", "stripe.csv",
    "subscribed_subreddits.csv", "twitter.csv", "user_preferences.csv",
)  # fmt: skip
BATCH_ROWS = 10_000
_MAX_FIELD = 1 << 20  # characters; Reddit allows 40,000 in a post
_MAX_LINE = 4 << 20  # characters
_BATCH_CHARACTERS = 16 << 20

_COLUMNS = ("id", "permalink", "date", "subreddit", "link", "parent", "title", "body")


def _lines(stream: io.TextIOBase) -> Iterator[str]:
    """Lines for csv.reader; one of over _MAX_LINE characters is never held, and becomes a field that it refuses."""
    while line := stream.readline(_MAX_LINE):
        if len(line) == _MAX_LINE and line[-1] not in "\r\n":
            while (line := stream.readline(_MAX_LINE)) and line[-1] not in "\r\n":
                continue
            line = "x" * (_MAX_FIELD + 1)
        yield line


def _rows(stream: io.TextIOBase, kind: str, member: str) -> Iterator[list[str] | Rejected]:
    """Rows of a CSV file as [location, *_COLUMNS], bad ones as rejected; location is the row's first line."""
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(_lines(stream))
    line = 1
    try:
        header = next(reader, [])
        missing = [name for name in NEEDED[kind] if name not in header]
        if missing:
            yield Rejected(member, 1, "missing_field", f"columns not in the header: {missing}")
            return
        places = [header.index(name) if name in header else None for name in _COLUMNS]
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:  # what follows is read as the next row
                yield Rejected(member, line, "malformed_csv", f"a field of over {_MAX_FIELD} characters, or bad quotes")
                continue
            if len(row) == len(header):
                yield [str(line), *("" if place is None else row[place] for place in places)]
            elif row:
                yield Rejected(member, line, "wrong_number_of_fields", f"{len(row)} instead of {len(header)}")
    except (csv.Error, *BROKEN) as broken:
        yield Rejected(member, line, "truncated", f"the rest cannot be read ({type(broken).__name__})")


def _parts(rows: Iterable[list[str] | Rejected]) -> Iterator[list[list[str] | Rejected]]:
    """Rows in lists of at most BATCH_ROWS, and of not many more than _BATCH_CHARACTERS."""
    part, characters = [], 0
    for row in rows:
        part.append(row)
        characters += sum(map(len, row)) if isinstance(row, list) else 0
        if len(part) >= BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _full_id(prefix: str, column: str) -> pl.Expr:
    bare = pl.col(column)
    return pl.when(bare.str.contains("^t[0-9]_")).then(bare).otherwise(pl.lit(prefix) + bare)


def _written() -> pl.Expr:
    stripped = pl.col("date").str.strip_suffix(" UTC")
    return stripped.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us", time_zone="UTC")


def _native(frame: pl.DataFrame, kind: str, account: str, file: RawFile, member: str) -> pl.DataFrame:
    """NATIVE_MESSAGES of CSV rows."""
    link = pl.coalesce(pl.col("link", "permalink").str.extract(r"/comments/([0-9a-z]+)"))
    body = pl.col("body").replace(["[deleted]", "[removed]"], ["", ""])
    if kind == POSTS:
        thread, native_id, parent = _full_id("t3_", "id"), _full_id("t3_", "id"), pl.lit(None, pl.String)
        text = pl.when(body == "").then(pl.col("title")).otherwise(pl.col("title") + "\n\n" + body)
    else:
        thread, native_id, text = pl.lit("t3_") + link, _full_id("t1_", "id"), body
        # An empty parent, or the link's own bare id, is a reply to the submission.
        to_link = (pl.col("parent") == "") | (pl.col("parent") == link)
        parent = pl.when(to_link).then(pl.lit("t3_") + link).otherwise(_full_id("t1_", "parent"))
    return frame.select(
        native_thread=thread,
        native_id=native_id,
        numbering=pl.lit(None, pl.String),
        native_parent=parent,
        native_author=pl.lit(account),
        author_name=pl.lit(account),
        role=pl.lit("user"),
        created_at=_written(),
        edited_at=pl.lit(None, pl.Datetime("us", "UTC")),
        text=text,
        media_kind=pl.lit(None, pl.String),
        community=pl.when(pl.col("subreddit").str.starts_with("u_").not_()).then("subreddit"),
        thread_shape=pl.lit("tree"),
        is_owner=pl.lit(True),
        is_public=pl.lit(False),
        raw_sha256=pl.lit(file.sha256),
        raw_member=pl.lit(member),
        raw_location=pl.col("location").cast(pl.Int64),
    )  # fmt: skip


def _batches(stream: io.TextIOBase, kind: str, account: str, file: RawFile, member: str) -> Iterator[Batch]:
    for part in _parts(_rows(stream, kind, member)):
        rejected = [row for row in part if isinstance(row, Rejected)]
        frame = pl.DataFrame(
            [row for row in part if not isinstance(row, Rejected)],
            schema=dict.fromkeys(("location", *_COLUMNS), pl.String),
            orient="row",
        )
        messages = _native(frame.filter(pl.col("id") != ""), kind, account, file, member)
        unplaced = messages.filter(pl.col("native_thread").is_null())["raw_location"]
        empty = frame.filter(pl.col("id") == "")["location"].cast(pl.Int64)
        rejected += [Rejected(member, at, "missing_field", "no id of the link") for at in unplaced]
        rejected += [Rejected(member, at, "missing_field", "no id") for at in empty]
        messages = NATIVE_MESSAGES.conform(messages.filter(pl.col("native_thread").is_not_null()))
        names = messages.select("native_thread").unique(maintain_order=True)
        names = names.select(
            "native_thread", native_author=pl.lit(account), name=pl.lit(account), name_kind=pl.lit("handle")
        )
        yield Batch(messages, names.cast(pl.Schema(NAMES_SCHEMA)), tuple(rejected))


def _text(stream) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")


def _account_in(stream: io.TextIOBase) -> str | None:
    """The account name in statistics.csv, if it can be read there."""
    try:
        for row in csv.reader(_lines(stream)):
            if len(row) >= 2 and row[0].strip().lower() == "account name" and row[1].strip():
                return row[1].strip()
    except (csv.Error, *BROKEN):
        return None
    return None


def read_zip(file: RawFile) -> Iterator[Batch]:
    """Messages of a data-request zip, 10,000 rows a batch. Locations are 1-based lines of the member."""
    try:
        archive = Archive(file)
    except BROKEN as broken:
        yield Batch(rejected=(Rejected("", 0, "broken_archive", type(broken).__name__),))
        return
    size = file.size
    with archive:
        account = re.sub(r"^export_(.+)_\d{6,8}$", r"\1", PurePosixPath(file.name).stem)
        for member in archive.named(STATISTICS):
            try:
                with archive.open(member) as stream:
                    account = _account_in(_text(stream)) or account
            except BROKEN as broken:
                yield Batch(rejected=(Rejected(member.name, 0, "broken_member", type(broken).__name__),))
        taken = 0
        for member in archive.named(COMMENTS, POSTS):
            kind = PurePosixPath(member.name).name
            try:
                with archive.open(member) as stream:
                    yield from _batches(_text(stream), kind, account, file, member.name)
            except BROKEN as broken:
                lost = Rejected(member.name, 0, "broken_member", type(broken).__name__)
                yield Batch(rejected=(lost,))
            taken += member.compressed
            yield Batch(bytes_read=member.compressed)
        yield Batch(rejected=archive.rejected, bytes_read=size - taken)


def _kind(file: RawFile) -> str | None:
    """comments.csv or posts.csv if the path ends so and the header has Reddit's columns."""
    name = PurePosixPath(file.name).name.lower()
    kind = COMMENTS if name.endswith(COMMENTS) else POSTS if name.endswith(POSTS) else None
    if kind:
        with file.open("rb") as stream:
            header = stream.readline(4096).decode("utf-8-sig", "replace").strip().split(",")
        if set(NEEDED[kind]) <= set(header):
            return kind
    return None


def read_csv(file: RawFile) -> Iterator[Batch]:
    """Messages of one bare CSV file of a data request."""
    kind = _kind(file)
    if kind is None:
        yield Batch(rejected=(Rejected("", 1, "missing_field", "no header of a Reddit data request"),))
        return
    account = file.name[: -len(kind)].rstrip("./_- ") or "unnamed"
    if statistics := file.beside(kind, STATISTICS):
        with statistics.open("rb") as stream:
            account = _account_in(_text(stream)) or account
    with file.open("rb") as raw:
        yield from _batches(_text(raw), kind, account, file, "")
    yield Batch(bytes_read=file.size)


def data_request(name: str) -> str | None:
    """What the names of one data request's bare files begin with; None if the name is not that of such a file."""
    endings = [ending for ending in (*NEEDED, STATISTICS, *UNREAD_FILES) if name.lower().endswith(ending)]
    return name[: -max(map(len, endings))] if endings else None


def read_nothing(file: RawFile) -> Iterator[Batch]:
    """A file of a data request that is never opened, or that only names the account."""
    yield Batch(bytes_read=file.size)


def matches_zip(file: RawFile) -> bool:
    """A zip with comments.csv or posts.csv."""
    if not is_zip(file):
        return False
    try:
        with Archive(file) as archive:
            return bool(archive.named(COMMENTS, POSTS))
    except BROKEN:
        return False


def matches_unread(file: RawFile) -> bool:
    """A bare file of a data request from which no message comes."""
    return PurePosixPath(file.name).name.lower().endswith((STATISTICS, *UNREAD_FILES))


FORMATS = (
    Format("reddit_request_zip", "reddit", matches_zip, read_zip),
    Format("reddit_request_csv", "reddit", lambda file: _kind(file) is not None, read_csv),
    Format("reddit_request_unread", "reddit", matches_unread, read_nothing),
)
