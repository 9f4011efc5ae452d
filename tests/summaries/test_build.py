"""Every chunk ends with a summary or with the reason why it has none (C22, C23), whatever the model does."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request, Usage
from user_embeddings_dagster.quality.domain import few_model_failures, summaries_account_for_chunks
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS
from user_embeddings_dagster.summaries.asking import TooManyFailures
from user_embeddings_dagster.summaries.build import NOTHING_CONTRIBUTED, Summaries, extractive_summaries
from user_embeddings_dagster.summaries.build import summarise_with as strict_summaries
from user_embeddings_dagster.summaries.subject import summarise_subject

summarise_with = partial(strict_summaries, max_failed_share=1.0)
PAID = Usage(calls=1, prompt_tokens=100, completion_tokens=10, usd=0.5)


class Model:
    """Answers by the first word of SUBJECT's first turn, in reverse order; remembers what it was asked."""

    name = "made-up"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        distinct = {request.id: request for request in requests}
        self.asked += distinct.values()
        for request in reversed(distinct.values()):
            word = next(word for word in self.answers if f'"{word} ' in request.messages[-1].content)
            answer = self.answers[word]
            if isinstance(answer, str) and answer.startswith("!"):
                cost = Usage(calls=1, prompt_tokens=100, usd=0.25)
                yield Failure(request.id, answer[1:], "status 500", cost, attempts=3)  # pyright: ignore
            else:
                yield Completion(request.id, {"summary": answer}, PAID)


def chunks(*texts: str, user: str = "a" * 32) -> pl.DataFrame:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": content_id(str(place), text), "datadao": "sample", "user_id": user, "thread_id": "t",
            "window_id": "w", "started_at": now, "ended_at": now, "speakers": ["<P1>", "SUBJECT"],
            "turns": ["What do you think?", text], "text": f"<P1>: What do you think?\nSUBJECT: {text}",
            "message_ids": ["m", "n"], "n_subject_turns": 1, "n_tokens": 10, "n_masked": 0, "context_free": False,
            "community": None,
        }
        for place, text in enumerate(texts)
    ]  # fmt: skip
    return MASKED_CHUNKS.conform(pl.DataFrame(rows))


THREE = chunks("apples are fine", "bread goes stale", "carrots again please")
ANSWERS = {"apples": "SUBJECT likes apples.", "bread": "", "carrots": "!server_error"}


def accounted(table: pl.DataFrame, result: Summaries) -> bool:
    return summaries_account_for_chunks(table, result.summaries, result.unsummarised).passed


def test_every_chunk_has_a_summary_or_a_reason():
    """C23: an answer, an empty contribution and a failure, each with what it cost."""
    result = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    assert accounted(THREE, result)
    assert result.summaries["text"].to_list() == ["SUBJECT likes apples."]
    assert dict(result.unsummarised.select("reason", "attempts").iter_rows()) == {
        NOTHING_CONTRIBUTED: 1,
        "server_error": 3,
    }
    assert result.summaries["usd"].to_list() == [0.5]
    assert result.stats["usd"] == 1.25
    assert result.stats["to_ask_again"] == 1
    assert result.stats["unsummarised_server_error"] == 1


def test_rows_name_model_and_program_version():
    """C24."""
    result = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    for frame in (result.summaries, result.unsummarised):
        assert frame["summarizer"].unique().to_list() == ["made-up"]
        assert frame["program_version"].unique().to_list() == [summarise_subject().version]


def test_only_what_changed_is_asked_again():
    """C23, C24: kept rows cost nothing again; a failure that may pass is asked again; a new chunk is asked."""
    first = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    more = pl.concat([THREE, chunks("x", "y", "z", "dates are sweet")[3:]])
    model = Model({"carrots": "SUBJECT asks for carrots.", "dates": "SUBJECT praises dates."})
    second = summarise_with(model, summarise_subject(), more, (first.summaries, first.unsummarised))
    assert len(model.asked) == 2
    assert accounted(more, second)
    assert second.summaries.height == 3
    assert second.stats["usd_this_run"] == 1.0
    # apples .5, bread .5, dates .5, carrots .25 for the failure and .5 for the answer: each paid for once
    assert second.stats["usd"] == 2.25


def test_too_many_failures_replace_nothing():
    """A dead endpoint must not turn a good table into an empty one; it says how many failed and whether it may pass."""
    with pytest.raises(TooManyFailures, match=r"1 of 3 chunks got no valid answer \(server_error 1\)") as raised:
        strict_summaries(Model(ANSWERS), summarise_subject(), THREE)
    assert raised.value.passing
    with pytest.raises(TooManyFailures) as raised:
        strict_summaries(Model({**ANSWERS, "carrots": "!truncated"}), summarise_subject(), THREE)
    assert not raised.value.passing


def test_any_failure_is_asked_again():
    """Also one that seemed final: the server may have been repaired since."""
    failing = Model({**ANSWERS, "carrots": "!truncated"})
    first = summarise_with(failing, summarise_subject(), THREE)
    model = Model({"carrots": "SUBJECT asks for carrots."})
    second = summarise_with(model, summarise_subject(), THREE, (first.summaries, first.unsummarised))
    assert second.stats["to_ask_again"] == 0
    assert len(model.asked) == 1


def test_other_settings_of_the_model_are_another_version():
    first = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    model = Model(ANSWERS)
    program = summarise_subject().with_settings('{"temperature":1}')
    summarise_with(model, program, THREE, (first.summaries, first.unsummarised))
    assert len(model.asked) == 3
    assert summarise_subject().with_settings("").version == summarise_subject().version


def test_an_answer_that_does_not_fit_is_a_failure_of_its_chunk():
    """What the schema lets through and the program does not: the other chunks keep their summaries."""
    model = Model(ANSWERS)
    model.answers = {**ANSWERS, "apples": 7}  # pyright: ignore
    result = summarise_with(model, summarise_subject(), THREE)
    assert accounted(THREE, result)
    assert result.stats["unsummarised_schema_violation"] == 1


def test_another_version_of_the_program_asks_about_everything():
    first = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    model = Model(ANSWERS)
    program = summarise_subject().with_instructions("Say what SUBJECT wants.")
    second = summarise_with(model, program, THREE, (first.summaries, first.unsummarised))
    assert len(model.asked) == 3
    assert accounted(THREE, second)


def test_chunks_that_are_gone_lose_their_rows():
    first = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    second = summarise_with(Model({}), summarise_subject(), THREE[:1], (first.summaries, first.unsummarised))
    assert accounted(THREE[:1], second)


def test_equal_requests_are_paid_once():
    """One person's equal texts: two chunks, two rows, one call."""
    twice = chunks("apples are fine", "apples are fine")
    model = Model(ANSWERS)
    result = summarise_with(model, summarise_subject(), twice)
    assert len(model.asked) == 1
    assert accounted(twice, result)
    assert sorted(result.summaries["usd"].to_list()) == [0.0, 0.5]


def test_each_prompt_holds_one_contributors_text():
    """C26: nothing of another chunk can leak into an answer, because no prompt holds it."""
    both = pl.concat([chunks("apples are fine"), chunks("x", "bread goes stale", user="b" * 32)[1:]])
    model = Model(ANSWERS)
    summarise_with(model, summarise_subject(), both)
    by_owner = {request.owner: request.messages[-1].content for request in model.asked}
    assert "bread" not in by_owner["a" * 32]
    assert "apples" not in by_owner["b" * 32]


def test_what_a_model_invents_is_masked():
    """An identifier in an answer is a typed placeholder in the table."""
    model = Model({"apples": "SUBJECT can be reached at someone@example.org."})
    result = summarise_with(model, summarise_subject(), THREE[:1])
    assert result.summaries["text"].to_list() == ["SUBJECT can be reached at <EMAIL>."]
    assert result.stats["remasked"] == 1


def test_tables_of_an_earlier_schema_are_made_again():
    old = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    tables = (old.summaries.drop("usd"), old.unsummarised.drop("usd"))
    assert accounted(THREE, summarise_with(Model(ANSWERS), summarise_subject(), THREE, tables))


def test_extractive_lists_chunks_without_words():
    silent = chunks("apples are fine", "…")
    result = extractive_summaries(silent)
    assert accounted(silent, result)
    assert result.unsummarised["reason"].to_list() == [NOTHING_CONTRIBUTED] * result.unsummarised.height
    assert result.summaries["summarizer"].unique().to_list() == ["extractive"]
    assert result.summaries["prompt_tokens"].sum() == 0


@pytest.mark.parametrize("fault", ["missing", "repeated", "foreign"])
def test_the_account_sees_each_fault(fault):
    """The check must fail on a lost, a doubled and a foreign row."""
    result = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    broken = {
        "missing": result.summaries[:0],
        "repeated": pl.concat([result.summaries, result.summaries]),
        "foreign": pl.concat([result.summaries, result.summaries.with_columns(chunk_id=pl.lit("f" * 32))]),
    }[fault]
    outcome = summaries_account_for_chunks(THREE, CHUNK_SUMMARIES.conform(broken), result.unsummarised)
    assert not outcome.passed
    assert outcome.metrics[fault] == 1


def test_many_failures_are_a_warning():
    good = summarise_with(Model({**ANSWERS, "carrots": "SUBJECT asks."}), summarise_subject(), THREE)
    bad = summarise_with(Model(ANSWERS), summarise_subject(), THREE)
    assert few_model_failures(good.summaries, good.unsummarised).passed
    assert not few_model_failures(bad.summaries, bad.unsummarised).passed
