"""A few people with keys, wallets, grants and embeddings, to attack (benchmarks.access)."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_keys.datatypes import PrivateKey

from user_embeddings_dagster.privacy.access.embeddings import TABLE, EmbeddingAccess
from user_embeddings_dagster.privacy.access.signatures import personal_hash
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.user_memories import UserMemories

WIDTH = 16
DATADAOS = "alpha", "beta"


@dataclass
class Signer:
    """Who holds a key: Ed25519, or a wallet."""

    wallet: bool = False
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def key(self) -> str:
        """The public key or address, canonical."""
        if self.wallet:
            return f"eip191:{PrivateKey(self.secret).public_key.to_address()}"
        public = Ed25519PrivateKey.from_private_bytes(self.secret).public_key()
        return f"ed25519:{public.public_bytes_raw().hex()}"

    def sign(self, text: str) -> bytes:
        """A signature of a challenge's text."""
        if not self.wallet:
            return Ed25519PrivateKey.from_private_bytes(self.secret).sign(text.encode())
        signed = PrivateKey(self.secret).sign_msg_hash(personal_hash(text.encode())).to_bytes()
        return signed[:64] + bytes([signed[64] + 27])


class Clock:
    """Time that stands still until it is set; seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    @contextmanager
    def later(self, seconds: float) -> Iterator[None]:
        """Within it, so much later."""
        self.now += seconds
        try:
            yield
        finally:
            self.now -= seconds


class World:
    """`n` people, every other one with a wallet, each in both DataDAOs; each lets one app `read` in the first."""

    def __init__(self, root: Path, n: int = 4) -> None:
        self.layout, self.clock = Layout(root), Clock()
        self.access = EmbeddingAccess(self.layout, self.clock)
        self.users = [secrets.token_hex(16) for _ in range(n)]
        self.owners = {user: Signer(wallet=bool(i % 2)) for i, user in enumerate(self.users)}
        self.apps = {user: Signer(wallet=bool(i // 2 % 2)) for i, user in enumerate(self.users)}
        lance = LanceTables(self.layout.lancedb)
        for datadao in DATADAOS:
            lance.upsert(datadao, TABLE, rows(self.users))
            with UserMemories(self.layout.user_memories / f"{datadao}.sqlite") as memories:
                noted = [(user, "v", 2, "h") for user in self.users]
                memories.write(noted, np.random.default_rng(0).integers(0, 255, (n, 32), np.uint8))
        for user in self.users:
            self.access.enrol(user, self.owners[user].key)
            self.grant(user, self.apps[user], "read")

    def proof(self, user: str, datadao: str, *actions: str, by: Signer, **details: str) -> tuple[str, str, bytes]:
        """A challenge, a key and the signature."""
        text = self.access.challenge(user, datadao, actions, details)
        return text, by.key, by.sign(text)

    def grant(self, user: str, to: Signer, actions: str, seconds: int = 86_400, datadao: str = DATADAOS[0]) -> None:
        """Let somebody act, as the owner."""
        details = {"key": to.key, "actions": actions, "expires": str(int(self.clock()) + seconds)}
        self.access.grant(*self.proof(user, datadao, "grant", by=self.owners[user], **details))

    def token(self, user: str, *actions: str, by: Signer | None = None, datadao: str = DATADAOS[0]) -> str:
        """A token for the owner, or for `by`."""
        return self.access.token(*self.proof(user, datadao, *actions, by=by or self.owners[user]))


def rows(users: list[str]) -> pl.DataFrame:
    """User embeddings of random numbers."""
    values = np.random.default_rng(len(users)).normal(size=(2, len(users), WIDTH)).astype(np.float32)
    return pl.DataFrame(
        {
            "id": users,
            "n_chunks": pl.Series([2] * len(users), dtype=pl.Int64),
            "last_chunk_at": [datetime(2024, 1, 1, tzinfo=UTC)] * len(users),
            "version": ["v"] * len(users),
            "vector": pl.Series(values[0], dtype=pl.Array(pl.Float32, WIDTH)),
            "projected": pl.Series(values[1], dtype=pl.Array(pl.Float32, WIDTH)),
        }
    ).sort("id")
