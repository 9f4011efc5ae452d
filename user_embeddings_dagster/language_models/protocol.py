"""What every language model looks like to the rest: requests in, one answer for each out, with what it cost.

Whoever asks a model anything goes through `LanguageModel.complete`. A request carries its JSON schema, and a
completion has been checked against it: no caller parses free text.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal, Protocol

import msgspec

from user_embeddings_dagster.keys import content_id

# Why a request has no completion. The first group may pass with time: a later run asks again.
TRANSIENT = ("timeout", "rate_limited", "server_error", "connection_lost")
INVALID = ("malformed_json", "schema_violation", "truncated")
REJECTED = ("bad_request",)
Reason = Literal[
    "timeout", "rate_limited", "server_error", "connection_lost",
    "malformed_json", "schema_violation", "truncated", "bad_request",
]  # fmt: skip


class Message(msgspec.Struct, frozen=True):
    """One turn of the prompt; `role` is system, user or assistant."""

    role: str
    content: str


class Request(msgspec.Struct, frozen=True, dict=True):
    """One question to a model, whose answer is JSON that satisfies `schema`.

    `owner` is the user_id of the contributor whose (masked) text it holds: the key under which the answer is cached.
    `program` names the program and its version, such as "summarise_subject/1f0c…".
    """

    messages: tuple[Message, ...]
    schema: dict[str, Any]
    owner: str
    program: str
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0

    @cached_property
    def id(self) -> str:
        """Hash of everything in the request (32 hex): two equal requests are one."""
        return content_id(msgspec.json.encode(self, order="deterministic").decode())


class Usage(msgspec.Struct, frozen=True):
    """What answers cost: calls answered, tokens (of the prompt's, how many the server had cached), US dollars."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )


class Completion(msgspec.Struct, frozen=True):
    """An answer: `value` is its JSON, valid against the request's schema.

    `usage` counts every attempt that the request took, also those whose answer was thrown away. `cached`: taken
    from the private cache, `usage` then is what it cost when it was made.
    """

    request_id: str
    value: Any
    usage: Usage
    attempts: int = 1
    seconds: float = 0.0
    cached: bool = False


class Failure(msgspec.Struct, frozen=True):
    """A request that got no valid answer: why, after how many attempts, and what they cost.

    `detail` says more than `reason` (a status, a JSON path) and holds nothing of prompt or answer.
    """

    request_id: str
    reason: Reason
    detail: str
    usage: Usage
    attempts: int = 1


Answer = Completion | Failure


class LanguageModel(Protocol):
    """Anything that answers requests.

    `name` is what rows record as the model, such as "Qwen3-32B". `complete` yields one answer for each distinct
    request id, as they come and in any order; it reads its input as it goes, so that a generator of any length runs
    in bounded memory. What no retry can help (a refused key, an unknown model, a spent budget) raises.
    """

    @property
    def name(self) -> str: ...

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]: ...


class ModelRefused(Exception):
    """The endpoint refuses us as such (key, permission, unknown model): nothing will pass until a person acts."""


class BudgetSpent(Exception):
    """The cap on calls or money is reached. What was answered before has been handed out."""
