"""Lines of the erased are cut out of Reddit dumps, and their names out of others' lines (F4)."""

import bz2
import gzip
import json
import lzma

import pytest
import zstandard

from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.erasure.raw_files import cut_out, search

KEY = bytes(range(32))


def comment(number: int, author: str, body: str) -> bytes:
    record = {"id": f"c{number}", "author": author, "created_utc": 1.7e9 + number, "subreddit": "s", "body": body}
    return json.dumps(record | {"link_id": "t3_x", "parent_id": "t3_x", "edited": False}).encode()


LINES = [
    comment(1, "alice_wonder", "I said this"),
    comment(2, "bob", "hello  there"),
    comment(3, "carol", "as Alice_Wonder said"),
    b'{"broken',
    comment(4, "alice_wonder", "and that"),
]
COMPRESSED = {
    "plain": bytes,
    "zstd": zstandard.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("how", COMPRESSED)
def test_a_persons_lines_are_cut_out_of_a_dump_and_others_keep_their_bytes(how, tmp_path):
    path = tmp_path / "RC_2024-01"
    path.write_bytes(COMPRESSED[how](b"\n".join(LINES) + b"\n"))
    users = frozenset([user_id(KEY, "reddit", "alice_wonder")])
    [found] = search(tmp_path, KEY, users)
    assert (found.own, found.n_records, found.records) == (False, 2, {"": {1, 5}})
    assert cut_out(found, found.names)
    opened = {"gzip": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress, "plain": bytes}
    content = (
        zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        if how == "zstd"
        else opened[how](path.read_bytes())
    )
    lines = content.split(b"\n")
    assert (lines[0], lines[1], lines[3], lines[4]) == (b"", LINES[1], LINES[3], b"")
    assert json.loads(lines[2])["body"] == "as <PERSON> said"
    assert list(search(tmp_path, KEY, users)) == []


def test_the_first_line_of_a_dump_with_a_mark_of_its_encoding_is_kept(tmp_path):
    """Somebody else wrote it: the name in it goes, not the line."""
    path = tmp_path / "RC_2024-01"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(LINES[2:]) + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", "alice_wonder")]))
    assert cut_out(found, found.names)
    assert json.loads(path.read_bytes().split(b"\n")[0])["body"] == "as <PERSON> said"


KEYED = {"reactions": {"alice_wonder": 3, "bob": 1, "Alice_Wonder": 2, "by u/alice_wonder": [{"alice_wonder": {}}]}}
UNNAMED = {"reactions": {"<PERSON>": 3, "bob": 1, "<PERSON> 2": 2, "by <PERSON>": [{"<PERSON>": {}}]}}


def test_a_name_that_is_a_key_is_replaced_in_a_dump(tmp_path):
    """F4: its value is whose record it is; no two keys become one, and a line without the name keeps its bytes."""
    path = tmp_path / "RC_2024-01"
    said = json.dumps(json.loads(LINES[1]) | KEYED).encode()
    path.write_bytes(b"\n".join([LINES[0], said, LINES[1]]) + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", "alice_wonder")]))
    assert scan(tmp_path, ["alice_wonder"]).hits
    assert cut_out(found, found.names)
    lines = path.read_bytes().split(b"\n")
    assert json.loads(lines[1]) == json.loads(LINES[1]) | UNNAMED and lines[2] == LINES[1]
    assert not scan(tmp_path, ["alice_wonder"]).hits


@pytest.mark.parametrize("name", ["author", "Title", "created", "id"])
def test_a_name_like_a_field_of_the_format_leaves_the_field(name, tmp_path):
    """F4: `created` is a part of `created_utc`; without the field no reader would read what others wrote."""
    path = tmp_path / "RC_2024-01"
    path.write_bytes(b"\n".join([comment(1, name, "mine"), LINES[1]]) + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", name)]))
    assert cut_out(found, found.names)
    assert path.read_bytes().split(b"\n") == [b"", LINES[1], b""]


@pytest.mark.parametrize("before", ["\n", "\t", "\r\n", "\b", "\\", '"', "\x01", "é\n", "\ud83d"])
def test_a_name_is_found_behind_what_json_escapes(before, tmp_path):
    """F4: `\\nalice_wonder` in a line is no word `nalice_wonder`; also in a line that is no JSON."""
    path = tmp_path / "RC_2024-01"
    said = comment(2, "bob", f"I was there.{before}alice_wonder told me{before}so")
    path.write_bytes(b"\n".join([LINES[0], said, said[:-1], LINES[1]]) + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", "alice_wonder")]))
    assert cut_out(found, found.names)
    lines = path.read_bytes().split(b"\n")
    assert (lines[0], lines[2], lines[3]) == (b"", b"", LINES[1])
    assert "alice" not in json.loads(lines[1])["body"] and "<PERSON> told me" in json.loads(lines[1])["body"]


@pytest.mark.parametrize("hidden", [b'"body": "alice_wonder was there", ', b'"score": {"a": "alice_wonder", "a": 1}, '])
def test_a_name_is_found_behind_a_key_that_stands_twice(hidden, tmp_path):
    """F4: of two values of one key a decoder gives one; the line still holds both."""
    path = tmp_path / "RC_2024-01"
    path.write_bytes(b"\n".join([LINES[0], LINES[1].replace(b"{", b"{" + hidden, 1), LINES[1]]) + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", "alice_wonder")]))
    assert cut_out(found, found.names)
    assert path.read_bytes().split(b"\n") == [b"", b"", LINES[1], b""]


def test_an_ordinary_name_is_found_where_somebody_is_addressed(tmp_path):
    """F4: that it begins the text, the line does not tell."""
    path = tmp_path / "RC_2024-01"
    path.write_bytes(comment(1, "the", "mine") + b"\n" + comment(2, "bob", "the: where were you") + b"\n")
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "reddit", "the")]))
    assert cut_out(found, found.names)
    assert json.loads(path.read_bytes().split(b"\n")[1])["body"] == "<PERSON>: where were you"
