"""Requests whose answers a random model can give: one instruction for all, a short text each, bounded fields."""

from user_embeddings_dagster.language_models.protocol import Message, Request

SCHEMA = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 120},
        "topic": {"enum": ["food", "travel", "work", "other"]},
        "certain": {"type": "boolean"},
    },
    "required": ["summary", "topic", "certain"],
    "additionalProperties": False,
}
INSTRUCTIONS = "Summarise what SUBJECT contributed to the thread, in the third person, without quotes, as JSON. " * 12


def requests(count, first=0, max_tokens=256):
    """`count` distinct requests, those with numbers from `first`."""
    return [
        Request(
            (
                Message("system", INSTRUCTIONS),
                Message("user", f"<P1>: who goes to the store?\nSUBJECT: I am number {number}, bring {number % 7}."),
            ),
            SCHEMA, owner=f"user-{number % 5}", program="summarise/1", max_tokens=max_tokens,
        )
        for number in range(first, first + count)
    ]  # fmt: skip
