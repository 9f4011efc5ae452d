"""What an erasure is to remove, kept sealed while it is under way: killed at any point, it is resumed from here.

Tables are emptied one after another, and what is known of a person from the first is needed for the last. The journal
holds names and canaries of the person; it is sealed (AES-256-GCM) under a key of the platform and removed at the end.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from user_embeddings_dagster.privacy.contributor_keys import NONCE_BYTES
from user_embeddings_dagster.storage.durability import Damaged, make_folder, sync, writing

SUFFIX = ".journal"


class Journal(msgspec.Struct):
    """Everything by which an erasure knows the person. Lists are sorted and only grow.

    `users`: their user_ids. `names`: (name, kind). By DataDAO: `chunks` to remove, their own and others' in which they
    speak; `withdrawn` and `shared` raw files by SHA-256. `companions`: SUBJECTs of the others' chunks. `removed`: by
    store. `hits_before`: of the canaries, by store; None before the first scan.
    """

    users: list[str]
    names: list[tuple[str, str]] = []
    chunks: dict[str, list[str]] = {}
    withdrawn: dict[str, list[str]] = {}
    shared: dict[str, list[str]] = {}
    companions: list[str] = []
    texts: list[str] = []
    vectors: list[bytes] = []
    hits_before: dict[str, int] | None = None
    removed: dict[str, int] = {}

    @property
    def canaries(self) -> list[str | bytes]:
        """What the person is looked for by."""
        return [*self.texts, *self.vectors]

    @property
    def all_chunks(self) -> list[str]:
        """Of every DataDAO."""
        return sorted({chunk for chunks in self.chunks.values() for chunk in chunks})

    def count(self, store: str, found: int) -> None:
        """Note what a store holds before it is removed: a kill in between loses no count."""
        self.removed[store] = max(self.removed.get(store, 0), found)


def add(into: dict[str, list[str]], name: str, values: Iterable[str]) -> None:
    """Grow one of a journal's lists by name."""
    if grown := {*into.get(name, ()), *values}:
        into[name] = sorted(grown)


def load(path: Path, key: bytes) -> Journal | None:
    """The journal at `path`, None if there is none. Raises Damaged, also under another key."""
    if not path.exists():
        return None
    sealed = path.read_bytes()
    try:
        content = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], path.name.encode())
    except (InvalidTag, ValueError):  # ValueError: of a file too short for a nonce
        raise Damaged(f"{path}: damaged, or sealed under another key; put back a copy of it") from None
    return msgspec.msgpack.decode(content, type=Journal)


def save(journal: Journal, path: Path, key: bytes) -> None:
    """Write it, whole or not at all."""
    nonce = os.urandom(NONCE_BYTES)
    with writing("erasure journal", path):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(nonce + AESGCM(key).encrypt(nonce, msgspec.msgpack.encode(journal), path.name.encode()))
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
