"""The attack corpus: hostile exports as code, each beside good content that must be kept.

An attack writes files into a DataDAO's landing folder. `Expected` says what must be left: how many good texts, and
which reasons stand in rejected_records (one of them must; none for content that is only odd and is read).
"""

import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.hostile_shapes import JSON, MALFORMED, SHAPES, ZIPPED, Attack, good_member, zipped
from benchmarks.hostile_sizes import sizes


def _elements() -> dict[str, tuple[Callable[[bytes], bytes], bool | None, int]]:
    """Hostile elements of JSON by name: made from a good one; whether it is rejected (None: some formats can read
    it); how many of the three good ones must be kept."""
    deep = 100_000

    def in_text(raw: bytes) -> Callable[[bytes], bytes]:
        return lambda element: element.replace(b'"odd', b'"odd ' + raw)

    def field(raw: bytes) -> Callable[[bytes], bytes]:
        return lambda element: element.replace(b"{", b"{" + raw + b", ", 1)

    return {
        "nested 100,000 deep": (field(b'"deep": ' + b"[" * deep + b"]" * deep), None, 3),
        "objects nested 100,000 deep": (field(b'"deep": ' + b'{"a":' * deep + b"1" + b"}" * deep), None, 3),
        "NaN": (field(b'"value": NaN'), True, 3),
        "Infinity": (field(b'"value": [Infinity, -Infinity]'), True, 3),
        "duplicate keys": (lambda element: element[:-1] + b", " + element[1:], False, 3),
        "number of 100,000 digits": (field(b'"value": ' + b"9" * deep), None, 3),
        "number over 64 bits": (lambda element: element.replace(b"17", b"9" * 30), None, 3),
        "exponent 1e999999": (field(b'"value": 1e999999'), None, 3),
        "invalid UTF-8": (in_text(b"\xff\xfe\xc0\xaf\xed\xa0\x80"), None, 3),
        "lone surrogates": (in_text(rb"\ud800 \udfff\ud83d"), False, 3),
        "escaped NUL": (in_text(rb"\u0000"), False, 3),
        "raw NUL": (in_text(b"\0"), True, 3),
        "raw control characters": (in_text(b"\x01\x1b[31m\t"), True, 3),
        "bidi controls": (in_text("\u202e\u2066\u200f".encode()), False, 3),
        r"Telegram's \xNN": (in_text(rb"\xe9\xFF\q"), None, 3),
        "trailing comma": (lambda element: element[:-1] + b",}", True, 3),
        "unclosed string": (lambda element: element.replace(b'"odd', b'"odd').replace(b'"}', b"}"), True, 3),
        "unclosed object": (lambda element: element[:-1], True, 2),
        "one bracket too many": (lambda element: element + b"]", True, 1),
        "not an object": (lambda _: b'[1, "x"]', True, 3),
        "every field null": (lambda _: b'{"id": null, "text": null, "mapping": null, "link_id": null}', None, 3),
        "every field a list": (lambda _: b'{"id": [], "text": [[]], "mapping": [], "body": []}', True, 3),
        "ids that are SQL": (in_text(b"'; DROP TABLE messages; --"), False, 3),
    }


def _reply_cycle(folder: Path, _: int) -> None:
    shape = SHAPES["telegram_desktop"]
    replies = [(11, 12), (12, 11), (13, 13), (14, 999)]
    made = (shape.element(a)[:-1].replace(b"good", b"odd") + b', "reply_to_message_id": %d}' % b for a, b in replies)
    (folder / shape.file).write_bytes(shape.around(*made))


def _cyclic_tree(folder: Path, _: int) -> None:
    shape = SHAPES["chatgpt"]
    odd = shape.element(9).replace(b"good", b"odd")
    cycle = odd.replace(b'"parent": null, "message": null', b'"parent": "a9", "message": null')
    own_parent = odd.replace(b'"parent": "r9"', b'"parent": "a9"').replace(b"c9", b"c8")
    nowhere = odd.replace(b'"current_node": "a9"', b'"current_node": "nowhere"').replace(b"c9", b"c7")
    (folder / shape.file).write_bytes(shape.around(cycle, own_parent, nowhere))


def _deep_tree(folder: Path, _: int) -> None:
    shape, node = SHAPES["chatgpt"], b'"n%d": {"id": "n%d", "parent": "n%d", "message": null}'
    chain = b", ".join(node % (n, n, n - 1) for n in range(1, 50_000))
    odd = shape.element(9).replace(b"good", b"odd").replace(b'"mapping": {', b'"mapping": {' + chain + b", ")
    (folder / shape.file).write_bytes(shape.around(odd.replace(b'"r9", "parent": null', b'"r9", "parent": "n49999"')))


def _colliding_ids(format: str) -> Callable[[Path, int], None]:
    def write(folder: Path, _: int) -> None:
        shape = SHAPES[format]
        (folder / shape.file).write_bytes(shape.around(*[shape.element(1).replace(b"good", b"odd")] * 5))

    return write


def _hostile_ids(folder: Path, _: int) -> None:
    sql = b"x'); DROP TABLE staged; --"
    chatgpt, dump, csv = SHAPES["chatgpt"], SHAPES["pushshift"], SHAPES["reddit_request_csv"]
    odd = chatgpt.element(9).replace(b"good", b"odd").replace(b"a9", sql).replace(b"c9", sql)
    (folder / chatgpt.file).write_bytes(chatgpt.around(odd))
    odd = dump.element(9).replace(b"good", b"odd").replace(b"c9", sql).replace(b"t3_l1", b"t3_" + sql)
    (folder / dump.file).write_bytes(dump.around(odd.replace(b'"ann"', b'"' + sql + b'"')))
    (folder / csv.file).write_bytes(csv.around(csv.element(9).replace(b"good", b"=cmd()").replace(b"c9", sql)))


def _envelopes(folder: Path, _: int) -> None:
    shape = SHAPES["chatgpt"]
    deep = b'{"data":' * 100_000 + shape.good() + b"}" * 100_000
    (folder / "a.json").write_bytes(b'{"chatgpt.conversations": ' + deep + b"}")
    (folder / shape.file).write_bytes(shape.good())


def _wrong_extensions(folder: Path, _: int) -> None:
    (folder / "photo.jpg").write_bytes(SHAPES["telegram_desktop"].good())
    (folder / "result.json").write_bytes(zipped(good_member("chatgpt")))
    (folder / "conversations.json").write_bytes(SHAPES["pushshift"].good())
    (folder / "comments.csv").write_bytes(b"PK\x03\x04 is no zip")
    (folder / "RC_2023.zst").write_bytes(SHAPES["telegram_dfusion"].good())


def _names(folder: Path, _: int) -> None:
    content = SHAPES["telegram_desktop"].good()
    odd = (
        "=HYPERLINK(1).json",
        "a\nb\tc.json",
        "\u202egnp.json",
        "<img src=x>.json",
        "[x](javascript:1).json",
        "';--.json",
    )
    for name in odd:
        (folder / name).write_bytes(content)
    Path(f"{folder}/{bytes([0xFF, 0xFE]).decode(errors='surrogateescape')}.json").write_bytes(content + b" ")


def _member(format: str, name: str = "", mode: int = 0) -> Callable[[Path, int], None]:
    """A hostile member before a good one."""

    def write(folder: Path, _: int) -> None:
        good, content = good_member(format)
        info = zipfile.ZipInfo(name.format(good) or good, (2024, 1, 1, 0, 0, 0))
        info.external_attr = mode << 16
        evil = (info, content.replace(b"good", b"evil"))
        (folder / "export_ann_20240101.zip").write_bytes(zipped(evil, (f"ok/{good}", content)))

    return write


def _duplicates(format: str) -> Callable[[Path, int], None]:
    def write(folder: Path, _: int) -> None:
        name, content = good_member(format)
        data = zipped((name, content), (name.swapcase(), content.replace(b"good", b"evil")))
        (folder / "export_ann_20240101.zip").write_bytes(data.replace(name.swapcase().encode(), name.encode()))

    return write


def _patched(format: str, *patches: tuple[int, int, bytes], cut: float = 1.0) -> Callable[[Path, int], None]:
    """A good archive with bytes of its first member's headers overwritten, or cut off; a good one beside it."""

    def write(folder: Path, _: int) -> None:
        name, content = good_member(format)
        data = bytearray(zipped((f"a/{name}", content.replace(b"good", b"evil")), (f"b/{name}", content)))
        central = data.index(b"PK\x01\x02")
        for local_at, central_at, value in patches:
            data[local_at : local_at + len(value)] = value
            data[central + central_at : central + central_at + len(value)] = value
        (folder / "export_ann_20240101.zip").write_bytes(data[: int(len(data) * cut)])
        (folder / SHAPES["pushshift"].file).write_bytes(SHAPES["pushshift"].good())

    return write


def attacks() -> Iterator[Attack]:
    """Every attack of the corpus."""
    for name, (make, rejected, good) in _elements().items():
        for format in JSON:
            shape = SHAPES[format]
            content = shape.around(make(shape.element(9).replace(b"good", b"odd")))

            def write(folder: Path, _: int, name: str = shape.file, content: bytes = content) -> None:
                (folder / name).write_bytes(content)

            expected = None if rejected is None else MALFORMED if rejected else frozenset[str]()
            if format == "pushshift":  # broken lines cost nothing but themselves; DuckDB reads NaN and a comma too many
                good, expected = 3, None
            yield Attack(f"{name}, {format}", write, good, expected)
    yield from _structures()
    yield from _archives()
    yield from sizes()


def _structures() -> Iterator[Attack]:
    yield Attack("reply cycles", _reply_cycle)
    yield Attack("cyclic ChatGPT trees", _cyclic_tree)
    yield Attack("ChatGPT tree 50,000 deep", _deep_tree)
    for format in JSON:
        yield Attack(f"colliding ids, {format}", _colliding_ids(format))
    yield Attack("ids that are SQL", _hostile_ids, 6)  # the dump's comments are those of the request
    yield Attack("envelopes nested 100,000 deep", _envelopes, 3, MALFORMED)
    yield Attack("wrong extensions", _wrong_extensions, 6, frozenset({"unknown_format"}))
    yield Attack("hostile file names", _names)


def _archives() -> Iterator[Attack]:
    for format in ZIPPED:
        for kind, name in (
            ("path traversal", "../../{}"), ("absolute path", "/tmp/{}"), ("drive path", "C:\\{}"),
            ("UNC path", "\\\\host\\share\\{}"), ("inner traversal", "a/../../{}"),
        ):  # fmt: skip
            yield Attack(f"{kind}, {format}", _member(format, name), 3, frozenset({"unsafe_path"}))
        links = frozenset({"not_a_regular_file"})
        yield Attack(f"symlink, {format}", _member(format, mode=stat.S_IFLNK | 0o777), 3, links)
        yield Attack(f"device, {format}", _member(format, mode=stat.S_IFBLK | 0o777), 3, links)
        yield Attack(f"duplicate member, {format}", _duplicates(format), 3, frozenset({"duplicate_member"}))
        good = 6 if format == "telegram_desktop" else 3  # a dump beside a contributor's export only hydrates it
        encrypted = frozenset({"encrypted_member"})
        yield Attack(f"encrypted member, {format}", _patched(format, (6, 8, b"\x01")), good, encrypted)
        broken = frozenset({"damaged_archive", "broken_archive", "broken_member", "truncated", "unknown_format"})
        yield Attack(f"truncated zip, {format}", _patched(format, cut=0.5), 3, broken)
        lies = (22, 24, b"\x10\0\0\0")
        yield Attack(f"size that lies low, {format}", _patched(format, lies), good, broken)
        lies = (22, 24, b"\0\0\0\x0f")
        yield Attack(f"size that lies high, {format}", _patched(format, lies), good, broken | {"compression_ratio"})
        yield Attack(f"unknown compression, {format}", _patched(format, (8, 10, b"\x63")), good, broken)
