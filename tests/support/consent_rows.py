"""consent.csv and datadao.json of one Reddit DataDAO, and which purposes hold by them."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl

from benchmarks.consent import AT
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.consent.grants import read_stated
from user_embeddings_dagster.privacy.consent.ledger import build_ledger
from user_embeddings_dagster.privacy.consent.live import live
from user_embeddings_dagster.privacy.tombstones import Tombstones

KEY = bytes(32)
HEADER = "grant_id,account,contributor,purposes,granted_at,expires_at,revoked_at\n"
NOBODY = Tombstones(KEY, frozenset())


def stated(folder: Path, rows: str = "", statement: object = None, links: dict[str, str] | None = None):
    """What is read of these rows and this statement, written where a DataDAO has them."""
    if rows:
        (folder / "consent.csv").write_text(HEADER + rows)
    if statement is not None:
        (folder / "datadao.json").write_text(json.dumps(statement))
    return read_stated(folder, KEY, links or {})


def someone(name: str) -> str:
    return user_id(KEY, "reddit", name)


def holding(folder: Path, subjects: list[str], as_of: datetime = AT, **files) -> set[tuple[str, str]]:
    """Who has consented to what by then, of these authors of messages."""
    found = stated(folder, **files)
    ledger = build_ledger("dao", found, pl.Series([someone(name) for name in subjects]), NOBODY).ledger
    by_id = {someone(name): name for name in subjects}
    return {(by_id.get(user, user), purpose) for _, user, purpose in live(ledger, as_of).iter_rows()}
