"""Keyed hashing: platform identities become ids that only the holder of the key can compute.

HMAC-SHA-256 (RFC 2104) truncated to 128 bits, as 32 hex digits.
"""

import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from user_embeddings_dagster.storage.durability import make_folder, sync, writing

KEY_BYTES = 32
ID_HEX = 32


def keyed_id(key: bytes, *parts: str) -> str:
    """HMAC of the parts (length-prefixed, so that ("ab", "c") and ("a", "bc") differ), 32 hex digits."""
    message = b"".join(len(raw := part.encode("utf-8", "surrogatepass")).to_bytes(4, "big") + raw for part in parts)
    return hmac.digest(key, message, "sha256").hex()[:ID_HEX]


def user_id(key: bytes, platform: str, account: str, links: dict[str, str] | None = None) -> str:
    """Id of the person behind `account` on `platform`.

    `links` maps an account to the contributor named in a DataDAO's `contributors.csv`; a person who
    contributes to two DataDAOs under one contributor id has one user_id, and so one side of every split.
    """
    if links and account in links:
        return keyed_id(key, "contributor", links[account])
    return keyed_id(key, "account", platform, account.casefold())


def content_id(*parts: str) -> str:
    """Unkeyed hash of content that is already masked or hashed, 32 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()[:ID_HEX]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """SHA-256 of a file's bytes, hex: a process hashes a file once, as long as it stays that file."""
    status = path.stat()
    return _sha256_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _sha256_of(path: Path, *identity: int) -> str:
    return file_sha256(path)


def load_or_create_key(path: Path) -> bytes:
    """The platform's secret of 32 bytes at `path`; created with mode 0600 if absent.

    Raises ValueError if the file does not hold 32 bytes of hex.
    """
    try:
        key = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        with writing("platform key", path):
            make_folder(path.parent)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(secrets.token_hex(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(temporary, path)  # fails if another process created it first
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
                sync(path.parent)
        return load_or_create_key(path)
    except ValueError:
        raise ValueError(f"{path}: not a key (expected {KEY_BYTES * 2} hex digits)") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: key has {len(key)} bytes, expected {KEY_BYTES}")
    return key
