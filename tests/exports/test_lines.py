"""Chunks of whole lines out of whole, joined, cut-off and corrupt files."""

import bz2
import gzip
import lzma
import random
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from user_embeddings_dagster.exports import lines

LINES = [b'{"n":%d,"x":"%s"}\n' % (n, random.Random(n).randbytes(40).hex().encode()) for n in range(20_000)]
PLAIN = b"".join(LINES)


def zst(data: bytes, **parameters: int) -> bytes:
    compression = zstandard.ZstdCompressionParameters.from_level(3, **parameters)
    return zstandard.ZstdCompressor(compression_params=compression).compress(data)


def collect(path):
    """All chunks' content, first lines, numbers of lines, bytes read, and rejected records."""
    got = [(c.content(), c.first_line, c.n_lines, c.bytes_read, c.rejected) for c in lines.chunks(path)]
    content = b"".join(g[0] for g in got)
    return content, [g[1] for g in got], sum(g[2] for g in got), sum(g[3] for g in got), [r for g in got for r in g[4]]


@pytest.mark.parametrize(
    "packed",
    [
        PLAIN,
        zst(PLAIN),
        zst(PLAIN, window_log=31, enable_ldm=1),
        zst(PLAIN[:700_001]) + zst(PLAIN[700_001:]),
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zst(PLAIN),
        bz2.compress(PLAIN),
        bz2.compress(PLAIN[:700_001]) + bz2.compress(PLAIN[700_001:]),
        gzip.compress(PLAIN),
        lzma.compress(PLAIN),
    ],
    ids=["plain", "zstd", "window-2^31", "two-frames", "skippable", "bz2", "two-bz2", "gzip", "xz"],
)
def test_every_compression_gives_every_line_once(tmp_path, monkeypatch, packed):
    """C1, C6: whatever the compression and however many frames, with chunks far smaller than the file."""
    monkeypatch.setattr(lines, "CHUNK", 100_000)
    path = tmp_path / "dump"
    path.write_bytes(packed)
    content, first, n_lines, n_bytes, rejected = collect(path)
    assert content == PLAIN
    assert not rejected
    assert n_lines == len(LINES)
    assert n_bytes == len(packed)
    assert len(first) > 10
    assert first[1] == 1 + PLAIN[:100_000].count(b"\n")


@pytest.mark.parametrize("pack", [zst, bz2.compress, gzip.compress], ids=["zstd", "bz2", "gzip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_cut_off_file_gives_its_good_part_and_one_located_error(tmp_path, pack, share):
    """C7: the whole lines before the cut, then the line number from which on nothing can be read."""
    packed = pack(PLAIN)
    path = tmp_path / "dump"
    path.write_bytes(packed[: int(len(packed) * share)])
    content, _, n_lines, _, rejected = collect(path)
    assert PLAIN.startswith(content)
    assert content.count(b"\n") == n_lines
    assert n_lines > (share - 0.6) * len(LINES)
    assert [(r.location, r.reason) for r in rejected] == [(n_lines + 1, "truncated")]


def test_zstd_alone_does_not_notice_the_cut(tmp_path):
    """The broken twin: without the end frame the decoder reports a cut-off file as whole."""
    packed = zst(PLAIN)
    path = tmp_path / "dump"
    path.write_bytes(packed[: len(packed) // 2])
    with path.open("rb") as raw:
        data = zstandard.ZstdDecompressor().stream_reader(raw).read()
    assert len(data) < len(PLAIN)
    assert collect(path)[4]


def test_a_cut_at_every_byte_of_a_small_frame_is_noticed(tmp_path):
    """No length at which a frame is cut passes for whole, and no byte that was not written is given out."""
    data = b'{"a":1}\n' * 20 + bytes(range(32, 127)) + b"\n"
    packed = zst(data)
    path = tmp_path / "dump"
    for length in range(8, len(packed)):
        path.write_bytes(packed[:length])
        content, *_, rejected = collect(path)
        assert data.startswith(content), length
        assert [r.reason for r in rejected] == ["truncated"], length


def test_corruption_in_the_middle_keeps_what_came_before(tmp_path):
    """bz2 has a checksum per block, so what it gives is exact; zstd gives whole lines up to the damage."""
    path = tmp_path / "dump"
    for pack, exact in ((bz2.compress, True), (zst, False)):
        packed = pack(PLAIN)
        middle = len(packed) // 2
        path.write_bytes(packed[:middle] + b"\xff" * (len(packed) - middle))
        content, _, n_lines, _, rejected = collect(path)
        good = content if exact else content[: PLAIN.find(LINES[len(LINES) // 4])]
        assert len(LINES) // 5 < n_lines < len(LINES)
        assert PLAIN.startswith(good)
        assert [(r.location, r.reason) for r in rejected] == [(n_lines + 1, "truncated")]


def test_a_line_longer_than_a_chunk_is_rejected_and_the_lines_around_it_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 1000)
    path = tmp_path / "dump"
    path.write_bytes(b"one\n" + b"x" * 3500 + b"\nthree\nfour")
    got = [
        (c.first_line + i, line)
        for c in lines.chunks(path)
        for i, line in enumerate(c.content().splitlines())
        if line.strip()
    ]
    assert got == [(1, b"one"), (3, b"three"), (4, b"four")]
    assert [(r.location, r.reason) for r in collect(path)[4]] == [(2, "record_too_long")]


def test_an_empty_file_and_a_last_line_without_newline(tmp_path):
    path = tmp_path / "dump"
    path.write_bytes(b"")
    assert collect(path)[0] == b""
    path.write_bytes(zst(b"a\nb"))
    assert collect(path)[0::2] == (b"a\nb", 2, [])


def test_a_reader_that_stops_early_leaves_no_descriptor_open(tmp_path):
    path = tmp_path / "dump"
    path.write_bytes(zst(PLAIN))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with closing(lines.chunks(path)) as stream:
            next(stream)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
