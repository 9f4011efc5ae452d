"""The platform's secrets for access: one key file, and what is derived from it (HKDF-SHA-256, RFC 5869)."""

from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from user_embeddings_dagster.keys import KEY_BYTES


@dataclass(frozen=True)
class AccessKeys:
    """Derived from one secret of 32 bytes."""

    secret: bytes

    def derived(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"access: {purpose}".encode()).derive(self.secret)

    @cached_property
    def challenges(self) -> bytes:
        """Seals challenges."""
        return self.derived("challenges")

    @cached_property
    def tokens(self) -> bytes:
        """Seed of the Ed25519 root key of capability tokens."""
        return self.derived("tokens")

    def entries(self, log: str) -> bytes:
        """Authenticates the entries of the log with this id."""
        return self.derived(f"entries of log {log}")

    @cached_property
    def heads(self) -> Ed25519PrivateKey:
        """Signs the head of the log."""
        return Ed25519PrivateKey.from_private_bytes(self.derived("log heads"))

    @cached_property
    def platform(self) -> str:
        """Id of the platform: the public key under which its log's heads verify, 64 hex digits."""
        return self.heads.public_key().public_bytes_raw().hex()
