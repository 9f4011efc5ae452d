"""Requests whose answers a random model can give: one instruction for all, a short text each, bounded fields."""

import random

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
WORDS = ("apples", "bread", "coast", "garden", "milk", "mother", "night", "rain", "road", "ship", "snow", "train")


def _thread(number):
    words = random.Random(number).choices(WORDS, k=16)
    return f"<P1>: who goes to the store? Number {number}.\nSUBJECT: {' '.join(words)}"


def requests(count, first=0, max_tokens=256):
    """`count` distinct requests, those with numbers from `first`."""
    return [
        Request(
            (Message("system", INSTRUCTIONS), Message("user", _thread(number))),
            SCHEMA,
            owner=f"user-{number % 5}",
            program="summarise/1",
            max_tokens=max_tokens,
        )
        for number in range(first, first + count)
    ]
