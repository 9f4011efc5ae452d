"""The attacks of size: bombs, endless lines, floods of small things.

`megabytes` says how large; bombs are 8 to 16 times that.
"""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from benchmarks.hostile_shapes import ARRAYS, JSON, MALFORMED, SHAPES, ZIPPED, Attack, good_member, zipped

MEGABYTE = 1 << 20


def _fill(pattern: bytes, megabytes: int) -> Iterator[bytes]:
    block = pattern * (MEGABYTE // len(pattern))
    for _ in range(megabytes):
        yield block


def _in_element(format: str, opening: bytes, pattern: bytes, closing: bytes) -> Callable[[Path, int], None]:
    """One element of that many megabytes."""

    def write(folder: Path, megabytes: int) -> None:
        shape = SHAPES[format]
        odd = shape.element(9).replace(b"good", b"odd", 1)
        at = odd.index(b"odd")

        def pieces() -> Iterator[bytes]:
            yield odd[:at] + opening
            yield from _fill(pattern, megabytes)
            yield closing + odd[at:]

        shape.stream(folder / shape.file, pieces())

    return write


def _elements_of(format: str, element: bytes) -> Callable[[Path, int], None]:
    """That many megabytes of one small element."""

    def write(folder: Path, megabytes: int) -> None:
        shape = SHAPES[format]

        def pieces() -> Iterator[bytes]:
            yield from _fill(element + shape.between, megabytes)
            yield element

        shape.stream(folder / shape.file, pieces())

    return write


def _many_chats(folder: Path, megabytes: int) -> None:
    with (folder / "result.json").open("wb") as out:
        out.write(b'{"chats": {"about": "", "list": [' + SHAPES["telegram_desktop"].good().strip() + b",")
        out.writelines(_fill(b'{"id":1,"type":"personal_chat","messages":[]},', megabytes))
        out.write(b'{"id":2,"type":"personal_chat","messages":[]}]}}')


def _many_dumped_chats(folder: Path, megabytes: int) -> None:
    with (folder / "dump.json").open("wb") as out:
        out.write(SHAPES["telegram_dfusion"].good().strip().removesuffix(b"]}") + b",")
        out.writelines(_fill(b'{"chat_id":1,"contents":[]},', megabytes))
        out.write(b'{"chat_id":2,"contents":[]}]}')


def _space(folder: Path, megabytes: int) -> None:
    shape = SHAPES["telegram_desktop"]
    with (folder / shape.file).open("wb") as out:
        out.write(shape.good().rstrip()[:-1])
        out.writelines(_fill(b" \n", megabytes))
        out.write(b"}")


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zst": zstandard.ZstdCompressor(level=3).compress,
    "bz2": lambda data: bz2.compress(data, 1),
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def _compressed(kind: str, pattern: bytes) -> Callable[[Path, int], None]:
    """A dump that begins well and goes on as a bomb: streams one after the other, which decoders read as one."""

    def write(folder: Path, megabytes: int) -> None:
        compress = _COMPRESS[kind]
        bomb = compress(b"".join(_fill(pattern, 16)))
        with (folder / f"RC_2023-11.{kind}").open("wb") as out:
            out.write(compress(SHAPES["pushshift"].good()))
            for _ in range(megabytes):
                out.write(bomb)

    return write


def _bomb(format: str) -> Callable[[Path, int], None]:
    """A member of many megabytes in a thousandth of that, beside a good one of the same format."""

    def write(folder: Path, megabytes: int) -> None:
        name, content = good_member(format)
        with zipfile.ZipFile(folder / "export_ann_20240101.zip", "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr(f"b/{name}", content)
            with out.open(f"a/{name}", "w", force_zip64=True) as member:
                for piece in _fill(b" ", megabytes * 8):
                    member.write(piece)

    return write


def _nested(folder: Path, megabytes: int) -> None:
    inner = zipped(("result.json", b" " * (megabytes * MEGABYTE // 8)))
    for _ in range(4):
        inner = zipped(*((f"{n}/result.json", inner) for n in range(8)))
    (folder / "a.zip").write_bytes(zipped(("result.json", inner), ("b/result.json", SHAPES["telegram_desktop"].good())))


def _quine(folder: Path, megabytes: int) -> None:
    """A better bomb (Fifield 2019): members that share one kernel, by overlapping entries of the directory."""
    data = zipped(*((f"{n:04}/conversations.json", b"[" + b" " * 15_000_000 + b"]") for n in range(2)))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x01\x02", start + 4)
    entries = [data[start:end].replace(b"0000/", b"%04d/" % n) for n in range(megabytes * 2)]
    directory = b"".join(entries)
    counts = len(entries).to_bytes(2, "little") * 2
    tail = b"PK\x05\x06\0\0\0\0" + counts + len(directory).to_bytes(4, "little") + start.to_bytes(4, "little") + b"\0\0"
    (folder / "a.zip").write_bytes(data[:start] + directory + tail)
    (folder / "conversations.json").write_bytes(SHAPES["chatgpt"].good())


def _many_members(names: str) -> Callable[[Path, int], None]:
    def write(folder: Path, _: int) -> None:
        with zipfile.ZipFile(folder / "a.zip", "w") as out:
            out.writestr("0/result.json", SHAPES["telegram_desktop"].good())
            for number in range(60_000):
                out.writestr(zipfile.ZipInfo(names.format(number + 1)), b"{}")

    return write


def sizes() -> Iterator[Attack]:
    """Every attack of size."""
    ratio = frozenset({"compression_ratio"})
    flood = frozenset({"too_many_rejected"})
    for format in ZIPPED:
        yield Attack(f"zip bomb 1,000:1, {format}", _bomb(format), 3, ratio, True)
    yield Attack("nested zip bomb", _nested, 3, frozenset({"malformed_json", "compression_ratio"}), True)
    yield Attack(
        "zip bomb of overlapping members",
        _quine,
        3,
        frozenset({"archive_too_large", "damaged_archive", "unknown_format"}),
        True,
    )
    many = frozenset({"too_many_members", "too_many_documents"})
    yield Attack("zip of many members", _many_members("{}"), 3, many, True)
    yield Attack("zip of many documents", _many_members("{}/result.json"), 3, many, True)
    yield Attack("zip of many dumps", _many_members("{}.json"), 3, many, True)
    for kind in ("zst", "bz2", "gz", "xz"):
        yield Attack(f"{kind} bomb of one line", _compressed(kind, b" "), 3, ratio, True)
        yield Attack(f"{kind} bomb of bad lines", _compressed(kind, b"1\n"), 3, flood, True)
    long = frozenset({"record_too_long", "malformed_csv", *MALFORMED})
    for format in (*JSON, "reddit_request_csv"):
        yield Attack(f"single line, {format}", _in_element(format, b"", b"x", b""), 3, long, True)
    for format in ARRAYS:
        array = _in_element(format, b'", "x": [', b"[],", b'0], "y": "')
        yield Attack(f"endless array, {format}", array, 3, None, True)  # up to 32 MB it is a field that is not read
        nesting = _in_element(format, b'", "x": ', b"[", b'"')
        yield Attack(f"endless nesting, {format}", nesting, 3, MALFORMED, True)
        yield Attack(
            f"elements {{}}, {format}",
            _elements_of(format, b"{}"),
            1,
            flood | MALFORMED,
            True,
        )
        yield Attack(f"broken elements, {format}", _elements_of(format, b'{"id":1]}'), 1, flood, True)
        yield Attack(f"open strings, {format}", _elements_of(format, b'{"id":"1}'), 1, flood | MALFORMED, True)
    yield Attack("bad lines, pushshift", _elements_of("pushshift", b"1"), 1, flood, True)
    yield Attack("blank lines, pushshift", _elements_of("pushshift", b""), 3, frozenset(), True)
    yield Attack("bad rows, reddit_request_csv", _elements_of("reddit_request_csv", b"1"), 1, flood, True)
    chats = frozenset({"too_many_chats"})
    yield Attack("many chats", _many_chats, 3, chats, True)
    yield Attack("many chats, telegram_dfusion", _many_dumped_chats, 3, chats, True)
    yield Attack("white space", _space, 3, frozenset(), True)
