"""NDJSON in chunks of whole lines, decompressed one chunk ahead.

Two buffers take turns: while one is parsed, a thread fills the other, so memory is two chunks and a copy
plus the decompressor's window, whatever the dump's size. (A zstd frame written with `--long=31` has a window of
2 GiB, and any decoder must keep as much of the frame as it has seen, up to that.)
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

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
_NOT_BLANK = re.compile(rb"\S")
BROKEN = (zstandard.ZstdError, EOFError, OSError, lzma.LZMAError, zlib.error, ValueError)

MAGIC = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz"}


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
    """Whole lines of a dump."""

    buffer: bytearray  # its first `size` bytes are the lines
    size: int
    first_line: int  # 1-based line number of the first line
    n_lines: int
    bytes_read: int  # bytes of the file on disk that it took
    rejected: tuple[Rejected, ...]

    def content(self) -> bytes:
        """A copy of the bytes."""
        return bytes(memoryview(self.buffer)[: self.size])

    def numbered(self, size: int = 1 << 20) -> Iterator[tuple[int, bytes]]:
        """Line number and bytes of each line that is not blank, copied about `size` bytes at a time."""
        at, number = 0, self.first_line
        while at < self.size:
            end = self.buffer.find(b"\n", min(at + size, self.size), self.size) + 1 or self.size
            block = bytes(memoryview(self.buffer)[at:end])
            yield from numbered(block, number)
            at, number = end, number + block.count(b"\n")


def numbered(content: bytes, first: int) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each line that is not blank."""
    number, at = first, 0
    while found := _NOT_BLANK.search(content, at):
        start = content.rfind(b"\n", at, found.start()) + 1 or at
        number += content.count(b"\n", at, start)
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield number, content[start:end]
        number, at = number + 1, end + 1


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

    def fill(self, buffer: bytearray) -> Chunk:
        """The next whole lines; the last chunk also says how the file broke off, if it did."""
        with memoryview(buffer) as view:
            filled, n_lines, error = self._read(view)
        if self.done and not error and self._end:
            if buffer[max(0, filled - len(self._end)) : filled] == self._end:
                filled -= len(self._end)
            else:
                error = "the last frame is cut off"
        rejected: list[Rejected] = []
        if self._skipping:
            self._blank_skipped_line(buffer, filled)
        length = buffer.rfind(b"\n", 0, filled) + 1
        if self.done and not error and filled > length and not self._skipping:
            length, n_lines = filled, n_lines + 1  # a last line without a newline
        elif not self.done and length == 0 and filled == CHUNK:
            if not self._skipping:
                rejected.append(Rejected("", self._line, "record_too_long", f"a line of over {CHUNK} bytes"))
            self._skipping, filled = True, 0
        self._tail = bytes(memoryview(buffer)[length:filled])
        first, self._line = self._line, self._line + n_lines
        if error:
            reason = error if error == "compression_ratio" else "truncated"
            rejected.append(Rejected("", self._line, reason, f"the rest cannot be decompressed: {error}"))
        before, self._position = self._position, self._raw.tell()
        return Chunk(buffer, length, first, n_lines, self._position - before, tuple(rejected))

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

    def _blank_skipped_line(self, buffer: bytearray, filled: int) -> None:
        """Overwrite the rest of a line that was too long: a blank line keeps the line numbers right."""
        end = buffer.find(b"\n", 0, filled)
        if end >= 0:
            buffer[:end] = b" " * end
            self._skipping = False


def chunks(file: Path | RawFile) -> Generator[Chunk, None, None]:
    """Chunks of whole lines of a (compressed) NDJSON file; what cannot be decompressed is a rejected record.

    A chunk is valid until the next is asked for.
    """
    with file.open("rb", buffering=0) as raw, ThreadPoolExecutor(1, "decompress") as pool:
        source = _Source(cast(BinaryIO, raw))
        buffers = [bytearray(CHUNK), bytearray(CHUNK)]
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
