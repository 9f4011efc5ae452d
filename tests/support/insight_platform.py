"""A small DataDAO for insight tasks: people who each ask and answer, in chunks that may overlap."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

USERS, CHUNKS = 8, 6
LONG = "and this is a sentence that is long enough to be told from any other sentence"
Platform = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]


def platform(overlap: bool = True) -> Platform:
    """Snapshot, chunks, KOAIs, vectors; with `overlap`, a chunk begins with the last turns of the one before."""
    rng, rows, koais, start = np.random.default_rng(0), [], [], datetime(2024, 1, 1, tzinfo=UTC)
    for user in range(USERS):
        earlier: list[tuple[str, str, str]] = []
        for position in range(CHUNKS):
            name, at = f"{user}-{position}", start + timedelta(hours=position * USERS + user)
            new = [
                ("<P1>", f"question {name} {LONG}", f"q{name}"),
                ("SUBJECT", f"answer {name} {LONG}", f"a{name}"),
                ("SUBJECT", f"I think {name} {LONG}", f"t{name}"),
            ]
            turns = [*(earlier if overlap else []), *new]
            earlier = new[1:]
            speakers, texts, messages = (list(column) for column in zip(*turns, strict=True))
            rows.append({
                "chunk_id": f"c{name}", "datadao": "zig", "user_id": f"u{user}",
                "split": "test" if user % 2 else "train",
                "position": position, "started_at": at, "ended_at": at, "window_id": f"w{name}", "thread_id": "t",
                "speakers": speakers, "turns": texts, "message_ids": messages,
                "text": "\n".join(f"{who}: {text}" for who, text in zip(speakers, texts, strict=True)),
                "vector": rng.normal(size=4).tolist(),
            })  # fmt: skip
            for turn, text in enumerate(texts):
                kind = "opinion" if text.startswith("I think") else "knowledge" if speakers[turn] == "SUBJECT" else ""
                if kind:
                    koais.append({
                        "koai_id": f"k{name}-{turn}", "chunk_id": f"c{name}", "kind": kind,
                        "statement": f"SUBJECT: {text}", "evidence": [turn],
                    })  # fmt: skip
    frame = pl.DataFrame(rows)
    snapshot = frame.drop("speakers", "turns", "message_ids", "vector", "text")
    chunks = frame.select("chunk_id", "speakers", "turns", "message_ids", "text")
    return snapshot, chunks, pl.DataFrame(koais), frame.select("chunk_id", "vector")
