"""A store of a few people with all that the score assets read, and these assets."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from granting import grant
from made_up_population import AXES, sequence_encoder

from assets import leakage, scores
from resources.store import Store
from user_embeddings_dagster.schema import MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import write_json
from user_embeddings_dagster.storage.manifest import finalise

CHUNKS = 8
VECTORS = ("item_embeddings", "chunk_embeddings", "summary_embeddings")
ASSETS = [
    scores.item_encoder_scores, scores.sequence_encoder_scores, scores.user_matching_scores, scores.sparse_user_scores,
    scores.user_probe_scores, scores.datadao_comparison, leakage.membership_inference_scores,
    leakage.embedding_inversion_scores, leakage.cross_user_retrieval_scores,
]  # fmt: skip


def store_of(root: Path, people: dict[str, str], consenting: bool = True) -> Store:
    """All that the assets read, of these people (name: split), who consented to everything or to nothing."""
    store, start = Store(data=str(root)), datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": f"{user}{position}", "datadao": "dao", "user_id": user, "split": split, "position": position,
            "started_at": start + timedelta(days=position), "ended_at": start + timedelta(days=position, minutes=5),
            "window_id": f"{user}{position}", "thread_id": "t", "speakers": ["<P1>", "SUBJECT"],
            "turns": ["where to", f"plum cake number {position}"], "message_ids": [f"a{position}", f"b{position}"],
            "text": f"<P1>: where to\nSUBJECT: plum cake number {position}", "n_subject_turns": 1, "n_tokens": 9,
            "n_masked": 0, "context_free": False, "community": None,
        }
        for user, split in people.items()
        for position in range(CHUNKS)
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    for table, partition in ((MASKED_CHUNKS, "dao"), (TRAINING_SNAPSHOT, None)):
        part = table.conform(frame.select(table.schema.names()))
        store.lake.commit(table, part, partition) if partition else store.lake.commit(table, part)
    grant(store.lake, "dao", people if consenting else [])
    rng = np.random.default_rng(0)
    for table in VECTORS:
        vectors = rng.normal(size=(frame.height, AXES)).astype(np.float32)
        named = frame.select("user_id", id="chunk_id", version=pl.lit("v")).with_columns(vector=pl.Series(vectors))
        store.lance.upsert("dao", table, named)
    folder = store.models.folder("item_encoder", "a" * 32)
    folder.output.mkdir(parents=True)
    write_json(folder.output / "job.json", {"metadata": {}, "data_version": "item"})
    finalise(folder.output)
    store.models.promote("item_encoder", folder.root.name)
    return store


def train(store: Store, dimension: str, basis: str, data_version: str = "sequence") -> None:
    """Promote a sequence encoder that was trained on vectors of the item encoder `basis`."""
    folder = store.models.folder(f"sequence_encoder/{dimension}", f"{basis}-{data_version}")
    sequence_encoder(folder.output)
    write_json(folder.output / "job.json", {"metadata": {"seconds": 1.0}, "data_version": data_version})
    finalise(folder.output)
    folder.note_basis(basis)
    store.models.promote(f"sequence_encoder/{dimension}", folder.root.name)
