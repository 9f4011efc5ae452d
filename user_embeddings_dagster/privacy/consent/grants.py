"""What a DataDAO's landing folder says about consent: grants of single people, and a statement for everybody else.

    consent.csv     grant_id, account (PLATFORM:NAME) or contributor, purposes, granted_at, expires_at, revoked_at
    datadao.json    {"consent": {"basis": "public archive", "purposes": ["train", "evaluate"]}}

What cannot be read consents to nothing. A person with a row of their own, readable or not, is not covered by the
statement; if it cannot be told whose a row is, or what the rest of the file says, nobody is: it may be a revocation.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from user_embeddings_dagster.exports.landing import GRANTS, STATEMENT, stands
from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.privacy.erasure.identity import account_names

PURPOSES = TRAIN, EVALUATE, SERVE, COMPARE = "train", "evaluate", "serve", "compare"
COLUMNS = ("grant_id", "purposes", "granted_at", "expires_at", "revoked_at")  # and account, contributor or both
MAX_BASIS = 200
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Rejected:
    """A place that could not be read; `line` 0 is the whole file. Holds nothing of what stands there."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Grant:
    """One grant of one person; `grant_id` is a keyed hash."""

    user_id: str
    grant_id: str
    purposes: tuple[str, ...]
    granted_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Statement:
    """What the DataDAO states for everybody without a grant of their own."""

    basis: str
    purposes: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Whom a line of consent.csv is about, and when what it grants ends; None: never, or it cannot be read."""

    line: int
    user_id: str
    ends_at: datetime | None


@dataclass
class Stated:
    """All that a landing folder says. `rows`: those of consent.csv whose person is known; `own`: these people, and who
    else may be meant; `whole`: every row is somebody's."""

    statement: Statement | None = None
    grants: list[Grant] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    whole: bool = True
    rejected: list[Rejected] = field(default_factory=list)


class _Unreadable(Exception):
    """Its text is the reason code."""


def read_stated(folder: Path, key: bytes, links: dict[str, str]) -> Stated:
    """Of a DataDAO's landing folder; `links` as of contributors.csv. Never raises for what the files hold, but
    BadFile where there is no file under their names."""
    stated = Stated()
    if stands(folder / STATEMENT):
        try:
            stated.statement = _statement(_content(folder / STATEMENT))
        except _Unreadable as problem:
            stated.rejected.append(Rejected(STATEMENT, 0, str(problem)))
    if stands(folder / GRANTS):
        try:
            _read_grants(stated, _content(folder / GRANTS), key, links)
        except _Unreadable as problem:
            stated.whole = False
            stated.rejected.append(Rejected(GRANTS, 0, str(problem)))
    return stated


def persons(key: bytes, links: dict[str, str], row: Mapping[str, str | None]) -> tuple[str, ...]:
    """user_id of a row's person, then those who are meant if the account was typed letter by letter (account_names).

    Raises ValueError unless it names exactly one, by a known platform.
    """
    account, contributor = ((row.get(name) or "").strip() for name in ("account", "contributor"))
    if bool(account) == bool(contributor):
        raise ValueError("expected PLATFORM:NAME as account, or a contributor")
    if contributor:
        return (keyed_id(key, "contributor", contributor),)
    platform, names = account_names(account)
    return tuple(user_id(key, platform, name.casefold(), links) for name in names)


def _content(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise _Unreadable("too_large")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unreadable("not_utf8") from None


def _statement(text: str) -> Statement | None:
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except _Unreadable:
        raise
    except (ValueError, RecursionError):
        raise _Unreadable("malformed_json") from None
    if not isinstance(content, dict):
        raise _Unreadable("no_object")
    if (consent := content.get("consent")) is None:
        return None
    if not isinstance(consent, dict):
        raise _Unreadable("no_object")
    basis, purposes = consent.get("basis"), consent.get("purposes")
    if not isinstance(basis, str) or not basis.strip() or len(basis) > MAX_BASIS or not basis.isprintable():
        raise _Unreadable("bad_basis")
    if not isinstance(purposes, list) or not all(isinstance(purpose, str) for purpose in purposes):
        raise _Unreadable("unknown_purpose")
    return Statement(basis.strip(), _purposes(purposes))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise _Unreadable("repeated_key")
    return found


def _purposes(named: list[str]) -> tuple[str, ...]:
    if not named or not set(named) <= set(PURPOSES):
        raise _Unreadable("unknown_purpose")
    return tuple(purpose for purpose in PURPOSES if purpose in named)


def _read_grants(stated: Stated, text: str, key: bytes, links: dict[str, str]) -> None:
    found: list[tuple[int, Grant]] = []
    ids: Counter[str] = Counter()
    for line, row in _rows(stated, text):
        grant_id = row["grant_id"]
        ids[grant_id] += 1
        try:
            users = persons(key, links, row)
        except ValueError:
            stated.whole = False
            stated.rejected.append(Rejected(GRANTS, line, "bad_account"))
            continue
        stated.own.update(users)  # a revocation holds against the statement, whoever of them is meant
        user, ends_at = users[0], None
        try:
            if not grant_id:
                raise _Unreadable("no_grant_id")
            times = (_time(row["granted_at"]), _time(row["expires_at"]), _time(row["revoked_at"]))
            if times[0] is None:
                raise _Unreadable("bad_time")
            ends_at = min((time for time in times[1:] if time), default=None)
            hashed = keyed_id(key, "grant", grant_id)
            found.append((line, Grant(user, hashed, _purposes(row["purposes"].split()), times[0], *times[1:])))
        except _Unreadable as problem:
            stated.rejected.append(Rejected(GRANTS, line, str(problem)))
        stated.rows.append(Row(line, user, ends_at))
    # Which of two rows under one id holds cannot be told: the later one may be a revocation.
    repeated = {keyed_id(key, "grant", grant_id) for grant_id, n in ids.items() if n > 1}
    stated.rejected += [Rejected(GRANTS, line, "repeated_grant") for line, grant in found if grant.grant_id in repeated]
    stated.grants = [grant for _, grant in found if grant.grant_id not in repeated]


def _rows(stated: Stated, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and stripped cells of each row. Raises _Unreadable where the rest of the file cannot be read."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if not set(COLUMNS) <= set(names) or not {"account", "contributor"} & set(names) or len({*names}) < len(names):
            # Spreadsheets write semicolons where the comma is the decimal sign.
            raise _Unreadable("not_separated_by_commas" if {*";\t"} & {*"".join(names)} else "wrong_columns")
        reader.fieldnames = names
        for row in reader:
            if None in row or None in row.values():
                stated.rejected.append(Rejected(GRANTS, reader.line_num, "wrong_number_of_cells"))
                stated.whole = False
                continue
            cells = {name: cell.strip() for name, cell in row.items()}
            if any(cells.values()):
                yield reader.line_num, cells
    except csv.Error:
        stated.rejected.append(Rejected(GRANTS, reader.line_num, "malformed_csv"))
        stated.whole = False


def _time(text: str) -> datetime | None:
    """A time as ISO 8601 writes it, in UTC where it names no offset; None for no text."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Unreadable("bad_time") from None
