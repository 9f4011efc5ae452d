"""Stages that hold by-products: the language-model cache, replaced versions of tables, leftovers, old models."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.cache_stores import place_of
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.stores import leftovers
from user_embeddings_dagster.privacy.retention.stage import Found, Sweep, modified
from user_embeddings_dagster.storage.models import Models
from user_embeddings_dagster.storage.score_table import ScoreTable


class LanguageModelCache:
    """Answers, by when they were given. A Redis server expires its entries itself, as of the window when they were."""

    name = "language_model_cache"

    def find(self, sweep: Sweep) -> Found:
        """Ids are the entries' keyed hashes."""
        found = Found()
        url, horizon = sweep.layout.language_model_cache_url, sweep.at.get(self.name)
        place = place_of(url)
        if horizon is None or (place is not None and not place.exists()):
            return found
        with ContributorKeys.of(sweep.layout) as keys, open_cache(url, keys) as cache:
            found.items, oldest = cache.older_than(horizon.timestamp())
            kept = cache.stats.entries - len(found.items)
            found.keep(kept, None if oldest is None else datetime.fromtimestamp(oldest, UTC))
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Removed entries are overwritten."""
        if found.items:
            url = sweep.layout.language_model_cache_url
            with ContributorKeys.of(sweep.layout) as keys, open_cache(url, keys) as cache:
                cache.purge_before(sweep.at[self.name].timestamp())


class TableVersions:
    """Parquet files that are not current, versions and deleted rows of LanceDB tables, free blocks of scores.duckdb."""

    name = "table_versions"

    def find(self, sweep: Sweep) -> Found:
        """Ids are paths below the data root; of a LanceDB table its folder."""
        found = sweep.files(self.name, _replaced(sweep))
        horizon = sweep.at.get(self.name)
        for folder in sorted(sweep.layout.lancedb.glob("*/*.lance")):
            if horizon is None or not sweep.lance.exists(folder.parent.name, folder.stem):
                continue
            dataset = sweep.lance.open(folder.parent.name, folder.stem).to_lance()
            replaced = _replaced_at(dataset)
            if replaced is not None and replaced < horizon:
                found.items[folder.relative_to(sweep.layout.root).as_posix()] = _unreferenced(folder, dataset)
            else:
                found.keep(1, replaced)
        scores = sweep.layout.scores
        if horizon is not None and scores.exists() and modified(scores) < horizon and (free := _free_bytes(scores)):
            found.items[scores.relative_to(sweep.layout.root).as_posix()] = free
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Files are unlinked; a LanceDB table is compacted and cleaned up, a DuckDB file copied to a fresh one."""
        for name in found.items:
            path = sweep.layout.root / name
            if path == sweep.layout.scores:
                ScoreTable(path).rewrite()
            elif path.suffix == ".lance":
                sweep.lance.purge(path.parent.name, path.stem, [])
            else:
                path.unlink(missing_ok=True)


def _replaced(sweep: Sweep) -> Iterator[Path]:
    """Parquet files beside the current one, and pointers half written."""
    for folder in sorted((sweep.layout.root / "tables").glob("*/*")):
        commit = sweep.lake.current(folder.parent.name, folder.name)
        yield from sorted(path for path in folder.glob("*.parquet") if commit is None or path.name != commit.file)
        yield from sorted(folder.glob(".current.json.*"))


def _replaced_at(dataset: Any) -> datetime | None:
    """When the first thing was replaced that the table still has on disk; None if there is nothing of the kind.

    A version is replaced when the next is committed; rows were deleted at the latest by the current version.
    """
    times = sorted(version["timestamp"].astimezone(UTC) for version in dataset.versions())
    if len(times) > 1:
        return times[1]
    return times[0] if any(fragment.num_deletions for fragment in dataset.get_fragments()) else None


def _unreferenced(folder: Path, dataset: Any) -> int:
    current = {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()}
    return sum(path.stat().st_size for path in (folder / "data").glob("*") if path.name not in current)


def _free_bytes(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True, config={"enable_external_access": "false"}) as connection:
        size, free = connection.execute("SELECT block_size, free_blocks FROM pragma_database_size()").fetchall()[0]
    return int(size) * int(free)


class Leftovers:
    """What killed jobs keep beside the stores: staged rows, batches, inputs of trainings, dropped tables."""

    name = "leftovers"

    def find(self, sweep: Sweep) -> Found:
        """Ids are paths below the data root."""
        return sweep.files(self.name, leftovers(sweep.layout))

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Whole folders."""
        for name in found.items:
            shutil.rmtree(sweep.layout.root / name, onerror=_unless_gone)


class OldModels:
    """Versions of encoders and programs that are neither promoted nor what a promoted one was trained on."""

    name = "models"

    def find(self, sweep: Sweep) -> Found:
        """Ids are paths below the data root."""
        models = Models(sweep.layout.models)
        promoted = models.pointed_to()
        versions = list(models.versions())
        bases = {folder.basis for folder in versions if folder.root in promoted} - {None}
        held = [
            folder.root
            for folder in versions
            if folder.root in promoted or (bases and folder.record().get("data_version") in bases)
        ]
        old = [folder.root for folder in versions if folder.root not in held]
        found = sweep.files(self.name, old, aged="output")  # marks beside it are written later, and make it no younger
        found.keep(len(held), None)  # whatever their age: the window is of the others
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Whole folders."""
        for name in found.items:
            shutil.rmtree(sweep.layout.root / name, onerror=_unless_gone)


def _unless_gone(function: object, path: object, error: Any) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
