"""Where a cache keeps its entries: a SQLite file (default), an LMDB folder, or a Redis server.

A store sees keys and values that mean nothing to it: 32 bytes of HMAC, whose first 16 stand for the owner, and
ciphertext. What `write` has taken survives `kill -9` at once, and a power loss after the next `sync`.
"""

import os
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from user_embeddings_dagster.storage.durability import make_folder, sync, writing
from user_embeddings_dagster.storage.sqlite import BUSY_SECONDS, write_ahead

KEY_BYTES = 32
_MAP_BYTES = 1 << 38  # address space that LMDB reserves: the most its file can grow to, 256 GiB
_AT_ONCE = 1000  # Redis keys of one command


class Store(Protocol):
    """What a cache asks of its store."""

    def read(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""
        ...

    def write(self, key: bytes, value: bytes, created_at: float) -> None:
        """Put or replace one entry; `created_at` in seconds since the epoch."""
        ...

    def erase(self, prefix: bytes) -> int:
        """Remove every entry whose key begins so (16 bytes); how many."""
        ...

    def purge(self, before: float) -> int:
        """Remove entries created before that time; how many. 0 where the store expires them itself."""
        ...

    def ages(self) -> Iterable[tuple[bytes, int, float]]:
        """Key, bytes and time of making of every entry; none where the store expires them itself."""
        ...

    def count(self) -> int:
        """Number of entries."""
        ...

    def sync(self) -> None:
        """Return once everything written survives a power loss."""
        ...

    def close(self) -> None:
        """Sync and let go of the store."""
        ...


def open_store(url: str | Path, ttl: float | None) -> Store:
    """The store of a URL: `sqlite:///folder/file` (or the path alone), `lmdb:///folder`, `redis://host:port/0`.

    Raises ValueError for any other, ImportError naming the extra to install.
    """
    place = place_of(url)
    if place is None:
        return RedisStore(str(url), ttl)
    return LmdbStore(place) if str(url).lower().startswith("lmdb://") else SqliteStore(place)


def place_of(url: str | Path) -> Path | None:
    """File or folder of a URL's store, which need not be there; None of a server's. Raises ValueError as above."""
    if isinstance(url, Path) or "://" not in url:
        return Path(url)
    scheme, path = urlsplit(url).scheme, Path(unquote(urlsplit(url).path))
    if scheme in ("redis", "rediss"):
        return None
    if scheme not in ("sqlite", "lmdb"):
        raise ValueError(f"cache {scheme}: no such store (sqlite, lmdb, redis, rediss)")
    if urlsplit(url).netloc or not path.is_absolute():
        raise ValueError(f"cache {scheme}: needs an absolute path after {scheme}://")
    return path


class SqliteStore:
    """Entries in one file with a write-ahead log. `secure_delete` overwrites what is removed.

    Every write is a transaction of its own, so that processes wait for each other by microseconds.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        with writing("language model cache", path):
            path.touch(mode=0o600)
            self._path, self._log = path, path.with_name(f"{path.name}-wal")
            self._connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                write_ahead(self._connection)
            except sqlite3.DatabaseError as error:
                self._connection.close()
                raise type(error)(f"{path}: {error}") from None
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, created_at REAL, value BLOB) WITHOUT ROWID"
            )

    def read(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """See Store."""
        query = "SELECT key, value FROM entries WHERE key = ?"
        return dict(row for key in keys for row in self._connection.execute(query, (key,)).fetchall())

    def write(self, key: bytes, value: bytes, created_at: float) -> None:
        """See Store."""
        with writing("language model cache", self._path):
            self._connection.execute("REPLACE INTO entries VALUES (?, ?, ?)", (key, created_at, value))

    def erase(self, prefix: bytes) -> int:
        """See Store. Raises sqlite3.OperationalError if others hold the file: its log then still has the bytes."""
        ends = (prefix.ljust(KEY_BYTES, b"\x00"), prefix.ljust(KEY_BYTES, b"\xff"))
        with writing("language model cache", self._path):
            erased = self._connection.execute("DELETE FROM entries WHERE key BETWEEN ? AND ?", ends).rowcount
        if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise sqlite3.OperationalError(f"{self._path}: in use, the erased entries are still in its log; try again")
        return erased

    def purge(self, before: float) -> int:
        """See Store."""
        purged = self._connection.execute("DELETE FROM entries WHERE created_at < ?", (before,)).rowcount
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return purged

    def ages(self) -> Iterable[tuple[bytes, int, float]]:
        """See Store."""
        return self._connection.execute("SELECT key, length(value), created_at FROM entries").fetchall()

    def count(self) -> int:
        """See Store."""
        return self._connection.execute("SELECT count(*) FROM entries").fetchone()[0]

    def sync(self) -> None:
        """See Store."""
        if self._log.exists():
            with self._log.open("rb") as log:
                os.fsync(log.fileno())

    def close(self) -> None:
        """See Store. The last one to close the file removes its log."""
        self.sync()
        self._connection.close()
        sync(self._path.parent)


class LmdbStore:
    """Entries in an LMDB folder; a process must open it once only. Every write waits for the disk.

    A removed entry's ciphertext stays in free pages of the file until they are written over.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise ImportError("an LMDB cache needs: pip install 'user-embeddings-dagster[lmdb]'") from None
        path.mkdir(parents=True, exist_ok=True)
        # metasync off: a commit is flushed but for its root page, so the last one alone can be lost to a power loss
        self._environment = lmdb.open(str(path), map_size=_MAP_BYTES, metasync=False, mode=0o600)

    def read(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """See Store."""
        with self._environment.begin() as transaction:
            found = {key: transaction.get(key) for key in keys}
        return {key: value[8:] for key, value in found.items() if value is not None}

    def write(self, key: bytes, value: bytes, created_at: float) -> None:
        """See Store."""
        with self._environment.begin(write=True) as transaction:
            transaction.put(key, struct.pack(">d", created_at) + value)

    def erase(self, prefix: bytes) -> int:
        """See Store."""
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            erased = 0
            while cursor.set_range(prefix) and cursor.key().startswith(prefix):
                erased += cursor.delete()
        return erased

    def purge(self, before: float) -> int:
        """See Store."""
        with self._environment.begin(write=True, buffers=True) as transaction, transaction.cursor() as cursor:
            old = [bytes(key) for key, value in cursor if struct.unpack(">d", value[:8])[0] < before]
            return sum(transaction.delete(key) for key in old)

    def ages(self) -> Iterable[tuple[bytes, int, float]]:
        """See Store."""
        with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            return [(bytes(key), len(value) - 8, struct.unpack(">d", value[:8])[0]) for key, value in cursor]

    def count(self) -> int:
        """See Store."""
        return self._environment.stat()["entries"]

    def sync(self) -> None:
        """See Store."""
        self._environment.sync(True)

    def close(self) -> None:
        """See Store."""
        self.sync()
        self._environment.close()


class RedisStore:
    """Entries on a Redis server (or anything that speaks its protocol), which expires them itself.

    Durability against a power loss is what the server is set up for.
    """

    _NAMESPACE = b"user_embeddings:language_models:"

    def __init__(self, url: str, ttl: float | None) -> None:
        try:
            import redis
        except ImportError:
            raise ImportError("a Redis cache needs: pip install 'user-embeddings-dagster[redis]'") from None
        self._client: Any = redis.Redis.from_url(url, socket_timeout=BUSY_SECONDS)
        self._client.ping()
        self._milliseconds = None if ttl is None else max(1, round(ttl * 1000))

    def read(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """See Store."""
        keys = list(keys)
        values = self._client.mget([self._name(key) for key in keys]) if keys else []
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def write(self, key: bytes, value: bytes, created_at: float) -> None:
        """See Store."""
        self._client.set(self._name(key), value, px=self._milliseconds)

    def erase(self, prefix: bytes) -> int:
        """See Store. Walks over all keys of the server's database."""
        names = list(self._client.scan_iter(self._name(prefix) + b"*", count=_AT_ONCE))
        parts = [names[begin : begin + _AT_ONCE] for begin in range(0, len(names), _AT_ONCE)]
        return sum(self._client.unlink(*part) for part in parts)

    def purge(self, before: float) -> int:
        """See Store."""
        return 0

    def ages(self) -> Iterable[tuple[bytes, int, float]]:
        """See Store."""
        return ()

    def count(self) -> int:
        """See Store. Walks over all keys of the server's database."""
        return sum(1 for _ in self._client.scan_iter(self._NAMESPACE + b"*", count=_AT_ONCE))

    def sync(self) -> None:
        """See Store."""

    def close(self) -> None:
        """See Store."""
        self._client.close()

    def _name(self, key: bytes) -> bytes:
        return self._NAMESPACE + key.hex().encode()
