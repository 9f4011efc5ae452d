"""Dumps of every era, with bad lines among good ones."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_embeddings_dagster.exports import lines, pushshift
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.schema import NATIVE_MESSAGES

REAL = Path(os.environ.get("USER_EMBEDDINGS_REAL_DATA", "")) / "reddit"


def read(path: Path, *records: dict | bytes):
    """Messages and rejected records of a dump with these records, one per line."""
    rows = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    if rows:
        path.write_bytes(b"\n".join(rows) + b"\n")
    batches = list(pushshift.read(RawFile(path, path.name, "f" * 64)))
    messages = pl.concat([NATIVE_MESSAGES.conform(batch.messages) for batch in batches])
    return messages, [r for batch in batches for r in batch.rejected]


def comment(**changes) -> dict:
    base = {
        "id": "c1", "author": "ann", "created_utc": 1134365188, "edited": False, "subreddit": "pics",
        "link_id": "t3_a", "parent_id": "t3_a", "body": "hello",
    }  # fmt: skip
    return {k: v for k, v in (base | changes).items() if v is not ...}


def post(**changes) -> dict:
    base = {"id": "a", "author": "ann", "created_utc": 1, "subreddit": "pics", "title": "T", "selftext": "S"}
    return {k: v for k, v in (base | changes).items() if v is not ...}


@pytest.mark.parametrize(
    ("record", "column", "expected"),
    [
        (comment(), "native_id", "t1_c1"),
        (comment(id="t1_c1"), "native_id", "t1_c1"),
        (comment(link_id="a"), "native_thread", "t3_a"),
        (comment(parent_id="t1_b"), "native_parent", "t1_b"),
        (comment(parent_id=36), "native_parent", "t1_10"),
        (comment(parent_id=36.0), "native_parent", "t1_10"),
        (comment(title="T"), "native_id", "t1_c1"),
        (comment(parent_id=None), "native_parent", "t3_a"),
        (comment(parent_id=...), "native_parent", "t3_a"),
        (comment(created_utc="1134365188"), "created_at", datetime(2005, 12, 12, 5, 26, 28, tzinfo=UTC)),
        (comment(created_utc=1134365188.0), "created_at", datetime(2005, 12, 12, 5, 26, 28, tzinfo=UTC)),
        (comment(created_utc=1e300), "created_at", None),
        (comment(created_utc="soon"), "created_at", None),
        (comment(created_utc=...), "created_at", None),
        (comment(edited=True), "edited_at", None),
        (comment(edited=False), "edited_at", None),
        (comment(edited=1134365188.5), "edited_at", datetime(2005, 12, 12, 5, 26, 28, 500_000, tzinfo=UTC)),
        (comment(author="[deleted]"), "native_author", None),
        (comment(author="[deleted]"), "role", "deleted"),
        (comment(author=None), "role", "deleted"),
        (comment(author=...), "role", "deleted"),
        (comment(), "role", "user"),
        (comment(body="[removed]"), "text", ""),
        (comment(body="[deleted]"), "text", ""),
        (comment(body='a "b"\n\u00e9\U0001f642'), "text", 'a "b"\n\u00e9\U0001f642'),
        (comment(subreddit="u_ann"), "community", None),
        (comment(subreddit="pics"), "community", "pics"),
        (post(), "text", "T\n\nS"),
        (post(), "native_thread", "t3_a"),
        (post(name="t3_a"), "native_id", "t3_a"),
        (post(), "native_parent", None),
        (post(selftext=""), "text", "T"),
        (post(selftext=None), "text", "T"),
        (post(selftext=...), "text", "T"),
        (post(selftext="[removed]"), "text", "T"),
        (post(is_video=True), "media_kind", "video"),
        (post(post_hint="image"), "media_kind", "photo"),
        (post(is_self=False), "media_kind", None),
    ],
)
@pytest.mark.parametrize("neighbour", [comment(id="z"), post(id="z")], ids=["in-comments", "in-posts"])
def test_every_era_reads_alike(tmp_path, record, column, expected, neighbour):
    """C1: whatever type a key has or whether it is there, and whichever way the line is parsed."""
    messages, rejected = read(tmp_path / "dump", neighbour, record, neighbour)
    assert not rejected
    assert messages[column][1] == expected
    assert messages["raw_location"].to_list() == [1, 2, 3]
    assert messages["is_public"].all()


def test_bad_lines_are_located_and_their_neighbours_kept(tmp_path):
    """C7: good rows keep their line numbers; every bad line is one rejected record that shows no content."""
    messages, rejected = read(
        tmp_path / "dump",
        comment(id="l1"), b'{"id": "secret', b"", b"   ", comment(id="l5"), b"[1]", b"null", b"\xff\xfe{}",
        comment(id="l9", body=...), comment(id=..., body="secret"), b"{" * 5000, comment(id="l12"),
        b'{"id":"a"}{"id":"b"}', post(id="l14"),
    )  # fmt: skip
    assert dict(messages.select("raw_location", "native_id").iter_rows()) == {
        1: "t1_l1", 5: "t1_l5", 12: "t1_l12", 14: "t3_l14",
    }  # fmt: skip
    assert [(r.location, r.reason) for r in rejected] == [
        (2, "malformed_json"), (6, "not_an_object"), (7, "not_an_object"), (8, "malformed_json"),
        (9, "missing_field"), (10, "missing_field"), (11, "malformed_json"), (13, "malformed_json"),
    ]  # fmt: skip
    assert not any("secret" in r.detail for r in rejected)


def test_line_numbers_run_on_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 2000)
    records = [comment(id=f"n{i}") if i % 50 else b"broken" for i in range(1, 501)]
    messages, rejected = read(tmp_path / "dump", *records)
    assert (messages["native_id"].str.strip_prefix("t1_n").cast(pl.Int64) == messages["raw_location"]).all()
    assert [r.location for r in rejected] == list(range(50, 501, 50))


def test_a_line_of_megabytes_is_read_like_any_other(tmp_path):
    messages, rejected = read(tmp_path / "dump", comment(), comment(id="big", body="x" * 3_000_000), comment(id="c3"))
    assert not rejected
    assert messages["text"].str.len_chars().to_list() == [5, 3_000_000, 5]


def test_only_lines_of_up_to_a_megabyte_are_for_polars():
    """F11: what it skips in a line costs it 55 times the line's bytes."""
    line = json.dumps(comment(body="")).encode()
    longest = line.replace(b'""', b'"' + b"x" * (pushshift._MAX_LINE - len(line)) + b'"')
    for before in (b"", b"\n", line + b"\n"):
        for after in (b"", b"\n", b"\n" + line):
            assert pushshift._parse(pushshift.COMMENT, before + longest + after) is not None
            assert pushshift._parse(pushshift.COMMENT, before + longest + b" " + after) is None


def test_a_lone_surrogate_and_a_null_character_survive(tmp_path):
    bad = json.dumps(comment(body="a\ud800b")).encode()
    messages, rejected = read(tmp_path / "dump", comment(), bad, comment(body="a\0b"))
    assert not rejected
    assert messages["text"].to_list() == ["hello", "a?b", "a\0b"]


TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(
    ["[deleted]", "[removed]", "", "u_ann", "t3_a", "t1_a", "12", "1e3", " 7", "nan", "true", "_", "aa_b"]
)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS


@given(
    st.sampled_from([(pushshift.COMMENT, comment()), (pushshift.SUBMISSION, post())]),
    st.lists(st.tuples(st.sampled_from(sorted({*pushshift.COMMENT.keys, *pushshift.SUBMISSION.keys})), VALUES)),
)
def test_one_line_is_read_alike_both_ways(ordinary, changes):
    """C7: what is parsed beside others is what the strict decoder reads of the line alone; the first of equal keys."""
    kind, record = ordinary
    pairs = [*changes, *record.items()]
    line = b"{" + b",".join(json.dumps(k).encode() + b":" + json.dumps(v).encode() for k, v in pairs) + b"}"
    parsed = pushshift._parse(kind, line + b"\n")
    again, rejected = pushshift._read_again([(1, line)])
    if parsed is not None and parsed["whole"].item() and pushshift._strict(line)[0] is kind:
        assert not rejected
        assert again[0].drop("raw_location").equals(parsed)


def test_most_lines_are_parsed_at_once():
    """The test above can fail: of ordinary records, none is left to the strict decoder."""
    for kind, record in ((pushshift.COMMENT, comment()), (pushshift.SUBMISSION, post())):
        parsed = pushshift._parse(kind, json.dumps(record).encode())
        assert parsed is not None
        assert parsed["whole"].all()


@pytest.mark.parametrize("number", [0, 1, 35, 36, 36**6 + 7, 10**18 - 1])
def test_a_parents_number_is_its_name_in_base_36(tmp_path, number):
    """C1: parent_id of 2021 and later; beyond 18 digits it is no number that Reddit has given out."""
    messages, _ = read(tmp_path / "dump", comment(parent_id=number), comment(parent_id=10**18))
    parent, beyond = messages["native_parent"]
    assert int(parent.removeprefix("t1_"), 36) == number
    assert beyond == f"t1_{10**18}"


def test_detection_is_by_content(tmp_path):
    path = tmp_path / "anything.txt"
    path.write_bytes(b"junk\n" + json.dumps(comment()).encode())
    assert (found := detect(RawFile(path, path.name, ""))) and found.name == "pushshift"
    path.write_bytes(b'{"id": 1, "text": "no dump"}\n')
    assert not pushshift.matches(RawFile(path, path.name, ""))
    path.write_bytes(os.urandom(1000))
    assert not pushshift.matches(RawFile(path, path.name, ""))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="set USER_EMBEDDINGS_REAL_DATA")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("RC_2005-12.zst", 1075), ("RC_2006-01.zst", 3666), ("RC_2006-02.bz2", 9095),
        ("RS_2006-01.bz2", 145), ("RS_2006-02.bz2", 427), ("RS_2019-10.zst", 8271),
    ],
)  # fmt: skip
def test_real_dumps_have_their_counts(name, rows):
    """C1: genuine monthly dumps, comments and submissions."""
    path = REAL / name
    found = detect(RawFile(path, name, ""))
    assert found and found.name == "pushshift"
    messages, rejected = read(path)
    assert (messages.height, rejected) == (rows, [])
    assert messages["created_at"].dt.year().is_in([2005, 2006, 2019]).all()
    assert messages["native_id"].n_unique() == rows
