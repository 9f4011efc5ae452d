"""What an erasure does to each store. Every step can be repeated: what is gone already is not there to be removed."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from user_embeddings_dagster.exports.landing import GRANTS, LINKS, datadao_folders
from user_embeddings_dagster.exports.opening import remove
from user_embeddings_dagster.exports.sealing import remove_leftovers as remove_leftovers_of_sealing
from user_embeddings_dagster.privacy.access.whitelist import Whitelist
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.identity import contributors
from user_embeddings_dagster.privacy.erasure.journal import Journal, add
from user_embeddings_dagster.privacy.erasure.raw_files import UnreadableGrants, cut_grants, cut_links, cut_out, search
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.privacy.sealed_format import is_sealed
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.schema import INSIGHT_TASKS, MESSAGES, TABLES, Table
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.user_memories import UserMemories

OWN_SEALED, SHARED_SEALED = "landing, own files sealed", "landing, shared files sealed"
_USERS, _CHUNKS = ("user_id", "author_id"), ("chunk_id", "negative_chunk_id", "positive_chunk_id")
_CHUNK_LISTS = ("option_chunk_ids",)


def plan(journal: Journal, layout: Layout, key: bytes, keys: ContributorKeys) -> None:
    """Add to the journal everything that the stores still hold of the person, and count it before any of it goes."""
    lake, users = Lake(layout.root), frozenset(journal.users)
    names, records, sealed = {*journal.names}, 0, Counter[str]()
    for folder in datadao_folders(layout.landing):
        for found in search(folder, key, users, keys):
            add(journal.withdrawn if found.own else journal.shared, folder.name, [found.file.sha256] * found.known)
            names |= found.names
            records += found.n_records
            if found.known and is_sealed(found.file.path):
                sealed[OWN_SEALED if found.own else SHARED_SEALED] += 1
    for store, n in {"landing": records, **sealed}.items():
        journal.count(store, n)
    for datadao in lake.partitions("participants"):
        rows = lake.scan("participants", datadao).filter(among("author_id", journal.users))
        names |= set(rows.select("name", "name_kind").collect().iter_rows())
    journal.names = sorted(names)
    companions = {*journal.companions}
    for datadao in lake.partitions("masked_chunks"):
        chunks = lake.scan("masked_chunks", datadao)
        said = lake.scan("messages", datadao).filter(_gone(MESSAGES, datadao, journal)).select("message_id")
        spoken = chunks.select("chunk_id", message_id="message_ids").explode("message_id").join(said, on="message_id")
        theirs = among("user_id", journal.users) | pl.col("chunk_id").is_in(spoken.collect()["chunk_id"].implode())
        rows = chunks.filter(theirs).select("chunk_id", "user_id").collect()
        add(journal.chunks, datadao, rows["chunk_id"])
        companions |= {*rows["user_id"]} - users
    for datadao in lake.partitions(INSIGHT_TASKS.name):  # prompts of others that showed what the person said
        tasks = lake.scan(INSIGHT_TASKS.name, datadao).filter(_gone(INSIGHT_TASKS, datadao, journal))
        companions |= {*tasks.select("user_id").collect()["user_id"]} - users
    journal.companions = sorted(companions)
    _count(journal, layout, key)


def _count(journal: Journal, layout: Layout, key: bytes) -> None:
    """Rows, vectors, memories and folders that are going to be removed, by store."""
    lake, counts = Lake(layout.root), Counter[str]()
    for table in _tables():
        for partition in lake.partitions(table.name):
            rows = lake.scan(table.name, partition).filter(_gone(table, partition, journal))
            counts[f"tables/{table.name}"] += rows.select(pl.len()).collect().item()
    lance = LanceTables(layout.lancedb)
    for folder in sorted(layout.lancedb.glob("*/*.lance")):
        present = _in_lance(journal, folder.parent.name) & set(lance.ids(folder.parent.name, folder.stem))
        counts[f"lancedb/{folder.stem}"] += len(present)
    for path in sorted(layout.user_memories.glob("*.sqlite")):
        with UserMemories(path) as memories:
            counts["user_memories"] += memories.holds(journal.users)
    if layout.access_whitelist.exists():
        with Whitelist(layout.access_whitelist) as whitelist:
            counts["access"] = whitelist.holds(erasure_id(key, user) for user in journal.users)
    counts["leftovers"] = len(leftovers(layout))
    for store, n in counts.items():
        journal.count(store, n)


def _tables() -> list[Table]:
    """Those of the lake that know people, chunks or raw files."""
    return [table for table in TABLES.values() if {*_USERS, *_CHUNKS, "raw_sha256"} & set(table.schema)]


def _in_lance(journal: Journal, datadao: str) -> set[str]:
    return {*journal.chunks.get(datadao, ()), *journal.users}


def leftovers(layout: Layout) -> list[Path]:
    """What killed or running jobs keep beside the stores."""
    folders = [*(layout.root / "staging").glob("*"), *layout.batches.glob("*"), *layout.lancedb.glob("*/*.dropped")]
    folders += [*layout.models.glob("**/inputs"), *layout.models.glob("**/output.work")]
    return [folder for folder in folders if folder.is_dir()]


def among(column: str, values: Iterable[str]) -> pl.Expr:
    """Whether a column has one of the values; False where it is null."""
    return pl.col(column).is_in(pl.Series(sorted(values), dtype=pl.String).implode()).fill_null(False)


def any_among(column: str, values: Iterable[str]) -> pl.Expr:
    """Which rows of a column of lists hold any of the values."""
    wanted = pl.lit(pl.Series(sorted(values), dtype=pl.String).implode())
    return (pl.col(column).list.set_intersection(wanted).list.len() > 0).fill_null(False)


def _gone(table: Table, datadao: str, journal: Journal) -> pl.Expr:
    """Which rows of a table go: by the person, of a chunk that goes, or of an export that was withdrawn.

    What other contributors wrote stays in `messages` also where it was read from the withdrawn export: the next
    materialisation keeps it if an export of somebody who stays holds it too.
    """
    gone = pl.lit(False)
    for column in table.schema:
        if column in _USERS:
            gone |= among(column, journal.users)
        elif column in _CHUNKS:
            gone |= among(column, journal.all_chunks)
        elif column in _CHUNK_LISTS:
            gone |= any_among(column, journal.all_chunks)
        elif column == "raw_sha256":
            withdrawn = among(column, journal.withdrawn.get(datadao, ()))
            gone |= withdrawn & ~pl.col("is_subject") if table == MESSAGES else withdrawn
    return gone


def erase_landing(journal: Journal, layout: Layout, key: bytes, keys: ContributorKeys) -> list[str]:
    """Withdraw the person's own exports, cut their records out of the others; says what became of the files."""
    told = []
    people = contributors(layout.landing, key, journal.users)
    for folder in datadao_folders(layout.landing):
        try:
            cut_grants(folder, key, frozenset(journal.users))  # before the links, which say whose the accounts are
        except UnreadableGrants:
            told.append(f"{folder.name}: {GRANTS} could not be read and was left as it is")
    for folder in datadao_folders(layout.landing):
        for leftover in folder.rglob(".*.erasing"):
            leftover.unlink()
        remove_leftovers_of_sealing(folder)
        unknown = 0
        for found in list(search(folder, key, frozenset(journal.users), keys)):
            if not found.known:
                unknown += 1
            elif found.own:
                if found.file.path.is_symlink():
                    told.append(f"{folder.name}: an own export was a link; the file it led to is outside of the data")
                remove(found.file.path)
            elif not cut_out(found, {*journal.names}):
                told.append(f"{folder.name}: a shared export could not be rewritten and was removed whole")
        if unknown:
            told.append(f"{folder.name}: {unknown} raw files that no reader knows were left as they are")
    for folder in datadao_folders(layout.landing):
        cut_links(folder / LINKS, people)  # last: it says which accounts are the person's
    return told


def erase_tables(journal: Journal, layout: Layout) -> None:
    """Every table of the lake that knows people, chunks or raw files."""
    lake = Lake(layout.root)
    for table in _tables():
        for partition in lake.partitions(table.name):
            lake.purge(table, partition, _gone(table, partition, journal))
    redaction = Redaction(journal.names)
    for datadao, files in journal.shared.items():
        if not redaction or lake.current("messages", datadao) is None:
            continue
        frame = lake.read("messages", datadao)
        shared = among("raw_sha256", files)
        texts = pl.when(shared).then(redaction.texts(frame["text"])).otherwise("text").alias("text")
        if not (redacted := frame.with_columns(texts)).equals(frame):
            lake.replace(MESSAGES, datadao, redacted)


def erase_vectors(journal: Journal, layout: Layout) -> None:
    """Every LanceDB table that held any, physically: also one whose rows were deleted by a process killed then."""
    lance = LanceTables(layout.lancedb)
    for folder in sorted(layout.lancedb.glob("*/*.lance")):
        datadao, table = folder.parent.name, folder.stem
        if not lance.exists(datadao, table):
            shutil.rmtree(folder)  # of a process killed while creating it
        elif journal.removed[f"lancedb/{table}"]:
            lance.purge(datadao, table, sorted(_in_lance(journal, datadao) & set(lance.ids(datadao, table))))


def erase_memories(journal: Journal, layout: Layout) -> None:
    """What user embeddings are advanced from."""
    for path in sorted(layout.user_memories.glob("*.sqlite")):
        with UserMemories(path) as memories:
            memories.erase(journal.users)


def erase_access(journal: Journal, layout: Layout, key: bytes) -> None:
    """The person's keys, what they granted, how they are served, and the salts of commitments to their embeddings."""
    if layout.access_whitelist.exists():
        with Whitelist(layout.access_whitelist) as whitelist:
            whitelist.forget(erasure_id(key, user) for user in journal.users)


def remove_leftovers(journal: Journal, layout: Layout) -> None:
    """Staged rows, batches, inputs of trainings, dropped tables: of anybody, since nothing tells whose they are."""
    for folder in leftovers(layout):
        shutil.rmtree(folder)
