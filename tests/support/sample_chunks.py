"""Rows of masked_chunks that say next to nothing, for tests of what is done with them."""

from datetime import UTC, datetime

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.schema import MASKED_CHUNKS


def chunks_about_pears(n):
    now = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": content_id("chunk", str(i)), "datadao": "sample", "user_id": content_id("user", str(i % 3)),
            "thread_id": "t", "window_id": "w", "started_at": now, "ended_at": now, "speakers": ["SUBJECT"],
            "turns": [f"I think {i} pears are enough."], "text": f"SUBJECT: I think {i} pears are enough.",
            "message_ids": ["m"], "n_subject_turns": 1, "n_tokens": 9, "n_masked": 0, "context_free": False,
            "community": None,
        }
        for i in range(n)
    ]  # fmt: skip
    return MASKED_CHUNKS.conform(pl.DataFrame(rows))
