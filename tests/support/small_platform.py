"""A small materialised platform without any training: sample exports, every table, vectors, memories, cache, models."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.evaluation.splits import build_snapshot
from user_embeddings_dagster.exports.build import build_messages, contributor_links
from user_embeddings_dagster.exports.landing import LINKS
from user_embeddings_dagster.keys import content_id, load_or_create_key
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.consent.grants import read_stated
from user_embeddings_dagster.privacy.consent.ledger import build_ledger, subjects_of
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import identity
from user_embeddings_dagster.privacy.lineage import trained_on
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.schema import (
    CHUNK_SUMMARIES,
    CONSENT_LEDGER,
    HARD_NEGATIVES,
    INSIGHT_TASKS,
    MASKED_CHUNKS,
    TRAINING_SNAPSHOT,
)
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake, write_json
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import ModelFolder, Models
from user_embeddings_dagster.storage.user_memories import UserMemories
from user_embeddings_dagster.summaries.build import extractive_summaries

TABLES = ("chunk_embeddings", "summary_embeddings", "item_embeddings")
WIDTH = 16


def materialise(root: Path, contributors: int = 20, seed: int = 3) -> Layout:
    """Everything below `root`, from sample exports."""
    layout = Layout(root)
    layout.key.parent.mkdir(parents=True)
    layout.key.write_text(bytes(range(32)).hex())  # the same splits, and so the same checkpoints, in every run
    generate(layout.landing, seed=seed, contributors=contributors)
    for left_out in ("pushshift", "reddit"):
        shutil.rmtree(layout.landing / left_out)
    for export in sorted((layout.landing / "chatgpt" / "exports").iterdir())[3:]:
        export.unlink()
    for folder in sorted(layout.landing.glob("[a-z]*")):
        read(layout, folder.name)
        embed(layout, folder.name)
    freeze(layout)
    ask(layout)
    return layout


def read(layout: Layout, datadao: str) -> None:
    """Messages, chunks and summaries of one DataDAO."""
    lake, key = Lake(layout.root), load_or_create_key(layout.key)
    build_messages(datadao, layout.landing, lake, key, erased=Tombstones.load(layout.erased, key), threads=1)
    chunks = build_chunks(lake.read("messages", datadao), lake.read("participants", datadao)).chunks
    lake.commit(MASKED_CHUNKS, chunks, datadao)
    stated = read_stated(layout.landing / datadao, key, contributor_links(layout.landing / datadao / LINKS))
    erased = Tombstones.load(layout.erased, key)
    ledger = build_ledger(datadao, stated, subjects_of(lake.scan("messages", datadao)), erased).ledger
    lake.commit(CONSENT_LEDGER, ledger, datadao, stats={"holds": "", "rejected": 0})
    lake.commit(CHUNK_SUMMARIES, extractive_summaries(chunks).frame(CHUNK_SUMMARIES), datadao)


def vectors(names: list[str]) -> np.ndarray:
    """Vectors of their own for each name, unit length."""
    rows = [np.random.default_rng(int(name[:12], 16)).normal(size=WIDTH) for name in names]
    matrix = np.asarray(rows, np.float32).reshape(len(names), WIDTH)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def embed(layout: Layout, datadao: str) -> None:
    """Vector tables with indices and a tag, user embeddings and memories, from random numbers."""
    lance, chunks = LanceTables(layout.lancedb), Lake(layout.root).read("masked_chunks", datadao)
    rows = chunks.select(id="chunk_id", user_id="user_id", version=pl.lit("v"))
    users = chunks.select(id="user_id", version=pl.lit("v")).unique().sort("id")
    for table in TABLES:
        lance.upsert(datadao, table, rows.with_columns(vector=pl.Series(vectors(rows["id"].to_list()))))
        lance.ensure_indices(datadao, table, index_rows=2)
        dataset = lance.open(datadao, table).to_lance()
        dataset.tags.create("release", dataset.version)
    states = vectors(users["id"].to_list())
    lance.upsert(datadao, "user_embeddings", users.with_columns(vector=pl.Series(states)))
    with UserMemories(layout.user_memories / f"{datadao}.sqlite") as memories:
        memories.write([(user, "v", 1, "h") for user in users["id"]], states[:, ::-1].copy().view(np.uint8))


def freeze(layout: Layout) -> None:
    """The snapshot, hard negatives, and two checkpoints: one trained on it, one on the vectors of that one."""
    lake, key, models = Lake(layout.root), load_or_create_key(layout.key), Models(layout.models)
    names = lake.partitions("masked_chunks")
    snapshot = build_snapshot(
        [lake.scan("masked_chunks", name) for name in names],
        key=key,
        authors=pl.concat([lake.scan("messages", name).select("message_id", "author_id") for name in names]),
        min_chunks_per_user=1,
        max_chunks_per_user=None,
    ).snapshot
    lake.commit(TRAINING_SNAPSHOT, snapshot)
    chunks = snapshot["chunk_id"]
    negatives = pl.DataFrame({"chunk_id": chunks, "negative_chunk_id": chunks.shuffle(0), "rank": 1, "similarity": 0.5})
    lake.commit(HARD_NEGATIVES, negatives)
    for name in names:
        lake.commit(INSIGHT_TASKS, tasks(snapshot.filter(datadao=name), lake.read("masked_chunks", name)), name)
    encoder = models.folder("item_encoder", "a" * 32)
    encoder.note_contributors(trained_on(lake, key, snapshot.filter(pl.col("split") != "test")["chunk_id"]))
    encoder.write_inputs({}, pairs=snapshot.head(50))  # as a killed training leaves them
    _hold(encoder, "item")
    user_encoder = models.folder("sequence_encoder/8", "b" * 32)
    user_encoder.note_contributors([])
    user_encoder.note_basis("item")
    _hold(user_encoder, "sequence")
    untouched = models.folder("summary_program", "c" * 32)
    untouched.note_contributors([])
    _hold(untouched, "program")
    for name, folder in (
        ("item_encoder", encoder),
        ("sequence_encoder/8", user_encoder),
        ("summary_program", untouched),
    ):
        models.promote(name, folder.root.name)


def tasks(snapshot: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """One insight task per chunk, with the texts of three chunks beside its own, whosever they are."""
    rows = snapshot.join(chunks.select("chunk_id", "text"), on="chunk_id").sort("chunk_id")
    names, texts = rows["chunk_id"].to_list(), rows["text"].to_list()
    beside = [[(place + step) % len(names) for step in (0, 3, 5, 7)] for place in range(len(names))]
    kinds = ["stance" if place % 2 else "next_contribution" for place in range(len(names))]
    return rows.select("datadao", "user_id", "split", "chunk_id", n_history="position", reference="text").with_columns(
        task_id=pl.Series([content_id("task", name) for name in names], dtype=pl.String),
        kind=pl.Series(kinds, dtype=pl.String),
        question=pl.lit("Which?"),
        options=pl.Series([[texts[row] for row in four] for four in beside], dtype=pl.List(pl.String)),
        option_chunk_ids=pl.Series([[names[row] for row in four] for four in beside], dtype=pl.List(pl.String)),
        answer=0,
        status=pl.lit("kept"),
        context_answer=0,
        search_answer=0,
        validator=pl.lit("similarity"),
    )


def _hold(folder: ModelFolder, version: str) -> None:
    folder.output.mkdir(parents=True)
    write_json(folder.output / "job.json", {"metadata": {}, "data_version": version})
    finalise(folder.output)


def ask(layout: Layout) -> None:
    """One cached answer per chunk."""
    lake = Lake(layout.root)
    keys = ContributorKeys.of(layout)
    with keys, open_cache(layout.language_model_cache, keys) as cache:
        for datadao in lake.partitions("masked_chunks"):
            for text, owner in lake.read("masked_chunks", datadao).select("text", "user_id").iter_rows():
                request = Request((Message("user", text),), {"type": "object"}, owner, "p/1")
                cache.put("m", request, Completion(request.id, {"summary": text}, Usage(1, 1, 1, 1, 0.0), 1, 0.1))


def person(layout: Layout) -> frozenset[str]:
    """Who contributed most to the Telegram DataDAO, and speaks in others' chunks."""
    chunks = Lake(layout.root).read("masked_chunks", "telegram")
    user = chunks.group_by("user_id").len().sort("len", "user_id")["user_id"][-1]
    return identity.of_user(layout.landing, load_or_create_key(layout.key), user)
