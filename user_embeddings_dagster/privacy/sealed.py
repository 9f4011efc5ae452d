"""Sealed files (privacy.sealed_format): read from any place without a clear copy, and written whole or not at all."""

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from user_embeddings_dagster.privacy.contributor_keys import NONCE_BYTES, ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import (
    FIXED,
    FRAME,
    HEADER_NONCE,
    LEFTOVER,
    TAG,
    Header,
    Meta,
    Shredded,
    Tampered,
    bound_to,
    file_key,
    key_id_of,
    nonce_of,
    owner_in,
    owners_key,
    read_header,
)
from user_embeddings_dagster.storage.durability import make_folder, sync


class SealedReader(io.RawIOBase):
    """The content of a sealed file, readable from any place; a frame is decrypted when it is reached, and held.

    `name` and `sha256` are those of the content as it was sealed. Raises NotOurs, Shredded, and Tampered, at the
    frame that is not what was sealed.
    """

    def __init__(self, path: Path, keys: ContributorKeys) -> None:
        self.path, self.header = path, read_header(path)
        header = self.header
        self.owner = owner_in(path, header, keys)
        key = keys.existing(self.owner)
        if key is None or key_id_of(key) != header.key_id:
            raise Shredded(f"sealed file {header.file_id.hex()}: its key has been destroyed")
        self._cipher = file_key(key, header.file_id)
        try:
            content = self._cipher.decrypt(HEADER_NONCE, header.meta, header.fixed + header.box)
        except InvalidTag:
            raise self._tampered(0, "is not what was sealed") from None
        meta = msgspec.msgpack.decode(content, type=Meta)
        self.name, self.sha256 = meta.name, meta.sha256
        self._file = path.open("rb", buffering=0)
        self._held, self._clear, self._at = -1, bytearray(), 0
        try:
            self._check_length()
        except BaseException:
            self._file.close()
            raise

    def _check_length(self) -> None:
        missing = self.header.sealed_size - os.fstat(self._file.fileno()).st_size
        if missing > 0:
            there = self.header.sealed_size - missing - self.header.start
            raise self._tampered(max(0, there) // (self.header.frame_size + TAG) + 1, "is cut off")
        if missing < 0:
            raise self._tampered(self.header.frames, "is not the file's end")
        if not self.header.size:  # otherwise nobody would look at its frame
            self._decrypt(0, memoryview(bytearray()))

    def _tampered(self, frame: int, what: str) -> Tampered:
        return Tampered(self.path, self.header.file_id, frame, f"of {self.header.frames} {what}" if frame else what)

    def _decrypt(self, frame: int, into: memoryview) -> None:
        header, last = self.header, frame == self.header.frames - 1
        place = header.start + frame * (header.frame_size + TAG)
        sealed = os.pread(self._file.fileno(), len(into) + TAG, place)
        try:
            self._cipher.decrypt_into(nonce_of(frame, last), sealed, bound_to(header.file_id, frame, last), into)
        except (InvalidTag, ValueError):
            into[:] = bytes(len(into))
            raise self._tampered(frame + 1, "is not what was sealed") from None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """None: the descriptor is that of the encrypted bytes."""
        raise io.UnsupportedOperation("a sealed file has no descriptor of its content")

    def readinto(self, buffer, /) -> int:
        """Fill the buffer, or as much of it as there is content left."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view, header, done = memoryview(buffer).cast("B"), self.header, 0
        while done < len(view) and self._at < header.size:
            frame, skipped = divmod(self._at, header.frame_size)
            length = header.frame_length(frame)
            if not skipped and len(view) - done >= length and frame != self._held:
                taken = length
                self._decrypt(frame, view[done : done + taken])
            else:
                if frame != self._held:
                    self._hold(frame, length)
                taken = min(length - skipped, len(view) - done)
                view[done : done + taken] = memoryview(self._clear)[skipped : skipped + taken]
            done += taken
            self._at += taken
        return done

    def _hold(self, frame: int, length: int) -> None:
        if len(self._clear) != length:
            self._clear = bytearray(length)
        self._held = -1
        self._decrypt(frame, memoryview(self._clear))
        self._held = frame

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As a file's."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.header.size}.get(whence)
        if start is None:
            raise ValueError(f"whence {whence} is not supported")
        if start + offset < 0 and whence == io.SEEK_SET:
            raise ValueError(f"negative seek position {offset}")
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Bytes of content before the place that is read next."""
        return self._at

    def close(self) -> None:
        """Close the file and forget what is held."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
            self._clear[:] = bytes(len(self._clear))
        super().close()

    def verify(self, hashed: bool = True) -> None:
        """Decrypt every frame and, if `hashed`, compare the hash of all. Raises Tampered."""
        self.seek(0)
        digest, block = hashlib.sha256(), bytearray(self.header.frame_size)
        while n := self.readinto(block):
            if hashed:
                digest.update(memoryview(block)[:n])
        if hashed and digest.hexdigest() != self.sha256:
            raise self._tampered(0, "tells another hash than the content has")


class SealedWriter(io.RawIOBase):
    """A sealed file that is being written: whole at `target` after `commit`, and not there before it.

    A process that is killed leaves a hidden file of ciphertext, which ends in LEFTOVER. `name` is kept with the
    content.
    """

    def __init__(self, target: Path, keys: ContributorKeys, owner: str, name: bytes) -> None:
        self._target, self._name, self._frame = target, name, 0
        self._digest, self._pending, self._size = hashlib.sha256(), bytearray(), 0
        self.file_id, key = os.urandom(16), keys.key(owner)
        self._cipher, self._key_id = file_key(key, self.file_id), key_id_of(key)
        self._owners, self._owner = AESGCM(owners_key(keys)), owner.encode()
        self._sealed = bytearray(FRAME + TAG)
        make_folder(target.parent)
        self._temporary = target.with_name(f".{self.file_id.hex()}{LEFTOVER}")
        self._file = self._temporary.open("xb", buffering=0)
        self._n_content = len(msgspec.msgpack.encode(Meta(name, self.sha256)))
        self._file.seek(FIXED.size + NONCE_BYTES + len(self._owner) + 2 * TAG + self._n_content)

    def _header(self) -> Header:
        """As long as that of another content. Made once: its nonce is of one use."""
        content, nonce = msgspec.msgpack.encode(Meta(self._name, self.sha256)), os.urandom(NONCE_BYTES)
        lengths = bytes(NONCE_BYTES + len(self._owner) + TAG), bytes(len(content) + TAG)
        blank = Header(FRAME, self.file_id, self._key_id, self._size, *lengths)
        box = nonce + self._owners.encrypt(nonce, self._owner, blank.fixed)
        meta = self._cipher.encrypt(HEADER_NONCE, content, blank.fixed + box)
        return Header(FRAME, self.file_id, self._key_id, self._size, box, meta)

    @property
    def sha256(self) -> str:
        """Of the content so far."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data, /) -> int:
        """Append content."""
        self._digest.update(data)
        self._pending += data
        n = len(memoryview(data).cast("B"))
        self._size += n
        while len(self._pending) > FRAME:
            self._put(last=False)
        return n

    def _put(self, last: bool) -> None:
        n = min(FRAME, len(self._pending))
        with memoryview(self._sealed)[: n + TAG] as sealed, memoryview(self._pending)[:n] as content:
            bound = bound_to(self.file_id, self._frame, last)
            self._cipher.encrypt_into(nonce_of(self._frame, last), content, bound, sealed)
            written = 0
            while written < len(sealed):
                written += self._file.write(sealed[written:]) or 0
        del self._pending[:n]
        self._frame += 1

    def commit(self, mtime_ns: int | None = None, target: Path | None = None) -> None:
        """Write what is pending and the header, flush to the disk, and put the file in its place (or `target`)."""
        self._put(last=True)
        header = self._header()
        self._file.seek(0)
        self._file.write(header.fixed + header.box + header.meta)
        os.fsync(self._file.fileno())
        self._file.close()
        if mtime_ns is not None:
            os.utime(self._temporary, ns=(mtime_ns, mtime_ns))
        self._temporary.replace(target or self._target)
        sync(self._target.parent)

    def close(self) -> None:
        """Close the file; what was not committed is removed."""
        if not self.closed and hasattr(self, "_file") and not self._file.closed:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
