"""Tables of what was done for contributors."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, Column, Table

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
