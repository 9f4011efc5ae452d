"""A person's records in raw exports: found by the readers that read them, and cut out of the files.

An export that the person contributed is withdrawn whole. Of what others contributed (a dump, a chat), the person's
records are cut out and their names replaced in the others' records, which otherwise keep their bytes.
"""

import bz2
import csv
import gzip
import json
import lzma
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

from user_embeddings_dagster.exports import dfusion, json_source, telegram
from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.json_array import repair
from user_embeddings_dagster.exports.landing import LINKS, raw_paths
from user_embeddings_dagster.exports.lines import chunks, compression
from user_embeddings_dagster.exports.reader import Batch, RawFile
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.keys import file_sha256, user_id
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.storage.lake import sync

_OPEN: dict[str, Callable[..., Any]] = {
    "zstd": zstandard.open, "gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, "none": open
}  # fmt: skip
# Of a document: the key of its arrays of messages, and which members of a zip are documents.
_DOCUMENTS = {"telegram_desktop": ("messages", telegram.MEMBER), "telegram_dfusion": ("contents", dfusion.MEMBER)}
_LINES = ("pushshift",)


@dataclass
class Found:
    """What one raw file holds of a person: records by archive member, names (name, kind), accounts.

    `own`: they contributed it. `known`: a reader knows the file.
    """

    file: RawFile
    format: str = ""
    own: bool = False
    known: bool = True
    records: dict[str, set[int]] = field(default_factory=dict)
    names: set[tuple[str, str]] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)

    @property
    def n_records(self) -> int:
        """Records of the person."""
        return sum(map(len, self.records.values()))


def search(folder: Path, key: bytes, users: frozenset[str]) -> Iterator[Found]:
    """Every raw file of a DataDAO's landing folder that holds something of the person, or that no reader knows."""
    links = contributor_links(folder / LINKS)
    for path in raw_paths(folder):
        if path == folder / LINKS:
            continue
        file = RawFile(path, path.relative_to(folder).as_posix(), file_sha256(path))
        format = detect(file)
        if format is None:
            yield Found(file, known=False)
            continue
        found = Found(file, format.name)
        for batch in format.read(file):
            _search_batch(found, batch, lambda account, on=format.platform: user_id(key, on, account, links) in users)
        found.own &= not format.is_public
        if found.records or found.names:
            yield found


def _search_batch(found: Found, batch: Batch, is_person: Callable[[str], bool]) -> None:
    accounts = pl.concat([batch.messages["native_author"], batch.names["native_author"]]).drop_nulls().unique()
    mine = pl.Series([account for account in accounts if is_person(account.casefold())], dtype=pl.String)
    theirs = pl.col("native_author").is_in(mine.implode())
    rows = batch.messages.filter(theirs).select("raw_member", "raw_location", "is_owner")
    for member, location, is_owner in rows.iter_rows():
        found.records.setdefault(member, set()).add(location)
        found.own |= is_owner
    found.names.update(batch.names.filter(theirs).select("name", "name_kind").iter_rows())
    found.accounts.update(mine)


def cut_out(found: Found, names: set[tuple[str, str]]) -> bool:
    """Rewrite a file that others contributed without the person's records and `names`.

    False if it was removed, because it cannot be rewritten: it is damaged, or of a format that has one author.
    """
    redaction = Redaction(names | {(account, "native_id") for account in found.accounts})
    target = found.file.path.resolve()
    temporary = target.with_name(f".{target.name}.erasing")
    try:
        if found.format in _LINES:
            _cut_lines(found, redaction, temporary)
        else:
            _cut_documents(found, redaction, temporary)
    except (KeyError, ValueError, RecursionError):  # ValueError: what is no JSON, also in a damaged archive
        temporary.unlink(missing_ok=True)
        found.file.path.unlink()
        return False
    sync(temporary)
    temporary.replace(target)
    sync(target.parent)
    return True


def _cut_lines(found: Found, redaction: Redaction, target: Path) -> None:
    """Blank lines in place of the person's keep the others' line numbers."""
    gone = found.records.get("", set())
    with found.file.path.open("rb") as stream:
        opened = _OPEN[compression(stream.read(8))]
    with opened(target, "wb") as stream:
        for chunk in chunks(found.file.path):
            lines = chunk.content().removesuffix(b"\n").split(b"\n") if chunk.size else []
            for number, line in enumerate(lines, chunk.first_line):
                stream.write((b"" if number in gone else _redacted_line(line, redaction)) + b"\n")


def _redacted_line(line: bytes, redaction: Redaction) -> bytes:
    text = line.decode("utf-8", "replace")
    if redaction.text(text) == text and "\\u" not in text:
        return line
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return b"" if redaction.text(text) != text else line
    redacted = redaction.value(record)
    return line if redacted == record else json.dumps(redacted).encode()


def _cut_documents(found: Found, redaction: Redaction, target: Path) -> None:
    key, wanted = _DOCUMENTS[found.format]
    zipped = json_source.is_zip(found.file.path)
    written: list[tuple[str, bytes]] = []
    for document in json_source.documents(found.file, wanted):
        if isinstance(document, json_source.Document):
            content = json.loads(repair(document.read()))
            cut = _Cut(key, found.records.get(document.member, set()), found.accounts, redaction).value(content)
            written.append((document.member, json.dumps(cut, ensure_ascii=False, indent=1).encode()))
    if not zipped:
        target.write_bytes(written[0][1])
        return
    # Members that no reader reads (pictures, voices, contacts) cannot be told apart by person: they are left out.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in written:
            archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)


class _Cut:
    """A JSON document without the messages at some locations, entries of some accounts, and names."""

    def __init__(self, key: str, gone: set[int], accounts: set[str], redaction: Redaction) -> None:
        self._key, self._gone, self._redaction, self._location = key, gone, redaction, 0
        numbers = {account.removeprefix("user") for account in accounts}
        self._accounts = numbers | accounts

    def value(self, value: Any, in_message: bool = False) -> Any:
        """The value without them; messages are counted in document order, as readers do."""
        if isinstance(value, list):
            return [self.value(item, in_message) for item in value if not self._is_of_person(item)]
        if not isinstance(value, dict):
            return self._redaction.value(value)
        return {
            name: self._messages(item)
            if name == self._key and isinstance(item, list) and not in_message
            else self.value(item, in_message)
            for name, item in value.items()
        }

    def _messages(self, messages: list[Any]) -> list[Any]:
        first, self._location = self._location, self._location + len(messages)
        numbered = enumerate(messages, first)
        return [self.value(message, in_message=True) for place, message in numbered if place not in self._gone]

    def _is_of_person(self, item: Any) -> bool:
        return isinstance(item, dict) and str(item.get("user_id") or "") in self._accounts


def cut_links(path: Path, contributors: set[str]) -> int:
    """Remove these contributors' rows from a contributors.csv; how many."""
    if not path.is_file():
        return 0
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        header, rows = list(reader.fieldnames or ()), list(reader)
    kept = [row for row in rows if (row.get("contributor") or "").strip() not in contributors]
    if len(kept) == len(rows):
        return 0
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.erasing")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(target)
    return len(rows) - len(kept)
