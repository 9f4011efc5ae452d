"""Who has been erased, so that no raw file that turns up later brings them back.

A tombstone is an HMAC of a user_id under the platform's key: who holds the file alone learns nobody from it, and it
stays out of reach of the user_ids that the tables hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from user_embeddings_dagster.keys import content_id, keyed_id
from user_embeddings_dagster.storage.durability import read_json, write_json


def erasure_id(key: bytes, user_id: str) -> str:
    """Pseudonym of a contributor in what outlives their data: tombstones, receipts, checkpoints' manifests."""
    return keyed_id(key, "erased", user_id)


@dataclass(frozen=True)
class Tombstones:
    """Those of one platform. The empty set is falsy."""

    key: bytes
    names: frozenset[str]

    @classmethod
    def load(cls, path: Path, key: bytes) -> "Tombstones":
        """The tombstones at `path`; none if there is no file."""
        return cls(key, frozenset(read_json(path, list[str])) if path.exists() else frozenset())

    def with_users(self, user_ids: Iterable[str]) -> "Tombstones":
        """These and those of further users."""
        return Tombstones(self.key, self.names | {erasure_id(self.key, user) for user in user_ids})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, sorted(self.names))

    def __contains__(self, user_id: object) -> bool:
        return isinstance(user_id, str) and bool(self.names) and erasure_id(self.key, user_id) in self.names

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def version(self) -> str:
        """Content hash: a table that leaves the erased out changes with it."""
        return content_id(*sorted(self.names))
