"""C4: reply trees keep SUBJECT's messages and all their ancestors in time order, whatever the export holds."""

import time

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.conversations.config import ChunkConfig


def of(chunks: pl.DataFrame, user: str) -> list[dict]:
    return chunks.filter(pl.col("user_id") == user).sort("ended_at").to_dicts()


def test_ancestors_in_time_order_and_nothing_else(tables, ident):
    """C4: the chunk is SUBJECT's messages and their ancestors; siblings and replies to SUBJECT stay out."""
    rows = [
        {"id": "root", "by": "dave"},
        {"id": "a", "by": "erin", "parent": "root"},
        {"id": "sibling", "by": "frank", "parent": "root"},
        {"id": "b", "by": "alice", "parent": "a"},
        {"id": "reply", "by": "erin", "parent": "b"},
        {"id": "c", "by": "alice", "parent": "reply"},
        {"id": "late", "by": "frank", "parent": "c"},
    ]
    [chunk] = of(build_chunks(*tables(rows, {})).chunks, ident("alice"))
    assert chunk["message_ids"] == [ident(i) for i in ("root", "a", "b", "reply", "c")]
    assert chunk["speakers"] == ["<P1>", "<P2>", "SUBJECT", "<P2>", "SUBJECT"]
    assert chunk["n_subject_turns"] == 2 and not chunk["context_free"] and chunk["community"] == "fruit"


def test_clock_skew_never_puts_a_child_before_its_parent(tables, ident):
    """C4: a reply dated before its parent, and one dated the same, still come after it."""
    rows = [
        {"id": "z", "by": "dave", "at": 10},
        {"id": "y", "by": "erin", "at": 3, "parent": "z"},
        {"id": "x", "by": "alice", "at": 3, "parent": "y"},
        {"id": "w", "by": "alice", "at": None, "parent": "x"},
    ]
    result = build_chunks(*tables(rows, {}))
    [chunk] = of(result.chunks, ident("alice"))
    assert chunk["message_ids"] == [ident(i) for i in "zyxw"]
    assert result.counts["clock_skew"] == 2


def test_orphans_cycles_self_replies(tables, ident):
    """C4: a missing parent makes a context-free root; cycles break at the oldest; a self-reply is a root."""
    rows = [
        {"id": "orphan", "by": "alice", "parent": "gone", "thread": "1"},
        {"id": "p", "by": "alice", "parent": "r", "at": 5, "thread": "2"},
        {"id": "q", "by": "bob", "parent": "p", "at": 6, "thread": "2"},
        {"id": "r", "by": "carol", "parent": "q", "at": 7, "thread": "2"},
        {"id": "self", "by": "bob", "parent": "self", "thread": "3"},
    ]
    result = build_chunks(*tables(rows, {}))
    counts = result.counts
    assert (counts["missing_parents"], counts["cycles"], counts["self_replies"]) == (1, 1, 1)
    assert (counts["orphans"], counts["context_free"]) == (1, 1)
    assert [c["context_free"] for c in of(result.chunks, ident("alice"))] == [True, False]
    [carol] = of(result.chunks, ident("carol"))
    assert carol["message_ids"] == [ident(i) for i in "pqr"]
    assert of(result.chunks, ident("bob"))[-1]["message_ids"] in ([ident("p"), ident("q")], [ident("self")])


def test_depth_ten_thousand(tables, ident):
    """C4: depth 10,000 neither recurses nor grows quadratically, and no message of SUBJECT is lost."""
    size = 10_000
    rows = [{"id": "0", "by": "alice"}]
    rows += [{"id": str(i), "by": ("alice", "bob")[i % 2], "parent": str(i - 1)} for i in range(1, size)]
    messages, participants = tables(rows, {})
    start = time.perf_counter()
    chunks = build_chunks(messages, participants).chunks
    assert time.perf_counter() - start < 20
    turns = chunks.select(pl.col("message_ids").list.len().sum()).item()
    assert turns < 4 * size
    parents = dict(messages.select("message_id", "parent_id").iter_rows())
    for user in ("alice", "bob"):
        own = set(messages.filter(pl.col("author_id") == ident(user))["message_id"])
        seen = set()
        for chunk in of(chunks, ident(user)):
            members = set(chunk["message_ids"])
            new = {m for m in members & own if m not in seen}
            assert all(parents[m] is None or parents[m] in members for m in new)
            seen |= new
        assert seen == own


def test_long_path_by_many_people_is_bounded(tables):
    """C4: where everybody speaks once in a deep path, ancestors are capped and the root is still named."""
    size = 1_500
    rows = [{"id": "0", "by": "person0"}]
    rows += [{"id": str(i), "by": f"person{i}", "parent": str(i - 1)} for i in range(1, size)]
    result = build_chunks(*tables(rows, {}), config=ChunkConfig(max_ancestors=50))
    assert result.chunks["message_ids"].list.len().max() == 52
    root = result.chunks.filter(pl.col("n_subject_turns") == 1)["message_ids"].list.first().n_unique()
    assert root == 1 and result.counts["elided_ancestors"] > 0


def test_budget_splits_branches_but_never_parent_and_child(tables, ident):
    """C4: two long branches give two chunks, each with its ancestors; long context is shortened first."""
    long = "fruit is good for everybody who eats it " * 12
    rows = [
        {"id": "root", "by": "dave", "text": long},
        {"id": "a", "by": "erin", "parent": "root", "text": long},
        {"id": "b", "by": "alice", "parent": "a", "text": long},
        {"id": "c", "by": "frank", "parent": "root", "text": "no, " + long},
        {"id": "d", "by": "alice", "parent": "c", "text": "yes, " + long},
    ]
    first, second = of(build_chunks(*tables(rows, {})).chunks, ident("alice"))
    assert first["message_ids"] == [ident(i) for i in ("root", "a", "b")]
    assert second["message_ids"] == [ident(i) for i in ("root", "c", "d")]
    assert first["turns"][0].endswith(" …") and first["turns"][2] == long.strip()
    assert first["n_tokens"] <= 200


def test_system_and_tool_messages_carry_the_tree_but_are_no_turns(tables, ident):
    """C4: roles other than people and the assistant are not turns; the path through them holds."""
    rows = [
        {"id": "s", "by": None, "role": "system", "text": "You are helpful"},
        {"id": "u", "by": "alice", "parent": "s", "text": "how do I ripen bananas"},
        {"id": "t", "by": None, "role": "tool", "parent": "u", "text": "search()"},
        {"id": "a", "by": None, "role": "assistant", "parent": "t", "text": "put them in a paper bag " * 80},
        {"id": "v", "by": "alice", "parent": "a", "text": "and how long does that take"},
    ]
    [chunk] = of(build_chunks(*tables(rows, {})).chunks, ident("alice"))
    assert chunk["speakers"] == ["SUBJECT", "ASSISTANT", "SUBJECT"]
    assert chunk["turns"][1].endswith(" …") and chunk["n_tokens"] <= 200


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, 30), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 50))),
        min_size=1,
        max_size=30,
    )
)
def test_any_reply_graph_is_survived(shape):
    """C4: whatever replies to whatever, each message of SUBJECT is in a chunk, after its parent, once."""
    from hypothesis import assume
    from tests_tables import build, identifier  # see conftest: registered for property tests

    rows = [
        {"id": str(i), "by": f"person{who}", "at": at, "parent": None if parent < 0 else str(parent)}
        for i, (parent, who, at) in enumerate(shape)
    ]
    assume(any(row["at"] is not None for row in rows))
    messages, participants = build(rows, {})
    chunks = build_chunks(messages, participants).chunks
    for user in {row["by"] for row in rows}:
        own = {identifier(row["id"]) for row in rows if row["by"] == user}
        held = [c["message_ids"] for c in of(chunks, identifier(user))]
        assert own <= {m for ids in held for m in ids}
        assert all(len(ids) == len(set(ids)) for ids in held)
