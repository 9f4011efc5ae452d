"""Insight tasks beyond what comes next: SUBJECT's stance, what SUBJECT knows or is, and an answer in SUBJECT's words.

Stance and knowledge ask which of four statements (KOAIS) is SUBJECT's; the question is the same for everybody, so it
gives nothing away. A statement rests on turns of its chunk: one that rests on a turn that an earlier chunk shows, too,
makes no task.
"""

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.personalisation.tasks import (
    MAX_CHARACTERS,
    TASKS,
    Offers,
    asked,
    by_split,
    contributions,
    openings,
)
from user_embeddings_dagster.personalisation.unseen import heard_by, unseen_turns

STANCE, KNOWLEDGE, ANSWER = "stance", "knowledge", "answer_as_subject"
KOAI_KINDS = {STANCE: ("opinion",), KNOWLEDGE: ("knowledge", "attribute")}
QUESTIONS = {
    STANCE: "Which of these opinions is SUBJECT's?",
    KNOWLEDGE: "Which of these statements about what they know, have or are is SUBJECT's?",
    ANSWER: "What does SUBJECT say to this?",
}


def statement_tasks(
    snapshot: pl.DataFrame,
    chunks: pl.DataFrame,
    vectors: pl.DataFrame,
    koais: pl.DataFrame,
    *,
    kind: str,
    per_user: int,
    seed: int,
) -> pl.DataFrame:
    """Tasks of kind STANCE or KNOWLEDGE: one statement of each of the last `per_user` chunks that have any.

    Which of a chunk's statements, a hash decides. Options are statements of the same KOAI kind, of others, nearest in
    the topic of their chunks. Arguments and result as of `tasks.choice_tasks`; `koais`: KOAIS of the chunks.
    """
    rows = unseen_turns(snapshot, chunks)
    new = pl.col("evidence").list.set_difference("turn_numbers").list.len() == 0
    said = (
        rows.join(koais.select("chunk_id", "koai_id", "kind", "statement", "evidence"), on="chunk_id")
        .filter(pl.col("kind").is_in(KOAI_KINDS[kind]), new, pl.col("evidence").list.len() > 0)
        .join(vectors, on="chunk_id")
    )
    draw = pl.Series([content_id("draw", str(seed), name) for name in said["koai_id"]], dtype=pl.String)
    one = said.with_columns(draw=draw).sort("draw").unique("chunk_id", keep="first", maintain_order=True)
    parts, heard = [TASKS], heard_by(rows)
    for part in by_split(one):
        texts = [_plain(statement) for statement in part["statement"]]
        groups = part["kind"].replace_strict(dict(zip(KOAI_KINDS[kind], range(9), strict=False)), return_dtype=pl.Int64)
        offers = Offers(part, texts, groups.to_numpy(), heard)
        parts.append(asked(offers, kind, QUESTIONS[kind], per_user, seed))
    return pl.concat(parts).sort("task_id")


def answer_tasks(snapshot: pl.DataFrame, chunks: pl.DataFrame, *, per_user: int) -> pl.DataFrame:
    """Free-form tasks: others' last words before SUBJECT's first turn, and what SUBJECT then says, as the reference.

    Of the last `per_user` chunks of each user in which somebody speaks before SUBJECT. Result as of
    `tasks.choice_tasks`, with no options and answer -1.
    """
    rows = unseen_turns(snapshot, chunks)
    rows = rows.with_columns(
        opening=pl.Series(openings(rows), dtype=pl.String),
        reference=pl.Series(contributions(rows), dtype=pl.String).str.strip_chars(),
    ).filter(pl.col("opening").str.strip_chars() != "", pl.col("reference") != "")
    last = pl.int_range(pl.len()).over("user_id")
    rows = rows.sort("user_id", "position", descending=[False, True]).filter(last < per_user)
    nobody = pl.lit([], dtype=pl.List(pl.String))
    tasks = rows.select(
        "datadao", "user_id", "split", "chunk_id", "reference",
        task_id=pl.Series([content_id("insight", ANSWER, name) for name in rows["chunk_id"]], dtype=pl.String),
        kind=pl.lit(ANSWER),
        n_history="position",
        question=pl.lit(QUESTIONS[ANSWER] + "\n") + pl.col("opening"),
        options=nobody,
        option_chunk_ids=nobody,
        answer=pl.lit(-1, pl.Int64),
    )  # fmt: skip
    return tasks.select(TASKS.columns).sort("task_id")


def _plain(statement: str) -> str:
    """A statement without the speaker that the cues' extractor puts before it, at most MAX_CHARACTERS."""
    return statement.removeprefix("SUBJECT: ")[:MAX_CHARACTERS]
