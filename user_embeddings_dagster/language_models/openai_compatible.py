"""The client of a vLLM server, or of any endpoint that speaks OpenAI's chat completions (C22, C23).

What is asked again is decided here alone. What may pass with time (timeouts, refusals under load, lost connections,
5xx) is asked again, less and less often, for `patience_seconds`; answers that are not the JSON asked for, at most
`max_attempts` times. Every request ends as a Completion or as a Failure with its reason.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from user_embeddings_dagster.language_models.attempts import Endpoint, Rejected, Reply, Transient
from user_embeddings_dagster.language_models.endpoint_health import EndpointHealth, Unavailable, backoff
from user_embeddings_dagster.language_models.parallel import results
from user_embeddings_dagster.language_models.protocol import (
    Answer,
    Completion,
    Failure,
    ModelRefused,
    Reason,
    Request,
    Usage,
)
from user_embeddings_dagster.language_models.validation import InvalidAnswer, parse, varied

READ_AHEAD = 2  # requests held for each that may be in flight: these, and those that wait to be asked again


class OpenAICompatible:
    """The model that the endpoint at `base_url` (such as http://host:8000/v1) knows as `name`.

    At most `concurrency` requests are in flight. One attempt may take `timeout_seconds`, from connecting to the last
    byte of its answer. `usd_per_million`: US dollars per million prompt tokens, cached prompt tokens and completion
    tokens. `extra` goes into every request's body, such as {"chat_template_kwargs": {"enable_thinking": False}};
    None there takes a field away. Usage counts the calls that were answered: others cost nothing that we know of.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None = None,
        concurrency: int = 64,
        timeout_seconds: float = 120.0,
        max_attempts: int = 5,
        patience_seconds: float = 300.0,
        usd_per_million: tuple[float, float, float] = (0.0, 0.0, 0.0),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if concurrency < 1 or max_attempts < 1 or timeout_seconds <= 0 or patience_seconds < 0:
            raise ValueError("concurrency and max_attempts are at least 1, timeout_seconds above 0, patience not below")
        self._endpoint = Endpoint(name, base_url, api_key, timeout_seconds, usd_per_million, extra or {})
        self._concurrency = concurrency
        self._max_attempts = max_attempts
        self._patience = patience_seconds

    @property
    def name(self) -> str:
        """The model's name at the endpoint, which rows record."""
        return self._endpoint.model

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer for each distinct request id, as they come. Raises ModelRefused.

        Requests are read in the caller's thread, at most 2 · concurrency ahead of the answers taken. Closing the
        iterator cancels what is in flight.
        """
        return results(_distinct(requests), self._asking, READ_AHEAD * self._concurrency)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Callable[[Request], Awaitable[Answer]]]:
        endpoint = self._endpoint
        health = EndpointHealth(endpoint.url, self._concurrency, self._patience, endpoint.timeout_seconds)
        async with endpoint.session() as session:
            yield _Asking(endpoint, session, health, self._max_attempts, self._patience).answer


class _GivenUp(Exception):
    """There will be no reply: why, and after how many attempts."""

    def __init__(self, reason: Reason, detail: str, attempts: int) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.attempts = attempts


class _Asking:
    """The policy: what is asked again, how, and when to stop."""

    def __init__(
        self, endpoint: Endpoint, session: Any, health: EndpointHealth, max_attempts: int, patience: float
    ) -> None:
        self._endpoint, self._session, self._health = endpoint, session, health
        self._max_attempts, self._patience = max_attempts, patience
        self._clock = asyncio.get_running_loop().time

    async def answer(self, request: Request) -> Answer:
        """Ask until there is a valid answer or a reason to stop. Raises ModelRefused."""
        asked, usage, attempts, started = request, Usage(), 0, self._clock()
        while True:
            try:
                reply, made = await self._reply(asked)
            except _GivenUp as error:
                longer = error.reason == "bad_request" and asked.max_tokens > request.max_tokens
                reason = "truncated" if longer else error.reason  # the longer answer that we asked for does not fit
                return Failure(request.id, reason, error.detail, usage, attempts + error.attempts)
            usage, attempts = usage + reply.usage, attempts + made
            try:
                value = parse(reply.text, request.schema, reply.finish_reason)
            except InvalidAnswer as error:
                if usage.calls >= self._max_attempts:
                    return Failure(request.id, error.reason, error.detail, usage, attempts)
                asked = varied(asked, error)
                continue
            return Completion(request.id, value, usage, attempts, self._clock() - started)

    async def _reply(self, request: Request) -> tuple[Reply, int]:
        """A reply, whatever is in it, and the attempts that it took. Raises _GivenUp, ModelRefused."""
        body = self._endpoint.body(request)
        attempts, give_up, problem = 0, 0.0, None
        while True:
            try:
                async with self._health.turn():
                    attempts += 1
                    return await self._attempt(body), attempts
            except Rejected as error:
                raise _GivenUp("bad_request", str(error), attempts) from None
            except Unavailable as error:
                problem = problem or error.cause
                raise _GivenUp(problem.reason, problem.detail, attempts) from None
            except Transient as error:
                give_up = give_up if problem else self._clock() + self._patience
                problem = error
            wait = max((problem.retry_after or 0.0) * random.uniform(1.0, 1.1), backoff(attempts))
            if self._clock() + wait > give_up:
                raise _GivenUp(problem.reason, problem.detail, attempts)
            await asyncio.sleep(wait)

    async def _attempt(self, body: bytes) -> Reply:
        try:
            reply = await self._endpoint.ask(self._session, body)
        except Transient as error:
            self._health.failed(error)
            raise
        except Rejected:
            self._health.answered()
            raise
        except ModelRefused as error:
            self._health.refused(error)
            raise
        self._health.answered()
        return reply


def _distinct(requests: Iterable[Request]) -> Iterator[Request]:
    """Each request id once; remembers 16 bytes of each."""
    seen: set[bytes] = set()
    for request in requests:
        key = bytes.fromhex(request.id)
        if key not in seen:
            seen.add(key)
            yield request
