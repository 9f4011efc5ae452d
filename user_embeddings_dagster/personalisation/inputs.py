"""Insight tasks as everything after them reads them."""

import polars as pl

from user_embeddings_dagster.schema import INSIGHT_TASKS
from user_embeddings_dagster.storage.lake import Lake


def consented_tasks(lake: Lake, snapshot: pl.DataFrame, *splits: str) -> pl.DataFrame:
    """INSIGHT_TASKS of every DataDAO of a (gated) snapshot, of these splits (of all, if none is named).

    Without those about, or with an option of, a chunk that the snapshot does not hold: somebody's who has not
    consented, or of an earlier state. Raises FileNotFoundError naming a DataDAO whose tasks were not materialised.
    """
    known = snapshot["chunk_id"].implode()
    parts = [INSIGHT_TASKS.empty()]
    for datadao in snapshot["datadao"].unique().sort():
        rows = lake.read(INSIGHT_TASKS.name, datadao)
        strangers = pl.col("option_chunk_ids").list.set_difference(pl.lit(known)).list.len() > 0
        parts.append(rows.filter(pl.col("chunk_id").is_in(known), ~strangers))
    tasks = pl.concat(parts)
    return tasks.filter(pl.col("split").is_in(splits)) if splits else tasks
