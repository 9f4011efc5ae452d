import json

import pytest

from benchmarks.fault_server import FaultServer
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.language_models.validation import parse

SCHEMA = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "topics": {"type": "array", "items": {"type": "string"}}},
    "required": ["summary", "topics"],
    "additionalProperties": False,
}
SYSTEM = Message("system", "Summarise what SUBJECT contributed. " * 10)


@pytest.fixture(scope="session")
def _fault_server():
    with FaultServer() as server:
        yield server


@pytest.fixture
def fault_server(_fault_server):
    """The fault server on a loopback port, well-behaved until told otherwise by `behave`."""
    _fault_server.behave()
    return _fault_server


@pytest.fixture(scope="session")
def ask():
    """A request about a text; its answer has a summary and topics."""

    def request(text, **fields):
        return Request((SYSTEM, Message("user", text)), SCHEMA, "owner", "summarise_subject/1", **fields)

    return request


@pytest.fixture(scope="session")
def ask_all(ask):
    """So many distinct requests whose text begins with a word."""
    return lambda count, word="chunk": [ask(f"{word} {number}") for number in range(count)]


@pytest.fixture(scope="session")
def client():
    """The client of a fault server, in more of a hurry than its defaults, but not than a slow machine."""

    def make(server, **settings):
        hurry = {"concurrency": 16, "timeout_seconds": 10.0, "patience_seconds": 30.0, "max_attempts": 4}
        return OpenAICompatible("test-model", server.url, None, **hurry | settings)

    return make


@pytest.fixture(scope="session")
def accounted():
    """Check that each request has one answer, a valid one if it is one, and that usage is what the server billed."""

    def check(asked, answers, server):
        assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in asked)
        for answer in answers:
            if isinstance(answer, Completion):
                assert parse(json.dumps(answer.value), SCHEMA, "stop") == answer.value
        total, stats = sum((answer.usage for answer in answers), Usage()), server.stats()
        assert total.prompt_tokens == stats.prompt_tokens
        assert total.completion_tokens == stats.completion_tokens

    return check
