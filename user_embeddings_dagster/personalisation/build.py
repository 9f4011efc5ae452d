"""All insight tasks of one DataDAO."""

import polars as pl

from user_embeddings_dagster.personalisation.koai_tasks import ANSWER, KOAI_KINDS, answer_tasks, statement_tasks
from user_embeddings_dagster.personalisation.tasks import QUESTIONS, all_tasks, choice_tasks
from user_embeddings_dagster.quality.insight_tasks import SEEN_CHARACTERS

KINDS = (*QUESTIONS, *KOAI_KINDS, ANSWER)


def build_tasks(
    snapshot: pl.DataFrame,
    chunks: pl.DataFrame,
    koais: pl.DataFrame,
    vectors: pl.DataFrame,
    *,
    per_user: int,
    seed: int,
) -> pl.DataFrame:
    """Tasks of the five KINDS, at most `per_user` of each a user; columns of tasks.TASKS, sorted by task_id.

    Without those whose answer the user gave before, word by word: people repeat themselves.

    `snapshot`: TRAINING_SNAPSHOT's rows of one DataDAO; `chunks`: MASKED_CHUNKS, `koais`: KOAIS and `vectors`
    (chunk_id, vector by the frozen text encoder) of at least its chunks.
    """
    sizes = {"per_user": per_user, "seed": seed}
    choices = [choice_tasks(snapshot, chunks, vectors, kind=kind, **sizes) for kind in QUESTIONS]
    said = [statement_tasks(snapshot, chunks, vectors, koais, kind=kind, **sizes) for kind in KOAI_KINDS]
    tasks = all_tasks([*choices, *said, answer_tasks(snapshot, chunks, per_user=per_user)])
    return tasks.join(said_before(tasks, snapshot, chunks), on="task_id", how="anti", maintain_order="left")


def said_before(tasks: pl.DataFrame, snapshot: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """task_id of the tasks whose reference, of SEEN_CHARACTERS or more, stands in an earlier chunk of the user."""
    long = tasks.filter(pl.col("reference").str.len_chars() >= SEEN_CHARACTERS)
    earlier = (
        snapshot.select("user_id", "position", "chunk_id")
        .join(chunks.select("chunk_id", "text"), on="chunk_id")
        .join(long.select("task_id", "user_id", "n_history", "reference"), on="user_id")
        .filter(pl.col("position") < pl.col("n_history"))
    )
    return earlier.filter(pl.col("text").str.contains(pl.col("reference"), literal=True)).select("task_id").unique()
