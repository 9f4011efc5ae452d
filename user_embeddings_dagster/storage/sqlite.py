"""What the SQLite files here have in common."""

import sqlite3
import time
from pathlib import Path

from user_embeddings_dagster.storage.durability import Damaged

BUSY_SECONDS = 30  # to wait for another process
_PAUSE = 0.01  # seconds


def rollback_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Keep no write-ahead log, in which removed rows would stay. Raises Damaged if `path` is no SQLite file."""
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname != "SQLITE_NOTADB":
            raise
        raise Damaged(f"{path}: damaged, no SQLite file; put back a copy of it") from None


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite itself does not wait when another process opens a new file at the same time.

    Raises sqlite3.OperationalError if the file is still locked after BUSY_SECONDS.
    """
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(_PAUSE)
