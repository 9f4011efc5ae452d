"""Tables of what was done for contributors."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, TIMESTAMP, Column, Table

ERASURES = Table(
    "erasures",
    "One row per erased contributor and store.",
    (
        Column("person", TEXT, "pseudonym of the contributor: a keyed hash of their user_id, which no table holds"),
        Column("store", TEXT, "tables/<table>, lancedb/<table>, landing, user_memories, cache, keys, models, …"),
        Column("removed", COUNT, "rows, records, entries, keys or folders removed; for models: versions marked"),
        Column("hits_before", COUNT, "times that the person's canaries were found in it before"),
        Column("hits_after", COUNT, "times that they are found in it now"),
        Column("undecoded", COUNT, "files that could not be decoded, so that nothing is known of them"),
        Column("evidence_hash", TEXT, "hash of the canaries looked for and of what both scans found"),
        Column("checkpoints", pl.List(pl.String), "model versions trained on the person"),
    ),
    ("person", "store"),
)

CONSENT_LEDGER = Table(
    "consent_ledger",
    "One row per contributor, purpose and grant of a DataDAO, with the time in which the grant holds.",
    (
        Column("datadao", TEXT, "DataDAO slug: consent to one DataDAO says nothing about another"),
        Column("user_id", TEXT, "the contributor"),
        Column("purpose", TEXT, "train, evaluate, serve or compare"),
        Column("grant_id", TEXT, "keyed hash of the grant's id in consent.csv (32 hex), or 'statement'"),
        Column("basis", TEXT, "'own grant', or what the DataDAO states in datadao.json for who has none of their own"),
        Column("granted_at", TIMESTAMP, "from when on it holds, UTC; null: from its beginning", nullable=True),
        Column("expires_at", TIMESTAMP, "from when on it holds no more, UTC; null: it does not expire", nullable=True),
        Column("revoked_at", TIMESTAMP, "when it was revoked, UTC; null: it was not", nullable=True),
    ),
    ("user_id", "purpose", "grant_id"),
)

REJECTED_GRANTS = Table(
    "rejected_grants",
    "One row per statement, grant or rest of a file on consent that could not be read, or is about nobody here: it "
    "consents to nothing.",
    (
        Column("datadao", TEXT, "DataDAO slug"),
        Column("file", TEXT, "consent.csv or datadao.json"),
        Column("line", COUNT, "1-based line in the file; 0: the file"),
        Column("reason", TEXT, "short code: bad_account, bad_time, unknown_purpose, …; of_nobody, of_nobody_ended"),
    ),
    ("file", "line", "reason"),
)

RETENTION_PURGES = Table(
    "retention_purges",
    "One row per stage of what is kept for a limited time.",
    (
        Column("stage", TEXT, "raw_files, messages, …; see privacy/retention/windows.py for what an age is"),
        Column("window_days", COUNT, "how long the stage keeps; null: until erasure or withdrawal", nullable=True),
        Column("horizon", TIMESTAMP, "what lay before it was purged, by the last purge that found any", nullable=True),
        Column("n_purged", COUNT, "files, rows, entries, versions or runs that purge removed"),
        Column("bytes_purged", COUNT, "bytes of the files, or of the texts of the rows"),
        Column("purged_hash", TEXT, "hash of the sorted content ids of what was removed; '' if nothing ever was"),
        Column("n_kept", COUNT, "what the stage kept at the latest purge"),
        Column("oldest_kept", TIMESTAMP, "age of the oldest of these", nullable=True),
    ),
    ("stage",),
)

ACCESS_LOG = Table(
    "access_log",
    "One row per entry of the log of accesses and changes.",
    (
        Column("number", COUNT, "place in the log, from 0"),
        Column("time", TEXT, "when it was written, UTC, ISO 8601"),
        Column("event", TEXT, "proof, read, update, remove, grant, revoke, enrol, anchor, erase, …"),
        Column("outcome", TEXT, "allowed, refused, done, begun, absent, served, hidden, …"),
        Column("person", TEXT, "pseudonym of the contributor, as in erasures; '' where none is known"),
        Column("datadao", TEXT, "DataDAO slug; '' where the entry is of none"),
        Column("subject", TEXT, "actions, version or hash that it is about"),
        Column("previous", TEXT, "SHA-256 of the entry before it"),
    ),
    ("number",),
)
