"""Every table of the lake, declared once: grain, columns, types, descriptions, primary key.

`personal=True` marks columns that carry what a person wrote or is called. Nothing from such a column may
reach metadata, logs, exceptions, run config or partition keys.
"""

from user_embeddings_dagster.schema.conversations import (
    CHUNK_SUMMARIES,
    KOAI_EXTRACTIONS,
    KOAIS,
    MASKED_CHUNKS,
    UNSUMMARISED_CHUNKS,
)
from user_embeddings_dagster.schema.evaluation import DATA_FUNNEL, SCORES
from user_embeddings_dagster.schema.ingestion import (
    DROPPED_MESSAGES,
    MESSAGES,
    NATIVE_MESSAGES,
    PARTICIPANTS,
    RAW_FILES,
    REJECTED_RECORDS,
)
from user_embeddings_dagster.schema.personalisation import INSIGHT_TASKS
from user_embeddings_dagster.schema.privacy import (
    ACCESS_LOG,
    CONSENT_LEDGER,
    ERASURES,
    REJECTED_GRANTS,
    RETENTION_PURGES,
)
from user_embeddings_dagster.schema.table import TIMESTAMP, Column, Table
from user_embeddings_dagster.schema.training import HARD_NEGATIVES, RELABELLED_PAIRS, TRAINING_SNAPSHOT

__all__ = [
    "ACCESS_LOG",
    "CHUNK_SUMMARIES",
    "CONSENT_LEDGER",
    "DATA_FUNNEL",
    "DROPPED_MESSAGES",
    "ERASURES",
    "HARD_NEGATIVES",
    "INSIGHT_TASKS",
    "KOAIS",
    "KOAI_EXTRACTIONS",
    "MASKED_CHUNKS",
    "MESSAGES",
    "NATIVE_MESSAGES",
    "PARTICIPANTS",
    "RAW_FILES",
    "REJECTED_GRANTS",
    "REJECTED_RECORDS",
    "RELABELLED_PAIRS",
    "RETENTION_PURGES",
    "SCORES",
    "TABLES",
    "TIMESTAMP",
    "TRAINING_SNAPSHOT",
    "UNSUMMARISED_CHUNKS",
    "Column",
    "Table",
]

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_FILES, MESSAGES, PARTICIPANTS, REJECTED_RECORDS, DROPPED_MESSAGES, MASKED_CHUNKS, CHUNK_SUMMARIES,
        UNSUMMARISED_CHUNKS, KOAIS, KOAI_EXTRACTIONS, TRAINING_SNAPSHOT, HARD_NEGATIVES, RELABELLED_PAIRS, SCORES,
        INSIGHT_TASKS, DATA_FUNNEL, ERASURES, CONSENT_LEDGER, REJECTED_GRANTS,
        RETENTION_PURGES, ACCESS_LOG,
    )
}  # fmt: skip
