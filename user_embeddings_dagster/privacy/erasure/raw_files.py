"""A person's records in raw exports: found by the readers that read them, and cut out of the files.

An export that the person contributed is withdrawn whole. Of what others contributed (a dump, a chat), the person's
records are cut out and their names replaced in the others' records, which otherwise keep their bytes.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import zipfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl
import zstandard

from user_embeddings_dagster.exports import dfusion, json_source, telegram
from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.json_repair import repair
from user_embeddings_dagster.exports.landing import GRANTS, LINKS, export_paths, foreign_links, stands
from user_embeddings_dagster.exports.lines import chunks, compression
from user_embeddings_dagster.exports.minimisation import known_fields
from user_embeddings_dagster.exports.opening import sealed_reader
from user_embeddings_dagster.exports.reader import Batch, RawFile, raw_file
from user_embeddings_dagster.exports.reddit import data_request
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.consent.grants import persons
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.documents import FIELDS, Cut
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.privacy.sealed import SealedWriter
from user_embeddings_dagster.privacy.sealed_format import NotOurs, Shredded, is_sealed, owner_of
from user_embeddings_dagster.storage.durability import sync, writing

# What compresses into a stream that stays open.
_COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    "zstd": lambda target: zstandard.open(target, "wb"),
    "gzip": lambda target: gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0),
    "bz2": lambda target: bz2.BZ2File(target, "wb"),
    "xz": partial(lzma.LZMAFile, mode="wb"),
    "none": nullcontext,
}
# Of a document: the key of its arrays of messages, and which members of a zip are documents.
_DOCUMENTS = {"telegram_desktop": ("messages", telegram.MEMBER), "telegram_dfusion": ("contents", dfusion.MEMBER)}
# Which members of a zip are documents, and where these name accounts, also of people who wrote nothing there.
_ACCOUNT = re.compile(rb'(?:user|from|actor)_id"\s*:\s*"?(?:user)?(\d{1,19})(?=\D)')
_ACCOUNTS = {"telegram_desktop": (telegram.MEMBER, _ACCOUNT)}
_BLOCK, _LONGEST_KEY = 1 << 20, 80
_LINES = ("pushshift",)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")


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


def search(folder: Path, key: bytes, users: Container[str], keys: ContributorKeys | None = None) -> Iterator[Found]:
    """Every raw file of a DataDAO's landing folder that holds something of the person, or that no reader knows.

    `keys` open sealed files. Files of their data request that hold no message are theirs too, and told last. Raises as
    exports.opening does.
    """
    links = contributor_links(folder / LINKS)
    requests, silent = set[str](), list[RawFile]()
    foreign = set(foreign_links(folder))
    for path in export_paths(folder):
        if path in foreign:
            continue
        theirs = keys is not None and _sealed_for(path, keys) in users
        try:
            file = raw_file(folder, path, keys)
        except Shredded:
            if theirs:
                yield Found(RawFile(path, "", ""), own=True)
            continue
        format = detect(file)
        if format is None:
            yield Found(file, known=theirs, own=theirs)
            continue
        found, request = Found(file, format.name), data_request(file.name)
        is_person = partial(_is_of, users, key, format.platform, links)
        for batch in format.read(file):
            _search_batch(found, batch, is_person)
        if format.name in _ACCOUNTS:
            found.accounts.update(filter(is_person, _accounts(file, *_ACCOUNTS[format.name])))
        found.own = (found.own or theirs) and not format.is_public
        if found.records or found.accounts or found.own:
            requests |= {request} if found.own and request is not None else set()
            yield found
        elif request is not None:
            silent.append(file)
    yield from (Found(file, "", own=True) for file in silent if data_request(file.name) in requests)


def _is_of(users: Container[str], key: bytes, platform: str, links: dict[str, str], account: str) -> bool:
    return user_id(key, platform, account, links) in users


def _accounts(file: RawFile, member: re.Pattern[str], account: re.Pattern[bytes]) -> set[str]:
    """Accounts that a document names wherever it does: in lists of contacts, beside forwarded words and reactions."""
    numbers = set[bytes]()
    for document in json_source.documents(file, member):
        tail = b""
        while isinstance(document, json_source.Document) and (block := document.read(_BLOCK)):
            numbers.update(account.findall(tail + block))
            tail = (tail + block)[-_LONGEST_KEY:]
    return {f"user{number.decode()}" for number in numbers}


def _sealed_for(path: Path, keys: ContributorKeys) -> str:
    """Whose key a raw file is sealed under; "" if it is not, or not by this platform."""
    try:
        return owner_of(path, keys) if is_sealed(path) else ""
    except NotOurs:
        return ""


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
    accounts = {(account, "native_id") for account in found.accounts}
    redaction = Redaction(names | accounts, known_fields(found.format) | FIELDS)
    cut = _cut_lines if found.format in _LINES else _cut_documents
    try:
        with _rewritten(found.file) as target:
            cut(found, redaction, target)
    except (KeyError, ValueError, RecursionError):  # ValueError: what is no JSON, also in a damaged archive
        found.file.path.unlink()
        return False
    return True


@contextmanager
def _rewritten(file: RawFile) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of the file's when it ends well; sealed again if the file was."""
    target = file.path.resolve()
    if is_sealed(target) and file.keys is not None:
        with sealed_reader(target, file.keys) as reader:
            owner, name = reader.owner, reader.name
        with SealedWriter(target, file.keys, owner, name) as writer:
            yield cast(BinaryIO, writer)
            writer.commit()
        return
    temporary = target.with_name(f".{target.name}.erasing")
    try:
        with temporary.open("wb") as stream:
            yield stream
        sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync(target.parent)


def _cut_lines(found: Found, redaction: Redaction, target: BinaryIO) -> None:
    """Blank lines in place of the person's keep the others' line numbers."""
    gone = found.records.get("", set())
    with found.file.open() as stream:
        compressed = _COMPRESSED[compression(stream.read(8))]
    with compressed(target) as stream:
        for chunk in chunks(found.file):
            lines = chunk.content().removesuffix(b"\n").split(b"\n") if chunk.size else []
            for number, line in enumerate(lines, chunk.first_line):
                stream.write((b"" if number in gone else _redacted_line(line, redaction)) + b"\n")


def _redacted_line(line: bytes, redaction: Redaction) -> bytes:
    """Its values decide, never the line as it stands: there `\\nalice` is no name."""
    text = line.decode("utf-8-sig", "replace")  # a dump may begin with a mark of its encoding
    try:
        record = json.loads(text, object_pairs_hook=_object)
        redacted = redaction.value(record)
    except (ValueError, RecursionError):
        text = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else " ", text)
        return b"" if redaction.text(text) != text else line
    return line if redacted == record else json.dumps(redacted).encode()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):  # of a key that stands twice one value would not be looked at
        raise ValueError("a key stands twice")
    return members


def _cut_documents(found: Found, redaction: Redaction, target: BinaryIO) -> None:
    key, wanted = _DOCUMENTS[found.format]
    zipped = json_source.is_zip(found.file)
    written: list[tuple[str, bytes]] = []
    for document in json_source.documents(found.file, wanted):
        if isinstance(document, json_source.Document):
            content = json.loads(repair(document.read()))
            cut = Cut(key, found.records.get(document.member, set()), found.accounts, redaction).value(content)
            written.append((document.member, json.dumps(cut, ensure_ascii=False, indent=1).encode()))
    if not zipped:
        target.write(written[0][1])
        return
    zipped_again = io.BytesIO()  # the same bytes whatever they are written into
    # Members that no reader reads (pictures, voices, contacts) cannot be told apart by person: they are left out.
    with zipfile.ZipFile(zipped_again, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in written:
            archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)
    target.write(zipped_again.getbuffer())


def cut_links(path: Path, contributors: set[str]) -> int:
    """Remove these contributors' rows from a contributors.csv; how many."""
    return _cut_rows(path, lambda row: row.get("contributor", "").strip() in contributors)


class UnreadableGrants(ValueError):
    """A consent.csv that has no rows."""


def cut_grants(folder: Path, key: bytes, users: frozenset[str]) -> int:
    """Remove the rows of these user_ids from a DataDAO's consent.csv; how many.

    Raises UnreadableGrants, and ValueError where contributors.csv cannot be read.
    """
    links = contributor_links(folder / LINKS)

    def theirs(row: dict[str, str]) -> bool:
        try:
            return not users.isdisjoint(persons(key, links, row))
        except ValueError:
            return False

    try:
        return _cut_rows(folder / GRANTS, theirs)
    except (UnicodeDecodeError, csv.Error):
        raise UnreadableGrants(f"{folder.name}/{GRANTS}: not a CSV file") from None


def _cut_rows(path: Path, gone: Callable[[dict[str, str]], bool]) -> int:
    """Without the rows that are `gone`; the others keep their bytes, also those that cannot be read."""
    if not stands(path):
        return 0
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = list(stream)
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    kept, start, removed = lines[: reader.line_num], reader.line_num, 0
    for cells in reader:
        if gone(dict(zip(header, cells, strict=False))):
            removed += 1
        else:
            kept += lines[start : reader.line_num]
        start = reader.line_num
    if not removed:
        return 0
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.erasing")
    with writing(target.name, target):
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(kept)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
        sync(target.parent)
    return removed
