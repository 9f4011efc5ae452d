"""C25: KOAIs by cue phrases: deterministic, and honest about quoting."""

import math
import time
from datetime import UTC, datetime

import polars as pl

from user_embeddings_dagster.schema import KOAIS, MASKED_CHUNKS
from user_embeddings_dagster.summaries.cue_phrases import kind_of
from user_embeddings_dagster.summaries.cues import EXTRACTOR, PROGRAM_VERSION, extract
from user_embeddings_dagster.summaries.extractive import summarise
from user_embeddings_dagster.summaries.koai import MAX_KOAIS


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


TALK = chunk(
    "talk",
    ("<P1>", "I think we should all move to Mars."),
    ("SUBJECT", "I live in a small village! We had rain. I'd like to learn the cello."),
    ("<P1>", "I hate cellos."),
    ("SUBJECT", "Personally I prefer them to violins. I know how to tune one, it's easy."),
    ("SUBJECT", "I live in a small village!"),
)


def test_subject_s_sentences_by_kind() -> None:
    """C25: only SUBJECT's, in order, with the turns they were said in; a sentence said twice is one row."""
    rows = extract(table(TALK))
    assert rows.schema == KOAIS.schema
    assert rows.select("kind", "statement", "evidence").rows() == [
        ("attribute", "SUBJECT: I live in a small village!", [1, 4]),
        ("intent", "SUBJECT: I'd like to learn the cello.", [1]),
        ("opinion", "SUBJECT: Personally I prefer them to violins.", [3]),
        ("knowledge", "SUBJECT: I know how to tune one, it's easy.", [3]),
    ]
    assert rows.select("extractor", "program_version").unique().rows() == [(EXTRACTOR, PROGRAM_VERSION)]
    assert rows["koai_id"].n_unique() == 4


def test_quotes_are_recorded_as_violations() -> None:
    """C25: a verbatim sentence violates K1 (first person) and K4 (no quotes), and says so in its row."""
    violations = extract(table(TALK))["violations"].to_list()
    assert all({1, 4} <= set(numbers) for numbers in violations)
    assert [numbers for numbers in violations if 3 in numbers or 6 in numbers] == []


def test_kinds_agree_with_python_s_engine() -> None:
    """The expressions mean the same to Polars and to `kind_of`, which the constraints use."""
    said = [
        "I want a dog.", "I'm going to bed", "do I have to start over", "could you send it?", "i really don't think so",
        "IMO that is wrong", "I'm a nurse", "my wife says hi", "as a teacher I disagree", "turns out it leaks",
        "you need to reboot it", "Rain again.", "ok", "I", "how do I get there", "we should go", "The fix is patience",
        "I can't stand it",
    ]  # fmt: skip
    rows = extract(table(*[chunk(str(i), ("SUBJECT", text)) for i, text in enumerate(said)]))
    found = dict(rows.select("chunk_id", "kind").iter_rows())
    assert {str(i): kind for i, text in enumerate(said) if (kind := kind_of(text))} == found
    assert set(found.values()) == {"knowledge", "opinion", "attribute", "intent"} and len(found) == 13


def test_a_chunk_s_rows_depend_on_it_alone() -> None:
    """Same rows alone and among others; nothing for a chunk without cues; bounded for one with many."""
    many = chunk("many", ("SUBJECT", " ".join(f"I think {i} is nice." for i in range(40))))
    long = chunk("long", ("SUBJECT", "I think " + "very " * 500))
    odd = [TALK, chunk("none", ("<P1>", "I think so")), chunk("emoji", ("SUBJECT", "🙂")), many, long]
    rows = extract(table(*odd))
    assert pl.concat([extract(table(row)) for row in odd]).equals(rows)
    assert rows.filter(chunk_id="many").height == MAX_KOAIS
    assert len(rows.filter(chunk_id="long")["statement"][0].split()) == 1 + 60 + 1
    assert extract(table(*odd).clear()).equals(KOAIS.empty())


def test_about_as_fast_as_the_extractive_summariser() -> None:
    """On chunks with one cue in four sentences; the violations are checked in this time."""
    frame = table(
        *[
            chunk(
                str(i),
                *[("<P1>" if j % 2 else "SUBJECT", f"Trade {j} of {i % 97} is slow. Fruit rots.") for j in range(4)],
                ("SUBJECT", f"I think that pears number {i} are ripe."),
            )
            for i in range(3_000)
        ]
    )
    seconds = {summarise: math.inf, extract: math.inf}  # the best of three turns: a busy machine stretches single ones
    for work in (summarise, extract) * 3:
        start = time.process_time()
        assert work(frame).height == frame.height
        seconds[work] = min(seconds[work], time.process_time() - start)
    print(f"extractive {3_000 / seconds[summarise]:,.0f} chunks/s, cues {3_000 / seconds[extract]:,.0f} chunks/s")
    assert seconds[extract] < 4 * seconds[summarise]
