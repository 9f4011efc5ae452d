"""The scores table: one DuckDB file, one writer at a time, replaced per asset in one transaction.

A replacement that changes nothing writes nothing, so the file keeps its bytes. A process killed at any moment
leaves the rows from before or after the transaction (DuckDB's write-ahead log), never a mixture.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.durability import Damaged, make_folder, sync, writing

LOCK_SECONDS = 60.0
_HARDENED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
    "threads": "1",
}
_TYPES = {pl.String: "VARCHAR", pl.Float64: "DOUBLE", pl.Int64: "BIGINT"}
_IN_PROCESS = threading.RLock()
"""DuckDB's file lock works between processes only."""


class ScoreTableBusy(Exception):
    """Another process held the scores file for longer than we were willing to wait."""


@dataclass(frozen=True)
class Replacement:
    """What a `replace` did, in rows."""

    inserted: int
    updated: int
    deleted: int
    unchanged: int

    @property
    def changed(self) -> bool:
        """Anything was written."""
        return bool(self.inserted or self.updated or self.deleted)


class ScoreTable:
    """Table `scores` (schema SCORES) in the DuckDB file at `path`; beside it `made_from`, one row per asset."""

    def __init__(self, path: Path, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = Path(path)
        self.lock_seconds = lock_seconds

    def read(self) -> pl.DataFrame:
        """All rows, in canonical order; no rows before the first `replace`."""
        if not self.path.exists():
            return SCORES.empty()
        with self._connected() as connection:
            return _read(connection)

    def measured(self, asset: str, made_from: str) -> pl.DataFrame | None:
        """The rows of `asset` if they were last replaced by rows made from just this, else None."""
        if not made_from or not self.path.exists():
            return None
        with self._connected() as connection:
            return _read(connection).filter(asset=asset) if _made_from(connection, asset) == made_from else None

    def replace(self, asset: str, frame: pl.DataFrame, made_from: str = "") -> Replacement:
        """Make `frame` the rows of `asset`. Other assets' rows stay.

        `made_from`: hash of everything that the rows are computed from, for `measured`; empty: not known.
        Raises ValueError if `frame` does not conform, repeats a key, or holds another asset's rows.
        """
        frame = SCORES.conform(frame).sort(SCORES.primary_key)
        if (frame["asset"] != asset).any():
            raise ValueError(f"scores of {asset}: the frame holds rows of other assets")
        if frame.select(SCORES.primary_key).is_duplicated().any():
            raise ValueError(f"scores of {asset}: duplicate keys {SCORES.primary_key}")
        make_folder(self.path.parent)
        with writing(f"scores of {asset}", self.path), self._connected() as connection:
            old = _read(connection).filter(asset=asset)
            result = _difference(old, frame)
            if wrote := result.changed or _made_from(connection, asset) != made_from:
                _write(connection, asset, frame, made_from)
        if wrote:  # DuckDB flushes its files, not the folder's entries of them
            sync(self.path.parent)
        return result

    def rewrite(self) -> None:
        """The same rows in a fresh file: DuckDB leaves the bytes of deleted rows in the old one, also after VACUUM.

        What they were made from is forgotten: they are measured again.
        """
        fresh = self.path.with_name(f".{self.path.name}.fresh")
        for leftover in self.path.parent.glob(f"{fresh.name}*"):
            leftover.unlink()
        rows = self.read()
        with duckdb.connect(str(fresh), config=dict(_HARDENED)) as connection:
            _write(connection, "", rows)
        sync(fresh)
        fresh.replace(self.path)
        sync(self.path.parent)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _IN_PROCESS:
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _create(self) -> None:
        """An empty file, whole or absent: DuckDB never opens one again whose creation was cut short."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        duckdb.connect(str(temporary), config=dict(_HARDENED)).close()
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(temporary, self.path)
        temporary.unlink()
        sync(self.path.parent)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if not self.path.exists():
            self._create()
        deadline = time.monotonic() + self.lock_seconds
        while True:
            try:
                return duckdb.connect(str(self.path), config=dict(_HARDENED))
            except duckdb.IOException as error:
                if "not a valid DuckDB database" in str(error):
                    raise Damaged(f"{self.path}: damaged; move it away, and evaluate again") from None
                if "lock" not in str(error).lower():
                    raise
                if time.monotonic() > deadline:
                    raise ScoreTableBusy(
                        f"{self.path} is open in another process; waited {self.lock_seconds:g} s"
                    ) from None
                time.sleep(0.05)


def _read(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    if not _has_table(connection, "scores"):
        return SCORES.empty()
    arrow = connection.sql(f"SELECT {', '.join(_quoted())} FROM scores").to_arrow_table()
    return SCORES.conform(pl.DataFrame(arrow)).sort(SCORES.primary_key)


def _made_from(connection: duckdb.DuckDBPyConnection, asset: str) -> str:
    """Empty if it is not known."""
    if not _has_table(connection, "made_from"):
        return ""
    found = connection.execute("SELECT hash FROM made_from WHERE asset = ?", [asset]).fetchone()
    return found[0] if found else ""


def _has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    tables = "SELECT 1 FROM information_schema.tables WHERE table_name = ?"
    return bool(connection.execute(tables, [name]).fetchall())


def _write(connection: duckdb.DuckDBPyConnection, asset: str, frame: pl.DataFrame, made_from: str = "") -> None:
    columns = ", ".join(
        f'"{c.name}" {_TYPES[type(c.dtype)]}{"" if c.nullable else " NOT NULL"}' for c in SCORES.columns
    )
    connection.execute("BEGIN TRANSACTION")
    connection.execute(f"CREATE TABLE IF NOT EXISTS scores ({columns})")
    connection.execute("DELETE FROM scores WHERE asset = ?", [asset])
    connection.register("incoming", frame.to_arrow())
    connection.execute(f"INSERT INTO scores SELECT {', '.join(_quoted())} FROM incoming")
    connection.execute("CREATE TABLE IF NOT EXISTS made_from (asset VARCHAR NOT NULL, hash VARCHAR NOT NULL)")
    connection.execute("DELETE FROM made_from WHERE asset = ?", [asset])
    if made_from:
        connection.execute("INSERT INTO made_from VALUES (?, ?)", [asset, made_from])
    connection.execute("COMMIT")
    connection.unregister("incoming")


def _quoted() -> list[str]:
    return [f'"{column.name}"' for column in SCORES.columns]


def _difference(old: pl.DataFrame, new: pl.DataFrame) -> Replacement:
    key = list(SCORES.primary_key)
    unchanged = new.join(old, on=new.columns, how="semi", nulls_equal=True).height
    kept = new.join(old, on=key, how="semi").height
    return Replacement(new.height - kept, kept - unchanged, old.height - kept, unchanged)
