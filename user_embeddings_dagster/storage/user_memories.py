"""What each user's embedding can be advanced from: one small row per user, read and written in microseconds.

SQLite, because LanceDB's point reads take milliseconds and its versions keep deleted rows. `secure_delete`
overwrites what is deleted; the write-ahead log is truncated at `close`.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from user_embeddings_dagster.storage.durability import make_folder, sync, writing
from user_embeddings_dagster.storage.sqlite import BUSY_SECONDS, write_ahead

_COLUMNS = "user_id, version, n_chunks, history_hash"
_READ_AT_ONCE = 500  # ids of one query; SQLite allows 999 at the least
Row = tuple[str, str, int, str]


class UserMemories:
    """Memories of one DataDAO's users in one file, made on first use.

    A row is user_id, version of the encoder, number of chunks read, hash of their ids in order, and the memory's
    bytes (training.sequence_memory). Memories of one version have one size.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing("user memories", path):
            make_folder(path.parent)
            self._connection = sqlite3.connect(path, BUSY_SECONDS)
            write_ahead(self._connection)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS memories (user_id TEXT PRIMARY KEY, version TEXT NOT NULL,"
                " n_chunks INTEGER NOT NULL, history_hash TEXT NOT NULL, memory BLOB NOT NULL) WITHOUT ROWID"
            )

    def known(self, version: str) -> pl.DataFrame:
        """`user_id`, `n_chunks`, `history_hash` of the memories of one version, sorted by user."""
        rows = self._connection.execute(
            "SELECT user_id, n_chunks, history_hash FROM memories WHERE version = ? ORDER BY user_id", (version,)
        ).fetchall()
        schema = {"user_id": pl.String, "n_chunks": pl.Int64, "history_hash": pl.String}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def read(self, users: Sequence[str]) -> tuple[list[Row], np.ndarray]:
        """Rows and memories [n, size] uint8 of the users at one moment, in their order. KeyError if one has none."""
        found = {}
        with self._connection:
            self._connection.execute("BEGIN")  # all queries see one state, whatever others write meanwhile
            for begin in range(0, len(users), _READ_AT_ONCE):
                part = list(users[begin : begin + _READ_AT_ONCE])
                marks = ", ".join("?" * len(part))
                query = f"SELECT {_COLUMNS}, memory FROM memories WHERE user_id IN ({marks})"
                found |= {row[0]: row for row in self._connection.execute(query, part)}
        if missing := sum(user not in found for user in users):
            raise KeyError(f"{missing} users have no memory")
        rows = [found[user] for user in users]
        stored = np.frombuffer(b"".join(row[-1] for row in rows), dtype=np.uint8)
        return [row[:-1] for row in rows], stored.reshape(len(rows), -1)

    def write(self, rows: Iterable[Row], memories: np.ndarray) -> None:
        """Insert or replace rows with their memories [n, size] uint8, in one transaction."""
        values = [(*row, memory.tobytes()) for row, memory in zip(rows, memories, strict=True)]
        with writing("user memories", self._path), self._connection:
            self._connection.executemany(f"REPLACE INTO memories ({_COLUMNS}, memory) VALUES (?, ?, ?, ?, ?)", values)

    def keep_only(self, users: Iterable[str]) -> int:
        """Delete every other user's memory; how many."""
        kept = set(users)
        gone = [(user,) for (user,) in self._connection.execute("SELECT user_id FROM memories") if user not in kept]
        with self._connection:
            self._connection.executemany("DELETE FROM memories WHERE user_id = ?", gone)
        return len(gone)

    def users(self) -> list[str]:
        """Everybody who has a memory, of whichever version, sorted."""
        return [user for (user,) in self._connection.execute("SELECT user_id FROM memories ORDER BY user_id")]

    def holds(self, users: Iterable[str]) -> int:
        """How many of these users have a memory."""
        query = "SELECT count(*) FROM memories WHERE user_id = ?"
        return sum(self._connection.execute(query, (user,)).fetchone()[0] for user in set(users))

    def erase(self, users: Iterable[str]) -> None:
        """Delete these users' memories and every byte of them in the file and its log.

        Raises sqlite3.OperationalError while others hold the file.
        """
        with writing("user memories", self._path):
            with self._connection:
                self._connection.executemany("DELETE FROM memories WHERE user_id = ?", [(user,) for user in users])
            self._connection.execute("VACUUM")
        if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise sqlite3.OperationalError("the user memories are in use: erased rows are still in their log")

    def content(self) -> tuple[int, str]:
        """Number of rows, and SHA-256 over all of them by user."""
        rows = self._connection.execute(f"SELECT {_COLUMNS}, memory FROM memories ORDER BY user_id").fetchall()
        return len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close the file; the last one to close it removes its log."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        sync(self._path.parent)
