"""C5: linear chats are windowed by silence and token budget, with replies kept."""

import polars as pl
import pytest

from user_embeddings_dagster.conversations import rendering
from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.conversations.config import ChunkConfig

TALK = "I think we should buy apples and pears at the market"


def test_silence_and_budget_cut_windows(tables, ident):
    """C5: a gap over 20 minutes or a full budget ends a window; windows do not overlap and lose nothing."""
    rows = [{"id": str(i), "by": "ab"[i % 2] * 5, "at": i, "text": f"{TALK} {i}"} for i in range(40)]
    rows += [{"id": f"l{i}", "by": "aaaaa", "at": 100 + i, "text": f"{TALK} again {i}"} for i in range(3)]
    chunks = build_chunks(*tables(rows, {}, "linear")).chunks
    windows = chunks.unique("window_id").sort("started_at")["message_ids"].to_list()
    assert [m for ids in windows for m in ids] == [ident(row["id"]) for row in rows]
    assert windows[-1] == [ident(f"l{i}") for i in range(3)]
    assert chunks["n_tokens"].max() <= 200


def test_every_subject_of_a_window_gets_it_with_other_masks(tables, ident):
    """C5, C9: one window, as many chunks as contributors in it, the same window_id and different masks."""
    rows = [
        {"id": "1", "by": "alice", "text": "bob: did you buy the apples"},
        {"id": "2", "by": "bob", "text": "yes Alice, and pears too"},
        {"id": "3", "by": "carol", "text": "I prefer bananas", "subject": False},
    ]
    chunks = build_chunks(*tables(rows, {}, "linear")).chunks
    assert chunks.height == 2 and chunks["window_id"].n_unique() == 1
    texts = dict(chunks.select("user_id", "text").iter_rows())
    assert texts[ident("alice")] == (
        "SUBJECT: <P1>: did you buy the apples\n<P1>: yes SUBJECT, and pears too\n<P2>: I prefer bananas"
    )
    assert texts[ident("bob")] == (
        "<P1>: SUBJECT: did you buy the apples\nSUBJECT: yes <P1>, and pears too\n<P2>: I prefer bananas"
    )


def test_reply_targets_outside_the_window_come_first(tables, ident):
    """C5: what a message replied to long ago is prepended, two replies deep, and does not move the dates."""
    rows = [
        {"id": "0", "by": "dave", "at": 0},
        {"id": "1", "by": "dave", "at": 100, "parent": "0"},
        {"id": "2", "by": "erin", "at": 200, "parent": "1"},
        {"id": "3", "by": "alice", "at": 300, "parent": "2"},
    ]
    result = build_chunks(*tables(rows, {}, "linear"))
    [chunk] = result.chunks.filter(pl.col("user_id") == ident("alice")).to_dicts()
    assert chunk["message_ids"] == [ident(i) for i in "123"]
    assert chunk["started_at"] == chunk["ended_at"] and chunk["started_at"].hour == 5


def test_service_messages_empty_texts_and_small_talk_are_counted(tables):
    """C5: no turn for a service message, no chunk for "ok", a photo or an e-mail address alone."""
    rows = [
        {"id": "1", "by": "alice", "role": "service", "text": "joined", "at": 0},
        {"id": "2", "by": "alice", "text": "", "at": 50},
        {"id": "3", "by": "alice", "text": "ok", "at": 100},
        {"id": "4", "by": "alice", "text": "[photo]", "at": 150},
        {"id": "5", "by": "alice", "text": "jane.doe@example.com", "at": 200},
        {"id": "6", "by": "alice", "text": TALK, "at": 250},
    ]
    result = build_chunks(*tables(rows, {}, "linear"))
    assert result.chunks["text"].to_list() == [f"SUBJECT: {TALK}"]
    assert result.counts["too_little_said"] == 3 and result.counts["empty"] == 1


def test_caps_and_repeats(tables, ident):
    """C5, C8: a user's repeated text is dropped; the cap keeps the most recent; both are counted."""
    rows = [{"id": str(i), "by": "alice", "at": 60 * i, "text": f"{TALK} {max(i, 1)}"} for i in range(6)]
    result = build_chunks(*tables(rows, {}, "linear"), config=ChunkConfig(max_chunks_per_user=2))
    kept = result.chunks.sort("ended_at")["message_ids"].to_list()
    assert kept == [[ident("4")], [ident("5")]]
    assert result.counts["duplicate_chunks"] == 1 and result.counts["capped_chunks"] == 3


def test_same_messages_in_any_order_give_the_same_bytes(tables):
    """C5: chunks and their ids depend on the messages alone, not on the order of rows."""
    rows = [{"id": str(i), "by": f"person{i % 7}", "at": i // 3, "text": f"{TALK} {i}"} for i in range(120)]
    messages, participants = tables(rows, {}, "linear")
    first = build_chunks(messages, participants).chunks
    second = build_chunks(messages.sample(fraction=1, shuffle=True, seed=1), participants.reverse()).chunks
    assert first.equals(second) and first["chunk_id"].is_unique().all()


def test_threads_without_names_or_messages(tables):
    """C5: no participant known by name, a name of emoji only, no message at all: no error."""
    messages, participants = tables([{"id": "1", "by": "alice", "text": TALK}], {"alice": ["🔥"]}, "linear")
    assert build_chunks(messages, participants).chunks.height == 1
    assert build_chunks(messages, participants.clear()).chunks.height == 1
    assert build_chunks(messages.clear(), participants).chunks.height == 0


@pytest.mark.parametrize("word", ["e\u0301l", "el", "é1"])
def test_a_turn_without_spaces_is_cut_before_a_word_and_not_in_it(word: str) -> None:
    """Half a word may be a name, which the check of what remains then stops on."""
    for tokens in range(10, 16):
        assert rendering.shortened("a," + word * 50, tokens) == "a," + rendering.CUT
    assert rendering.shortened("问" * 100, 10) == "问" * 13 + rendering.CUT, "no words to be cut"
