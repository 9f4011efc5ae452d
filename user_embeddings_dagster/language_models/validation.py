"""Whether a model's text is the JSON that was asked for, and how it is asked again if not."""

import json
from functools import lru_cache
from typing import Any

import jsonschema
import msgspec

from user_embeddings_dagster.language_models.protocol import Reason, Request

# An invalid answer is asked for again at least this warm: at 0 it would be the same answer.
RETRY_TEMPERATURE = 0.5


class InvalidAnswer(Exception):
    """The text is not the JSON that was asked for; `reason` and `detail` as in Failure, without any of it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def parse(text: str | None, schema: dict[str, Any], finish_reason: str | None) -> Any:
    """The JSON value of `text`. Raises InvalidAnswer: truncated, malformed_json, schema_violation."""
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
    return value


@lru_cache(maxsize=64)
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(schema))


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
