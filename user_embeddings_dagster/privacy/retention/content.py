"""Stages that hold what people wrote: raw files, messages, masked chunks, summaries; each with what is made of it."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from user_embeddings_dagster.exports.landing import datadao_folders, export_paths
from user_embeddings_dagster.exports.opening import content_sha256, remove
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.personalisation.koai_tasks import KOAI_KINDS
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import stores
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.erasure.stores import among
from user_embeddings_dagster.privacy.retention.stage import Found, Sweep
from user_embeddings_dagster.privacy.sealed_format import NotOurs, Shredded, Tampered
from user_embeddings_dagster.schema import (
    CHUNK_SUMMARIES,
    INSIGHT_TASKS,
    KOAI_EXTRACTIONS,
    KOAIS,
    MESSAGES,
    PARTICIPANTS,
)
from user_embeddings_dagster.storage.user_memories import UserMemories

USER_VECTORS = "user_embeddings"  # and what begins so: tables by user, all others are by chunk


class RawFiles:
    """Files in the landing folder, by when they were dropped. A later copy of the same bytes keeps the file.

    contributors.csv and the like are no exports: they stay.
    """

    name = "raw_files"

    def find(self, sweep: Sweep) -> Found:
        """Ids are <DataDAO>/<SHA-256>."""
        found = Found()
        for folder in datadao_folders(sweep.layout.landing):
            old, young = _by_age(folder, sweep.at.get(self.name))
            sha256 = _hashes(sweep, [*old, *young] if old else [])
            kept = {sha256[path] for path in young} if old else set()
            dropped = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in young]
            found.keep(len(young), min(dropped, default=None))
            for path in old:
                if sha256[path] not in kept:
                    found.items[f"{folder.name}/{sha256[path]}"] = path.stat().st_size
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """The files, and their rows in every table that knows raw files."""
        for folder in datadao_folders(sweep.layout.landing):
            gone = set(found.of(folder.name))
            old = _by_age(folder, sweep.at.get(self.name))[0] if gone else []
            for path, sha256 in _hashes(sweep, old).items():
                if sha256 in gone:
                    remove(path)
        withdrawn = {name: sorted(found.of(name)) for name in found.datadaos}
        stores.erase_tables(Journal([], withdrawn=withdrawn), sweep.layout)


class Messages:
    """Rows of `messages`, with the names of people in threads of which nothing is left."""

    name = "messages"

    def find(self, sweep: Sweep) -> Found:
        """Ids are <DataDAO>/<message_id>."""
        found = Found()
        for datadao in sweep.lake.partitions(MESSAGES.name):
            past = sweep.horizons.past(self.name, "created_at") | among(
                "raw_sha256", sweep.found["raw_files"].of(datadao)
            )
            rows = sweep.lake.scan(MESSAGES.name, datadao).select(
                "message_id", "created_at", bytes=pl.col("text").str.len_bytes(), past=past
            )
            _note(found, datadao, rows.collect(), "message_id", "created_at")
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """By id; then the participants."""
        for datadao in found.datadaos:
            sweep.lake.purge(MESSAGES, datadao, among("message_id", found.of(datadao)))
            threads = sweep.lake.scan(MESSAGES.name, datadao).select("thread_id").unique().collect()["thread_id"]
            sweep.lake.purge(PARTICIPANTS, datadao, ~among("thread_id", threads))


class MaskedChunks:
    """Rows of `masked_chunks` and of every table by chunk, vectors of chunks and of the users they are of, memories,
    answers of language models to those users' chunks, and what killed jobs left beside them."""

    name = "masked_chunks"

    def find(self, sweep: Sweep) -> Found:
        """Ids are <DataDAO>/<chunk_id>: too old, or with a message that goes."""
        found = Found()
        for datadao in sweep.lake.partitions(self.name):
            chunks = sweep.lake.scan(self.name, datadao)
            quoting = chunks.select("chunk_id", message="message_ids").explode("message")
            quoting = quoting.filter(among("message", sweep.found["messages"].of(datadao))).collect()["chunk_id"]
            past = sweep.horizons.past(self.name, "ended_at") | among("chunk_id", quoting.unique())
            rows = chunks.select("chunk_id", "user_id", "ended_at", bytes=pl.col("text").str.len_bytes(), past=past)
            frame = rows.collect()
            _note(found, datadao, frame, "chunk_id", "ended_at")
            found.users += [f"{datadao}/{user}" for user in frame.filter("past")["user_id"].unique().sort()]
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Everywhere; the users' embeddings are computed again, from what is left, by the next materialisation."""
        if not found.items:
            return
        layout, journal = sweep.layout, Journal([], chunks={name: sorted(found.of(name)) for name in found.datadaos})
        for folder in sorted(layout.lancedb.glob("*/*.lance")):
            datadao, table = folder.parent.name, folder.stem
            gone = found.users_of(datadao) if table.startswith(USER_VECTORS) else set(found.of(datadao))
            _purge_vectors(sweep, datadao, table, gone)
        for path in sorted(layout.user_memories.glob("*.sqlite")):
            with UserMemories(path) as memories:
                memories.erase(found.users_of(path.stem))
        with (
            ContributorKeys.of(layout) as keys,
            open_cache(layout.language_model_cache_url, keys) as cache,
        ):
            for user in sorted({name.partition("/")[2] for name in found.users}):
                cache.forget(user)
        stores.remove_leftovers(journal, layout)
        stores.erase_tables(journal, layout)


class Summaries:
    """What was read off chunks: summaries, KOAIs, insight tasks made of KOAIs, and the vectors of summaries."""

    name = "summaries"
    _tables = (CHUNK_SUMMARIES, KOAIS, KOAI_EXTRACTIONS)

    def find(self, sweep: Sweep) -> Found:
        """Ids are <DataDAO>/<chunk_id>."""
        found = Found()
        for datadao in sweep.lake.partitions(CHUNK_SUMMARIES.name):
            past = sweep.horizons.past(self.name, "ended_at")
            past |= among("chunk_id", sweep.found["masked_chunks"].of(datadao))
            rows = sweep.lake.scan(CHUNK_SUMMARIES.name, datadao).select(
                "chunk_id", "ended_at", bytes=pl.col("text").str.len_bytes(), past=past
            )
            _note(found, datadao, rows.collect(), "chunk_id", "ended_at")
        return found

    def remove(self, sweep: Sweep, found: Found) -> None:
        """By chunk."""
        for datadao in found.datadaos:
            gone = set(found.of(datadao))
            _purge_vectors(sweep, datadao, "summary_embeddings", gone)
            for table in self._tables:
                sweep.lake.purge(table, datadao, among("chunk_id", gone))
            said = among("kind", KOAI_KINDS) & (among("chunk_id", gone) | stores.any_among("option_chunk_ids", gone))
            sweep.lake.purge(INSIGHT_TASKS, datadao, said)


def _purge_vectors(sweep: Sweep, datadao: str, table: str, ids: set[str]) -> None:
    """Physically; also where a killed process deleted the rows and did not come to remove their bytes."""
    if ids and sweep.lance.exists(datadao, table):
        sweep.lance.purge(datadao, table, sorted(ids & set(sweep.lance.ids(datadao, table))))


def _note(found: Found, datadao: str, rows: pl.DataFrame, name: str, age: str) -> None:
    """Add the rows that are `past` (with their `bytes`), count the others."""
    gone, kept = rows.filter("past"), rows.filter(~pl.col("past"))
    found.items |= {f"{datadao}/{row}": size for row, size in gone.select(name, "bytes").iter_rows()}
    found.keep(kept.height, kept.select(pl.col(age).min()).item() if kept.height else None)


def _hashes(sweep: Sweep, paths: list[Path]) -> dict[Path, str]:
    """SHA-256 of the content of raw files; of one whose key is destroyed, of the file."""
    hashes = {}
    with ContributorKeys.of(sweep.layout) as keys:
        for path in paths:
            try:
                hashes[path] = content_sha256(path, keys)
            except (Shredded, Tampered, NotOurs):
                hashes[path] = file_sha256(path)
    return hashes


def _by_age(folder: Path, horizon: datetime | None) -> tuple[list[Path], list[Path]]:
    """Raw files dropped before the horizon, and after."""
    paths = export_paths(folder)
    if horizon is None:
        return [], paths
    old, young = list[Path](), list[Path]()
    for path in paths:
        (old if path.stat().st_mtime < horizon.timestamp() else young).append(path)
    return old, young
