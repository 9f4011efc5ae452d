"""The person's canaries: what of theirs is nobody else's, taken before anything is removed, looked for afterwards.

Only what is theirs alone proves anything: "good morning" in another's message is no trace of them.
"""

from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

import polars as pl

from user_embeddings_dagster.exports.landing import export_paths, foreign_links
from user_embeddings_dagster.exports.reader import raw_file
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.privacy.access.whitelist import Whitelist
from user_embeddings_dagster.privacy.audit.canaries import SHORTEST, scan
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.privacy.sealed_format import NotOurs, Shredded
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked
from user_embeddings_dagster.storage.user_memories import UserMemories

TEXTS = 40  # of each table of a DataDAO, names, and ids
LONG = 24  # bytes of a text that tells whose it is
MIDDLE = 64  # characters of it that are looked for
PREFIX = 24  # bytes of a vector
_TABLES = {
    "messages": ("author_id", "text"), "chunk_summaries": ("user_id", "text"), "koais": ("user_id", "statement"),
    "insight_tasks": ("user_id", "reference"),
}  # fmt: skip


def gather(journal: Journal, layout: Layout, key: bytes, keys: ContributorKeys) -> None:
    """Add the person's canaries to the journal: texts, names, ids, starts of vectors, middles of memories, access."""
    lake, users = Lake(layout.root), pl.Series(journal.users, dtype=pl.String)
    own, others = set[str](), list[pl.LazyFrame]()
    for table, (owner, column) in _TABLES.items():
        found, rest = _own_texts(lake, table, owner, column, users, journal)
        own, others = own | found, others + rest
    # A line of a summary may stand in another's chunk ("SUBJECT: thanks").
    others += _own_texts(lake, "masked_chunks", "user_id", "text", users, journal)[1]
    texts = sorted(own)
    for other in others:  # also a message that says what a summary says
        texts = _not_in(texts, other.collect()["text"])
    texts = _nowhere_else(texts, journal, layout, keys)
    texts += _names(lake, users, journal)
    texts += [*journal.users, *journal.all_chunks[:TEXTS]]
    public_keys, salts = _access(layout, journal, key)
    journal.texts = sorted({*journal.texts, *texts, *public_keys})
    journal.vectors = sorted({*journal.vectors, *_vectors(layout, journal), *_memories(layout, journal), *salts})


def _own_texts(
    lake: Lake, table: str, owner: str, column: str, users: pl.Series, journal: Journal
) -> tuple[set[str], list[pl.LazyFrame]]:
    """Middles of the person's longest texts in a table, and everybody else's texts, of each DataDAO."""
    mine = pl.col(owner).is_in(users.implode()).fill_null(False)
    texts, others = set[str](), []
    for datadao in lake.partitions(table):
        rows = lake.scan(table, datadao)
        if table == "messages":
            goes = pl.col("raw_sha256").is_in(_series(journal.withdrawn.get(datadao, [])).implode())
        else:  # others' chunks that go take their rows with them
            goes = pl.col("chunk_id").is_in(_series(journal.chunks.get(datadao, [])).implode())
        length = pl.col(column).str.len_chars().cast(pl.Int64)
        middle = pl.col(column).str.slice((length - MIDDLE).clip(0) // 2, MIDDLE).str.strip_chars()
        found = rows.filter(mine).select(middle, length=length).filter(pl.col(column).str.len_bytes() >= LONG)
        texts |= set(found.sort("length", column, descending=True).head(TEXTS).collect()[column])
        others.append(rows.filter(~mine, ~goes).select(text=column))
    return texts, others


def _series(values: Iterable[str]) -> pl.Series:
    return pl.Series(list(values), dtype=pl.String)


def _nowhere_else(texts: list[str], journal: Journal, layout: Layout, keys: ContributorKeys) -> list[str]:
    """Those that are in no raw file without a record of the person: what a reader passes over there, such as another
    branch of a conversation, may say the same by chance."""
    theirs = {sha256 for files in (journal.withdrawn, journal.shared) for some in files.values() for sha256 in some}
    hits = scan(layout.landing, texts, keys).hits if texts else ()
    others = {name for name in {hit.file for hit in hits} if of_others(layout.landing, name, theirs, keys)}
    elsewhere = {hit.canary for hit in hits if hit.file in others}
    return [text for text in texts if text not in elsewhere]


def of_others(landing: Path, name: str, theirs: Container[str], keys: ContributorKeys) -> bool:
    """Whether a file below `landing` is a raw file that a reader knows, and none of `theirs` (SHA-256)."""
    folder = landing / Path(name).parts[0]
    if landing / name not in {*export_paths(folder)} - {*foreign_links(folder)}:
        return False
    try:
        file = raw_file(folder, landing / name, keys)
        return file.sha256 not in theirs and detect(file) is not None
    except (NotOurs, Shredded):
        return False


def _names(lake: Lake, users: pl.Series, journal: Journal) -> list[str]:
    names = [name for name, _ in journal.names if len(name.encode()) >= SHORTEST]
    redaction = Redaction(journal.names)
    for datadao in lake.partitions("messages"):
        rows = lake.scan("messages", datadao).filter(~pl.col("author_id").is_in(users.implode()).fill_null(False))
        shared = pl.col("raw_sha256").is_in(pl.Series(journal.shared.get(datadao, []), dtype=pl.String).implode())
        frame = rows.select("text", shared=shared).collect()
        names = _not_in(names, frame.filter(~pl.col("shared"))["text"])
        names = _not_in(names, redaction.texts(frame.filter("shared")["text"]))
    for datadao in lake.partitions("participants"):
        rows = lake.scan("participants", datadao).filter(~pl.col("author_id").is_in(users.implode()))
        names = _not_in(names, rows.select("name").collect()["name"])
    return names[:TEXTS]


def _not_in(candidates: list[str], texts: pl.Series) -> list[str]:
    """Those that are part of none of the texts, in whatever case."""
    if not candidates or texts.is_empty():
        return candidates
    found = texts.str.extract_many(candidates, ascii_case_insensitive=True, overlapping=True).explode().drop_nulls()
    seen = {match.casefold() for match in found.unique()}
    return [candidate for candidate in candidates if candidate.casefold() not in seen]


def _vectors(layout: Layout, journal: Journal) -> set[bytes]:
    """The first values of the person's vectors, as the float32 bytes that every format keeps.

    Without those that others have as well, in whatever DataDAO: two who say the same have the same vector.
    """
    lance, mine, others = LanceTables(layout.lancedb), set[bytes](), set[bytes]()
    for folder in sorted(layout.lancedb.glob("*/*.lance")):
        datadao, table = folder.parent.name, folder.stem
        if not lance.exists(datadao, table):
            continue
        gone = {*journal.chunks.get(datadao, ()), *journal.users}
        frame = lance.read(datadao, table, ["id", "vector"])
        starts = [row[: PREFIX // 4].tobytes() for row in stacked(frame["vector"])]
        for name, start in zip(frame["id"], starts, strict=True):
            (mine if name in gone else others).add(start)
    return {start for start in mine - others if len(set(start)) > SHORTEST}


def _memories(layout: Layout, journal: Journal) -> set[bytes]:
    found = set()
    for path in sorted(layout.user_memories.glob("*.sqlite")):
        with UserMemories(path) as memories:
            for user in journal.users:
                try:
                    stored = memories.read([user])[1][0].tobytes()
                except KeyError:
                    continue
                middle = len(stored) // 2
                found.add(stored[middle : middle + PREFIX])
    return {part for part in found if len(set(part)) > SHORTEST}


def _access(layout: Layout, journal: Journal, key: bytes) -> tuple[set[str], set[bytes]]:
    """Keys that the person alone owns or grants to, and salts of commitments to their embeddings."""
    if not layout.access_whitelist.exists():
        return set(), set()
    with Whitelist(layout.access_whitelist) as whitelist:
        return whitelist.evidence(erasure_id(key, user) for user in journal.users)


def hits(
    layout: Layout, journal: Journal, keys: ContributorKeys
) -> tuple[dict[str, int], dict[str, int], int]:  # fmt: skip
    """Times that the canaries are found by store, files by store that could not be decoded, and files scanned."""
    result = scan(layout.root, journal.canaries, keys)
    found: Counter[str] = Counter()
    for name, count in result.by_file.items():
        found[store_of(name)] += count
    undecoded = Counter(store_of(name) for name in result.undecoded)
    return dict(sorted(found.items())), dict(sorted(undecoded.items())), result.files


def store_of(file: str) -> str:
    """The store that a file below the data root belongs to: tables/messages, lancedb/chunk_embeddings, landing, …"""
    parts = file.split("/")
    if parts[0] == "tables" and len(parts) > 2:
        return f"tables/{parts[1]}"
    if parts[0] == "lancedb" and len(parts) > 3:
        return f"lancedb/{parts[2].partition('.')[0]}"
    return parts[0]
