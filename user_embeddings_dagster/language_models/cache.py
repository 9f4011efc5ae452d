"""The private cache: what a model answered, encrypted with the key of the contributor whose text was asked about.

An entry is found by HMACs of (model, program, request id) and of the owner, so that a store tells neither who nor
what; its value is sealed by AES-256-GCM (NIST SP 800-38D) with the contributor's key and both HMACs as associated
data: an entry that was swapped, replayed under another key or changed does not open, and is asked for again.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from user_embeddings_dagster.keys import keyed_id
from user_embeddings_dagster.language_models.cache_stores import Store, open_store
from user_embeddings_dagster.language_models.protocol import Completion, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import NONCE_BYTES, ContributorKeys

_FORMAT = b"language model answer 1"
_SYNC_SECONDS = 0.5
_SYNC_ENTRIES = 64


class CacheStats(msgspec.Struct, frozen=True):
    """What became of the look-ups since the cache was opened, and how many entries it holds (of all models).

    `misses` includes the `expired` (older than the time to live) and the `damaged` (would not open).
    """

    hits: int
    misses: int
    expired: int
    damaged: int
    entries: int

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that were answered; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


class _Entry(msgspec.Struct, array_like=True):
    value: str  # JSON: MessagePack has no lone surrogates and no integers beyond 64 bits
    usage: Usage
    attempts: int
    seconds: float
    created_at: float


class Cache:
    """Completions by model and request; safe for several threads, and processes on one store.

    An entry survives `kill -9` once `put` has returned, and a power loss half a second or 64 entries later (if more
    are put) or after `flush`. `ttl` in seconds, None for ever.
    """

    def __init__(
        self, store: Store, keys: ContributorKeys, ttl: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._keys, self._ttl, self._clock = store, keys, ttl, clock
        self._index = keys.derived("language model cache: entries")
        self._lock = RLock()
        self._counts = dict.fromkeys(("hits", "misses", "expired", "damaged"), 0)
        self._unsynced, self._synced_at = 0, time.monotonic()
        self.purge()

    def get(self, model: str, requests: Sequence[Request]) -> list[Completion | None]:
        """What is known of each request, `cached=True`, in order; None where the model must be asked."""
        with self._lock:
            keys = [self._key(model, request) for request in requests]
            sealed = self._store.read(keys)
            answers = [self._opened(request, key, sealed.get(key)) for request, key in zip(requests, keys, strict=True)]
            hits = sum(answer is not None for answer in answers)
            self._counts["hits"] += hits
            self._counts["misses"] += len(answers) - hits
            return answers

    def put(self, model: str, request: Request, completion: Completion) -> None:
        """Keep an answer. Raises ValueError if it belongs to another request."""
        if completion.request_id != request.id:
            raise ValueError(f"completion of request {completion.request_id} for request {request.id}")
        value, now = json.dumps(completion.value), self._clock()
        entry = _Entry(value, completion.usage, completion.attempts, completion.seconds, now)
        with self._lock:
            key, nonce = self._key(model, request), os.urandom(NONCE_BYTES)
            cipher = AESGCM(self._keys.key(request.owner))
            self._store.write(key, nonce + cipher.encrypt(nonce, msgspec.msgpack.encode(entry), _FORMAT + key), now)
            self._unsynced += 1
            if self._unsynced >= _SYNC_ENTRIES or time.monotonic() - self._synced_at >= _SYNC_SECONDS:
                self.flush()

    def erase(self, owner: str) -> int:
        """Forget a contributor: their key is destroyed, then their entries removed; how many.

        The key is that of all their encrypted data, not only of this cache. Killed half-way, run it again.
        """
        with self._lock:
            self._keys.destroy(owner)
            return self._store.erase(self._owner(owner))

    def forget(self, owner: str) -> int:
        """Remove the entries of a contributor who stays; how many. Their key is kept, their answers asked again."""
        with self._lock:
            return self._store.erase(self._owner(owner))

    def purge(self) -> int:
        """Remove the entries older than the time to live; how many."""
        with self._lock:
            return 0 if self._ttl is None else self._store.purge(self._clock() - self._ttl)

    def older_than(self, moment: float) -> tuple[dict[str, int], float | None]:
        """Entries (keyed hash in hex, to bytes) made before a moment in seconds since the epoch, and when the oldest
        of the others was made."""
        with self._lock:
            entries = list(self._store.ages())
        old = {key.hex(): size for key, size, created_at in entries if created_at < moment}
        return old, min((created_at for *_, created_at in entries if created_at >= moment), default=None)

    def purge_before(self, moment: float) -> int:
        """Remove the entries made before a moment, and their bytes from the store's log; how many."""
        with self._lock:
            return self._store.purge(moment)

    @property
    def stats(self) -> CacheStats:
        """Counts so far."""
        with self._lock:
            return CacheStats(**self._counts, entries=self._store.count())

    def flush(self) -> None:
        """Return once everything put survives a power loss (on Redis: as its server is set up)."""
        with self._lock:
            self._store.sync()
            self._unsynced, self._synced_at = 0, time.monotonic()

    def close(self) -> None:
        """Flush and close the store; the keys stay open."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _owner(self, owner: str) -> bytes:
        return bytes.fromhex(keyed_id(self._index, "owner", owner))

    def _key(self, model: str, request: Request) -> bytes:
        entry = keyed_id(self._index, "entry", model, request.program, request.id)
        return self._owner(request.owner) + bytes.fromhex(entry)

    def _opened(self, request: Request, key: bytes, sealed: bytes | None) -> Completion | None:
        if sealed is None:
            return None
        secret = self._keys.existing(request.owner)
        entry = None if secret is None else _unsealed(secret, key, sealed)
        if entry is None:
            self._counts["damaged"] += 1
            return None
        if self._ttl is not None and entry.created_at + self._ttl <= self._clock():
            self._counts["expired"] += 1
            return None
        value: Any = json.loads(entry.value)
        return Completion(request.id, value, entry.usage, entry.attempts, entry.seconds, cached=True)


def open_cache(
    url: str | Path, keys: ContributorKeys, ttl: float | None = None, kept: float | None = None
) -> Cache:  # fmt: skip
    """The cache at `sqlite:///folder/file` (or a path), `lmdb:///folder` or `redis://host:port/0`.

    `kept` in seconds, None for ever: when a server, which no purge reaches, forgets an answer at the latest. Raises
    ValueError for another URL, ImportError naming the extra to install.
    """
    expiry = min((seconds for seconds in (ttl, kept) if seconds is not None), default=None)
    return Cache(open_store(url, expiry), keys, ttl)


def _unsealed(secret: bytes, key: bytes, sealed: bytes) -> _Entry | None:
    try:
        content = AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _FORMAT + key)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        return None
    return msgspec.msgpack.decode(content, type=_Entry)
