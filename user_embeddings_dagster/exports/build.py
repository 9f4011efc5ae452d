"""The messages table of a DataDAO, from its landing folder: the one call behind the `messages` asset.

Contributors' exports are read first, public dumps after them: where somebody contributed, a dump only hydrates
the threads they wrote in (its other rows are counted and never hashed or stored); where nobody did, every
author of the dump is a subject. Memory is bounded at any size of input.
"""

import csv
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from user_embeddings_dagster.exports.landing import (
    LINKS,
    BadFile,
    MissingExports,
    broken_links,
    export_paths,
    foreign_links,
    landing_folder,
    stands,
)
from user_embeddings_dagster.exports.merge import Merge, TooLittleMemory, memory_for, most_memory
from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.exports.ordering import Placed, memory_returned
from user_embeddings_dagster.exports.reader import RawFile, foreign_link, raw_file
from user_embeddings_dagster.exports.reading import Progress, Reading
from user_embeddings_dagster.exports.sealing import Sealing, seal_folder
from user_embeddings_dagster.exports.staging import staging_folder
from user_embeddings_dagster.keys import file_sha256, keyed_id
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.retention.windows import Horizons
from user_embeddings_dagster.privacy.sealed_format import Shredded
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import (
    DROPPED_MESSAGES,
    MESSAGES,
    PARTICIPANTS,
    RAW_FILES,
    REJECTED_RECORDS,
)
from user_embeddings_dagster.storage.lake import Commit, Lake, fingerprint

VERSION = "messages-6"
TABLES = (RAW_FILES, MESSAGES, PARTICIPANTS, REJECTED_RECORDS, DROPPED_MESSAGES)


@dataclass(frozen=True)
class BuildResult:
    """What is current of the five tables. `stats`: n_files, n_read, n_messages, n_rejected, dropped_<reason>.

    `sealing`: what became of raw files that lay in clear; None without sealing. `shredded`: files that are left out
    because their key has been destroyed.
    """

    commits: dict[str, Commit]
    reused: bool
    stats: dict[str, float | int | str] = field(default_factory=dict)
    sealing: Sealing | None = None
    shredded: int = 0


def build_messages(
    datadao: str,
    landing: Path,
    lake: Lake,
    key: bytes,
    *,
    keys: ContributorKeys | None = None,
    seal: bool = False,
    erased: Tombstones | None = None,
    erased_names: ErasedNames | None = None,
    horizons: Horizons | None = None,
    progress: Progress = lambda stage, figures: None,
    memory: int | None = None,
    threads: int | None = None,
) -> BuildResult:
    """Read landing/<datadao>, commit raw_files, messages, participants, rejected_records and dropped_messages.

    Nothing is read if all five are up to date with the files, contributors.csv, the key, the `erased` (who are left
    out, with their names and those of `erased_names` in what others wrote) and this version.
    `keys` open sealed raw files; with `seal`, those that lie in clear are sealed once the tables are committed.
    `progress` is called with a stage (hash, read, merge, seal) and figures: file, files, rows, bytes, bytes_total,
    seconds, seconds_left. `memory`: MB that DuckDB has while it merges, by default `merge.memory_for`;
    where they are too few, it begins again with twice as many.
    Raises MissingExports without a landing folder, or if an export that the operator linked is not there; NoKeys, or
    Tampered where a sealed raw file is not what was sealed: the tables then stay as they are.
    """
    folder = landing_folder(landing, datadao)
    found = list(_raw_files(folder, keys, progress))
    files = [file for file in found if file is not None]
    shredded = len(found) - len(files)
    links_file = folder / LINKS

    def sealed(owners: dict[str, set[str]]) -> Sealing | None:
        if not seal or keys is None:
            return None
        links = contributor_links(links_file)
        return seal_folder(folder, key, keys, links, owners, lambda n, of: progress("seal", {"file": n, "files": of}))

    links_hash = file_sha256(links_file) if links_file.is_file() else ""
    wanted = fingerprint(
        VERSION,
        datadao,
        [(file.name, file.sha256) for file in files],
        links_hash,
        keyed_id(key, "key"),
        *([erased.version] if erased else []),
        *([erased_names.version] if erased and erased_names else []),
        *(horizons.version("messages") if horizons else ()),
    )
    current = {table.name: lake.up_to_date(table.name, datadao, wanted) for table in TABLES}
    commits = {name: commit for name, commit in current.items() if commit}
    if len(commits) == len(TABLES):
        return BuildResult(commits, True, dict(commits["messages"].stats), sealed({}), shredded)
    threads = threads or len(os.sched_getaffinity(0))
    stage = staging_folder(lake.root, datadao)
    normaliser = Normaliser(datadao, key, contributor_links(links_file), threads)
    try:
        left_out = erased or Tombstones(key, frozenset()), erased_names or ErasedNames(key)
        reading = Reading(datadao, stage, normaliser, progress, *left_out, horizons)
        with memory_returned():
            with closing(normaliser):
                reading.read(files)
            result = _commit(reading, lake, wanted, memory)
    finally:
        shutil.rmtree(stage)
    return replace(result, sealing=sealed(reading.owners_of), shredded=shredded)


def contributor_links(path: Path) -> dict[str, str]:
    """Account (casefolded) to contributor, from a CSV with the columns contributor and account.

    No file means no links. Raises BadFile naming the line that has no contributor or account or cannot be read.
    """
    if not stands(path):
        return {}
    links: dict[str, str] = {}
    name = f"{path.parent.name}/{path.name}"
    reader = csv.DictReader(io.StringIO(plain_text(path), newline=""))
    try:
        if not {"contributor", "account"} <= set(reader.fieldnames or ()):
            raise BadFile(f"{name}: expected the columns contributor and account")
        for row in reader:
            contributor, account = (row["contributor"] or "").strip(), (row["account"] or "").strip()
            if not contributor or not account:
                raise BadFile(f"{name}, line {reader.line_num}: no contributor or no account")
            if links.setdefault(account.casefold(), contributor) != contributor:
                raise BadFile(f"{name}, line {reader.line_num}: account of another contributor")
    except csv.Error:
        raise BadFile(f"{name}, line {reader.reader.line_num}: not a CSV file") from None
    return links


def plain_text(path: Path) -> str:
    """The text of a small file. Raises BadFile naming the line, and nothing of what stands there, where it is none:
    saved in another encoding than UTF-8, or with NULs in it."""
    content, name = path.read_bytes(), f"{path.parent.name}/{path.name}"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFile(f"{name}, line {line}: not UTF-8; save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadFile(f"{name}, line {line}: a NUL character; save it as plain text in UTF-8")
    return text


def _raw_files(folder: Path, keys: ContributorKeys | None, progress: Progress) -> Iterator[RawFile | None]:
    """The exports with their hashes; None for one that nobody can read any more."""
    links = set(foreign_links(folder))
    if gone := set(broken_links(folder)) - links:  # a disk that is not mounted is nobody's withdrawal
        raise MissingExports(
            f"{folder.name}: {len(gone)} linked exports are not there; put them back, or remove their links"
        )
    yield from (foreign_link(folder, path) for path in sorted(links))
    try:
        paths = [path for path in export_paths(folder) if path not in links]
    except OSError as error:
        raise OSError(error.errno, f"{folder.name}: a folder in it may not be read; see owners and modes") from None
    for number, path in enumerate(paths, 1):
        try:
            yield raw_file(folder, path, keys)
        except Shredded:
            yield None
        except OSError as error:  # whose text holds the file's name, often a person's
            raise OSError(error.errno, f"{folder.name}: raw file {number} of {len(paths)} cannot be read") from None
        progress("hash", {"file": number, "files": len(paths)})


def _commit(reading: Reading, lake: Lake, wanted: str, memory: int | None) -> BuildResult:
    """Merge what was staged and commit the five tables; `messages` last, so that it vouches for the others."""
    datadao, stats = reading.datadao, reading.stats()
    pa.default_memory_pool().release_unused()  # what reading needed, before the merge does
    share = memory or memory_for(reading.n_staged)
    staged = {t.name: lake.stage(t.name, datadao) for t in (MESSAGES, PARTICIPANTS, REJECTED_RECORDS)}
    while True:
        reading.progress("merge", {"rows": reading.n_staged, "memory_mb": share})
        try:
            dropped, rows, messages = _merged(reading, share, staged)
            break
        except TooLittleMemory:
            if (share := 2 * share) > most_memory():
                raise
    rows["messages"] = messages.write(staged["messages"])
    n_dropped = int(dropped["n"].sum())
    if rows["messages"] + n_dropped != reading.n_read:
        raise RuntimeError(
            f"{datadao}: {reading.n_read} messages read, but {rows['messages']} kept and {n_dropped} dropped"
        )
    reasons = dropped.group_by("reason").agg(pl.col("n").sum()).sort("reason")
    stats |= {"n_messages": rows["messages"]} | {f"dropped_{reason}": n for reason, n in reasons.iter_rows()}
    frames = {"raw_files": (RAW_FILES, reading.raw_files()), "dropped_messages": (DROPPED_MESSAGES, dropped)}
    commits = {n: lake.commit(t, frame, datadao, wanted, stats) for n, (t, frame) in frames.items()}
    for name in ("participants", "rejected_records", "messages"):
        commits[name] = lake.commit_file(name, staged[name], rows[name], datadao, wanted, stats)
    return BuildResult(commits, False, stats)


def _merged(reading: Reading, memory: int, staged: dict[str, Path]) -> tuple[pl.DataFrame, dict[str, int], Placed]:
    """What is dropped, the rows of the narrow tables, which are written to `staged`, and the messages."""
    owners = pl.Series("author_id", sorted(reading.owners), dtype=pl.String)
    with closing(Merge(reading.stage, owners, memory)) as merge:  # frees its memory, before that of messages is needed
        dropped = reading.dropped(merge.decide())
        rows = {
            "participants": merge.write_participants(staged["participants"]),
            "rejected_records": merge.write_rejected(staged["rejected_records"]),
        }
        return dropped, rows, merge.messages()
