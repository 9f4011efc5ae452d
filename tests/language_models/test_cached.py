"""C27: a model behind the private cache is asked once for each request, and nothing that was paid for is lost."""

import itertools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.cached import LOOKED_UP, Cached
from user_embeddings_dagster.language_models.protocol import (
    BudgetSpent,
    Completion,
    Failure,
    Message,
    ModelRefused,
    Request,
    Usage,
)
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys

MASTER = bytes(range(32))


class Scripted:
    """Answers in groups of `at_once`, last first; fails what it is told to; counts what it is asked."""

    name = "scripted"

    def __init__(self, at_once=4, failing=(), raises=None):
        self.at_once, self.failing, self.raises = at_once, set(failing), raises
        self.asked, self.sessions, self.closed = [], 0, 0

    def complete(self, requests):
        self.sessions += 1
        source = iter(requests)
        try:
            while group := list(itertools.islice(source, self.at_once)):
                for request in reversed(group):
                    self.asked.append(request.messages[0].content)
                    if self.raises and len(self.asked) > self.raises[0]:
                        raise self.raises[1]
                    yield self.answer(request)
        finally:
            self.closed += 1

    def answer(self, request):
        if request.messages[0].content in self.failing:
            return Failure(request.id, "timeout", "no answer", Usage(calls=3), attempts=3)
        return Completion(request.id, {"echo": request.messages[0].content}, Usage(calls=1, usd=0.5))


@pytest.fixture
def cache(tmp_path):
    with ContributorKeys(tmp_path / "keys", MASTER) as keys, open_cache(tmp_path / "cache", keys) as cache:
        yield cache


def request(i):
    return Request((Message("user", str(i)),), {"type": "object"}, "first" if i == 0 else f"user{i % 3}", "p/1")


def test_every_request_is_answered_once_and_asked_once_ever(cache):
    requests = [request(i) for i in range(100)]
    first, second = Scripted(), Scripted()
    answers = list(Cached(first, cache).complete(requests))
    assert {answer.request_id for answer in answers} == {r.id for r in requests} and len(answers) == 100
    assert not any(answer.cached for answer in answers)
    again = list(Cached(second, cache).complete(requests))
    assert [answer.request_id for answer in again] == [r.id for r in requests]
    assert all(answer.cached and answer.usage == Usage(calls=1, usd=0.5) for answer in again)
    assert {a.request_id: a.value for a in again} == {a.request_id: a.value for a in answers}
    assert len(first.asked) == 100 and not second.asked and not second.sessions
    assert Cached(second, cache).name == "scripted"


@pytest.mark.parametrize("waiting", [1, 5, 1024, None])
@pytest.mark.parametrize("known", ["none", "even", "first half", "last half", "all"])
def test_hits_and_misses_in_any_mixture_are_all_answered(cache, waiting, known):
    requests = [request(i) for i in range(200)]
    kept = {
        "none": [],
        "even": requests[::2],
        "first half": requests[:100],
        "last half": requests[100:],
        "all": requests,
    }[known]
    list(Cached(Scripted(), cache).complete(kept))
    model = Scripted()
    answers = list(Cached(model, cache, waiting).complete(iter(requests)))
    assert waiting is not None or model.sessions <= 1  # a batch job is started once
    assert sorted(answer.request_id for answer in answers) == sorted(r.id for r in requests)
    assert sorted(a.request_id for a in answers if a.cached) == sorted(r.id for r in kept)
    assert len(model.asked) == 200 - len(kept) and model.closed == model.sessions


def test_equal_requests_are_answered_once(cache):
    requests = [request(i % 10) for i in range(200)]
    model = Scripted()
    assert len(list(Cached(model, cache).complete(requests))) == 10 == len(model.asked)
    assert len(list(Cached(model, cache).complete(requests))) == 10 == len(model.asked)


def test_failures_are_handed_out_and_asked_again(cache):
    requests = [request(i) for i in range(10)]
    model = Scripted(failing={"3", "4"})
    failed = [answer for answer in Cached(model, cache).complete(requests) if isinstance(answer, Failure)]
    assert sorted(answer.request_id for answer in failed) == sorted((request(3).id, request(4).id))
    model.failing, model.asked = set(), []
    answers = list(Cached(model, cache).complete(requests))
    assert sorted(model.asked) == ["3", "4"] and all(isinstance(answer, Completion) for answer in answers)


def test_a_completion_is_kept_before_it_is_handed_out(cache):
    requests = [request(i) for i in range(20)]
    for n, answer in enumerate(Cached(Scripted(), cache).complete(requests), start=1):
        assert cache.stats.entries == n
        (kept,) = cache.get("scripted", [r for r in requests if r.id == answer.request_id])
        assert kept is not None


def test_an_answer_that_came_while_hits_were_waiting_is_kept_first(cache):
    """Whoever stops at a hit does not lose the answer that is behind it."""
    list(Cached(Scripted(), cache).complete([request(i) for i in range(1, 10)]))
    answers = Cached(Scripted(), cache).complete([request(i) for i in range(10)])
    assert next(answers).cached
    answers.close()
    assert cache.get("scripted", [request(0)])[0] is not None


def test_closing_closes_the_model_and_flushes(cache, monkeypatch):
    flushed = []
    monkeypatch.setattr(cache, "flush", lambda: flushed.append(1))
    model = Scripted()
    answers = Cached(model, cache).complete(request(i) for i in range(100))
    next(answers)
    assert not model.closed
    answers.close()
    assert model.closed == 1 and flushed


def test_requests_are_read_as_the_model_reads_them(cache):
    read = []

    def endless():
        for i in itertools.count():
            read.append(i)
            yield request(i)

    answers = Cached(Scripted(), cache).complete(endless())
    for _ in range(50):
        next(answers)
    answers.close()
    assert 50 <= len(read) <= 50 + 2 * LOOKED_UP


@pytest.mark.parametrize("error", [BudgetSpent("spent"), ModelRefused("refused")])
def test_what_is_known_is_handed_out_before_the_model_gives_up(cache, error):
    known = [request(i) for i in range(0, 40, 2)]
    list(Cached(Scripted(), cache).complete(known))
    answers = []
    with pytest.raises(type(error)):
        for answer in Cached(Scripted(raises=(4, error)), cache).complete(request(i) for i in range(40)):
            answers.append(answer.request_id)
    odd, even = [request(i).id for i in (1, 3, 5, 7)], [request(i).id for i in range(0, 16, 2)]
    assert sorted(answers) == sorted(odd + even)  # 8 to 14 were found while 9 to 15 were about to be asked
    assert None not in cache.get("scripted", [request(i) for i in (1, 3, 5, 7)])


def test_an_error_of_the_source_comes_out(cache):
    def broken():
        yield request(0)
        raise OSError("the table is gone")

    with pytest.raises(OSError, match="the table is gone"):
        list(Cached(Scripted(), cache).complete(broken()))
    assert cache.stats.entries <= 1


@pytest.mark.parametrize("known", ["none", "all", "all but the first"])
def test_memory_is_flat_over_many_requests(cache, known):
    """What grows with the number of requests is a small object for each id; an answer here is 2,000 bytes."""

    class Vast(Scripted):
        def complete(self, requests):
            for request in requests:
                yield Completion(request.id, {"text": "x" * 2000}, Usage())

    kept = {"none": [], "all": range(3000), "all but the first": range(1, 3000)}[known]
    for _ in Cached(Vast(), cache).complete(request(i) for i in kept):
        pass
    tracemalloc.start()
    peaks = []
    for n in (1100, 3000):
        tracemalloc.reset_peak()
        for _ in Cached(Vast(), cache).complete(request(i) for i in range(n)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        if known == "all but the first":
            cache.erase("first")  # so that hits pile up again behind a question to the model
    tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1900 * 300, peaks


def test_kill_9_mid_way_loses_the_requests_in_flight_alone(tmp_path):
    """C23: a killed run pays again for what was in flight, and the cost of all answers is counted once."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import importlib.util, os, signal, sys\n"
        "from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('cached_test', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "folder, log, n = Path(sys.argv[1]), open(sys.argv[2], 'a'), int(sys.argv[3])\n"
        "class Logged(module.Scripted):\n"
        "    def answer(self, request):\n"
        "        log.write(request.id + '\\n'); log.flush()\n"
        "        return super().answer(request)\n"
        "keys = module.ContributorKeys(folder / 'keys', module.MASTER)\n"
        "cache = module.open_cache(folder / 'cache', keys)\n"
        "requests = (module.request(i) for i in range(300))\n"
        "for i, answer in enumerate(module.Cached(Logged(), cache).complete(requests)):\n"
        "    if i == n: os.kill(os.getpid(), signal.SIGKILL)\n"
        "print(cache.stats.hits)\n"
    )
    log = tmp_path / "log"
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(Path.cwd())}

    def run(n):
        command = [sys.executable, str(script), str(tmp_path), str(log), str(n)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    for kill in (37, 120, 250):
        assert run(kill).returncode == -9
    last = run(10**6)
    assert last.returncode == 0, last.stderr
    asked = log.read_text().split()
    assert len(set(asked)) == 300 and len(asked) <= 300 + 3  # at most the one in hand at each kill
    assert int(last.stdout) >= 250
