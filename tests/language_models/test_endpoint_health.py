"""Pauses that all requests share, and a server that dies, comes back or stays away (C23)."""

import os
import signal
import threading
import time

import pytest

from benchmarks.fault_server import FaultServer
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Completion, Usage


@pytest.mark.parametrize(("form", "least"), [("seconds", 1.2), ("milliseconds", 1.2), ("date", 0.2)])
def test_retry_after_is_honoured(fault_server, form, least, ask_all, client):
    """C23: between a refusal and the same request's next attempt lies at least what the server asked for.

    A date has whole seconds: "in 1.2 s" may be written as one 0.2 s away.
    """
    fault_server.behave(scripts={"busy": ["rate_limited"]}, retry_after=1.2, retry_after_form=form)
    list(client(fault_server, concurrency=64).complete([*ask_all(1, "quiet"), *ask_all(7, "busy")]))
    times = {}
    for event in fault_server.events():
        times.setdefault(event.prompt, []).append(event.at)
    gaps = [at[1] - at[0] for at in times.values() if len(at) == 2]
    assert len(gaps) == 7
    assert least <= min(gaps) and max(gaps) < 4


def test_a_server_that_refuses_all_is_left_alone_by_all(fault_server, ask_all, client):
    """C23: one refusal, then nobody asks until the server's time is over."""
    fault_server.behave(faults={"rate_limited": 1.0}, retry_after=1.0)
    answers = list(client(fault_server, patience_seconds=1.1, timeout_seconds=3.0).complete(ask_all(60)))
    assert {answer.reason for answer in answers} == {"rate_limited"}
    times = [event.at for event in fault_server.events()]
    assert sum(at < times[0] + 0.9 for at in times) == 1


def test_a_request_to_wait_beyond_our_patience_is_not_waited_for(fault_server, ask_all, client):
    fault_server.behave(faults={"rate_limited": 1.0}, retry_after=3600)
    started = time.monotonic()
    answers = list(client(fault_server).complete(ask_all(200)))
    assert time.monotonic() - started < 3
    assert len(answers) == 200 and {answer.reason for answer in answers} == {"rate_limited"}
    assert fault_server.stats().requests == 1


def test_a_server_that_dies_and_comes_back_loses_nothing(fault_server, ask_all, client):
    """C23: every connection reset, nobody listening for 2 s (20 s in benchmarks.llm_faults)."""
    fault_server.behave(die_after=100, die_seconds=2.0, latency=0.02)
    asked = ask_all(300)
    started = time.monotonic()
    answers = list(client(fault_server).complete(asked))
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in asked)
    assert 2 <= time.monotonic() - started < 14
    assert all(isinstance(answer, Completion) for answer in answers)
    most = 300 + 2 * 16 + 10  # those in flight, those sent before it was known, single probes
    assert sum(answer.attempts for answer in answers) < most


def test_a_server_killed_and_started_again_loses_nothing(ask_all, client):
    """C23: SIGKILL of the server's process, another one at its port soon after."""
    asked = ask_all(200)
    with FaultServer(latency=0.02) as first:
        again = FaultServer(first.port, latency=0.02)
        timer = threading.Timer(0.3, again.__enter__)
        answers = []
        for answer in client(first).complete(asked):
            answers.append(answer)
            if len(answers) == 50:
                os.kill(first._process.pid, signal.SIGKILL)
                timer.start()
        timer.join()
        again.__exit__()
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in asked)
    assert all(isinstance(answer, Completion) for answer in answers)


def test_a_server_that_stays_away_is_given_up_once_for_all(ask_all):
    """Every request is listed, after one patience and not one for each batch of them."""
    with FaultServer() as gone:
        url = gone.url
    hasty = OpenAICompatible("test-model", url, None, concurrency=4, patience_seconds=1.2)
    started = time.monotonic()
    answers = list(hasty.complete(ask_all(500)))
    assert time.monotonic() - started < 6
    assert len(answers) == 500
    assert {(answer.reason, answer.usage) for answer in answers} == {("connection_lost", Usage())}


def test_a_server_that_hangs_for_good_is_given_up_once_for_all(fault_server, ask_all, client):
    fault_server.behave(faults={"hang": 1.0})
    started = time.monotonic()
    hurried = client(fault_server, concurrency=8, patience_seconds=0.4, timeout_seconds=0.6)
    answers = list(hurried.complete(ask_all(300)))
    assert time.monotonic() - started < 8
    assert len(answers) == 300 and {answer.reason for answer in answers} == {"timeout"}
