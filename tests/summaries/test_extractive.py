"""C22: the extractive summariser: SUBJECT's own sentences, honest about what it is."""

import time
from datetime import UTC, datetime

import polars as pl

from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION, summarise


def chunk(chunk_id: str, *turns: tuple[str, str]) -> dict:
    speakers, texts = [list(column) for column in zip(*turns, strict=True)]
    at = datetime(2024, 1, 1, tzinfo=UTC)
    return {
        "chunk_id": chunk_id, "datadao": "test", "user_id": "u", "thread_id": "t", "window_id": "w",
        "started_at": at, "ended_at": at, "speakers": speakers, "turns": texts,
        "text": "\n".join(f"{s}: {t}" for s, t in turns), "message_ids": ["m"] * len(turns),
        "n_subject_turns": speakers.count("SUBJECT"), "n_tokens": 1, "n_masked": 0, "context_free": False,
        "community": None,
    }  # fmt: skip


def table(*rows: dict) -> pl.DataFrame:
    return MASKED_CHUNKS.conform(pl.DataFrame(rows, schema=MASKED_CHUNKS.schema))


def test_only_subject_verbatim_and_in_order():
    """C22: nobody else's words, placeholders kept, the order kept, the version on every row."""
    rows = summarise(
        table(
            chunk(
                "c",
                ("<P1>", "Secret of mine."),
                ("SUBJECT", "<P1>: mail <EMAIL> about apples! Then wait"),
                ("<P2>", "No."),
                ("SUBJECT", "Pears are ripe."),
            )
        )
    )
    assert rows.schema == CHUNK_SUMMARIES.schema
    assert rows["text"].to_list() == ["SUBJECT: <P1>: mail <EMAIL> about apples! Then wait. Pears are ripe."]
    assert rows.select("summarizer", "program_version").row(0) == ("extractive", PROGRAM_VERSION)


def test_relevant_and_not_redundant():
    """C22: MMR prefers what the chunk is about and does not say the same thing twice."""
    said = [
        "ok", "I buy apples at the market on Sunday.", "I buy apples at the market on Sunday!", "hm",
        "Pears from the market rot within days.", "yes you are right", "lol",
    ]  # fmt: skip
    [text] = summarise(table(chunk("c", *[("SUBJECT", s) for s in said])), max_sentences=2)["text"]
    assert text == "SUBJECT: I buy apples at the market on Sunday. Pears from the market rot within days."


def test_never_empty_never_changed_by_other_chunks():
    """C22: one row per chunk with SUBJECT's text, whatever it is; a chunk's row depends on it alone."""
    odd = [
        chunk(str(i), ("SUBJECT", text)) for i, text in enumerate(["🙂", "...", "<URL>", "好。是的。不。对。", "?!"])
    ]
    rows = summarise(table(*odd, chunk("none", ("<P1>", "hello"))))
    assert rows["chunk_id"].to_list() == list("01234") and rows["text"].str.len_chars().min() > len("SUBJECT: ")
    assert pl.concat([summarise(table(row)) for row in odd]).equals(rows)
    assert summarise(table(*odd).clear()).equals(CHUNK_SUMMARIES.empty())


def test_long_sentence_is_cut_and_eighty_thousand_chunks_take_under_a_minute():
    """C22: a sentence of 500 words is cut at 60; speed is measured on a sixteenth."""
    long = chunk("long", ("SUBJECT", "apple " * 500))
    assert len(summarise(table(long))["text"][0].split()) == 62
    many = [
        chunk(str(i), *[("SUBJECT", f"Sentence {j} of {i % 97} about fruit and trade {j * i % 31}.") for j in range(8)])
        for i in range(5_000)
    ]
    frame = table(*many)
    start = time.perf_counter()
    assert summarise(frame).height == 5_000
    assert time.perf_counter() - start < 60 / 16 * 3  # three times the share: the machine is shared
