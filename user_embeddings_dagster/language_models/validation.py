"""Whether a model's text is the JSON that was asked for, and how it is asked again if not."""

import json
import math
import re
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from user_embeddings_dagster.language_models.protocol import Reason, Request

# An invalid answer is asked for again at least this warm: at 0 it would be the same answer.
RETRY_TEMPERATURE = 0.5
_INT64 = range(-(2**63), 2**63)
_SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidAnswer(Exception):
    """The text is not the JSON that was asked for; `reason` and `detail` as in Failure, without any of it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def parse(text: str | None, schema: dict[str, Any], finish_reason: str | None) -> Any:
    """The JSON value of `text`. Raises InvalidAnswer: truncated, malformed_json, schema_violation.

    A violation is also what JSON and its schema allow, but no table or file could take: half a surrogate pair, an
    integer beyond 64 bits, a number beyond a double; and 1.0 where the schema says integer.
    """
    if finish_reason == "length":
        raise InvalidAnswer("truncated", "the answer reached max_tokens")
    try:
        value = json.loads(text or "", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidAnswer("malformed_json", f"{len(text or '')} characters that are not JSON") from None
    error = next(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value), None)
    if error is not None:
        place = "/".join(str(part) for part in error.schema_path)
        raise InvalidAnswer("schema_violation", f"schema path {place}")
    if problem := _unstorable(value):
        raise InvalidAnswer("schema_violation", problem)
    return value


def _unstorable(value: Any) -> str | None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and _SURROGATE.search(item):
            return "a string with half a surrogate pair"
        elif isinstance(item, int) and item not in _INT64:
            return "an integer beyond 64 bits"
        elif isinstance(item, float) and not math.isfinite(item):
            return "a number beyond a double"
    return None


def _is_integer(checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
_Validator = extend(Draft202012Validator, type_checker=_TYPES)


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return _Validator(json.loads(schema))


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and infinities are no JSON


def varied(request: Request, error: InvalidAnswer) -> Request:
    """The same question after an invalid answer: another seed, warmer, and twice the room if it was too little."""
    return msgspec.structs.replace(
        request,
        seed=request.seed + 1,
        temperature=max(request.temperature, RETRY_TEMPERATURE),
        max_tokens=request.max_tokens * (2 if error.reason == "truncated" else 1),
    )
