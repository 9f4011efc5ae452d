"""Which training of the item encoder a setting means: the default stays what it was, relabelled pairs are another."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from granting import grant

from assets.encoders import ItemEncoderConfig, item_training
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from training import versions
from training.item_encoder import Config
from user_embeddings_dagster.schema import HARD_NEGATIVES, RELABELLED_PAIRS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import fingerprint

CHUNKS = ["a", "b", "c", "d"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four training chunks of two people; the positive of the first is relabelled, the last is left out."""
    store = Store(data=str(tmp_path))
    when = datetime(2024, 1, 1, tzinfo=UTC)
    shared = {"datadao": "dao", "split": "train", "started_at": when, "ended_at": when}
    rows = [
        {**shared, "chunk_id": c, "user_id": f"u{i % 2}", "window_id": f"w{i}", "thread_id": "t", "position": i // 2}
        for i, c in enumerate(CHUNKS)
    ]
    store.lake.commit(TRAINING_SNAPSHOT, pl.DataFrame(rows))
    grant(store.lake, "dao", ["u0", "u1"])
    negative = {"chunk_id": "a", "negative_chunk_id": "d", "rank": 1, "similarity": 0.1}
    store.lake.commit(HARD_NEGATIVES, pl.DataFrame([negative]))
    chosen = [("a", "b", "c"), ("b", "b", "d"), ("c", "c", "a")]
    columns = ["chunk_id", "positive_chunk_id", "negative_chunk_id"]
    relabelled = pl.DataFrame(chosen, columns, orient="row").with_columns(
        own_rank=1, positive_score=2.0, own_score=2.0, ranker=pl.lit("test")
    )
    store.lake.commit(RELABELLED_PAIRS, relabelled)
    messages = pl.DataFrame({"message_id": CHUNKS, "author_id": [row["user_id"] for row in rows]})
    chunks = messages.select(
        chunk_id="message_id",
        user_id="author_id",
        text=pl.format("SUBJECT: {}", "message_id"),
        message_ids=pl.concat_list("message_id"),
    )
    for name, frame in (("masked_chunks", chunks), ("messages", messages)):  # the columns that are read
        frame.write_parquet(staged := store.lake.stage(name, "dao"))
        store.lake.commit_file(name, staged, frame.height, "dao")
    vectors = pl.DataFrame({"id": CHUNKS, "version": "v", "vector": list(np.eye(4, dtype=np.float32))})
    for table in ("chunk_embeddings", "summary_embeddings"):
        store.lance.upsert("dao", table, vectors)
    return store


def test_the_default_is_the_training_it_was_and_relabelled_another(store: Store) -> None:
    """adding the setting trained nothing anew: inputs, settings and fingerprint are those without it."""
    encoder = TextEncoderResource()
    own, write_own = item_training(store, encoder, ItemEncoderConfig())
    relabelled, write_relabelled = item_training(store, encoder, ItemEncoderConfig(pairs="relabelled"))
    before = [store.lake.path(name).stem for name in ("training_snapshot", "hard_negatives")]
    before += [store.lance.content_hash("dao", "summary_embeddings"), encoder.load().version]
    settings = ItemEncoderConfig().model_dump() | {"base": "minilm", "max_tokens": 256}
    del settings["pairs"]
    assert own.root.name == fingerprint("item_encoder", versions.ITEM_ENCODER, before, settings)
    assert relabelled.root.name != own.root.name
    written = {}
    for name, folder, write in (("own", own, write_own), ("relabelled", relabelled, write_relabelled)):
        write(folder)
        Config.of(json.loads((folder.inputs / "config.json").read_text()))
        written[name] = pl.read_parquet(folder.inputs / "pairs.parquet")
    assert "positive" not in written["own"].columns
    assert written["relabelled"]["positive"].to_list() == ["b", "b", "c", None]
    assert written["relabelled"]["negatives"].to_list() == [["c", "d"], ["d"], ["a"], []]
