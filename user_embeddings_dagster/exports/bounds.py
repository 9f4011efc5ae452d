"""What one raw file may ask of the platform: lengths of texts, ids and names, and how much of it may be broken.

No platform's own limits come near these: a comment has 40,000 characters at most, a Telegram message 4,096.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace

import polars as pl

from user_embeddings_dagster.exports.reader import Batch, Rejected

MAX_TEXT = 1 << 20  # bytes of UTF-8
MAX_FIELD = 4096  # bytes of an id or a name
MAX_REJECTED = 20_000  # records of one file, and more than were read from it: the rest is given up

_NAMES = ("native_thread", "native_author", "name")
_FIELDS = (
    "native_thread", "native_id", "numbering", "native_parent", "native_author", "author_name", "community",
    "raw_member",
)  # fmt: skip


def bounded(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The batches of one file, with messages that are too long rejected where they stand.

    Ends early, with `too_many_rejected` at the last place, where most of the file cannot be read: a table of a
    billion rejected lines tells nobody more, and a flood of them must not hold up the exports beside it.
    """
    n_read = n_rejected = 0
    passed = 0  # bytes of batches that hold nothing, of which a hostile archive has thousands
    for batch in batches:
        if not (batch.messages.height or batch.names.height or batch.rejected or batch.skipped):
            passed += batch.bytes_read
            continue
        within = replace(_within(batch), bytes_read=batch.bytes_read + passed)
        passed = 0
        n_read += within.messages.height
        n_rejected += len(within.rejected)
        if n_rejected > max(MAX_REJECTED, n_read):
            last = within.rejected[-1]
            given_up = Rejected(last.member, last.location + 1, "too_many_rejected", f"{n_read} messages were read")
            yield replace(within, rejected=(*within.rejected, given_up))
            return
        yield within


def _within(batch: Batch) -> Batch:
    """The batch without messages and names that are too long."""
    if _longest(batch.messages, "text") <= MAX_TEXT and not any(
        _longest(frame, *names) > MAX_FIELD for frame, names in ((batch.messages, _FIELDS), (batch.names, _NAMES))
    ):
        return batch
    n_text = pl.col("text").str.len_bytes()
    n_field = pl.max_horizontal(pl.col(name).str.len_bytes() for name in _FIELDS)
    long = (n_text > MAX_TEXT) | (n_field > MAX_FIELD)
    found = batch.messages.filter(long).select("raw_member", "raw_location", n_text.alias("n_text"), n_field.alias("n"))
    name_length = pl.max_horizontal(pl.col(name).str.len_bytes() for name in _NAMES)
    names = batch.names.filter(name_length <= MAX_FIELD)
    rejected = tuple(
        Rejected(member[:MAX_FIELD], location, "too_long", f"a text of {n_text} bytes, or a field of {n_field}")
        for member, location, n_text, n_field in found.iter_rows()
    )
    return replace(batch, messages=batch.messages.filter(~long), names=names, rejected=(*batch.rejected, *rejected))


def _longest(frame: pl.DataFrame, *columns: str) -> int:
    """Bytes of the longest value in the columns: a pass over each, much cheaper than lengths row by row."""
    longest = frame.select(pl.col(columns).str.len_bytes().max()).row(0)
    return max((length for length in longest if length is not None), default=0)
