"""What is stored: every table and model with its rows and content hash, to compare two states of a data root."""

import hashlib
import json
from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.manifest import verify
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories


@dataclass(frozen=True)
class Stored:
    """Rows (files, for a model) and content hash of one thing that is stored."""

    rows: int
    content_hash: str


def inventory(layout: Layout) -> dict[str, Stored]:
    """Everything stored, by name: `lake/<table>/<partition>`, `lance/<datadao>/<table>`, `models/…`,
    `user_memories/<datadao>`, `scores`.

    Raises CorruptArtifact if a model is not what its manifest says.
    """
    found: dict[str, Stored] = {}
    lake = Lake(layout.root)
    for pointer in sorted((layout.root / "tables").glob("*/*/current.json")):
        table, partition = pointer.parts[-3:-1]
        commit = lake.current(table, partition)
        if commit is not None:
            found[f"lake/{table}/{partition}"] = Stored(commit.rows, commit.content_hash)
    lance = LanceTables(layout.lancedb)
    for folder in sorted(layout.lancedb.glob("*/*.lance")):
        datadao, table = folder.parent.name, folder.stem
        found[f"lance/{datadao}/{table}"] = Stored(lance.count(datadao, table), lance.content_hash(datadao, table))
    for manifest in sorted(layout.models.rglob("manifest.json")):
        weights = manifest.parent.glob("*.safetensors")
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(weights))).hexdigest()
        verify(manifest.parent)
        files = len(json.loads(manifest.read_text())["files"])
        found[str(manifest.parent.relative_to(layout.root))] = Stored(files, digest)
    for path in sorted(layout.user_memories.glob("*.sqlite")):
        with UserMemories(path) as memories:
            found[f"user_memories/{path.stem}"] = Stored(*memories.content())
    if layout.scores.exists():
        scores = ScoreTable(layout.scores).read()
        same = scores.filter(~pl.col("metric").str.contains("seconds"))  # a clock's figures differ in equal runs
        found["scores"] = Stored(scores.height, hashlib.sha256(same.write_csv().encode()).hexdigest())
    return found
