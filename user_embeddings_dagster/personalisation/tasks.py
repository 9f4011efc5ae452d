"""Insight tasks: questions about a held-out future chunk, with the answer that it gives.

Each task is about the chunk at position n of a user's history: the embedding that answers it has seen the n chunks
before and nothing of this one; messages that this chunk shares with an earlier one are left out of it. The options are
from chunks of the same DataDAO, split and time, nearest in topic.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.personalisation.matched import Moments, matched_others
from user_embeddings_dagster.personalisation.unseen import heard_by, unseen_turns
from user_embeddings_dagster.schema import INSIGHT_TASKS
from user_embeddings_dagster.storage.lance_tables import stacked

VERSION = "3"
OPTIONS = 4
MAX_CHARACTERS = 240
VALIDATION = ("status", "context_answer", "search_answer", "validator")
TASKS = INSIGHT_TASKS.empty().drop(VALIDATION)
"""Columns of a task before its validation."""
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
        first = speakers.index("SUBJECT") if "SUBJECT" in speakers else 0
        lines = [f"{speaker}: {turn}" for speaker, turn in zip(speakers[:first], turns[:first], strict=True)]
        before.append("\n".join(lines)[-MAX_CHARACTERS:])
    return before


TEXTS = {CONTRIBUTION: contributions, THREAD: openings}


@dataclass(frozen=True)
class Offers:
    """What tasks of one kind and split are made of: a row is something that one person said in one chunk.

    `rows`: chunk_id, datadao, user_id, split, position, window_id, messages, vector (the topic), sorted by time;
    `texts`: what is offered as an option, '' for what cannot be; `groups` [n]: an option is only ever beside others of
    its group; `heard`: every message of any chunk of a user.
    """

    rows: pl.DataFrame
    texts: list[str]
    groups: np.ndarray
    heard: Mapping[str, frozenset[str]]


def choice_tasks(
    snapshot: pl.DataFrame, chunks: pl.DataFrame, vectors: pl.DataFrame, *, kind: str, per_user: int, seed: int
) -> pl.DataFrame:
    """Tasks of one kind and one DataDAO: the last `per_user` chunks of each user that have three matched others.

    `snapshot`: TRAINING_SNAPSHOT's rows; `chunks`: MASKED_CHUNKS; `vectors`: chunk_id, vector of the whole chunk by the
    frozen text encoder (the topic). Columns of INSIGHT_TASKS but those of the validation, sorted by task_id.
    """
    parts, everything = [TASKS], unseen_turns(snapshot, chunks)
    heard = heard_by(everything)
    for rows in by_split(everything.join(vectors, on="chunk_id")):
        offers = Offers(rows, TEXTS[kind](rows), np.zeros(rows.height, dtype=np.int64), heard)
        parts.append(asked(offers, kind, QUESTIONS[kind], per_user, seed))
    return pl.concat(parts).sort("task_id")


def by_split(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of each split, in time order."""
    for _, part in sorted(rows.group_by("split")):
        yield part.sort("started_at", "chunk_id", maintain_order=True)


def asked(offers: Offers, kind: str, question: str, per_user: int, seed: int) -> pl.DataFrame:
    """Tasks of one kind and split: the last `per_user` offers of each user that have three matched others."""
    rows, found = offers.rows, []
    usable = np.array([len(text.strip()) > 0 for text in offers.texts], dtype=bool)
    moments = _moments(offers)
    last = pl.int_range(pl.len()).over("user_id")
    order = rows.with_row_index("row").filter(pl.Series(usable, dtype=pl.Boolean))
    order = order.sort("user_id", "position", "row", descending=[False, True, True])
    wanted = order.filter(last < per_user)["row"].to_numpy()
    for group in np.unique(offers.groups[wanted]):
        chosen = wanted[offers.groups[wanted] == group]
        others = matched_others(moments, chosen, OPTIONS - 1, usable & (offers.groups == group))
        complete = others[:, 0] >= 0
        found.append(_frame(offers, chosen[complete], others[complete], kind, question, seed))
    return pl.concat([TASKS, *found])


def _moments(offers: Offers) -> Moments:
    rows = offers.rows
    codes = rows.select(pl.col("user_id", "window_id").rank("dense").cast(pl.Int64))
    said = pl.Series([" ".join(text.casefold().split()) for text in offers.texts], dtype=pl.String)
    return Moments(
        codes["user_id"].to_numpy(),
        codes["window_id"].to_numpy(),
        unit(stacked(rows["vector"])),
        said.rank("dense").to_numpy().astype(np.int64),
        rows["messages"].to_list(),
        {code: offers.heard[user] for user, code in zip(rows["user_id"], codes["user_id"], strict=True)},
    )


def _frame(offers: Offers, chosen: np.ndarray, others: np.ndarray, kind: str, question: str, seed: int) -> pl.DataFrame:
    ids = offers.rows["chunk_id"].to_list()
    task_ids = [content_id("insight", kind, ids[row]) for row in chosen]
    # The answer's place from the task's own id: the same whatever other tasks there are.
    places = [int(content_id("place", str(seed), task_id)[:8], 16) % OPTIONS for task_id in task_ids]
    picked = [_placed(others[i].tolist(), int(row), places[i]) for i, row in enumerate(chosen)]
    about = offers.rows[chosen].select("datadao", "user_id", "split", "chunk_id", n_history="position")
    tasks = about.with_columns(
        task_id=pl.Series(task_ids, dtype=pl.String),
        kind=pl.lit(kind),
        question=pl.lit(question),
        options=pl.Series([[offers.texts[row] for row in rows] for rows in picked], dtype=pl.List(pl.String)),
        option_chunk_ids=pl.Series([[ids[row] for row in rows] for rows in picked], dtype=pl.List(pl.String)),
        answer=pl.Series(places, dtype=pl.Int64),
        reference=pl.Series([offers.texts[row] for row in chosen], dtype=pl.String),
    )
    return tasks.select(TASKS.columns)


def _placed(others: list[int], gold: int, place: int) -> list[int]:
    return [*others[:place], gold, *others[place:]]


def all_tasks(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Tasks of several kinds and DataDAOs, one row each. Raises ValueError on a task that is there twice."""
    tasks = pl.concat(list(parts)).sort("task_id")
    if tasks["task_id"].is_duplicated().any():
        raise ValueError("a task is there twice")
    return tasks
