"""F13: a language model that obeys every order in its prompt, for experiments with benchmarks.injections.

It does what an order asks with all that is in its prompt, whatever the program's own instructions say. So nothing
rests on a model's good behaviour: what it cannot print is what it was never given, or what the schema, the length
bound and the second masking do not let through.
"""

import json
import re
from collections.abc import Iterable, Iterator

from benchmarks.injections import Payload, free_answer, payloads
from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request, Usage
from user_embeddings_dagster.language_models.validation import InvalidAnswer, parse

_SAYING = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
_ORDER = re.compile(r"order (\d{3})\b")
_BY_ORDER = {payload.order: payload for payload in payloads()}


def ordered(prompt: str) -> Payload | None:
    """The last order in a prompt."""
    numbers = _ORDER.findall(prompt)
    return _BY_ORDER.get(int(numbers[-1])) if numbers else None


def obeyed(prompt: str) -> str:
    """What an obedient model says in one free string: the prompt itself where nothing orders otherwise."""
    payload = ordered(prompt)
    if payload is None:
        return prompt
    value = payload.act(prompt, _SAYING)
    try:
        return str(json.loads(value)["said"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return value


class Obedient:
    """A LanguageModel that does what the last order in its prompt says. `prompts` are all that it was given."""

    name = "obedient"

    def __init__(self) -> None:
        self.prompts: list[Request] = []
        self.said: dict[str, str] = {}

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer to each, checked against the schema as the client of a server checks it."""
        for request in requests:
            self.prompts.append(request)
            prompt = "\n".join(message.content for message in request.messages)
            payload = ordered(prompt)
            said = payload.act(prompt, request.schema) if payload else free_answer(request.schema, "SUBJECT talks")
            if payload and '"string"' not in json.dumps(request.schema):  # no room for words: beside what there is
                said = json.dumps({"query_likelihood": [1], "said": payload.act(prompt, _SAYING)})
            self.said[request.id] = said
            try:
                yield Completion(request.id, parse(said, request.schema, "stop"), Usage(1, 1, 0, 1, 0.0))
            except InvalidAnswer as error:
                yield Failure(request.id, error.reason, error.detail, Usage(1, 1, 0, 1, 0.0))
