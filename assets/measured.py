"""Scores are measured once: the same from the same inputs, settings and code are read, and not computed again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import polars as pl

from resources.store import Store
from user_embeddings_dagster.privacy.consent.grants import COMPARE
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.lake import fingerprint

CODE = ("user_embeddings_dagster", "assets", "resources", "training")
LIBRARIES = ("numpy", "polars", "torch")


@dataclass(frozen=True)
class Measured:
    """Scores in canonical order; hash of what they are made from, empty if a job keeps account of that; whether they
    were there already."""

    scores: pl.DataFrame
    made_from: str = ""
    reused: bool = False


def measured(store: Store, asset: str, inputs: object, measure: Callable[[], pl.DataFrame]) -> Measured:
    """The scores of `asset` if they are there and made from these inputs by this code, else what `measure` gives.

    `inputs` is JSON of everything that `measure` depends on but code.
    """
    made_from = fingerprint(asset, code_hash(), inputs)
    found = store.scores.measured(asset, made_from)
    scores = measure() if found is None else found
    return Measured(SCORES.conform(scores).sort(SCORES.primary_key), made_from, found is not None)


def stored_inputs(context: dg.AssetExecutionContext, store: Store) -> dict[str, object]:
    """Content hashes of the assets that this one depends on, as they are stored now, and of whose consent holds now.

    An asset whose function reads what it does not name as a dependency would be reused wrongly: a test has each read
    from a store that refuses.
    """
    keys = context.assets_def.asset_deps[context.asset_key]
    snapshots = [consented_snapshot(store.lake, *also) for also in ((), (COMPARE,))]
    return {
        **{name: _stored(store, name) for name in sorted(key.to_user_string() for key in keys)},
        "consented": [snapshot_version(snapshot) for snapshot in snapshots],
    }


def _stored(store: Store, name: str) -> dict[str, dict[str, str]]:
    lake, lance = store.lake, store.lance
    databases = sorted(folder.parent.name for folder in store.layout.lancedb.glob(f"*/{name}.lance"))
    return {
        "tables": {partition: lake.path(name, partition).stem for partition in lake.partitions(name)},
        "vectors": {datadao: lance.content_hash(datadao, name) for datadao in databases},
        "models": store.models.promoted_versions(name),
    }


@cache
def code_hash() -> str:
    """SHA-256 of our packages' files and of the versions of the libraries that compute with them."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for package in CODE for path in (root / package).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(
                fingerprint(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()).encode()
            )
    digest.update(fingerprint([(name, version(name)) for name in LIBRARIES]).encode())
    return digest.hexdigest()
