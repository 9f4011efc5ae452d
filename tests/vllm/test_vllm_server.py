"""The client against a real vLLM server: protocol, schema, throughput, prefix cache, recovery. Never meaning."""

import itertools
import threading
import time

import jsonschema
import pytest

from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Completion, Failure, Message, ModelRefused, Request

pytestmark = pytest.mark.vllm
NAME = "tiny-qwen3"


def ask(server, requests, concurrency=16, **options):
    """Answers by request id, seconds, completion tokens."""
    model = OpenAICompatible(NAME, server.url, concurrency=concurrency, **options)
    started = time.monotonic()
    answers = list(model.complete(iter(requests)))
    seconds = time.monotonic() - started
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in requests)
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    return {answer.request_id: answer for answer in answers}, seconds, tokens


def test_random_weights_answer_as_the_schema_says(server, samples, figures):
    """C22: every request has its completion, valid JSON, with usage as the server counts it."""
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [server.counter(name) for name in names]
    answers, *_ = ask(server, samples.requests(64))
    for answer in answers.values():
        assert isinstance(answer, Completion), answer
        jsonschema.validate(answer.value, samples.SCHEMA)
    usage = [answer.usage for answer in answers.values()]
    counted = [server.counter(name) - old for name, old in zip(names, before, strict=True)]
    assert counted == [sum(u.prompt_tokens for u in usage), sum(u.completion_tokens for u in usage)]
    assert len({answer.value["summary"] for answer in answers.values()}) > 1, "the prompts reach the model"
    figures["server: valid against the schema"] = f"{len(answers)} of 64"


def test_concurrency_pays(server, samples, figures):
    """C22: the server works on the requests that the client has in flight at once."""
    ask(server, samples.requests(4, first=900))
    _, alone, alone_tokens = ask(server, samples.requests(48, first=1000), concurrency=1)
    _, together, together_tokens = ask(server, samples.requests(48, first=2000), concurrency=16)
    ratio = (together_tokens / together) / (alone_tokens / alone)
    figures["server: tokens/s at concurrency 1"] = round(alone_tokens / alone)
    figures["server: tokens/s at concurrency 16"] = round(together_tokens / together)
    figures["server: throughput, concurrency 16 to 1"] = round(ratio, 1)
    assert ratio > 2.5


def test_the_shared_instruction_is_computed_once(server, samples, figures):
    """C22: constant text first means prefix-cache hits, which the usage shows as the server counts them."""
    ask(server, samples.requests(1, first=3000))
    before = server.counter("vllm:prefix_cache_hits_total")
    answers, *_ = ask(server, samples.requests(32, first=3100))
    cached = sum(answer.usage.cached_prompt_tokens for answer in answers.values())
    share = cached / sum(answer.usage.prompt_tokens for answer in answers.values())
    assert server.counter("vllm:prefix_cache_hits_total") - before == cached
    assert share > 0.6

    scattered = [
        Request((Message("user", f"{i * 7919} {i * 104729} " + samples.INSTRUCTIONS),), samples.SCHEMA, "u", "p/1", 64)
        for i in range(1, 17)
    ]
    others, *_ = ask(server, scattered)
    unshared = sum(answer.usage.cached_prompt_tokens for answer in others.values() if answer.attempts == 1)
    assert unshared == 0, "the share above is the shared prefix's"
    figures["server: prefix-cache hit share, shared instruction"] = round(share, 3)


def test_what_does_not_fit_is_listed_and_an_unknown_model_stops_all(server, samples):
    """C23: a rejected request costs itself alone; a refusal of the client as such raises."""
    long = Request((Message("user", "apple pear " * 2000),), samples.SCHEMA, "user-1", "summarise/1")
    answers, *_ = ask(server, [*samples.requests(8, first=4000), long])
    refused = answers.pop(long.id)
    assert isinstance(refused, Failure) and refused.reason == "bad_request" and "apple" not in refused.detail
    assert all(isinstance(answer, Completion) for answer in answers.values())
    with pytest.raises(ModelRefused):
        list(OpenAICompatible("another-model", server.url).complete(samples.requests(2)))


def test_a_server_that_dies_and_comes_back_loses_nothing(server, samples, figures):
    """C23: kill -9 of the server and its engine with requests in flight; started again, every request is answered."""
    requests = samples.requests(400, first=5000)
    model = OpenAICompatible(NAME, server.url, concurrency=8, patience_seconds=600)
    restarting = threading.Thread(target=server.start)
    answers, times = [], []
    for answer in model.complete(iter(requests)):
        answers.append(answer)
        if len(answers) == 40:
            server.kill()
            restarting.start()
        times.append(time.monotonic())
    restarting.join()
    away = max(after - before for before, after in itertools.pairwise(times))
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in requests)
    assert all(isinstance(answer, Completion) for answer in answers)
    retried = sum(answer.attempts > 1 for answer in answers)
    assert 0 < retried <= 16, "those in flight are asked again, no others"
    figures["server: killed with 360 of 400 open; lost"] = 0
    figures["server: seconds without an answer after kill -9"] = round(away, 1)
    figures["server: requests that took a second attempt"] = retried
