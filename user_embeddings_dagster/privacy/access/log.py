"""The log of accesses and changes: append-only, hash-chained, authenticated, with a signed head (C18).

    access/log.jsonl       one entry a line: number, time, what, of whom (pseudonym), hash of the line before, HMAC
    keys/access_log.head   number of entries, hash of the last line, length of the file, Ed25519 signature

An entry is on the disk before the head counts it, and the head before `append` returns. So after a kill the file is at
most one entry, or part of one, longer than the head says; anything else was done by somebody. Who can replace log and
head by an older pair of both goes back in time unseen: against that, keep heads elsewhere (access.anchors).
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.access.keys import AccessKeys
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import make_folder, sync, write_json

_WORD = re.compile(r"[a-z][a-z_]{0,39}")
_PERSON = re.compile(r"([0-9a-f]{32})?")
_DATADAO = re.compile(r"([a-z0-9][a-z0-9_-]*)?")
_SUBJECT = re.compile(r"[a-z0-9:./_-]{0,120}")


class LogDamaged(Exception):
    """The log is not what its head says: nothing is appended, so nothing that must be logged is done."""


class Entry(msgspec.Struct, frozen=True):
    """One access or change. `person` is a pseudonym (privacy.tombstones), `subject` a version, hash or scope."""

    number: int
    time: str
    event: str
    outcome: str
    person: str
    datadao: str
    subject: str
    previous: str
    mac: str


class Head(msgspec.Struct, frozen=True):
    """Where the log ends: `count` entries, `size` bytes, the last line's SHA-256 `hash`. `log`: its random id."""

    platform: str
    log: str
    count: int
    size: int
    hash: str
    signature: str

    def signed(self) -> bytes:
        """The bytes under the signature."""
        return msgspec.json.encode(("access log head", self.platform, self.log, self.count, self.size, self.hash))

    @property
    def genuine(self) -> bool:
        """Signed by the platform that it names, in the signature's one form."""
        try:
            signature = bytes.fromhex(self.signature)
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.platform)).verify(signature, self.signed())
        except (InvalidSignature, ValueError):
            return False
        return signature.hex() == self.signature


def beginning(platform: str, log: str) -> str:
    """What the first entry has for the hash of the line before."""
    return hashlib.sha256(f"access log {log} of {platform}".encode()).hexdigest()


def line_hash(line: bytes) -> str:
    """Of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def entry_mac(key: bytes, entry: Entry) -> str:
    """HMAC-SHA-256 of everything else in the entry."""
    return hmac.digest(key, msgspec.json.encode(msgspec.structs.replace(entry, mac="")), "sha256").hex()


def access_keys(layout: Layout) -> AccessKeys:
    """The platform's secrets for access. Made on first use, with the head of an empty log.

    Where there is a secret and no head, somebody removed the head.
    """
    if not layout.access_key.exists():
        make_folder(layout.access_key.parent)
        with _locked(layout.access_key.with_name(".access.lock"), fcntl.LOCK_EX):
            if not layout.access_key.exists():
                pending = layout.access_key.with_suffix(".new")
                keys = AccessKeys(load_or_create_key(pending))
                AccessLog(layout.access_log, layout.access_log_head, keys).begin()
                pending.replace(layout.access_key)
                sync(layout.access_key.parent)
    return AccessKeys(load_or_create_key(layout.access_key))


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    make_folder(path.parent)
    with path.open("a") as lock:
        fcntl.flock(lock, how)
        yield


class AccessLog:
    """The log of one platform; safe for several processes. `clock`: seconds since 1970."""

    def __init__(self, path: Path, head: Path, keys: AccessKeys, clock: Callable[[], float] = time.time) -> None:
        self.path, self.head_path, self._keys, self._clock = path, head, keys, clock
        self._lock = path.with_name(".log.lock")

    @classmethod
    def of(cls, layout: Layout) -> "AccessLog":
        """That of the data root."""
        return cls(layout.access_log, layout.access_log_head, access_keys(layout))

    def begin(self) -> None:
        """Write the head of an empty log."""
        log, platform = secrets.token_hex(16), self._keys.platform
        self._write_head(Head(platform, log, 0, 0, beginning(platform, log), ""))

    def _write_head(self, head: Head) -> Head:
        head = msgspec.structs.replace(head, signature=self._keys.heads.sign(head.signed()).hex())
        write_json(self.head_path, msgspec.to_builtins(head))
        return head

    def mac_key(self, head: Head) -> bytes:
        """Authenticates the entries of the log that ends there."""
        return self._keys.entries(head.log)

    def append(self, event: str, outcome: str, *, person: str = "", datadao: str = "", subject: str = "") -> Entry:
        """Add an entry and return it once it is on the disk.

        `person`: erasure_id of a contributor, never a user_id. Raises ValueError on a field of another form (the log
        holds no free text), LogDamaged if the log is not what its head says.
        """
        for value, form in (
            (event, _WORD), (outcome, _WORD), (person, _PERSON), (datadao, _DATADAO), (subject, _SUBJECT),
        ):  # fmt: skip
            if not form.fullmatch(value):
                raise ValueError(f"a field of a log entry must be of the form {form.pattern}")
        with _locked(self._lock, fcntl.LOCK_EX):
            head = self._repaired_head()
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
            entry = Entry(head.count, moment, event, outcome, person, datadao, subject, head.hash, "")
            entry = msgspec.structs.replace(entry, mac=entry_mac(self.mac_key(head), entry))
            line = msgspec.json.encode(entry)
            new = not self.path.exists()
            with self.path.open("ab") as stream:
                stream.write(line + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            if new:
                sync(self.path.parent)
            self._count(head, line)
        return entry

    def _count(self, head: Head, line: bytes) -> Head:
        """The head after one more line."""
        count, size = head.count + 1, head.size + len(line) + 1
        return self._write_head(msgspec.structs.replace(head, count=count, size=size, hash=line_hash(line)))

    def head(self) -> Head:
        """The head. Raises LogDamaged if it is gone, or not signed by this platform."""
        try:
            head = msgspec.json.decode(self.head_path.read_bytes(), type=Head)
        except (FileNotFoundError, msgspec.DecodeError):
            raise LogDamaged("the head of the access log is gone, or is none") from None
        if head.platform != self._keys.platform or not head.genuine:
            raise LogDamaged("the head of the access log is not signed by this platform")
        return head

    def _repaired_head(self) -> Head:
        """The head, after what a killed process left: its whole entry is counted, its part of an entry cut off."""
        head = self.head()
        tail = self.tail(head)
        if not tail:
            return head
        line, ended, rest = tail.partition(b"\n")
        if not ended:
            with self.path.open("r+b") as stream:
                stream.truncate(head.size)
                os.fsync(stream.fileno())
            return head
        if rest or fault(line, head.count, head.hash, self.mac_key(head)):
            raise LogDamaged("the access log holds more than its head counts")
        return self._count(head, line)

    def tail(self, head: Head) -> bytes:
        """What the file holds after the head's end. Raises LogDamaged if the file is shorter than the head says."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < head.size:
            raise LogDamaged("the access log is shorter than its head says")
        if size == head.size:
            return b""
        with self.path.open("rb") as stream:
            stream.seek(head.size)
            return stream.read()

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Nobody appends meanwhile."""
        with _locked(self._lock, fcntl.LOCK_SH):
            yield


def fault(line: bytes, number: int, previous: str, mac_key: bytes | None) -> str | None:
    """What is wrong with a line where the entry of this number should be; None if it is that entry.

    Without the platform's key (None) the entry's HMAC is not looked at: the chain and the signed head still are.
    """
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "is no entry"
    if msgspec.json.encode(entry) != line:
        return "is written otherwise than entries are"
    if entry.number != number:
        return f"is missing: entry {entry.number} is in its place"
    if mac_key is not None and not hmac.compare_digest(entry_mac(mac_key, entry).encode(), entry.mac.encode()):
        return "was not written by this platform"
    return None if entry.previous == previous else "does not follow the entry before it"
