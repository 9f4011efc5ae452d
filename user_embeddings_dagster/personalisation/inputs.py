"""Insight tasks as everything after them reads them."""

import polars as pl

from user_embeddings_dagster.schema import INSIGHT_TASKS
from user_embeddings_dagster.storage.lake import Lake


def consented_tasks(lake: Lake, snapshot: pl.DataFrame, *splits: str) -> pl.DataFrame:
    """INSIGHT_TASKS of every DataDAO of a (gated) snapshot, of these splits (of all, if none is named).

    Without those about, or with an option of, a chunk that the snapshot does not hold: somebody's who has not
    consented, or of an earlier state. `n_history` counts the user's chunks before it that the snapshot holds. Without
    tasks, too, that had a history and have none, or have a longer one than when they were made: it may say what they
    ask. Raises FileNotFoundError naming a DataDAO whose tasks were not materialised.
    """
    known, places = snapshot["chunk_id"].implode(), snapshot.select("chunk_id", place="position")
    held = (pl.col("place") <= pl.col("n_history")) & ((pl.col("place") > 0) | (pl.col("n_history") == 0))
    parts = [INSIGHT_TASKS.empty()]
    for datadao in snapshot["datadao"].unique().sort():
        rows = lake.read(INSIGHT_TASKS.name, datadao)
        strangers = pl.col("option_chunk_ids").list.set_difference(pl.lit(known)).list.len() > 0
        placed = rows.filter(~strangers).join(places, on="chunk_id").filter(held)
        parts.append(INSIGHT_TASKS.conform(placed.with_columns(n_history="place")))
    tasks = pl.concat(parts)
    return tasks.filter(pl.col("split").is_in(splits)) if splits else tasks
