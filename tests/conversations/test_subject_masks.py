"""C9: exactly one SUBJECT a chunk, and no participant's name anywhere in it."""

import os
import re
import zipfile
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.privacy.masking import ThreadNames
from user_embeddings_dagster.privacy.residual import ResidualNameError

NAMES = {
    "alice": ["alice_w", "Alice Wonder", "Alice"],
    "bob": ["Bob-42", "Bob"],
    "jose": ["José Álvarez", "José"],
    "wang": ["王小明"],
    "you": ["you"],
}
ROWS = [
    {"id": "1", "by": "alice", "text": "Bob's apples? ask @alice_w or u/Bob-42, not JOSE ALVAREZ"},
    {"id": "2", "by": "bob", "text": "ALICE: http://bob-42.example/x says so, ask 王小明吧 and AliceWonder"},
    {"id": "3", "by": "jose", "text": "you: I told you that Ａｌｉｃｅ and al\u200bice and bob. know"},
    {"id": "4", "by": "wang", "text": "Jose\u0301 wrote: SUBJECT and <P1> are placeholders"},
    {"id": "5", "by": "you", "text": "thank you @you, Alvarez and Wonder agree"},
]


def test_no_name_in_any_form(tables, ident):
    """C9: possessive, case, @mention, u/name, diacritics, full width, zero width, joined, Chinese."""
    chunks = build_chunks(*tables(ROWS, NAMES, "linear")).chunks
    assert chunks.height == 5
    by_user = dict(chunks.select("user_id", "text").iter_rows())
    assert by_user[ident("alice")].split("\n") == [
        "SUBJECT: <P1>'s apples? ask SUBJECT or <P1>, not <P2>",
        "<P1>: SUBJECT: <URL> says so, ask <P3>吧 and SUBJECT",
        "<P2>: <P4>: I told you that SUBJECT and SUBJECT and <P1>. know",
        "<P3>: <P2> wrote: Subject and (P1) are placeholders",
        "<P4>: thank you <P4>, <P2> and SUBJECT agree",
    ]
    for text in chunks["text"]:
        assert not re.search("alice|bob|jos[eé]|lvarez|wonder|小明", text, re.IGNORECASE)


def test_a_name_told_in_one_thread_is_masked_in_all_that_its_bearer_wrote_in(tables, ident):
    """C9: a DFusion dump names nobody, a ChatGPT export its owner in one conversation of many."""
    rows = [
        {"id": "1", "by": "alice", "text": "hello group, wonder speaking", "thread": "group"},
        {"id": "2", "by": "bob", "text": "tell wonder that grandpa is in hospital", "thread": "private"},
        {"id": "3", "by": "alice", "text": "wonder here, how is he today?", "thread": "private"},
    ]
    messages, participants = tables(rows, {"alice": ["Alice Wonder"], "bob": ["Bob"]}, "linear")
    one = participants.filter(pl.col("thread_id") == ident("group"))
    assert one.height < participants.height
    chunks = build_chunks(messages, one).chunks
    assert chunks.height == 3 and not chunks["text"].str.contains("(?i)wonder").any()


def test_a_community_named_after_somebody_in_it_is_left_out(tables):
    """C9: r/alice_w is what masking calls <P1>; the same community stays where she is not, and so do others."""
    rows = [
        {"id": str(n), "by": by, "thread": t}
        for n, (by, t) in enumerate(zip(["alice", "bob"] * 2, "ttss", strict=True))
    ]
    messages, people = tables([*rows, {"id": "5", "by": "jose", "thread": "r"}], NAMES)
    for community, left in (("Alice_W", 1), ("alice_w_fans", 1), ("bob", 1), ("Bobsled", 5), ("fruit", 5)):
        chunks = build_chunks(messages.with_columns(community=pl.lit(community)), people).chunks
        assert chunks["community"].count() == left and chunks.height == 5, community


def test_no_name_however_typed(tables, ident):
    """C9: apostrophes, dashes, letters without a decomposition, umlauts written out."""
    names = {"a": ["Niamh O'Brien"], "b": ["Łukasz Wójcik"], "c": ["Søren Bjørn", "Jörg"], "d": ["Anne-Marie"]}
    rows = [
        {"id": "1", "by": "a", "text": "thanks lukasz, joerg, well done"},
        {"id": "2", "by": "b", "text": "Niamh O’Brien needs it, ask O’Brien, don´t wait"},
        {"id": "3", "by": "c", "text": "anne‑marie — said so"},
        {"id": "4", "by": "d", "text": "soren and søren bjorn"},
    ]
    chunks = build_chunks(*tables(rows, names, "linear")).chunks
    assert dict(chunks.select("user_id", "text").iter_rows())[ident("a")].split("\n") == [
        "SUBJECT: thanks <P1>, <P2>, well done",
        "<P1>: SUBJECT needs it, ask SUBJECT, don't wait",
        "<P2>: <P3> — said so",
        "<P3>: <P2> and <P2>",
    ]


def test_one_subject_and_swapping_changes_the_masks(tables, ident):
    """C9: SUBJECT labels exactly the user's turns; another SUBJECT of the window moves every mask."""
    messages, participants = tables(ROWS, NAMES, "linear")
    chunks = build_chunks(messages, participants).chunks
    author = dict(messages.select("message_id", "author_id").iter_rows())
    assert chunks["text"].n_unique() == chunks.height
    for row in chunks.iter_rows(named=True):
        labelled = [s == "SUBJECT" for s in row["speakers"]]
        assert labelled == [author[m] == row["user_id"] for m in row["message_ids"]]
        assert row["text"] == "\n".join(f"{s}: {t}" for s, t in zip(row["speakers"], row["turns"], strict=True))
        assert row["n_masked"] > 0


def test_shared_first_name_is_the_one_who_speaks(tables, ident):
    """C9: of two people called Sam the one in the chunk is meant; if both are, a person of their own."""
    rows = [
        {"id": "1", "by": "sam1", "text": "I bought apples", "at": 0},
        {"id": "2", "by": "erin", "text": "thank you Sam, well done", "at": 1},
        {"id": "3", "by": "sam2", "text": "I bought pears", "at": 100},
    ]
    names = {"sam1": ["sam_one", "Sam"], "sam2": ["sam_two", "Sam"]}
    texts = dict(build_chunks(*tables(rows, names, "linear")).chunks.select("user_id", "text").iter_rows())
    assert texts[ident("sam1")].endswith("<P1>: thank you SUBJECT, well done")
    rows[2]["at"] = 2
    texts = dict(build_chunks(*tables(rows, names, "linear")).chunks.select("user_id", "text").iter_rows())
    assert texts[ident("sam1")].endswith("<P1>: thank you <P2>, well done\n<P3>: I bought pears")


def test_a_broken_masker_is_caught_before_anything_is_written(tables, monkeypatch):
    """C9: the residual check stops a masker that forgets names, and its message holds none."""
    original = ThreadNames.mask
    monkeypatch.setattr(ThreadNames, "mask", lambda self, t: t if "ALVAREZ" in t else original(self, t))
    with pytest.raises(ResidualNameError) as caught:
        build_chunks(*tables(ROWS, NAMES, "linear"), config=ChunkConfig(mask_persons=False))
    assert len(caught.value.chunk_ids) == 5
    assert not re.search("alice|bob|alvarez", str(caught.value), re.IGNORECASE)


NAME = st.text(st.sampled_from("abcXYZéßİçøжЖ明小ก_-. |[]9"), min_size=1, max_size=9)
FILLER = st.sampled_from(["hello", "the", "x", ", ", ": ", "'s ", "@", " u/", "/", "_", "…", "\u200b", "(", "\n"])


@settings(max_examples=40, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=4), st.lists(st.one_of(FILLER, st.integers(0, 3)), max_size=12))
def test_masker_and_residual_check_agree_on_any_names(names, pieces):
    """C9: whatever people are called and wherever it is written, the independent check finds nothing left."""
    from tests_tables import build

    text = "".join(names[p % len(names)] if isinstance(p, int) else p for p in pieces)
    rows = [{"id": str(i), "by": f"person{i}", "text": text + " and more words follow"} for i in range(len(names))]
    known = {f"person{i}": [name] for i, name in enumerate(names)}
    assert build_chunks(*build(rows, known, "linear")).chunks.height == len(names)


@pytest.mark.real
def test_real_channel():
    """C9: 20,000 messages of a real channel with 17,777 names leave no name; unmasked text is full of them."""
    data = os.environ.get("USER_EMBEDDINGS_REAL_DATA")
    path = Path(data or "") / "telegram" / "ubuntu_irc_as_telegram.zip"
    if not data or not path.exists():
        pytest.skip("USER_EMBEDDINGS_REAL_DATA is not set")
    from tests_tables import build

    with zipfile.ZipFile(path) as archive:
        export = msgspec.json.decode(archive.read("result.json"))["messages"][:20_000]
    rows = [
        {"id": str(m["id"]), "by": m["from_id"], "at": int(m["date_unixtime"]) / 60 - 18_000_000, "text": m["text"]}
        for m in export
        if isinstance(m["text"], str)
    ]
    names = {m["from_id"]: [m["from"]] for m in export}
    result = build_chunks(*build(rows, names, "linear"))
    assert result.chunks.height > 2_000 and result.counts["masked_name"] > 10_000
    assert result.chunks.select(pl.col("text").str.contains("SUBJECT").all()).item()
