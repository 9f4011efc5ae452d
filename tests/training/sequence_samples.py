"""Sequences with a rule that a model can learn and pooling cannot: the next chunk is a fixed rotation of the last.

With contexts: another view of the same chunk, mostly of what changes slowly in a history.
"""

import json

import numpy as np
import polars as pl

DIMENSION = 16
CONTEXT = 12


def sequences(users=40, seed=0, shortest=1, longest=14, valid_share=0.2, contexts=False):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(98).standard_normal((DIMENSION, CONTEXT))
    rotation = np.linalg.qr(np.random.default_rng(99).standard_normal((DIMENSION, DIMENSION)))[0]
    rows = []
    for user in range(users):
        vector = rng.standard_normal(DIMENSION)
        about = vector @ mixing
        time = int(rng.integers(1_600_000_000, 1_600_500_000))
        for position in range(int(rng.integers(shortest, longest + 1))):
            time += int(rng.integers(60, 500_000))
            noisy = vector + 0.3 * rng.standard_normal(DIMENSION)
            rows.append(
                {
                    "datadao": "reddit",
                    "user_id": f"{user:032x}",
                    "split": "valid" if user < valid_share * users else "train",
                    "position": position,
                    "ended_at": time * 1_000_000,
                    "chunk_id": f"{user:016x}{position:016x}",
                    "window_id": f"{user:016x}{position:016x}",
                    "vector": (noisy / np.linalg.norm(noisy)).astype(np.float32).tolist(),
                }
            )
            vector = rotation @ vector
            if contexts:
                noise = np.random.default_rng([seed, user, position]).standard_normal(CONTEXT)
                rows[-1]["context"] = (about + 3 * noise).astype(np.float32).tolist()
    overrides = {"vector": pl.List(pl.Float32)} | ({"context": pl.List(pl.Float32)} if contexts else {})
    return pl.DataFrame(rows, schema_overrides=overrides).with_columns(
        pl.col("ended_at").cast(pl.Datetime("us", "UTC"))
    )


def write_inputs(folder, frame, **config):
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "sequences.parquet")
    (folder / "config.json").write_text(json.dumps({"seed": 5, "threads": 1, **config}))
    return folder
