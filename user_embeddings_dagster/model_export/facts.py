"""What a model card says of an exported model: counts of its data and scores, none about too few people."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.embedding.text_encoder import ENCODER, adapter_hash, encoder_version
from user_embeddings_dagster.evaluation.disclosure import ALL, published, visible
from user_embeddings_dagster.evaluation.splits import SPLITS, TRAINED_SPLITS, split_hash
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.settings import model_licence, report_min_people
from user_embeddings_dagster.storage.models import ModelFolder

NOT_PRIVATE = "trained without differential privacy"


@dataclass(frozen=True)
class Facts:
    """Of one exported artifact.

    `counts`: DataDAO (or "all"), split, users, chunks as shown (None: hidden). `current`: whether the snapshot that is
    counted has the very people that the models were trained on. `purposes`: by split, what its users consented to.
    `models`: version by name; `privacy`: what each was trained with, by name; `erased`: trained on somebody who was
    erased or withdrew consent, released all the same by the operator's setting.
    """

    counts: list[tuple[str, str, int | None, int | None]]
    split_hash: str
    current: bool
    scores: pl.DataFrame
    models: Mapping[str, str]
    privacy: Mapping[str, str]
    erased: bool
    min_people: int
    licence: str


def facts_of(models: Mapping[str, ModelFolder], snapshot: pl.DataFrame, scores: pl.DataFrame, key: bytes) -> Facts:
    """Of the versions `models` (by name), TRAINING_SNAPSHOT and SCORES as they are now."""
    trained = snapshot.filter(pl.col("split").is_in(TRAINED_SPLITS))
    people = {name: frozenset(subjects) for name, subjects in subjects_of(key, trained).items()}
    records = {name: folder.record() for name, folder in models.items()}
    least = report_min_people()
    return Facts(
        counts=shown_counts(snapshot, least),
        split_hash=split_hash(snapshot),
        current=all(folder.subjects == people for folder in models.values()),
        scores=scores_of(scores, versions_of(models), least),
        models={name: record["data_version"] for name, record in records.items()},
        privacy={name: _privacy(record["metadata"].get("privacy", "no DP")) for name, record in records.items()},
        erased=any(folder.tainted or folder.withdrawn for folder in models.values()),
        min_people=least,
        licence=model_licence(),
    )


def _privacy(accounting: str) -> str:
    return NOT_PRIVATE if accounting == "no DP" else accounting


def shown_counts(snapshot: pl.DataFrame, k: int) -> list[tuple[str, str, int | None, int | None]]:
    """Users and chunks by split and DataDAO, and of all; what is about fewer than k people, or tells of these, hidden.

    By the rules for scores: each split is a model, the number of its chunks the metric.
    """
    rows = [(datadao, frame) for (datadao,), frame in snapshot.group_by("datadao", maintain_order=True)]
    counted = [
        {
            "asset": "training_snapshot", "datadao": datadao, "model": split, "metric": "chunks", "slice": ALL,
            "value": float(part.height), "n": part.height, "n_users": part["user_id"].n_unique(), "seed": 0,
            "split_hash": "", "candidate_set": "", "version": "",
        }
        for datadao, frame in [*sorted(rows, key=lambda row: str(row[0])), (ALL, snapshot)]
        for split in SPLITS
        if (part := frame.filter(split=split)).height
    ]  # fmt: skip
    frame = pl.DataFrame(counted, schema=SCORES.schema)
    return published(frame, k).select("datadao", "model", "n_users", "n").rows()


def versions_of(models: Mapping[str, ModelFolder]) -> frozenset[str]:
    """Versions under which these models stand in the scores, in either precision of an item encoder."""
    versions = {folder.record()["data_version"] for folder in models.values()}
    for output in (folder.output for folder in models.values()):
        if (output / "adapter_config.json").exists() and (output / ENCODER).exists():
            described = json.loads((output / ENCODER).read_bytes())
            parts = described["base_hash"], adapter_hash(output), described["config"]["max_tokens"]
            versions |= {encoder_version(*parts, precision) for precision in ("float32", "bfloat16")}
    return frozenset(versions)


def scores_of(scores: pl.DataFrame, versions: Collection[str], k: int) -> pl.DataFrame:
    """The SCORES of these versions that may be published: suppressed among all rows first, then chosen."""
    rows = visible(scores, k).filter(pl.col("value").is_not_null(), pl.col("version").is_in(list(versions)))
    return rows.sort(SCORES.primary_key)
