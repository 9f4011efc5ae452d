"""Insight tasks: questions about a held-out future chunk, with the answer that it gives.

Each task is about the chunk at position n of a user's history: the embedding that answers it has seen the n chunks
before and nothing of this one. The options are from chunks of the same DataDAO, split and time, nearest in topic.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.personalisation.matched import Moments, matched_others
from user_embeddings_dagster.storage.lance_tables import stacked

VERSION = "1"
OPTIONS = 4
MAX_CHARACTERS = 240
CONTRIBUTION, THREAD = "next_contribution", "next_thread"
QUESTIONS = {
    CONTRIBUTION: "What does SUBJECT write next?",
    THREAD: "Which conversation does SUBJECT join next?",
}


def contributions(chunks: pl.DataFrame) -> list[str]:
    """What SUBJECT says in each of `chunks` (speakers, turns), at most `MAX_CHARACTERS` from the start."""
    return [
        "\n".join(turn for speaker, turn in zip(speakers, turns, strict=True) if speaker == "SUBJECT")[:MAX_CHARACTERS]
        for speakers, turns in chunks.select("speakers", "turns").iter_rows()
    ]


def openings(chunks: pl.DataFrame) -> list[str]:
    """What others say before SUBJECT's first turn in each of `chunks`: the last `MAX_CHARACTERS`; '' for nothing."""
    before = []
    for speakers, turns in chunks.select("speakers", "turns").iter_rows():
        first = speakers.index("SUBJECT")
        lines = [f"{speaker}: {turn}" for speaker, turn in zip(speakers[:first], turns[:first], strict=True)]
        before.append("\n".join(lines)[-MAX_CHARACTERS:])
    return before


TEXTS = {CONTRIBUTION: contributions, THREAD: openings}


def choice_tasks(
    snapshot: pl.DataFrame, chunks: pl.DataFrame, vectors: pl.DataFrame, *, kind: str, per_user: int, seed: int
) -> pl.DataFrame:
    """Tasks of one kind and one DataDAO: the last `per_user` chunks of each user that have three matched others.

    `snapshot`: TRAINING_SNAPSHOT's rows; `chunks`: MASKED_CHUNKS; `vectors`: chunk_id, vector of the whole chunk by the
    frozen text encoder (the topic). Columns of INSIGHT_TASKS, sorted by task_id.
    """
    parts = [
        _of_split(part, kind=kind, per_user=per_user, seed=seed)
        for _, part in sorted(
            snapshot.join(chunks.select("chunk_id", "speakers", "turns"), on="chunk_id")
            .join(vectors, on="chunk_id")
            .group_by("split")
        )
    ]
    return pl.concat(parts).sort("task_id")


def _of_split(rows: pl.DataFrame, *, kind: str, per_user: int, seed: int) -> pl.DataFrame:
    rows = rows.sort("started_at", "chunk_id")
    texts = TEXTS[kind](rows)
    usable = np.array([len(text.strip()) > 0 for text in texts])
    codes = rows.select(pl.col("user_id", "window_id").rank("dense").cast(pl.Int64))
    moments = Moments(codes["user_id"].to_numpy(), codes["window_id"].to_numpy(), unit(stacked(rows["vector"])))
    last = pl.int_range(pl.len()).over("user_id")
    asked = rows.with_row_index("row").sort("user_id", "position", descending=[False, True])
    asked = asked.filter(pl.Series(usable[asked["row"].to_numpy()])).filter(last < per_user)["row"].to_numpy()
    others = matched_others(moments, asked, OPTIONS - 1, usable)
    complete = others[:, 0] >= 0
    return _frame(rows, asked[complete], others[complete], texts, kind, seed)


def _frame(
    rows: pl.DataFrame, asked: np.ndarray, others: np.ndarray, texts: list[str], kind: str, seed: int
) -> pl.DataFrame:
    ids = rows["chunk_id"].to_list()
    task_ids = [content_id("insight", kind, ids[row]) for row in asked]
    # The answer's place from the task's own id: the same whatever other tasks there are.
    places = [int(content_id("place", str(seed), task_id)[:8], 16) % OPTIONS for task_id in task_ids]
    chosen = [_placed(others[i].tolist(), int(row), places[i]) for i, row in enumerate(asked)]
    about = rows[asked].select("datadao", "user_id", "split", "chunk_id", n_history="position")
    return about.with_columns(
        task_id=pl.Series(task_ids, dtype=pl.String),
        kind=pl.lit(kind),
        question=pl.lit(QUESTIONS[kind]),
        options=pl.Series([[texts[row] for row in picked] for picked in chosen], dtype=pl.List(pl.String)),
        option_chunk_ids=pl.Series([[ids[row] for row in picked] for picked in chosen], dtype=pl.List(pl.String)),
        answer=pl.Series(places, dtype=pl.Int64),
    )


def _placed(others: list[int], gold: int, place: int) -> list[int]:
    return [*others[:place], gold, *others[place:]]


def all_tasks(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Tasks of several kinds and DataDAOs, one row each. Raises ValueError on a task that is there twice."""
    tasks = pl.concat(list(parts)).sort("task_id")
    if tasks["task_id"].is_duplicated().any():
        raise ValueError("a task is there twice")
    return tasks
