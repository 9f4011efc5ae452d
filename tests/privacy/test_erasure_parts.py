"""Erasure store by store: vectors at every share, raw files in every format, names in what others wrote."""

import bz2
import gzip
import json
import lzma
import random
import re
from datetime import timedelta
from itertools import pairwise
from unicodedata import normalize

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.erasure import raw_files
from user_embeddings_dagster.privacy.erasure.documents import Cut
from user_embeddings_dagster.privacy.erasure.evidence import PREFIX, _vectors
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.erasure.raw_files import cut_out, search
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lance_tables import LanceTables

KEY = bytes(range(32))
ROWS = 10_000


@pytest.mark.parametrize("gone", [1, 50, 900, 5000])
def test_vectors_of_any_share_leave_no_byte_and_others_stay_the_same(gone, tmp_path):
    """F4: 0.01 %, 0.5 %, 9 % and 50 % of the rows, with a BTree, an IVF index and a tag."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    frame = pl.DataFrame({"id": [f"{row:032x}" for row in range(ROWS)], "version": "v", "vector": pl.Series(vectors)})
    lance = LanceTables(tmp_path)
    lance.upsert("d", "t", frame)
    lance.ensure_indices("d", "t")
    dataset = lance.open("d", "t").to_lance()
    dataset.tags.create("release", dataset.version)
    erased = np.linspace(0, ROWS - 1, gone).astype(int)
    canaries = [vectors[row][:6].tobytes() for row in erased[:: max(1, gone // 20)]]
    assert scan(tmp_path, canaries).canaries == set(canaries)
    lance.purge("d", "t", frame["id"].gather(erased).to_list())
    assert not scan(tmp_path, canaries).hits
    others = frame.filter(~pl.col("id").is_in(frame["id"].gather(erased).implode()))
    ids, kept = lance.vectors("d", "t")
    assert ids == others["id"].to_list() and np.array_equal(kept, np.delete(vectors, erased, axis=0))
    assert {index.name for index in lance.open("d", "t").to_lance().describe_indices()} == {"id_idx", "vector_idx"}


def test_a_vector_that_somebody_else_has_too_is_no_trace(tmp_path):
    """F4: two who say the same have the same vector, also in another DataDAO's table."""
    layout = Layout(tmp_path)
    lance = LanceTables(layout.lancedb)
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    for datadao, rows in {"a": [0, 1], "b": [1, 2]}.items():
        ids = [f"{datadao}{row}" for row in rows]
        lance.upsert(datadao, "t", pl.DataFrame({"id": ids, "version": "v", "vector": pl.Series(vectors[rows])}))
    assert _vectors(layout, Journal([], chunks={"a": ["a0", "a1"]})) == {vectors[0][: PREFIX // 4].tobytes()}
    everywhere = Journal([], chunks={"a": ["a0", "a1"], "b": ["b1"]})
    assert _vectors(layout, everywhere) == {vectors[row][: PREFIX // 4].tobytes() for row in (0, 1)}


def test_the_scan_catches_what_optimize_alone_leaves(tmp_path):
    """F4's positive control: rows under a tenth of a fragment keep their bytes through LanceDB's own clean-up."""
    vectors = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    frame = pl.DataFrame({"id": [f"{row:032x}" for row in range(1000)], "version": "v", "vector": pl.Series(vectors)})
    lance, canary = LanceTables(tmp_path), vectors[5][:6].tobytes()
    lance.upsert("d", "t", frame)
    lance.delete("d", "t", frame["id"][:50].to_list())
    lance.open("d", "t").optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
    assert lance.count("d", "t") == 950 and scan(tmp_path, [canary]).hits
    lance.purge("d", "t", [])
    assert not scan(tmp_path, [canary]).hits


def test_a_vector_is_found_in_a_compressed_column(tmp_path):
    vectors = np.random.default_rng(0).integers(0, 3, size=(2000, 8)).astype(np.float32)
    vectors[7] = np.arange(8) + 0.5
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    pq.write_table(pa.table({"vector": array}), tmp_path / "file", compression="zstd")
    canary = vectors[7].tobytes()[:24]
    assert scan(tmp_path, [canary]).canaries == {canary}


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


def message(number: int, sender: str, text: object) -> dict:
    who = {"from": sender, "from_id": f"user{sum(map(ord, sender))}"}
    return {"id": number, "type": "message", "date": "2024-01-01T10:00:00", "date_unixtime": "1704103200"} | who | {
        "text": text
    }  # fmt: skip


def chat() -> dict:
    texts = [("Alice", "a"), ("Bob", "b"), ("Bob", ["hi ", {"type": "mention_name", "text": "Al", "user_id": 478}])]
    messages = [message(number, *pair) for number, pair in enumerate(texts)]
    return {"name": "group", "type": "public_supergroup", "id": 5, "messages": messages}


def test_a_persons_messages_are_cut_out_of_a_chat_and_so_is_what_points_at_them(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(chat(), indent=1))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert (found.own, found.n_records, found.accounts) == (False, 1, {"user478"})
    assert cut_out(found, found.names)
    kept = json.loads(path.read_text())
    assert kept["messages"] == [chat()["messages"][1], chat()["messages"][2] | {"text": ["hi "]}]
    assert not list(search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")])))


def test_a_name_or_account_that_is_a_key_is_replaced_in_a_chat(tmp_path):
    """F4: a number too, where it is an account; the fields by which readers read stay, though somebody is called so."""
    path, (first, *others) = tmp_path / "result.json", chat()["messages"]
    votes = {"Alice": 3, "user478": 1, "478": 2, "4780": 4, "Bob": {"alice": [{"ALICE": 0}]}}
    content = chat() | {"votes": votes, "messages": [first, others[0] | {"votes": votes}]}
    path.write_text(json.dumps(content))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    names = {("Date From", "display_name"), ("text", "handle"), ("messages", "handle"), *found.names}
    assert cut_out(found, names)
    kept = json.loads(path.read_text())
    left = {"<PERSON>": 3, "<PERSON> 2": 1, "<PERSON> 3": 2, "4780": 4, "Bob": {"<PERSON>": [{"<PERSON>": 0}]}}
    assert kept["votes"] == left
    assert kept["messages"] == [others[0] | {"votes": left}]


def test_the_number_on_a_persons_contact_card_is_cut_out(tmp_path):
    """Also where the card names no account; that of somebody with another surname stays."""
    cards = [{"first_name": first, "last_name": last, "phone_number": "+1 415 555 2671"} for first, last in CARDS]
    path = tmp_path / "result.json"
    sent = [message(9 + n, "Bob", "") | {"contact_information": card} for n, card in enumerate(cards)]
    people = {"contacts": {"list": cards}, "chats": {"list": [chat() | {"messages": [*chat()["messages"], *sent]}]}}
    path.write_text(json.dumps(people))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert cut_out(found, found.names)
    kept = json.loads(path.read_text())
    left = [card["contact_information"] for card in kept["chats"]["list"][0]["messages"][2:]]
    assert left == kept["contacts"]["list"]
    assert [card["phone_number"] == "" for card in left] == [True, True, False, False]


@pytest.mark.parametrize("block", [1 << 20, 7])
def test_an_account_is_found_where_its_person_wrote_nothing(block, tmp_path, monkeypatch):
    """Among another's contacts, and beside what was forwarded."""
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    path = tmp_path / "result.json"
    sent = message(1, "Bob", "fine") | {"forwarded_from": "Alice", "forwarded_from_id": "user478"}
    contact = {"user_id": 478, "first_name": "Alice", "phone_number": "+1 415 555 2671"}
    for contacts, message_sent in (([contact], message(1, "Bob", "fine")), ([], sent)):
        people = {"contacts": {"list": contacts}, "chats": {"list": [chat() | {"messages": [message_sent]}]}}
        path.write_text(json.dumps(people))
        [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
        assert (found.own, found.n_records, found.accounts) == (False, 0, {"user478"})
        assert cut_out(found, {("Alice", "display_name")})
        assert not [trace for trace in ("478", "Alice", "415") if trace in path.read_text()]
        assert not list(search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")])))


CARDS = [("Alice", ""), ("", "alice 🌸"), ("Alice", "Smith"), ("Bob", "")]


def bold(text: str, **more: str) -> dict:
    return {"type": "bold", "text": text} | more


def joined(text: str | list) -> str:
    return text if isinstance(text, str) else "".join(p if isinstance(p, str) else p["text"] for p in text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (["ask Ann", bold("a Smithers"), " now"], ["ask <PERSON>", bold(""), " now"]),
        (["ask ", bold("Smit"), bold("hers"), "’s dog"], ["ask ", bold("<PERSON>"), bold(""), "’s dog"]),
        (
            ["Ａnn", bold("a"), " and ＡＢ and ", bold("an"), "na"],
            ["<PERSON>", bold(""), " and ＡＢ and ", bold("<PERSON>"), ""],
        ),
        ([bold("A", href="https://x.de/b"), "nna"], [bold("<PERSON>", href="https://x.de/b"), ""]),
        (["Ban", bold("ana"), " and S", bold("mith")], ["Ban", bold("ana"), " and S", bold("mith")]),
        (["Anna", bold("bel")], ["<PERSON>", bold("bel")]),
    ],
)
def test_a_name_over_several_parts_of_a_text_is_replaced(text, left, tmp_path):
    """F4: Telegram writes bold and linked words apart; people read one text, and so does whoever looks for a name."""
    path = tmp_path / "result.json"
    entities = [p if isinstance(p, dict) else {"type": "plain", "text": p} for p in text]
    by_bob = message(2, "Bob", text) | {"text_entities": entities, "poll": {"question": text, "answers": []}}
    content = {"name": "g", "type": "private_group", "id": 5, "messages": [message(1, "Anna Smithers", "hi"), by_bob]}
    path.write_text(json.dumps(content))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", f"user{sum(map(ord, 'Anna Smithers'))}")]))
    assert cut_out(found, found.names)
    [kept] = json.loads(path.read_text())["messages"]
    assert kept["text"] == left and kept["poll"]["question"] == left
    assert [p["text"] for p in kept["text_entities"]] == [p if isinstance(p, str) else p["text"] for p in left]


def test_no_name_is_left_however_a_text_is_cut_into_parts():
    """F4: 1,000 texts cut at random places, also inside of letters and their accents; joined, no name is in them."""
    draw, names = random.Random(0), ["Anna Smithers", "Zoë O'Neil", "王小明", "Jo . Li", "anna_s", "김민수"]
    redaction = Redaction([(name, "display_name") for name in names])
    words = [
        *names,
        *map(str.upper, names),
        *["zoe\u0308", "Annabel", "é", "e\u0301", "問", ", ", ": ", "@", " "],
    ]
    spoken = re.compile(r"王小明|김민수|\b(?:smithers|anna_s)\b", re.IGNORECASE)
    found = 0
    for _ in range(1_000):
        whole = "".join(draw.choice(words) for _ in range(draw.randint(1, 6)))
        cuts = sorted(draw.randint(0, len(whole)) for _ in range(draw.randint(1, 4)))
        parts = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
        text = [part if draw.random() < 0.5 else bold(part) for part in parts]
        left = joined(Cut("messages", set(), set(), redaction).value({"text": text}, in_message=True)["text"])
        assert redaction.text(left) == left, ascii(text)
        assert not spoken.search(normalize("NFC", left)), ascii(text)
        found += whole != left
        alone = joined([redaction.text(part) for part in parts])
        assert left == whole or alone != whole or normalize("NFC", left) == normalize("NFC", redaction.text(whole))
    assert 667 < found < 1_000


def test_a_damaged_chat_that_cannot_be_rewritten_is_removed(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(chat(), indent=1)[:-20])
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert not cut_out(found, found.names) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("ask Alice Wonder's", "ask <PERSON>'s"),
        ("@alicewonder ?", "<PERSON> ?"),
        ("ALICE, come", "<PERSON>, come"),
        ("nothing of hers", "nothing of hers"),
    ],
)
def test_names_are_replaced_in_what_others_wrote(text, redacted):
    assert Redaction([("Alice Wonder", "display_name")]).text(text) == redacted


SPELT = [("Niamh O'Brien", "display_name"), ("Łukasz Wójcik", "display_name"), ("Jörg Müller", "display_name")]


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Niamh O’Brien and lukasz wojcik", "<PERSON> and <PERSON>"),
        ("ask Oʼbrien, ŁUKASZ", "ask <PERSON>, <PERSON>"),
        ("joerg mueller", "<PERSON>"),
        ("I don’t know a müll", "I don’t know a müll"),
    ],
)
def test_a_name_is_replaced_however_it_is_typed(text, redacted):
    assert Redaction(SPELT).text(text) == redacted
    found = ErasedNames(KEY).with_names(SPELT).found_in(pl.Series([text]))
    assert Redaction(found).text(text) == redacted


@pytest.mark.parametrize(
    ("name", "text", "redacted"),
    [
        ("Niamh O'Brien", "niamh o'brien, niamh o;brien, niamh o brien", "<PERSON>, <PERSON>, <PERSON>"),
        ("王・小明", "問王・小明吧", "問<PERSON>吧"),
        ("Alice王", "問Alice王吧", "問<PERSON>吧"),
    ],
)
def test_a_hashed_name_is_found_in_each_way_that_it_is_written(name, text, redacted):
    found = ErasedNames(KEY).with_names([(name, "display_name")]).found_in(pl.Series([text]))
    assert Redaction(found).text(text) == redacted


def test_a_name_hashed_in_an_earlier_form_is_found():
    """Hashes of before "ł" was compared as "l" are still in the files of erased names."""
    earlier = ErasedNames(KEY, frozenset([keyed_id(KEY, "erased name", "łukasz")]), frozenset([1]))
    assert Redaction(earlier.found_in(pl.Series(["ask Łukasz, lukasz"]))).text("ask Łukasz, lukasz") == (
        "ask <PERSON>, <PERSON>"
    )
