"""C24, C26: what of a chunk reaches the prompt, and the masking of what a model wrote."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from user_embeddings_dagster.summaries.subject import MAX_CHARACTERS, MAX_TURNS, chunk_inputs, remasked


def test_a_chunk_is_its_numbered_turns() -> None:
    assert chunk_inputs(["<P1>", "SUBJECT"], ["a", "b"]) == {
        "chunk": [{"turn": 0, "speaker": "<P1>", "text": "a"}, {"turn": 1, "speaker": "SUBJECT", "text": "b"}]
    }


@given(st.lists(st.tuples(st.sampled_from(["SUBJECT", "<P1>"]), st.integers(0, 30_000)), min_size=1, max_size=20))
def test_a_long_chunk_is_bounded(turns: list[tuple[str, int]]) -> None:
    """Long turns are cut to equal length, short ones are left alone; numbers and speakers stay."""
    speakers, texts = [s for s, _ in turns], ["word " * (n // 5) for _, n in turns]
    rows = chunk_inputs(speakers, texts)["chunk"]
    assert [(row["turn"], row["speaker"]) for row in rows] == list(enumerate(speakers))
    assert sum(len(row["text"]) for row in rows) <= MAX_CHARACTERS + 2 * len(rows)
    cut = [len(row["text"]) for row, text in zip(rows, texts, strict=True) if row["text"] != text]
    kept = [len(text) for row, text in zip(rows, texts, strict=True) if row["text"] == text]
    if cut:
        assert max(cut) - min(cut) == 0 and max(kept, default=0) <= max(cut) + len("word ")
        assert all(row["text"].endswith("word …") for row in rows if len(row["text"]) in cut and row["text"] in cut)
    else:
        assert sum(kept) <= MAX_CHARACTERS


def test_many_turns_keep_subject() -> None:
    """Of more turns than fit, SUBJECT's stay, then the latest of others; their numbers are the chunk's."""
    speakers = ["SUBJECT", *["<P1>"] * 300, "SUBJECT"]
    rows = chunk_inputs(speakers, list(map(str, range(302))))["chunk"]
    assert len(rows) == MAX_TURNS
    assert [row["turn"] for row in rows] == [0, *range(301 - MAX_TURNS + 2, 302)]
    assert all(row["text"] == str(row["turn"]) for row in rows)


def test_unspaced_text_is_cut_too() -> None:
    [row] = chunk_inputs(["SUBJECT"], ["好" * 50_000])["chunk"]
    assert len(row["text"]) == MAX_CHARACTERS + 2


def test_what_a_model_wrote_is_masked_again() -> None:
    """C26: identifiers that a model made up or copied become placeholders and are counted; SUBJECT stays SUBJECT."""
    texts = pl.Series(
        [
            "SUBJECT asks <P1> to write to jane.doe@example.org.",
            "SUBJECT gives a card, 4111 1111 1111 1111, and https://example.org/jane.",
            "SUBJECT likes <EMAIL> lists.",
            "SUB\u200bJECT \u202eis fine",
        ]
    )
    masked, n = remasked(texts)
    assert masked.to_list() == [
        "SUBJECT asks <P1> to write to <EMAIL>.",
        "SUBJECT gives a card, <CARD>, and <URL>.",
        "SUBJECT likes <EMAIL> lists.",
        "SUBJECT is fine",
    ]
    assert n == 3
    assert remasked(pl.Series([], dtype=pl.String))[1] == 0
