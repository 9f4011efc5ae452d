"""NDJSON in chunks of whole lines, decompressed one chunk ahead, in memory that DuckDB reads like a file.

Two anonymous memory files take turns: while one is parsed, a thread fills the other, so memory is two chunks
plus the decompressor's window, whatever the dump's size. (A zstd frame written with `--long=31` has a window of
2 GiB, and any decoder must keep as much of the frame as it has seen, up to that.)
"""

import bz2
import gzip
import io
import lzma
import mmap
import os
import tempfile
import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import msgspec
import numpy as np
import zstandard

from user_embeddings_dagster.exports.reader import RawFile, Rejected

CHUNK = 6 << 20  # bytes; also the longest line
_STEP = 256 << 10  # bytes decompressed at a time: what a corrupt block can take with it
MAX_RATIO = 200  # uncompressed over compressed bytes; dumps reach about 30
RATIO_FREE = 64 << 20  # uncompressed bytes up to which any ratio is harmless
ZSTD_MAX_WINDOW = 1 << 31
# A frame appended to every zstd stream: only a stream whose last frame is complete ends with its content.
_END = b"complete" * 16
_END_FRAME = zstandard.ZstdCompressor(write_content_size=False).compress(_END)
BROKEN = (zstandard.ZstdError, EOFError, OSError, lzma.LZMAError, zlib.error, ValueError)

MAGIC = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz"}


class _Object(msgspec.Struct, gc=False):
    """A JSON object of which nothing is kept: checked twice as fast as msgspec.Raw, in no memory."""


_JSON = msgspec.json.Decoder(msgspec.Raw)
_OBJECTS = msgspec.json.Decoder(_Object)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Readable(Protocol):
    """The one method of a byte stream used here."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill (part of) the buffer; 0 at the end."""
        ...


def compression(head: bytes) -> str:
    """zstd (also behind a skippable frame), bz2, gzip, xz or none, by the first bytes."""
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "none")


class _WithEndFrame(io.RawIOBase):
    """A file followed by the end frame."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        if not data and not self._ended:
            self._ended = True
            return _END_FRAME
        return data


def open_stream(raw: BinaryIO) -> tuple[Readable, bytes]:
    """The decompressed bytes of a file (zstd, bz2, gzip, xz by content; anything else as it is), and what they
    must end with if the file is whole: zstd's decoder does not say that a frame is cut off, the others raise."""
    head = raw.read(8)
    raw.seek(0)
    kind = compression(head)
    if kind == "zstd":
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
        source = cast(BinaryIO, _WithEndFrame(raw))
        return decoder.stream_reader(source, read_size=1 << 20, read_across_frames=True), _END
    if kind == "bz2":
        return cast(Readable, bz2.BZ2File(raw)), b""
    if kind == "gzip":
        return cast(Readable, gzip.GzipFile(fileobj=raw)), b""
    if kind == "xz":
        return cast(Readable, lzma.LZMAFile(raw)), b""
    return cast(Readable, raw), b""


def peek(file: Path | RawFile, size: int = 64 << 10) -> bytes:
    """Up to `size` decompressed bytes from the file's start; fewer (or none) where it is broken."""
    buffer = bytearray(size)
    filled = 0
    with file.open("rb", buffering=0) as raw:
        stream, end = open_stream(cast(BinaryIO, raw))
        try:
            while filled < size and (read := stream.readinto(memoryview(buffer)[filled:])):
                filled += read
        except BROKEN:
            return bytes(buffer[:filled])
    return bytes(buffer[:filled]).removesuffix(end)


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a dump: `path` opens as a file of exactly these `size` bytes."""

    path: str
    map: mmap.mmap  # its first `size` bytes are the same
    size: int
    first_line: int  # 1-based line number of the first line
    n_lines: int
    bytes_read: int  # bytes of the file on disk that it took
    rejected: tuple[Rejected, ...]

    def content(self) -> bytes:
        """A copy of the bytes."""
        return Path(self.path).read_bytes()

    def is_json(self) -> bool:
        """Every line is a JSON object (RFC 8259): DuckDB also reads NaN, Infinity and `[1,]`."""
        with memoryview(self.map) as view, view[: self.size] as lines:
            try:
                _OBJECTS.decode_lines(lines)
            except _NOT_JSON:
                return False
        return True


def is_json(line: bytes) -> bool:
    """The line is JSON, of values nested no deeper than the decoder follows (about 1,000)."""
    try:
        _JSON.decode(line)
    except _NOT_JSON:
        return False
    return True


class _Buffer:
    """An anonymous file of CHUNK bytes, mapped into memory."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("lines")
        else:
            with tempfile.TemporaryFile() as stream:
                self.descriptor = os.dup(stream.fileno())
        self.path = f"/dev/fd/{self.descriptor}"
        self.resize(CHUNK)
        self.map = mmap.mmap(self.descriptor, CHUNK)

    def resize(self, size: int) -> None:
        """Make the file end after `size` bytes; the map reaches CHUNK bytes only after resize(CHUNK)."""
        os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        self.map.close()
        os.close(self.descriptor)


class _Source:
    """Fills buffers with whole lines from one file."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._stream, self._end = open_stream(raw)
        self._tail = b""  # the line begun in the last buffer
        self._skipping = False  # inside a line longer than a chunk
        self._position = 0
        self._produced = 0
        self._line = 1
        self.done = False

    def fill(self, buffer: _Buffer) -> Chunk:
        """The next whole lines; the last chunk also says how the file broke off, if it did."""
        buffer.resize(CHUNK)
        with memoryview(buffer.map) as view:
            filled, n_lines, error = self._read(view)
        if self.done and not error and self._end:
            if buffer.map[max(0, filled - len(self._end)) : filled] == self._end:
                filled -= len(self._end)
            else:
                error = "the last frame is cut off"
        rejected: list[Rejected] = []
        if self._skipping:
            self._blank_skipped_line(buffer, filled)
        length = buffer.map.rfind(b"\n", 0, filled) + 1
        if self.done and not error and filled > length and not self._skipping:
            length, n_lines = filled, n_lines + 1  # a last line without a newline
        elif not self.done and length == 0 and filled == CHUNK:
            if not self._skipping:
                rejected.append(Rejected("", self._line, "record_too_long", f"a line of over {CHUNK} bytes"))
            self._skipping, filled = True, 0
        self._tail = buffer.map[length:filled]
        first, self._line = self._line, self._line + n_lines
        if error:
            reason = error if error == "compression_ratio" else "truncated"
            rejected.append(Rejected("", self._line, reason, f"the rest cannot be decompressed: {error}"))
        before, self._position = self._position, self._raw.tell()
        buffer.resize(length)
        return Chunk(buffer.path, buffer.map, length, first, n_lines, self._position - before, tuple(rejected))

    def _read(self, view: memoryview) -> tuple[int, int, str]:
        """Fill the buffer: bytes in it, newlines among them, and the error that ended the stream or ''."""
        filled, n_lines = len(self._tail), 0
        view[:filled] = self._tail
        while filled < CHUNK and not self.done:
            with view[filled : filled + _STEP] as step:
                try:
                    read = self._stream.readinto(step)
                except BROKEN as broken:
                    self.done = True
                    return filled, n_lines, type(broken).__name__
                self._produced += read
                if self._produced > max(RATIO_FREE, MAX_RATIO * self._raw.tell()):
                    self.done = True
                    return filled, n_lines, "compression_ratio"
                n_lines += int(np.count_nonzero(np.frombuffer(step, np.uint8, read) == 10))
            filled += read
            self.done = read == 0
        return filled, n_lines, ""

    def _blank_skipped_line(self, buffer: _Buffer, filled: int) -> None:
        """Overwrite the rest of a line that was too long: a blank line keeps the line numbers right."""
        end = buffer.map.find(b"\n", 0, filled)
        if end >= 0:
            buffer.map[:end] = b" " * end
            self._skipping = False


def chunks(file: Path | RawFile) -> Generator[Chunk, None, None]:
    """Chunks of whole lines of a (compressed) NDJSON file; what cannot be decompressed is a rejected record.

    A chunk is valid until the next is asked for.
    """
    with file.open("rb", buffering=0) as raw, ThreadPoolExecutor(1, "decompress") as pool:
        source = _Source(cast(BinaryIO, raw))
        buffers = [_Buffer(), _Buffer()]
        try:
            pending = pool.submit(source.fill, buffers[0])
            turn = 0
            while True:
                chunk = pending.result()
                last = source.done
                if not last:
                    turn = 1 - turn
                    pending = pool.submit(source.fill, buffers[turn])
                yield chunk
                if last:
                    return
        finally:
            pool.shutdown(wait=True)
            for buffer in buffers:
                buffer.close()
