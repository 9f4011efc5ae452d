"""When an endpoint may be asked: slots, pauses that all requests share, and giving up on one that stays away."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from user_embeddings_dagster.language_models.attempts import Transient
from user_embeddings_dagster.language_models.protocol import ModelRefused

_LOG = logging.getLogger(__name__)

FIRST_BACKOFF = 0.5  # seconds, doubled with each failure in a row
MAX_BACKOFF = 30.0  # between two attempts of one request
MAX_PAUSE = 5.0  # between two probes of a server that is down, unless it says how long
PROBE_SECONDS = 5.0  # the first request is waited for no longer: it is being worked on


def backoff(failures: int, longest: float = MAX_BACKOFF) -> float:
    """Seconds to wait after so many failures in a row: exponential, with up to half of it taken away by jitter."""
    return min(longest, FIRST_BACKOFF * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


class Unavailable(Exception):
    """The endpoint has answered nothing for longer than our patience; `cause` is how its last attempt failed."""

    def __init__(self, cause: Transient) -> None:
        super().__init__(str(cause))
        self.cause = cause


class EndpointHealth:
    """What the requests in flight know about their endpoint together; for one event loop.

    At first one request goes ahead; one at a time probes for as long as nobody listens, and all the others pause. They
    also pause when the server turns requests away (429, 502 to 504): the first one, or an eighth of `concurrency` in a
    row; one refusal among answers delays only its own request. A pause lasts as long as the server asks, else each is
    twice the last. When nothing was answered for `patience_seconds` (and `timeout_seconds`,
    if somebody listens), those that wait are given up.
    """

    def __init__(self, url: str, concurrency: int, patience_seconds: float, timeout_seconds: float) -> None:
        self._url = url
        self._slots = asyncio.Semaphore(concurrency)
        self._turned_away_at = max(1, concurrency // 8)
        self._patience = patience_seconds
        self._timeout = timeout_seconds
        self._clock = asyncio.get_running_loop().time
        self._open = self._probing = self._down = False
        self._changed = asyncio.Event()  # set and replaced whenever those two change
        self._turned_away = 0
        self._pauses = 0
        self._paused_until = 0.0
        self._pause_cause: Transient | None = None
        self._refusal: str | None = None
        self._failing_since: float | None = None
        self._last: Transient | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A slot to make one attempt in. Raises Unavailable instead of waiting beyond the patience."""
        async with self._slots:
            probes = await self._admitted()
            timer = asyncio.get_running_loop().call_later(PROBE_SECONDS, self._let_all_go) if probes else None
            try:
                yield
            finally:
                if timer:
                    timer.cancel()
                    self._probing = False
                    self._announce()

    async def _admitted(self) -> bool:
        """Wait until an attempt may be made; whether it is a probe."""
        while True:
            if self._refusal is not None:
                raise ModelRefused(self._refusal)
            pause = self._paused_until - self._clock()
            if self._pause_cause and (pause > self._patience or (pause > 0 and self._exhausted())):
                raise Unavailable(self._pause_cause)
            if pause > 0:
                await asyncio.sleep(pause + random.uniform(0, min(1.0, pause / 10)))
            elif self._open:
                return False
            elif not self._probing:
                self._probing = True
                return True
            elif self._last and self._exhausted():
                raise Unavailable(self._last)
            else:
                await self._changed.wait()

    def answered(self) -> None:
        """The endpoint works: an answer came, whatever is in it."""
        self._turned_away = self._pauses = 0
        self._failing_since = self._last = None
        if self._down:
            self._down = False
            _LOG.warning("%s answers again", self._url)
        self._let_all_go()

    def refused(self, error: ModelRefused) -> None:
        """Nobody need try any more."""
        self._refusal = str(error)

    def failed(self, problem: Transient) -> None:
        """An attempt failed; the others learn from it."""
        now = self._clock()
        self._last = problem
        self._failing_since = now if self._failing_since is None else self._failing_since
        if problem.scope != "request":
            self._turned_away += 1
            if problem.scope == "down" or not self._open or self._turned_away >= self._turned_away_at:
                self._pause(now, problem)
        if problem.scope != "down" and not self._exhausted():
            self._let_all_go()
            return
        self._open = False
        if not self._down:
            self._down = True
            _LOG.warning("%s does not answer (%s): it is asked by one request at a time", self._url, problem)

    def _pause(self, now: float, problem: Transient) -> None:
        if now >= self._paused_until:
            self._pauses += 1
        elif problem.retry_after is None:
            return  # of those in flight together the first decides
        seconds = backoff(self._pauses, MAX_PAUSE) if problem.retry_after is None else problem.retry_after
        if now + seconds > self._paused_until:
            self._paused_until, self._pause_cause = now + seconds, problem

    def _exhausted(self) -> bool:
        """Whether nothing was answered for too long; a server that listens may be about to answer."""
        if self._failing_since is None or self._last is None:
            return False
        longest = self._patience + (0.0 if self._last.scope == "down" else self._timeout)
        return self._clock() - self._failing_since > longest

    def _let_all_go(self) -> None:
        if not (self._open or self._down):
            self._open = True
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
