"""The client's behaviour when all is well: order, bounds, duplicates, cost, what is sent, what is logged."""

import logging
import threading
import time
import traceback

import msgspec
import psutil
import pytest

from benchmarks.fault_server import prompt_hash
from user_embeddings_dagster.language_models.attempts import Endpoint, Transient, retry_after
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Completion, ModelRefused, Usage


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "language model"]


def test_every_request_is_asked_and_answered_once(fault_server, client, ask):
    """C22: equal requests are one; answers carry the id of the request that they answer."""
    requests = [ask(f"chunk {number % 40}") for number in range(100)]
    answers = list(client(fault_server, concurrency=8).complete(requests))
    assert sorted(answer.request_id for answer in answers) == sorted({request.id for request in requests})
    assert all(isinstance(answer, Completion) and answer.attempts == 1 for answer in answers)
    stats = fault_server.stats()
    assert stats.asked == {prompt_hash(request.messages): 1 for request in requests}
    assert stats.most_at_once <= 8
    assert not workers()


def test_no_request_at_all_is_no_answer(fault_server, client):
    assert list(client(fault_server).complete([])) == []
    assert fault_server.stats().requests == 0


def test_the_first_attempt_is_exactly_what_was_requested(fault_server, client, ask):
    fault_server.behave(script=["malformed_json", "truncated"])
    request = ask("chunk", max_tokens=77, temperature=0.0, seed=5)
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    (answer,) = client(fault_server, extra=extra).complete([request])
    first, second, third = (event.body for event in fault_server.events())
    assert first == {
        "model": "test-model",
        "messages": [msgspec.to_builtins(message) for message in request.messages],
        "max_tokens": 77,
        "temperature": 0.0,
        "seed": 5,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "summarise_subject", "schema": request.schema, "strict": True},
        },
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert (second["seed"], second["temperature"], second["max_tokens"]) == (6, 0.5, 77)
    assert (third["seed"], third["temperature"], third["max_tokens"]) == (7, 0.5, 154)
    assert second["messages"] == third["messages"] == first["messages"]
    assert (answer.attempts, answer.usage.calls) == (3, 3)


def test_an_answer_that_was_cut_short_gets_more_room(fault_server, client, ask):
    fault_server.behave(answer_tokens=350)
    (answer,) = client(fault_server).complete([ask("chunk", max_tokens=100)])
    assert isinstance(answer, Completion)
    assert [event.body["max_tokens"] for event in fault_server.events()] == [100, 200, 400]


def test_cost_counts_every_answer_and_the_cached_part_of_the_prompt(fault_server, client, ask):
    fault_server.behave(script=["schema_violation"])
    prices = (2.0, 0.5, 8.0)
    answers = list(client(fault_server, usd_per_million=prices).complete(ask(f"chunk {n}") for n in range(10)))
    total = sum((answer.usage for answer in answers), Usage())
    stats = fault_server.stats()
    assert total.calls == stats.requests == 20
    assert total.prompt_tokens == stats.prompt_tokens
    assert total.cached_prompt_tokens == stats.cached_prompt_tokens > 0
    assert total.completion_tokens == stats.completion_tokens
    fresh = total.prompt_tokens - total.cached_prompt_tokens
    expected = (fresh * 2.0 + total.cached_prompt_tokens * 0.5 + total.completion_tokens * 8.0) / 1e6
    assert total.usd == pytest.approx(expected, rel=1e-12)


def test_input_is_read_no_further_than_twice_the_concurrency_ahead(fault_server, client, ask):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield ask(f"chunk {read}")

    answers = client(fault_server, concurrency=8).complete(endless())
    for taken in range(1, 201):
        next(answers)
        assert read - taken <= 16
    time.sleep(0.3)  # nothing is read while nobody takes answers
    assert read <= 200 + 16
    answers.close()


def test_closing_the_iterator_cancels_what_is_in_flight(fault_server, client, ask):
    fault_server.behave(scripts={"slow": ["hang"]})
    chunks = [ask("quick chunk"), *(ask(f"slow chunk {number}") for number in range(20))]
    answers = client(fault_server, concurrency=4, timeout_seconds=60).complete(chunks)
    assert next(answers).request_id == chunks[0].id
    started = time.monotonic()
    answers.close()
    assert time.monotonic() - started < 2
    assert not workers()
    asked = fault_server.stats().requests
    time.sleep(0.5)
    assert fault_server.stats().requests == asked


def test_an_exception_of_the_input_comes_after_the_answers_to_what_was_read(fault_server, client, ask):
    def broken():
        yield from (ask(f"chunk {number}") for number in range(12))
        raise LookupError("no more chunks")

    answers = []
    with pytest.raises(LookupError, match="no more chunks"):
        for answer in client(fault_server).complete(broken()):
            answers.append(answer)
    assert len(answers) == 12
    assert not workers()


def test_memory_stays_flat_over_the_requests(fault_server, client, ask):
    """Bar 2 in miniature: 40 MB of prompts pass through; the whole run is in benchmarks.llm_faults."""
    process, resident = psutil.Process(), []
    answers = client(fault_server, concurrency=16).complete(ask(f"{n} " + "word " * 4000) for n in range(2_000))
    for count, _ in enumerate(answers, 1):
        if count % 500 == 0:
            resident.append(process.memory_info().rss)
    assert len(resident) == 4
    assert resident[-1] - resident[0] < 12e6


def test_proxies_of_the_environment_are_not_used(fault_server, monkeypatch, client, ask):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (answer,) = client(fault_server, patience_seconds=0).complete([ask("chunk")])
    assert isinstance(answer, Completion)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000/v1", "ftp://host/v1", "http:///v1", "http://user:secret@host/v1", "http://host/v1?key=secret"],
)
def test_a_base_url_that_is_none_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAICompatible("test-model", url, None)
    assert "secret" not in str(caught.value)


def test_a_key_with_a_line_break_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="key") as caught:
        OpenAICompatible("test-model", "http://host/v1", "secret\r\nHost: other")
    assert "secret" not in str(caught.value)


def test_no_word_of_prompt_answer_or_key_is_logged_or_raised(fault_server, caplog, ask):
    """Law 5, at DEBUG of every logger; the server repeats prompts in errors and answers as careless ones do."""
    secrets = ("CANARY-PROMPT-71", "CANARY-KEY-72")
    faults = ["http_500", "malformed_json", "schema_violation", "reset", "rate_limited", "html", "truncated"]
    fault_server.behave(mode="echo", api_key=secrets[1], script=faults, retry_after=0.1)
    right_key = OpenAICompatible("test-model", fault_server.url, secrets[1], timeout_seconds=5, max_attempts=3)
    wrong_key = OpenAICompatible("test-model", fault_server.url, secrets[1] + "x", timeout_seconds=5)
    with caplog.at_level(logging.DEBUG):
        (failure,) = right_key.complete([ask(f"{secrets[0]} hello")])
        fault_server.behave(mode="echo", api_key=secrets[1], script=["bad_request"])
        (rejected,) = right_key.complete([ask(f"{secrets[0]} hello")])
        with pytest.raises(ModelRefused) as refused:
            list(wrong_key.complete([ask(f"{secrets[0]} hello")]))
    said = [caplog.text, failure.detail, rejected.detail, "".join(traceback.format_exception(refused.value))]
    assert (failure.reason, rejected.reason) == ("truncated", "bad_request")
    for secret in secrets:
        assert not any(secret in text for text in said)
    assert "asyncio" in caplog.text  # the capture works: the loop's own line of DEBUG is there


def test_unpriced_answers_stop_a_priced_model():
    reply = b'{"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}'
    free = Endpoint("m", "http://host/v1", None, 1.0, (0.0, 0.0, 0.0), {})
    assert free._reply(reply).usage == Usage(calls=1)
    priced = Endpoint("m", "http://host/v1", None, 1.0, (1.0, 1.0, 1.0), {})
    with pytest.raises(ModelRefused, match="reports no usage"):
        priced._reply(reply)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}', ModelRefused),
        (b'{"error": {"code": 429, "type": "requests"}}', Transient),
        (b"<html>slow down</html>", Transient),
        (b"\xff\xfe", Transient),
    ],
)
def test_an_account_without_credit_is_no_rate_limit(body, expected):
    endpoint = Endpoint("m", "http://host/v1", None, 1.0, (0.0, 0.0, 0.0), {})
    assert type(endpoint._problem(429, {}, body)) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds
