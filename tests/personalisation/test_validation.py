"""C43: who sees the past alone must agree with the gold: by similarity, and by a language model with a search tool."""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request, Usage
from user_embeddings_dagster.personalisation.agent import Search
from user_embeddings_dagster.personalisation.koai_tasks import ANSWER
from user_embeddings_dagster.personalisation.model_validation import ModelValidator
from user_embeddings_dagster.personalisation.past import Past
from user_embeddings_dagster.personalisation.tasks import TASKS
from user_embeddings_dagster.personalisation.validation import (
    BOTH_DISAGREE,
    CONTEXT_DISAGREES,
    GIVEN_AWAY,
    KEPT,
    NO_HISTORY,
    SEARCH_DISAGREES,
    TOO_SHORT,
    UNANSWERED,
    SimilarityValidator,
    Validation,
    validate,
)
from user_embeddings_dagster.summaries.asking import TooManyFailures

TOPICS = ("bread", "bikes", "stars", "chess")
LENGTH = 3


def encode(texts: Sequence[str]) -> np.ndarray:
    """How often each topic is named, at length 1."""
    counts = np.array([[text.count(topic) + 0.01 for topic in TOPICS] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def histories() -> Past:
    """User u<i> speaks of topic i alone, LENGTH times."""
    rows = [
        {"user_id": f"u{i}", "position": p, "chunk_id": f"{i}-{p}", "text": f"SUBJECT: {topic} {topic} number {p}"}
        for i, topic in enumerate(TOPICS)
        for p in range(LENGTH)
    ]
    frame = pl.DataFrame(rows)
    vectors = frame.select("chunk_id", vector=pl.Series(encode(frame["text"].to_list()).tolist()))
    return Past.of(frame.drop("text"), frame.select("chunk_id", "text"), vectors)


def task(
    user: int, *, answer: int | None = None, n: int = LENGTH, split: str = "test", **fields: Any
) -> dict[str, Any]:
    """Which topic does the user speak of next; the gold is their own unless `answer` says otherwise."""
    gold = user if answer is None else answer
    return {
        "task_id": f"{user}-{gold}-{n}-{split}", "datadao": "d", "user_id": f"u{user}", "split": split,
        "kind": "stance",
        "chunk_id": "c", "n_history": n, "question": "Which?", "options": [f"I like {topic}" for topic in TOPICS],
        "option_chunk_ids": list("abcd"), "answer": gold, "reference": f"I like {TOPICS[gold]}", **fields,
    }  # fmt: skip


def free(user: int, reference: str, **fields: Any) -> dict[str, Any]:
    own = {"kind": ANSWER, "options": [], "option_chunk_ids": [], "answer": -1, "reference": reference}
    return task(user, **{"task_id": f"free-{user}-{reference}", **own, **fields})


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TASKS.schema)


def status_of(validation: Validation) -> list[str]:
    return validation.tasks["status"].to_list()


def test_similarity_keeps_what_the_past_tells_and_says_who_it_is() -> None:
    tasks = frame(task(0), task(1), task(2, answer=3), task(3, n=0))
    result = validate(tasks, SimilarityValidator(encode, histories()))
    assert status_of(result) == [KEPT, KEPT, BOTH_DISAGREE, NO_HISTORY]
    assert result.tasks["validator"].unique().to_list() == ["similarity"]
    assert result.tasks["context_answer"].to_list() == [0, 1, 2, None]
    assert result.stats["context_agrees"] == {"stance.similarity": pytest.approx(2 / 3)}
    assert result.stats["dropped"] == {"stance.similarity": 0.5}
    assert result.tasks.height == 4  # what is dropped stays, with its reason


def test_free_form_references_must_say_something_and_not_be_in_the_question() -> None:
    tasks = frame(
        free(0, "ok"), free(1, "I ride bikes daily"), free(2, "stars are far away", question="He: Stars are  far away!")
    )
    result = validate(tasks, SimilarityValidator(encode, histories()))
    assert dict(result.tasks.select("reference", "status").iter_rows()) == {
        "ok": TOO_SHORT, "I ride bikes daily": KEPT, "stars are far away": GIVEN_AWAY,
    }  # fmt: skip
    assert result.stats["context_agrees"] == {}  # similarity has no verdict on them, and claims none


def test_no_task_is_answered_from_what_comes_after_it() -> None:
    """The second half of a history must not matter to a task in its middle."""
    past = histories()
    future = {user: np.concatenate([rows[:1], -rows[1:]]) for user, rows in past.vectors.items()}
    twin = Past(past.positions, future, past.texts)
    tasks = frame(task(0, n=1), task(1, n=1))
    one, other = (SimilarityValidator(encode, each).verdicts(tasks) for each in (past, twin))
    assert [verdict.search for verdict in one] == [verdict.search for verdict in other] == [0, 1]
    assert past.told("u0", 1) == ["SUBJECT: bread bread number 0"]
    assert past.stuffed("u0", 3, max_tokens=10) == ["ad bread number 1"[-11:], "SUBJECT: bread bread number 2"]


class Reader:
    """Knows the topic that the history (or what a search found) names most, and answers with it; counts its calls."""

    name = "reader"

    def __init__(self, wrong: Callable[[Request], Any] = lambda request: None) -> None:
        self.wrong, self.asked, self._lock = wrong, [], threading.Lock()

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            with self._lock:
                self.asked.append(request)
            value = self.wrong(request)
            value = self._value(request) if value is None else value
            known = isinstance(value, Failure)
            yield value if known else Completion(request.id, value, Usage(1, 10, 0, 5, 0.001))

    def _value(self, request: Request) -> Any:
        text = request.messages[-1].content
        system = request.messages[0].content
        searching = "next_tool_name" in system
        if searching and "observation_0" not in text:
            return {"next_thought": "look", "next_tool_name": "search", "next_tool_args": {"query": "likes"}}
        if searching:
            return {"next_thought": "seen", "next_tool_name": "finish", "next_tool_args": {}}
        told = re.sub(r"I like \w+", "", text)
        topic = max(TOPICS, key=told.count)
        fields = {"option": TOPICS.index(topic), "answer": f"I speak of {topic}, yes {topic}", "reasoning": "read"}
        return {name: fields[name] for name in request.schema["properties"]}


def by_model(reader: Reader, tasks: pl.DataFrame) -> tuple[Validation, ModelValidator]:
    past = histories()
    validator = ModelValidator(reader, encode, past, history_tokens=100)
    return validate(tasks, SimilarityValidator(encode, past), validator), validator


def test_a_model_validates_test_tasks_with_a_program_and_an_agent_that_searches() -> None:
    """C43: context stuffing and ReAct with a search tool, as DSPy programs through our protocol."""
    reader = Reader()
    tasks = frame(task(0), task(1), task(2, answer=0), task(3, split="train"), free(1, "more bikes for me"))
    result, validator = by_model(reader, tasks)
    rows = {row["task_id"]: row for row in result.tasks.iter_rows(named=True)}
    assert rows["0-0-3-test"]["status"] == rows["1-1-3-test"]["status"] == KEPT
    assert rows["2-0-3-test"]["status"] == BOTH_DISAGREE and rows["2-0-3-test"]["search_answer"] == 2
    assert rows["3-3-3-train"]["validator"] == "similarity"
    assert {row["validator"] for row in rows.values() if row["split"] == "test"} == {"reader"}
    programs = {request.program.split("/")[0] for request in reader.asked}
    assert programs == {"choose_option", "search_choose_option", "speak_as_subject", "search_speak_as_subject"}
    assert validator.stats["calls_this_run"] == len(reader.asked) == 4 * (1 + 3)
    searched = [r for r in reader.asked if r.program.startswith("search") and "observation_0" in r.messages[-1].content]
    assert searched and all("number" in request.messages[-1].content for request in searched)


def test_the_agent_sees_only_chunks_of_its_user_before_the_task() -> None:
    reader = Reader()
    by_model(reader, frame(task(0, n=1)))
    shown = json.dumps([message.content for request in reader.asked for message in request.messages])
    assert "bread number 0" in shown
    assert not re.search(r"number [12]|bikes number|stars number", shown)
    assert {request.owner for request in reader.asked} == {"u0"}
    search = Search(encode, histories().before("u0", 2), histories().told("u0", 2))
    assert len(search.search("anything")) == 2


@pytest.mark.parametrize(
    ("blind", "status"), [("choose_option", CONTEXT_DISAGREES), ("search_choose_option", SEARCH_DISAGREES)]
)
def test_who_disagrees_is_the_status(blind: str, status: str) -> None:
    def wrong(request: Request) -> Any:
        fields = request.schema.get("properties", {})
        asked = request.program.split("/")[0] == blind and "option" in fields
        return {name: 3 if name == "option" else "" for name in fields} if asked else None

    result, _ = by_model(Reader(wrong), frame(task(0)))
    assert status_of(result) == [status]


def test_a_free_answer_far_from_its_reference_drops_the_task() -> None:
    references = [free(user, f"always {topic} {topic} for me") for user, topic in enumerate(TOPICS)]
    strange = free(0, "chess chess chess and chess", task_id="z")
    result, _ = by_model(Reader(), frame(*references, strange))
    assert status_of(result) == [KEPT] * 4 + [BOTH_DISAGREE]


def test_where_nobody_else_has_a_reference_no_free_answer_is_called_close() -> None:
    strange = [free(0, "chess chess chess and chess", task_id=name) for name in "yz"]
    result, _ = by_model(Reader(), frame(*strange))
    assert status_of(result) == [UNANSWERED] * 2


def test_no_valid_answer_is_a_status_and_too_many_are_an_error() -> None:
    def fail(request: Request) -> Any:
        lost = request.owner == "u0" and not request.program.startswith("search")
        return Failure(request.id, "timeout", "", Usage()) if lost else None

    many = [task(user, task_id=f"{user}{n}") for n in range(8) for user in range(1, 4)]
    result, validator = by_model(Reader(fail), frame(task(0), *many))
    assert result.tasks.filter(user_id="u0")["status"].to_list() == [UNANSWERED]
    assert result.stats["to_ask_again"] == 1 and validator.stats["model_failures"] == {"timeout": 1}
    with pytest.raises(TooManyFailures, match="1 of 2 questions") as caught:
        by_model(Reader(fail), frame(task(0)))
    assert caught.value.passing


def test_an_agent_without_an_answer_is_unanswered_and_nothing_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    canary = "Zwetschgenkuchen"

    def babble(request: Request) -> Any:
        return {"text": canary} if request.program.startswith("search") and request.owner == "u0" else None

    many = [task(user, task_id=f"{user}{n}") for n in range(8) for user in range(1, 4)]
    result, validator = by_model(Reader(babble), frame(task(0), *many))
    assert result.tasks.filter(user_id="u0")["status"].to_list() == [UNANSWERED]
    assert validator.stats["model_failures"] == {"no_answer": 1}
    assert canary not in caplog.text
