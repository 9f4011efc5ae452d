"""Caps in calls and money: never passed, nothing paid is lost."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import cast

import pytest

from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.protocol import (
    Answer,
    BudgetSpent,
    Completion,
    Failure,
    Message,
    ModelRefused,
    Request,
    Usage,
)


def request(number: int) -> Request:
    return Request((Message("user", str(number)),), {"type": "object"}, "u" * 32, "test/1")


class Concurrent:
    """Keeps `width` requests in flight, as a client with bounded concurrency does; each takes `calls` attempts."""

    name = "concurrent"

    def __init__(self, width: int = 1, calls: int = 1, usd: float = 0.0, cached: bool = False) -> None:
        self.width, self.calls, self.usd, self.cached = width, calls, usd, cached
        self.made = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        in_flight: deque[Request] = deque()
        for each in requests:
            in_flight.append(each)
            self.most_in_flight = max(self.most_in_flight, len(in_flight))
            if len(in_flight) == self.width:
                yield self.answer(in_flight.popleft())
        while in_flight:
            yield self.answer(in_flight.popleft())

    def answer(self, each: Request) -> Answer:
        with self.lock:
            self.made += self.calls
        return Completion(each.id, {}, Usage(calls=self.calls, usd=self.usd), self.calls, cached=self.cached)


def drain(model: Budgeted, n: int) -> list[Answer]:
    """What is handed out before the budget is spent."""
    answers: list[Answer] = []
    with pytest.raises(BudgetSpent):
        for answer in model.complete(request(i) for i in range(n)):
            answers.append(answer)
    return answers


@pytest.mark.parametrize("width", [1, 8, 64])
def test_calls_stop_at_the_cap_and_what_was_sent_is_handed_out(width: int) -> None:
    """C24: a cap of 20 calls makes exactly 20, whatever the concurrency, and hands out all 20 answers."""
    model = Concurrent(width)
    budgeted = Budgeted(model, max_calls=20)
    answers = drain(budgeted, 100)
    assert (model.made, len(answers)) == (20, 20)
    assert len({answer.request_id for answer in answers}) == 20
    assert (budgeted.usage.calls, budgeted.spent) == (20, "max_calls")


@pytest.mark.parametrize("width", [1, 8, 64])
@pytest.mark.parametrize("calls", [1, 3])
def test_repeated_attempts_never_pass_the_cap(width: int, calls: int) -> None:
    """C24: with up to 3 attempts a request, all taken or none repeated, the cap of 20 calls holds."""
    model = Concurrent(width, calls)
    answers = drain(Budgeted(model, max_calls=20, attempts=3), 100)
    assert len(answers) == model.made / calls == 18 // calls
    assert model.made == 18  # a further request might take 3


@pytest.mark.parametrize("width", [1, 8, 64])
def test_money_stops_at_the_cap(width: int) -> None:
    """C24: at 0.25 US dollars a request, a cap of 2 pays for 8; the first is sent alone, its price not being known."""
    model = Concurrent(width, usd=0.25)
    budgeted = Budgeted(model, max_usd=2.0)
    assert len(drain(budgeted, 100)) == model.made == 8
    assert (budgeted.usage.usd, budgeted.spent) == (2.0, "max_usd")
    assert model.most_in_flight <= 7


def test_no_cap_passes_everything_at_full_concurrency() -> None:
    model = Concurrent(16, usd=1.0)
    budgeted = Budgeted(model)
    assert len(list(budgeted.complete(request(i) for i in range(40)))) == 40
    assert (model.most_in_flight, budgeted.spent, budgeted.name) == (16, None, "concurrent")


def test_exactly_enough_is_enough() -> None:
    budgeted = Budgeted(Concurrent(4), max_calls=10)
    assert len(list(budgeted.complete(request(i) for i in range(10)))) == 10
    assert drain(budgeted, 1) == []
    assert list(budgeted.complete([])) == []


def test_nothing_is_affordable() -> None:
    for budgeted in (Budgeted(Concurrent(), max_calls=0), Budgeted(Concurrent(), max_usd=0.0)):
        assert drain(budgeted, 3) == []
    with pytest.raises(ValueError, match="budget of -1 calls"):
        Budgeted(Concurrent(), max_calls=-1)


def test_cached_answers_count_as_when_they_were_made() -> None:
    """A run that starts again on a full cache stops where the first one stopped, having paid nothing."""
    budgeted = Budgeted(Concurrent(4, usd=0.1, cached=True), max_calls=5)
    assert len(drain(budgeted, 9)) == 5
    assert (budgeted.usage.calls, budgeted.paid) == (5, Usage())


def test_failures_cost_too() -> None:
    class Failing(Concurrent):
        def answer(self, each: Request) -> Answer:
            return Failure(each.id, "truncated", "", Usage(calls=2), attempts=2)

    assert len(drain(Budgeted(Failing(), max_calls=8, attempts=2), 9)) == 4


def test_models_that_share_a_budget() -> None:
    first = Budgeted(Concurrent(), max_calls=5)
    second = first.sharing(Concurrent(usd=1.0))
    assert len(list(first.complete(request(i) for i in range(3)))) == 3
    assert len(drain(second, 9)) == 2
    assert first.usage == second.usage == Usage(calls=5, usd=2.0)


def test_what_is_abandoned_is_set_free() -> None:
    """A consumer that stops listening, a request asked twice and a model that raises leave nothing set aside."""
    budgeted = Budgeted(Concurrent(8), max_calls=20)
    with closing(cast(Generator, budgeted.complete(request(i) for i in range(10)))) as stream:
        next(stream)
    assert len(drain(budgeted, 30)) == 19

    class Deduplicating(Concurrent):
        def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
            yield from super().complete({each.id: each for each in requests}.values())

    budgeted = Budgeted(Deduplicating(), max_calls=10)
    assert len(list(budgeted.complete([request(0), request(0), request(1)]))) == 2
    assert len(drain(budgeted, 20)) == 8

    class Refusing(Concurrent):
        def answer(self, each: Request) -> Answer:
            raise ModelRefused("the key is refused")

    budgeted = Budgeted(Refusing(4), max_calls=10)
    with pytest.raises(ModelRefused):
        list(budgeted.complete(request(i) for i in range(6)))
    assert budgeted.spent is None


@pytest.mark.parametrize("usd", [0.0, 0.01])
def test_threads_together_never_pass_the_cap(usd: float) -> None:
    """Eight threads of single requests and one cap: 50 calls are made, and every thread is told."""
    model = Concurrent(usd=usd)
    budgeted = Budgeted(model, max_calls=50, max_usd=1.0)
    told = []
    start = threading.Barrier(8)

    def ask(thread: int) -> None:
        start.wait()
        try:
            for i in range(60):
                list(budgeted.complete([request(1000 * thread + i)]))
        except BudgetSpent:
            told.append(thread)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8
    assert model.made == budgeted.usage.calls <= 50
    assert model.made >= 50 - 8  # what others have in flight counts as spent


@pytest.mark.parametrize(
    ("caps", "says"),
    [
        ({"max_calls": 3, "attempts": 5}, "cannot start: 0 calls spent, max_calls is 3, one request may take 5 calls"),
        ({"max_calls": 7, "attempts": 5}, "3 calls spent, max_calls is 7, one request may take 5 calls"),
        ({"max_calls": 2}, "2 calls spent, max_calls is 2"),
        ({"max_usd": 0.75}, "0.7500 US dollars spent, max_usd is 0.75"),
    ],
)
def test_a_spent_budget_says_what_is_spent_of_the_caps_that_are_set(caps, says) -> None:
    budgeted = Budgeted(Concurrent(usd=0.25), **caps)
    with pytest.raises(BudgetSpent) as caught:
        list(budgeted.complete(request(i) for i in range(9)))
    assert str(caught.value) == f"concurrent: {says}"


def test_without_a_cap_on_money_nothing_is_sent_alone() -> None:
    """A batch job would load its model twice."""
    model = Concurrent(16)
    assert len(list(Budgeted(model, max_calls=100, attempts=5).complete(request(i) for i in range(16)))) == 16
    assert model.most_in_flight == 16
