"""What happens to the data and the models of people whose consent has ended: removed as an erasure removes, and marked.

Tables lose their rows and files, vector tables are purged with every older version, memories overwritten, answers of
language models forgotten. A model trained on them is marked until they consent again or it is trained again.
"""

from collections import Counter
from collections.abc import Iterable

import polars as pl

from user_embeddings_dagster.language_models.cache import Cache
from user_embeddings_dagster.privacy.consent.grants import SERVE, TRAIN
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.privacy.lineage import withdrawn
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.schema import INSIGHT_TASKS, MASKED_CHUNKS, TABLES, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import ModelFolder, Models
from user_embeddings_dagster.storage.user_memories import UserMemories

CONVERSATIONS = ("masked_chunks", "chunk_summaries", "unsummarised_chunks", "koais", "koai_extractions")


def withdraw_rows(lake: Lake, datadao: str, consent: Consent) -> Counter[str]:
    """Purge what is made of masked chunks of those who have consented to nothing; rows removed, by table."""
    removed, kept = Counter[str](), consent.users(datadao).implode()
    for name in CONVERSATIONS:
        if lake.current(name, datadao) is not None:
            removed[name] += lake.purge(TABLES[name], datadao, ~pl.col("user_id").is_in(kept))
    return removed


def withdraw_tasks(lake: Lake, datadao: str, consent: Consent, key: bytes) -> int:
    """Purge the insight tasks of those who have not consented to what their split needs, and those that offer what one
    of them said; how many."""
    if lake.current(INSIGHT_TASKS.name, datadao) is None:
        return 0
    kept = consent.of_their_split(key).filter(datadao=datadao)["user_id"]
    whose = [lake.scan(MASKED_CHUNKS.name, datadao)] if lake.current(MASKED_CHUNKS.name, datadao) else []
    if lake.current(TRAINING_SNAPSHOT.name):  # what the tasks were made of; the chunks may be others by now
        whose.append(lake.scan(TRAINING_SNAPSHOT.name).filter(datadao=datadao))
    owners = [rows.select("chunk_id", "user_id").filter(pl.col("user_id").is_in(kept.implode())) for rows in whose]
    none = pl.LazyFrame(schema={"chunk_id": pl.String, "user_id": pl.String})
    theirs = pl.lit(pl.concat([none, *owners]).collect()["chunk_id"].unique().sort().implode())
    others = pl.col("option_chunk_ids").list.set_difference(theirs).list.len() > 0
    return lake.purge(INSIGHT_TASKS, datadao, ~pl.col("user_id").is_in(kept.implode()) | others)


def withdraw_vectors(lance: LanceTables, datadao: str, table: str, users: Iterable[str]) -> int:
    """Purge the vectors of everybody but `users` from a table; how many. No one else may be using it."""
    if not lance.exists(datadao, table):
        return 0
    owner = "user_id" if "user_id" in lance.open(datadao, table).schema.names else "id"
    rows = lance.read(datadao, table, list(dict.fromkeys(["id", owner])))
    kept = pl.Series(users, dtype=pl.String)
    gone = rows.filter(~pl.col(owner).is_in(kept.implode()))["id"].to_list()
    if gone:
        lance.purge(datadao, table, gone)
    return len(gone)


def withdraw_all_vectors(lance: LanceTables, datadao: str, consent: Consent, key: bytes) -> Counter[str]:
    """Purge every vector table of a DataDAO of those who have not consented to what it is for; vectors, by table."""
    wanted = {
        "chunk_embeddings": consent.users(datadao),
        "summary_embeddings": consent.users(datadao),
        "item_embeddings": consent.item_users(datadao, key),
        "user_embeddings": consent.users(datadao, SERVE),
    }
    return Counter({table: withdraw_vectors(lance, datadao, table, users) for table, users in wanted.items()})


def withdraw_memories(memories: UserMemories, users: pl.Series) -> int:
    """Overwrite the memories of everybody but `users`; how many."""
    gone = sorted({*memories.users()} - {*users})
    if gone:
        memories.erase(gone)
    return len(gone)


def forget_answers(cache: Cache, gone: Iterable[str]) -> int:
    """Remove the cached answers about people; how many. Their keys stay: their exports are theirs still."""
    return sum(cache.forget(user) for user in gone)


def mark_models(models: Models, ledger: pl.DataFrame, consent: Consent, key: bytes) -> tuple[list[str], list[str]]:
    """Mark each version trained on people whose consent to it has ended, clear those without; the marked, by path:
    promoted ones, and the others, which nothing reads.

    `ledger` and `consent` are of every DataDAO. Raises CorruptArtifact, once all are marked, if a pointer is damaged.
    """
    marked = []
    for folder, people in without_consent(models, ledger, consent, key):
        folder.mark_withdrawn(people)
        if people:
            marked.append(folder.root)
    promoted = set(models.pointed_to())
    used = [root.relative_to(models.root).as_posix() for root in marked if root in promoted]
    return used, [root.relative_to(models.root).as_posix() for root in marked if root not in promoted]


def without_consent(
    models: Models, ledger: pl.DataFrame, consent: Consent, key: bytes
) -> list[tuple[ModelFolder, frozenset[str]]]:
    """Every version, each with the people it is trained on whose consent to that has ended; marks nothing."""
    live = consent.granted.filter(purpose=TRAIN)
    names = {user: erasure_id(key, user) for user in {*live["user_id"], *ledger["user_id"]}}
    now = {d: frozenset(names[user] for user in rows["user_id"]) for (d,), rows in live.group_by("datadao")}
    once = ledger.filter(purpose=TRAIN).join(live, on=["datadao", "user_id"], how="anti")
    return withdrawn(models, now, frozenset(names[user] for user in once["user_id"]))
