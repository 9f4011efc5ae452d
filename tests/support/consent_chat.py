"""A chat of four people, the grants that a test writes for them, and the assets that ask for these."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets.chunk_summaries import chunk_summaries
from assets.consent_ledger import consent_ledger
from assets.embeddings import chunk_embeddings, summary_embeddings
from assets.hard_negatives import hard_negatives
from assets.koais import koais
from assets.masked_chunks import masked_chunks
from assets.partitions import DATADAO
from assets.relabelled_pairs import relabelled_pairs
from assets.training_snapshot import training_snapshot
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS, TABLES

ASSETS = [consent_ledger, masked_chunks, chunk_summaries, koais, chunk_embeddings]
PREPARED = [consent_ledger, masked_chunks, chunk_summaries, chunk_embeddings, summary_embeddings]
TRAINING = [training_snapshot, hard_negatives, relabelled_pairs]
OF_DATADAO = ("masked_chunks", "chunk_summaries", "unsummarised_chunks", "koai_extractions", "koais")
NAMES = ("ann", "bob", "cat", "dan")
HEADER = "grant_id,account,purposes,granted_at,expires_at,revoked_at\n"
AT = datetime(2024, 6, 1, tzinfo=UTC)
EVERYTHING = "train evaluate serve compare"
STATEMENT = '{"consent": {"basis": "public archive", "purposes": ["train", "serve"]}}'


class Stub:
    """An encoder without a model: a vector of its own for each text."""

    version, dimension = "stub", 8

    def encode(self, texts: list[str], progress: Any = None) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).normal(size=self.dimension) for text in texts]
        matrix = np.asarray(rows, np.float32).reshape(-1, self.dimension)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class StubEncoder(TextEncoderResource):
    """Loads the stub."""

    def load(self, adapter: Path | None = None) -> Any:
        return Stub()


def chat(folder: Path) -> Store:
    """A store with the chat as `messages` has it, and nobody's grant; all four are SUBJECTs."""
    store = Store(data=str(folder))
    (store.layout.landing / "dao").mkdir(parents=True)
    people, rows = {name: user_id(store.key, "reddit", name) for name in NAMES}, []
    for number in range(96):
        name = NAMES[number % 4]
        rows.append({
            "message_id": f"{number:032x}", "datadao": "dao", "platform": "reddit", "thread_id": "t", "parent_id": None,
            "thread_shape": "linear", "author_id": people[name], "role": "user", "is_subject": True,
            "created_at": AT + timedelta(minutes=number + 60 * (number // 8)), "edited_at": None,
            "text": f"I prefer plum cake number {number} to anything that {name} ever baked.", "media_kind": None,
            "community": None, "raw_sha256": "r", "raw_member": "", "raw_location": number,
        })  # fmt: skip
    named = [("dao", "t", people[name], name, "handle") for name in NAMES]
    store.lake.commit(MESSAGES, pl.DataFrame(rows, MESSAGES.schema), "dao", "build")
    store.lake.commit(PARTICIPANTS, pl.DataFrame(named, PARTICIPANTS.schema, orient="row"), "dao", "build")
    return store


def say(store: Store, **grants: str) -> None:
    """Write consent.csv: purposes by name, and after a comma expiry and revocation."""
    lines = [
        f"{name},reddit:{name},{what.split(',')[0]},2020-01-01,{(what + ',,').split(',', 1)[1].rstrip(',')}"
        for name, what in grants.items()
    ]
    rows = [line + "," * (5 - line.count(",")) for line in lines]
    (store.layout.landing / "dao" / "consent.csv").write_text(HEADER + "\n".join(rows) + "\n")


def materialise(store: Store, assets: list[Any] | None = None) -> dict[str, dict[str, Any]]:
    """Metadata by asset."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        resources = {
            "store": store, "language_model": LanguageModelResource(), "training_jobs": TrainingJobs(),
            "text_encoder": StubEncoder(),
        }  # fmt: skip
        partition = None if training_snapshot in (assets or []) else "dao"
        result = dg.materialize(assets or ASSETS, partition_key=partition, resources=resources, instance=instance)
    found = {
        event.asset_key.to_user_string(): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }
    found["checks"] = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    return found


def people(store: Store) -> dict[str, set[str]]:
    """Whose rows each table holds, by name."""
    by_id = {user_id(store.key, "reddit", name): name for name in NAMES}
    found = {
        table: {by_id[user] for user in store.lake.read(table, "dao")["user_id"]}
        for table in OF_DATADAO
        if "user_id" in TABLES[table].schema
    }
    if store.lance.exists("dao", "chunk_embeddings"):
        users = store.lance.read("dao", "chunk_embeddings", ["user_id"])["user_id"]
        found["chunk_embeddings"] = {by_id[user] for user in users}
    assert not found.pop("unsummarised_chunks"), "everybody says something"
    return found
