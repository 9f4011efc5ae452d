"""All insight tasks of one DataDAO."""

import polars as pl

from user_embeddings_dagster.personalisation.koai_tasks import ANSWER, KOAI_KINDS, answer_tasks, statement_tasks
from user_embeddings_dagster.personalisation.tasks import QUESTIONS, all_tasks, choice_tasks

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

    `snapshot`: TRAINING_SNAPSHOT's rows of one DataDAO; `chunks`: MASKED_CHUNKS, `koais`: KOAIS and `vectors`
    (chunk_id, vector by the frozen text encoder) of at least its chunks.
    """
    sizes = {"per_user": per_user, "seed": seed}
    choices = [choice_tasks(snapshot, chunks, vectors, kind=kind, **sizes) for kind in QUESTIONS]
    said = [statement_tasks(snapshot, chunks, vectors, koais, kind=kind, **sizes) for kind in KOAI_KINDS]
    return all_tasks([*choices, *said, answer_tasks(snapshot, chunks, per_user=per_user)])
