"""Dagster's event log in SQLite files, over connections that stay open.

Dagster makes an engine and a connection for every statement: each statement is compiled anew, and closing a file's only
connection checkpoints its write-ahead log. That is half the time of a run whose assets have nothing to do.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from user_embeddings_dagster.storage.durability import sync

if TYPE_CHECKING:
    from dagster._core.storage.sqlite_storage import SqliteStorageConfig

INDEX = "index"  # the file of all runs' asset events; every run has one of its own beside it


class PooledEventLog(SqliteEventLogStorage):
    """Holds the index's connection and that of the run written or read last; both are closed by `dispose`.

    For a process that executes many runs; any other reads and writes the same files with Dagster's own class. Of a file
    that was removed or replaced meanwhile (retention, `dagster run wipe`) the connection is given up, and none is
    carried into a forked process.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: "SqliteStorageConfig"
    ) -> "PooledEventLog":
        """As Dagster's, of this class."""
        return cls(inst_data=inst_data, **config_value)

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: dict[str, tuple[Engine, tuple[int, int, int] | None]] = {}  # by shard, with what it was opened of
        self._found: set[str] = set()  # tables
        self._empty: bytes | None = None  # a run's file without events
        super().__init__(base_dir, inst_data)

    def has_table(self, table_name: str) -> bool:
        """Whether the index has it; one that was found is not looked for again."""
        if table_name not in self._found and super().has_table(table_name):
            self._found.add(table_name)
        return table_name in self._found

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:  # one statement at a time, as in Dagster
            yield connection

    def _engine(self, shard: str) -> Engine:
        if shard in self._open and self._open[shard][1] == self._identity(shard):
            return self._open[shard][0]
        for other in [name for name in self._open if name == shard or INDEX not in (name, shard)]:
            self._close(other)
        settings = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
        engine = create_engine(self.conn_string_for_shard(shard), pool_size=1, connect_args=settings)
        if shard not in self._initialized_dbs or self._identity(shard) is None:
            self._initdb(engine, for_index_shard=shard == INDEX)
            self._initialized_dbs.add(shard)
        self._open[shard] = engine, self._identity(shard)
        return engine

    def _identity(self, shard: str) -> tuple[int, int, int] | None:
        try:
            file = os.stat(self.path_for_shard(shard))  # noqa: PTH116  # called for every statement
        except FileNotFoundError:
            return None
        return os.getpid(), file.st_dev, file.st_ino

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        """A run's file begins as a copy of an empty one, made once: alembic would load its 90 scripts for each."""
        path = Path(self._base_dir) / Path(engine.url.database or "").name
        if for_index_shard or path.exists():
            super()._initdb(engine, for_index_shard)
            return
        begun = path.with_name(f"{path.stem}.{os.getpid()}.begun")
        if self._empty is None:
            making = create_engine(f"sqlite:///{begun}", poolclass=NullPool)
            super()._initdb(making)
            self._empty = begun.read_bytes()
        begun.write_bytes(self._empty)
        sync(begun)
        with suppress(FileExistsError):  # another process has begun it meanwhile
            path.hardlink_to(begun)
        begun.unlink()
        sync(path.parent)

    def _close(self, shard: str) -> None:
        engine, identity = self._open.pop(shard)
        ours = identity is not None and identity[0] == os.getpid()
        engine.dispose(close=ours)  # a fork may not touch its parent's connections, not even to close them

    def store_event(self, event: EventLogEntry) -> None:
        """Also tells who watches the run's file (the UI's live log): a write-ahead log leaves it alone for a while."""
        super().store_event(event)
        with suppress(FileNotFoundError):  # the run was removed meanwhile
            os.utime(self.path_for_shard(event.run_id))

    def wipe(self) -> None:
        """Everything, of all runs."""
        with self._db_lock:
            for shard in [*self._open]:
                self._close(shard)
        super().wipe()

    def dispose(self) -> None:
        """Closes the connections too."""
        with self._db_lock:
            for shard in [*self._open]:
                self._close(shard)
        super().dispose()
