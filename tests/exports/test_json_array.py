"""C6: arrays of objects in one JSON document, of any layout, in bounded memory, the good parts of broken ones kept."""

import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.exports import json_array, json_window
from user_embeddings_dagster.exports.json_array import ArrayReader, Part
from user_embeddings_dagster.exports.json_repair import repair
from user_embeddings_dagster.exports.json_window import Malformed, Window


class Item(msgspec.Struct):
    id: int
    t: str = ""


_TEXTS = st.sampled_from(
    ["a", '},{"id":1', '}, {"id": 1, "t":', 'x"\\', "é" * 50, "\n", '[{"id":2}]', "{", "\\"]
) | st.text(st.characters(exclude_categories=["Cs"]))
_ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 99), "t": _TEXTS, "n": st.just([{"id": 9, "t": "q"}, {"id": 8, "t": "z"}]) | st.none()}
    ),
    max_size=12,
)
_LAYOUTS = st.tuples(
    st.sampled_from([None, 0, 1, 2, "\t"]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\r\n")]),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n"]),
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_window, "BLOCK", 40)
    monkeypatch.setattr(json_array, "SLICE", 150)
    monkeypatch.setattr(json_array, "MARGIN", 64)
    monkeypatch.setattr(json_array, "GUESS", 1000)
    monkeypatch.setattr(json_array, "SHORT", 1500)


def _dumped(document: Any, layout: tuple) -> bytes:
    indent, separators, is_ascii, newline = layout
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=is_ascii)
    return text.encode().replace(b"\n", newline)


def _read(raw: bytes) -> list[list[Part]]:
    window = Window(io.BytesIO(raw))
    reader = ArrayReader(window, Item)
    found = []
    for key in window.members():
        if key != "arrays":
            window.skip()
            continue
        for _ in window.elements():
            found.append(list(reader.read()))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(_ITEMS, max_size=3), _LAYOUTS)
def test_every_layout_gives_what_json_gives(arrays: list[list[dict]], layout: tuple) -> None:
    """C1: compact, pretty, CRLF; strings that look like separators; nested objects that look like elements."""
    found = _read(_dumped({"before": {"x": [1, {"y": "]"}]}, "arrays": arrays, "after": None}, layout))
    assert [[(i.id, i.t) for part in parts for i in part.items] for parts in found] == [
        [(i["id"], i["t"]) for i in items] for items in arrays
    ]
    assert not any(part.rejected for parts in found for part in parts)
    assert [[n for part in parts for n in part.indices] for parts in found] == [list(range(len(a))) for a in arrays]


def _broken(at: int, junk: bytes, width: int) -> list[Part]:
    raw = _dumped([{"id": n, "t": f"message {n}", "k": 'q"'} for n in range(40)], (1, (",", ":"), True, b"\n"))
    place = raw.index(b"message %d" % at)
    raw = raw[:place] + junk + raw[place + width :]
    return list(ArrayReader(Window(io.BytesIO(raw)), Item).read())


@pytest.mark.parametrize(
    ("junk", "width", "lost"),
    [(b'"""', 3, 1), (b"\x00" * 10, 10, 1), (b"\\", 1, 0), (b"}]}", 3, 0), (b'"}{{{', 3, 1), (b"\x00" * 90, 90, 3)],
)
def test_a_broken_element_costs_only_itself(junk: bytes, width: int, lost: int) -> None:
    """C7: what lies around a broken place is read; the place is located and counted."""
    parts = _broken(20, junk, width)
    ids = [i.id for part in parts for i in part.items]
    rejected = [r for part in parts for r in part.rejected]
    assert len(ids) >= 40 - lost and set(range(20)) <= set(ids) and set(range(20 + lost, 40)) <= set(ids)
    assert len(rejected) == min(lost, 1)
    assert all(
        index in (20, 21) and reason == "malformed_json" and "message" not in detail
        for index, reason, detail in rejected
    )


def test_a_wrong_type_costs_only_its_element() -> None:
    raw = json.dumps([{"id": n if n != 7 else "seven"} for n in range(30)]).encode()
    parts = list(ArrayReader(Window(io.BytesIO(raw)), Item).read())
    assert [i.id for part in parts for i in part.items] == [n for n in range(30) if n != 7]
    assert [(n, reason) for part in parts for n, reason, _ in part.rejected] == [(7, "wrong_type")]


def test_a_cut_file_keeps_what_is_whole() -> None:
    raw = json.dumps([{"id": n} for n in range(30)], indent=1).encode()
    cut = raw[: raw.index(b'"id": 25')]
    parts = list(ArrayReader(Window(io.BytesIO(cut)), Item).read())
    assert [i.id for part in parts for i in part.items] == list(range(25))
    assert [(n, reason) for part in parts for n, reason, _ in part.rejected] == [(25, "truncated")]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'{"id":1,"t":"a\x0ab"}', "a\nb"),
        (rb'{"id":1,"t":"a\qb"}', "a\\qb"),
        (rb'{"id":1,"t":"\\xff \ud83d\ude00 \ud83d!"}', "\\xff 😀 �!"),
        (b'{"id":1,"t":"a\xffb"}', "a�b"),
    ],
)
def test_slips_of_known_writers_are_mended(raw: bytes, text: str) -> None:
    assert msgspec.json.decode(repair(raw), type=Item).t == text
    parts = list(ArrayReader(Window(io.BytesIO(b"[" + b",".join([raw] * 9) + b"]")), Item).read())
    assert [i.t for part in parts for i in part.items] == [text] * 9


def test_a_lost_quote_is_not_searched_to_the_end_of_the_file() -> None:
    """C6: a broken string does not draw the rest of a large file into memory."""
    items = [{"id": n, "t": "x" * 20, "k": "q"} for n in range(5000)]
    raw = json.dumps(items).replace('"id": 100, "t": "', '"id": 100, "t": ""', 1).encode()
    window = Window(io.BytesIO(raw))
    longest, ids = 0, []
    for part in ArrayReader(window, Item).read():
        longest = max(longest, len(window.data))
        ids += [item.id for item in part.items]
    assert ids == [n for n in range(5000) if n != 100]
    assert longest < 12_000 < len(raw)


def _elements(raw: bytes) -> list[Part]:
    return list(ArrayReader(Window(io.BytesIO(b"[" + raw + b"]")), Item).read())


def test_a_flood_of_broken_elements_gives_the_document_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """F11: separators that no element follows are not stepped over for ever; as many as may be cost nobody else."""
    monkeypatch.setattr(json_array, "IN_VAIN", 50)
    good = b'{"id": 1, "t": "a"}'

    def read(n_broken: int) -> list[Part]:
        return _elements(b", ".join([good] * 9 + [b'{"id":1]}'] * n_broken + [good]))

    assert sum(len(part.items) for part in read(40)) == 10
    parts = read(60)
    assert sum(len(part.items) for part in parts) == 9
    assert [reason for part in parts for _, reason, _ in part.rejected] == ["too_many_rejected"]


def test_many_separators_in_good_elements_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "IN_VAIN", 50)
    element = b'{"id": 1, "t": "a", "n": [%s]}' % b", ".join([b'{"x": 1}'] * 40)
    parts = _elements(b'%s, {"id": 1]}, %s' % (b", ".join([element] * 9), b", ".join([element] * 9)))
    assert sum(len(part.items) for part in parts) == 18


@pytest.mark.parametrize(
    ("inner", "reason"),
    [(b"[%s]" % b", ".join([b"[]"] * 4000), ""), (b"[ 1 2 %s]" % b", ".join([b"[]"] * 4000), "malformed_json")],
)
def test_long_elements_are_judged_by_their_beginning(inner: bytes, reason: str) -> None:
    r"""One that is JSON, `\xNN` mended, is read to its end; one that is none costs itself alone, whatever follows."""
    good = b'{"id": 1, "t": "a"}'
    long = rb'{"id": 2, "t": "\xe9\ud83d", "n": ' + inner + b"}"
    parts = _elements(b"%s, %s, %s" % (b", ".join([good] * 9), long, b", ".join([good] * 9)))
    assert sum(item.id == 1 for part in parts for item in part.items) == 18
    assert [item.t for part in parts for item in part.items if item.id == 2] == ([] if reason else ["\xe9\ufffd"])
    assert [found for part in parts for _, found, _ in part.rejected] == ([reason] if reason else [])


def test_memory_is_bounded_by_the_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """C6: the window never holds more than a few blocks of a long array."""
    raw = json.dumps([{"id": n, "t": "x" * 20} for n in range(5000)]).encode()
    window = Window(io.BytesIO(raw))
    longest = 0
    for _ in ArrayReader(window, Item).read():
        longest = max(longest, len(window.data))
    assert longest < 3000 < len(raw)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text('{}[]",:ab1\\ \n', max_size=200).map(str.encode))
def test_any_bytes_end_in_parts_or_malformed(raw: bytes) -> None:
    window = Window(io.BytesIO(raw))
    try:
        for _ in window.members():
            list(ArrayReader(window, Item).read())
    except Malformed as error:
        assert error.reason in ("malformed_json", "truncated")
    list(ArrayReader(Window(io.BytesIO(b"[" + raw)), Item).read())
