"""What of a chunk is new: the turns that no earlier chunk of the same user holds.

Chunks overlap: a window of a reply tree repeats the ancestors of a message, SUBJECT's own among them. What an earlier
chunk shows, the embedding has seen, so no task is made of it.
"""

import polars as pl


def unseen_turns(snapshot: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """`snapshot` with the speakers, turns, message_ids and turn_numbers (0-based places in the chunk) that are new,
    and with `messages`, those of the whole chunk.

    `snapshot`: rows of TRAINING_SNAPSHOT; `chunks`: chunk_id, speakers, turns, message_ids of (at least) its chunks.
    A chunk in which nothing is new has empty lists. Raises ValueError if a chunk of the snapshot is missing.
    """
    columns = ("speakers", "turns", "message_ids")
    texts = chunks.select("chunk_id", *columns, turn_numbers=pl.int_ranges(pl.col("turns").list.len()))
    rows = snapshot.join(texts, on="chunk_id", how="left", validate="1:1")
    if missing := rows["turns"].null_count():
        raise ValueError(f"{missing} chunks of the snapshot are not among the masked chunks")
    by_turn = rows.select("chunk_id", "datadao", "user_id", "position", *columns, "turn_numbers").explode(
        *columns, "turn_numbers"
    )
    first = pl.col("position").min().over("datadao", "user_id", "message_ids")
    new = (
        by_turn.filter(first == pl.col("position"))
        .group_by("chunk_id", maintain_order=True)
        .agg(*columns, "turn_numbers")
    )
    lists = [pl.col(name).fill_null(pl.lit([], dtype=rows.schema[name])) for name in (*columns, "turn_numbers")]
    whole = rows.select("chunk_id", messages="message_ids")
    found = snapshot.join(new, on="chunk_id", how="left", maintain_order="left").with_columns(lists)
    return found.join(whole, on="chunk_id", how="left", maintain_order="left")


def heard_by(rows: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Every message of any chunk of each user, by user_id; `rows` as of `unseen_turns`."""
    by_user = rows.select("user_id", "messages").explode("messages").drop_nulls().group_by("user_id").agg("messages")
    return {user: frozenset(messages) for user, messages in by_user.iter_rows()}
