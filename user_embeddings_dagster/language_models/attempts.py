"""One attempt at an OpenAI-compatible endpoint: what is sent, and what each outcome means.

The transport is aiohttp. The openai SDK was measured beside it against a server of 100 ms latency on the same two
cores: 11 ms of processor time a request against 0.2, 67 to 85 requests a second at concurrency 64 against 570. The
SDK also logs whole prompts at DEBUG, follows proxies named in the environment, and limits the wait for the next
bytes but not for the whole answer, so that a slow drip never ends.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from user_embeddings_dagster.language_models.protocol import ModelRefused, Reason, Request, Usage

CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 * 2**20
_REFUSED = (401, 402, 403, 404, 405, 407, 410, 451)
_UNAVAILABLE = (429, 502, 503, 504)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")  # OpenAI says so with 429

# What a failed attempt tells: about this request, about the server's load, or that nobody listens.
Scope = Literal["request", "load", "down"]


class Transient(Exception):
    """An attempt that failed in a way that may pass. `retry_after`: seconds the server asks us to stay away."""

    def __init__(self, reason: Reason, detail: str, scope: Scope = "request", retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.scope: Scope = scope
        self.retry_after = retry_after


class Rejected(Exception):
    """The endpoint will not answer this request, whenever it is asked; it answers others."""


class Reply(msgspec.Struct, frozen=True):
    """An answer as it came: its text (None if there is none), why it ended, tokens and cost."""

    text: str | None
    finish_reason: str | None
    usage: Usage


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = 0


class _Tokens(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Text
    finish_reason: str | None = None


class _Envelope(msgspec.Struct):
    choices: list[_Choice]
    usage: _Tokens | None = None


class _Error(msgspec.Struct):
    code: Any = None
    type: Any = None


class _ErrorEnvelope(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


class Endpoint:
    """Where completions come from: its address, key and prices, and what every request body carries besides.

    `usd_per_million`: US dollars per million prompt tokens, cached prompt tokens, completion tokens. `extra`: fields
    of the body, such as {"chat_template_kwargs": {"enable_thinking": False}}; None takes a field away.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: str | None,
        timeout_seconds: float,
        usd_per_million: tuple[float, float, float],
        extra: Mapping[str, Any],
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError(
                "base_url of the language model: expected http(s)://host[:port]/path, without user or query"
            )
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the language model's key holds characters that no HTTP header can")
        self.model = model
        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self.timeout_seconds = timeout_seconds
        self._headers = {"Content-Type": "application/json", "User-Agent": "user-embeddings-dagster"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._usd = tuple(price / 1e6 for price in usd_per_million)
        self._extra = dict(extra)

    def session(self) -> Any:
        """An aiohttp.ClientSession of its own: no proxy of the environment, no cookies."""
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trust_env=False,
        )

    def body(self, request: Request) -> bytes:
        """JSON of the request; its answer is constrained to the request's schema."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", request.program.split("/")[0])[:64] or "answer"
        schema = {"name": name, "schema": request.schema, "strict": True}
        fields = {
            "model": self.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "response_format": {"type": "json_schema", "json_schema": schema},
            **self._extra,
        }
        return msgspec.json.encode({field: value for field, value in fields.items() if value is not None})

    async def ask(self, session: Any, body: bytes) -> Reply:
        """One attempt, ended after `timeout_seconds` whatever it does. Raises Transient, Rejected, ModelRefused."""
        import aiohttp

        try:
            async with asyncio.timeout(self.timeout_seconds):
                async with session.post(self.url, data=body, allow_redirects=False) as response:
                    status, headers = response.status, response.headers
                    content = await _read(response.content)
        except aiohttp.ClientConnectorCertificateError:
            raise ModelRefused(f"{self.url}: its TLS certificate is not trusted") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Transient("connection_lost", f"no connection ({type(error).__name__})", "down") from None
        except TimeoutError:
            raise Transient("timeout", f"no answer within {self.timeout_seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Transient("connection_lost", f"cut off ({type(error).__name__})") from None
        if status != 200:
            raise self._problem(status, headers, content)
        return self._reply(content)

    def _problem(self, status: int, headers: Mapping[str, str], content: bytes) -> Exception:
        """What a status means. Bodies of errors may repeat prompt and key: nothing of them is passed on."""
        if status in _REFUSED or 200 < status < 400:
            return ModelRefused(f"{self.url} refuses the model {self.model!r}: HTTP {status}")
        if status == 429 and _says(content, _NO_CREDIT):
            return ModelRefused(f"{self.url} refuses the model {self.model!r}: HTTP 429, the account has no credit")
        if status in _UNAVAILABLE:
            reason: Reason = "rate_limited" if status == 429 else "server_error"
            return Transient(reason, f"HTTP {status}", "load", retry_after(headers))
        if status == 408:
            return Transient("timeout", "HTTP 408")
        if status in (409, 425) or status >= 500:
            return Transient("server_error", f"HTTP {status}", retry_after=retry_after(headers))
        return Rejected(f"HTTP {status}")

    def _reply(self, content: bytes) -> Reply:
        try:
            envelope = msgspec.json.decode(content, type=_Envelope)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Transient("server_error", "HTTP 200 with something that is no completion") from None
        if envelope.usage is None and any(self._usd):
            raise ModelRefused(f"{self.url} reports no usage: what the model {self.model!r} costs cannot be counted")
        usage = self._usage(envelope.usage)
        if not envelope.choices:
            return Reply(None, None, usage)
        return Reply(envelope.choices[0].message.content, envelope.choices[0].finish_reason, usage)

    def _usage(self, tokens: _Tokens | None) -> Usage:
        if tokens is None:
            return Usage(calls=1)
        cached = (tokens.prompt_tokens_details and tokens.prompt_tokens_details.cached_tokens) or 0
        counts = (tokens.prompt_tokens - cached, cached, tokens.completion_tokens)
        usd = sum(count * price for count, price in zip(counts, self._usd, strict=True))
        return Usage(1, tokens.prompt_tokens, cached, tokens.completion_tokens, usd)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to stay away: Retry-After-Ms, or Retry-After (RFC 9110, 10.2.3: seconds or a date); None if unsaid."""
    try:
        if "Retry-After-Ms" in headers:
            return max(0.0, float(headers["Retry-After-Ms"]) / 1000)
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["Retry-After"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


async def _read(stream: Any) -> bytes:
    """The whole body. Raises Transient if it does not end within MAX_ANSWER_BYTES."""
    parts, size = [], 0
    async for part in stream.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise Transient("server_error", f"more than {MAX_ANSWER_BYTES} bytes")
    return b"".join(parts)


def _says(content: bytes, codes: tuple[str, ...]) -> bool:
    try:
        error = msgspec.json.decode(content, type=_ErrorEnvelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return error.code in codes or error.type in codes
