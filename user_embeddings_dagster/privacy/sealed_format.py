"""Sealed files: encrypted in frames under the key of whoever they belong to, and read from any place without a copy.

    header   magic and format version, frame size, file id, key id, size · owner (encrypted) · name, SHA-256 (encrypted)
    frames   AES-256-GCM (NIST SP 800-38D) of 1 MiB each, the last one shorter

Every file has a key of its own, which HKDF-SHA-256 (RFC 5869) derives from its owner's key and the random file id, so
that frame numbers can be nonces. A frame's nonce holds its number and whether it is the last (STREAM: Hoang,
Reyhanitabar, Rogaway and Vizár 2015, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance",
section 7), its associated data the file id and both again: a frame that was changed, dropped, moved, doubled or taken
from another file does not open, and neither does a file that was cut off. Who the owner is can be read only with the
platform's master key, name and content only with the owner's key as well: who destroys that key shreds every copy.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from user_embeddings_dagster.keys import KEY_BYTES
from user_embeddings_dagster.privacy.contributor_keys import NONCE_BYTES, ContributorKeys

MAGIC = b"UESEAL\x01\n"  # the last byte but one is the format's version
SUFFIX = ".sealed"
LEFTOVER = ".sealing"  # of what a killed process was writing
FRAME = 1 << 20  # bytes of content
TAG = 16  # bytes
FIXED = struct.Struct(">8sI16s16sQII")  # magic, frame, file id, key id, content bytes, bytes of both boxes
_LARGEST_BOX = 1 << 16  # bytes
_LARGEST_FRAME = 1 << 26  # bytes


class Shredded(Exception):
    """The key under which a file was sealed has been destroyed: nobody reads it any more."""


class Tampered(Exception):
    """A sealed file is not what was sealed. `path` is the file, `frame` the frame, counted from 1; 0 is the header.

    The text names the file by its id, because its name is often a person's.
    """

    def __init__(self, path: Path, file_id: bytes, frame: int, what: str) -> None:
        super().__init__(f"sealed file {file_id.hex()}: {f'frame {frame}' if frame else 'the header'} {what}")
        self.path, self.frame = path, frame


class NotOurs(Tampered):
    """A file that begins like a sealed one, whose header this platform has not written."""


@dataclass(frozen=True)
class Header:
    """What stands before the frames. `size`: bytes of the content. `owner`, `key_id`: under whose key, and which."""

    frame_size: int
    file_id: bytes
    key_id: bytes
    size: int
    box: bytes  # the owner, encrypted
    meta: bytes  # name and SHA-256, encrypted

    @property
    def fixed(self) -> bytes:
        """The part in clear."""
        lengths = len(self.box), len(self.meta)
        return FIXED.pack(MAGIC, self.frame_size, self.file_id, self.key_id, self.size, *lengths)

    @property
    def frames(self) -> int:
        """Number of frames; an empty file has one, which is empty."""
        return max(1, math.ceil(self.size / self.frame_size))

    @property
    def start(self) -> int:
        """Bytes before the first frame."""
        return FIXED.size + len(self.box) + len(self.meta)

    @property
    def sealed_size(self) -> int:
        """Bytes of the whole file."""
        return self.start + self.size + TAG * self.frames

    def frame_length(self, frame: int) -> int:
        """Bytes of content in a frame, counted from 0."""
        return min(self.frame_size, self.size - frame * self.frame_size)


class Meta(msgspec.Struct, array_like=True):
    """What only the owner's key tells: name and SHA-256 of the content."""

    name: bytes
    sha256: str


def is_sealed(path: Path) -> bool:
    """The file is named and begins as a sealed one."""
    if not path.name.endswith(SUFFIX):
        return False
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> Header:
    """The header as it stands there: nothing of it is proven before a SealedReader has opened the file.

    Raises NotOurs if there is none.
    """
    with path.open("rb", buffering=0) as stream:
        fixed = stream.read(FIXED.size)
        if len(fixed) < FIXED.size or not fixed.startswith(MAGIC):
            raise NotOurs(path, b"", 0, "is none that this version reads")
        _, frame_size, file_id, key_id, size, n_box, n_meta = FIXED.unpack(fixed)
        if not 0 < frame_size <= _LARGEST_FRAME or max(n_box, n_meta) > _LARGEST_BOX:
            raise NotOurs(path, file_id, 0, "is not what was sealed")
        return Header(frame_size, file_id, key_id, size, stream.read(n_box), stream.read(n_meta))


def owner_of(path: Path, keys: ContributorKeys) -> str:
    """Whose key the file is sealed under, also where that key is gone. Raises NotOurs."""
    return owner_in(path, read_header(path), keys)


def owner_in(path: Path, header: Header, keys: ContributorKeys) -> str:
    """Whose key a header says the file is sealed under. Raises NotOurs."""
    try:
        nonce, sealed = header.box[:NONCE_BYTES], header.box[NONCE_BYTES:]
        return AESGCM(owners_key(keys)).decrypt(nonce, sealed, header.fixed).decode()
    except (InvalidTag, ValueError):
        raise NotOurs(path, header.file_id, 0, "is not what this platform sealed") from None


def owners_key(keys: ContributorKeys) -> bytes:
    """The platform's key for the owners' names in headers."""
    return keys.derived("sealed files: owners")


def _derived(key: bytes, salt: bytes | None, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=salt, info=purpose).derive(key)


def file_key(key: bytes, file_id: bytes) -> AESGCM:
    """The cipher of one file, of its owner's key and its id."""
    return AESGCM(_derived(key, file_id, b"sealed file: content"))


def key_id_of(key: bytes) -> bytes:
    """By which a header tells its owner's key from a later one, 16 bytes."""
    return _derived(key, None, b"sealed file: key id")[:16]


HEADER_NONCE = b"\xff" * NONCE_BYTES  # of the header; no frame's ends so


def nonce_of(frame: int, last: bool) -> bytes:
    """A frame's nonce; frames count from 0."""
    return frame.to_bytes(NONCE_BYTES - 1, "big") + bytes([last])


def bound_to(file_id: bytes, frame: int, last: bool) -> bytes:
    """A frame's associated data."""
    return file_id + frame.to_bytes(8, "big") + bytes([last])
