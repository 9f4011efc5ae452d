"""A cap on what answers may cost: calls and money, counted over everything that goes through it."""

import math
import threading
from collections.abc import Iterable, Iterator
from typing import Literal

from user_embeddings_dagster.language_models.protocol import Answer, BudgetSpent, LanguageModel, Request, Usage

Cap = Literal["max_calls", "max_usd"]


class Budgeted:
    """`model`, until `max_calls` calls or `max_usd` US dollars are spent (None: no cap); for any number of threads.

    Every attempt is a call. Before a request is sent, `attempts` calls (the most that the model makes for one) are
    set aside for it, so that the cap in calls holds whatever has to be repeated. What a request costs is known only
    afterwards: the price of the dearest so far is set aside, the first is sent alone, and so the cap in money can be
    passed by no more than requests in flight cost above the dearest before them. What other threads have in flight
    counts as spent.

    An answer from a cache counts what it cost when it was made: a run that was killed and started again stops where
    it would have stopped. `paid` is what was really spent now.
    """

    def __init__(
        self, model: LanguageModel, max_calls: int | None = None, max_usd: float | None = None, *, attempts: int = 1
    ) -> None:
        if attempts < 1 or min(max_calls or 0, max_usd or 0) < 0:
            raise ValueError(f"a budget of {max_calls} calls and {max_usd} US dollars at {attempts} calls a request")
        self._model = model
        self._account = _Account(max_calls, max_usd, attempts)

    def sharing(self, model: LanguageModel) -> "Budgeted":
        """Another model under the very same caps: what one spends, the other cannot."""
        other = Budgeted(model)
        other._account = self._account
        return other

    @property
    def name(self) -> str:
        """Name of the model itself."""
        return self._model.name

    @property
    def usage(self) -> Usage:
        """What all answers cost, whenever they were made."""
        return self._account.usage

    @property
    def paid(self) -> Usage:
        """What answers cost that came from no cache."""
        return self._account.paid

    @property
    def spent(self) -> Cap | None:
        """The cap that lets no further request through; None while there is room."""
        return self._account.reached()

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Answers as `model` gives them. Raises BudgetSpent at the cap, after the answers to all that was sent."""
        source = iter(requests)
        waiting = next(source, None)
        sent = answered = 0

        def affordable() -> Iterator[Request]:
            nonlocal waiting, sent
            while waiting is not None and self._account.set_aside(alone=sent == answered):
                sent += 1
                yield waiting
                waiting = next(source, None)

        while waiting is not None:
            before = sent
            try:
                for answer in self._model.complete(affordable()):
                    answered += 1
                    self._account.settle(answer)
                    yield answer
            finally:
                self._account.release(sent - answered)  # what got no answer of its own: abandoned, or asked twice
            answered = sent
            if sent == before:
                raise BudgetSpent(f"{self.name}: {self._account}")


class _Account:
    """What was spent, and what is set aside for requests in flight."""

    def __init__(self, max_calls: int | None, max_usd: float | None, attempts: int) -> None:
        self._max_calls = math.inf if max_calls is None else max_calls
        self._max_usd = math.inf if max_usd is None else max_usd
        self._attempts = attempts
        self._lock = threading.Lock()
        self._in_flight = 0
        self._dearest: float | None = None
        self.usage, self.paid = Usage(), Usage()

    def reached(self) -> Cap | None:
        with self._lock:
            return self._cap()

    def set_aside(self, *, alone: bool) -> bool:
        """Whether one more request may be sent; `alone`: nothing else of its stream is in flight."""
        with self._lock:
            unknown = self._dearest is None and self._max_usd < math.inf
            if (unknown and not alone) or self._cap():
                return False
            self._in_flight += 1
            return True

    def settle(self, answer: Answer) -> None:
        with self._lock:
            self._in_flight -= 1
            self._dearest = max(self._dearest or 0.0, answer.usage.usd)
            self.usage += answer.usage
            if not getattr(answer, "cached", False):
                self.paid += answer.usage

    def release(self, requests: int) -> None:
        with self._lock:
            self._in_flight -= requests

    def _cap(self) -> Cap | None:
        wanted = self._in_flight + 1
        if self.usage.calls + wanted * self._attempts > self._max_calls:
            return "max_calls"
        money = self.usage.usd + wanted * (self._dearest or 0.0)
        return "max_usd" if money > self._max_usd or self._max_usd == 0 else None

    def __str__(self) -> str:
        """What is spent of the caps that are set, and why no further request may be sent."""
        spent = []
        if self._max_calls < math.inf:
            spent.append(f"{self.usage.calls} calls spent, max_calls is {self._max_calls}")
        if self._max_usd < math.inf:
            spent.append(f"{self.usage.usd:.4f} US dollars spent, max_usd is {self._max_usd:g}")
        if self._attempts > 1 and self._cap() == "max_calls":
            spent.append(f"one request may take {self._attempts} calls")
        return ("" if self.usage.calls else "cannot start: ") + ", ".join(spent)
