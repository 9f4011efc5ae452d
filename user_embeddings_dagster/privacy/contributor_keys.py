"""One data key per contributor: what is encrypted with it is shredded by destroying it.

Envelope encryption: each contributor has a random 256-bit key, kept wrapped by AES-256-GCM (NIST SP 800-38D) under a
key that HKDF-SHA-256 (RFC 5869) derives from the platform's master key. Without the master key the file opens
nothing; without a contributor's row nobody reads what was encrypted for them, wherever copies of it lie.
"""

import os
import sqlite3
from pathlib import Path
from threading import Lock
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from user_embeddings_dagster.keys import KEY_BYTES, keyed_id, load_or_create_key
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import Damaged, writing
from user_embeddings_dagster.storage.sqlite import BUSY_SECONDS, rollback_journal

NONCE_BYTES = 12
_CHECK = "check"  # a row under every master key: it opens only under the one that the file was made with


class WrongMasterKey(Damaged):
    """The file of contributor keys was made with another master key."""


class ContributorKeys:
    """The keys in one SQLite file, made on first use; safe for several threads and processes.

    Keys are not held in memory: one that another process destroys is gone here at the next use. Rows are named by
    an HMAC of the user_id, so that the file does not say who has contributed. The rollback journal (no write-ahead
    log) and `secure_delete` leave no bytes of a destroyed row in the file; what a disk keeps in freed blocks is for
    disk encryption. Raises WrongMasterKey.
    """

    def __init__(self, path: Path, master: bytes) -> None:
        self._path, self._master, self._lock = path, master, Lock()
        self._wrapping = AESGCM(self.derived("contributor keys: wrapping"))
        self._index = self.derived("contributor keys: rows")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        rollback_journal(self._connection, path)
        self._connection.execute("PRAGMA synchronous = EXTRA")  # a destroyed key stays destroyed after a power loss
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute("CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, wrapped BLOB) WITHOUT ROWID")
        if self._kept(_CHECK, b"") is None:
            self._made(_CHECK, b"")

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Those of a data root, under its master key."""
        return cls(layout.contributor_keys, load_or_create_key(layout.master_key))

    def key(self, owner: str) -> bytes:
        """The 32-byte key of a contributor (user_id; "" for what belongs to none); made if there is none."""
        return self.existing(owner) or self._made(self._name(owner), owner.encode())

    def existing(self, owner: str) -> bytes | None:
        """The contributor's key, or None if there is none (any more)."""
        return self._kept(self._name(owner), owner.encode())

    def destroy(self, owner: str) -> bool:
        """Make everything encrypted with the contributor's key unreadable for good; False if there was no key.

        Nothing remembers the contributor: who contributes again gets a new key.
        """
        return bool(self._rows("DELETE FROM keys WHERE name = ? RETURNING 1", self._name(owner)))

    def derived(self, purpose: str) -> bytes:
        """A 32-byte key of the platform for one purpose, derived from the master key."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(self._master)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, owner: str) -> str:
        return keyed_id(self._index, owner)

    def _rows(self, statement: str, *values: str | bytes) -> list[tuple]:
        with self._lock, writing("contributor keys", self._path):
            return self._connection.execute(statement, values).fetchall()

    def _kept(self, name: str, bound: bytes) -> bytes | None:
        """Unwrap the key of the row of that name, which was wrapped with `bound` as associated data."""
        rows = self._rows("SELECT wrapped FROM keys WHERE name = ?", name)
        return self._unwrapped(rows[0][0], bound) if rows else None

    def _made(self, name: str, bound: bytes) -> bytes:
        """Make a key for that name; the one that another process has made in the meantime stands."""
        nonce = os.urandom(NONCE_BYTES)
        wrapped = nonce + self._wrapping.encrypt(nonce, os.urandom(KEY_BYTES), bound)
        insert = "INSERT INTO keys VALUES (?, ?) ON CONFLICT DO UPDATE SET wrapped = keys.wrapped RETURNING wrapped"
        return self._unwrapped(self._rows(insert, name, wrapped)[0][0], bound)

    def _unwrapped(self, wrapped: bytes, bound: bytes) -> bytes:
        try:
            return self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
        except InvalidTag:
            raise WrongMasterKey(f"{self._path}: made with another master key than this one, or damaged") from None
