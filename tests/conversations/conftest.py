"""Builds MESSAGES and PARTICIPANTS from short rows."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def identifier(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:32]


def build(rows: Sequence[dict], names: dict[str, Sequence[str]], shape: str = "tree"):
    """Rows: id, by, at (minutes), text, and optionally parent, role, thread. Names: person → names."""
    messages, people = [], set()
    for place, row in enumerate(rows):
        thread = identifier(row.get("thread", "thread"))
        at = row.get("at", place)
        author = identifier(row["by"]) if row.get("by") else None
        messages.append(
            {
                "message_id": identifier(row["id"]),
                "datadao": "test",
                "platform": "reddit",
                "thread_id": thread,
                "thread_shape": shape,
                "parent_id": identifier(row["parent"]) if row.get("parent") else None,
                "author_id": author,
                "role": row.get("role", "user"),
                "is_subject": row.get("subject", row.get("by") is not None),
                "created_at": None if at is None else EPOCH + timedelta(minutes=at),
                "edited_at": None,
                "text": row.get("text", f"message {row['id']} says something"),
                "media_kind": None,
                "community": "fruit" if shape == "tree" else None,
                "raw_sha256": "0" * 64,
                "raw_member": "",
                "raw_location": place,
            }
        )
        if author:
            people |= {(thread, author, name) for name in names.get(row["by"], [row["by"]])}
    participants = [
        {"datadao": "test", "thread_id": t, "author_id": a, "name": n, "name_kind": "display_name"}
        for t, a, n in sorted(people)
    ]
    frame = pl.DataFrame(messages, schema=MESSAGES.schema)
    return MESSAGES.conform(frame), pl.DataFrame(participants, schema=PARTICIPANTS.schema)


@pytest.fixture
def tables() -> Callable:
    return build


@pytest.fixture
def ident() -> Callable[[str], str]:
    return identifier


# Property tests cannot take function-scoped fixtures: they import this module under a fixed name.
sys.modules["tests_tables"] = sys.modules[__name__]
