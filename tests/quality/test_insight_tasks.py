"""C72: each check on insight tasks passes on good rows and fails on its own bad one."""

from collections.abc import Callable

import polars as pl
import pytest

from user_embeddings_dagster.quality.insight_tasks import (
    answers_balanced,
    options_distinct,
    questions_tell_nothing,
    some_tasks_kept,
)
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.schema import INSIGHT_TASKS

SECRET = "Alice Liddell lives here"


def tasks() -> pl.DataFrame:
    rows = [
        {
            "task_id": f"{n:032x}", "datadao": "zig", "user_id": "u", "split": "test", "kind": "stance",
            "chunk_id": f"c{n}", "n_history": 3, "question": "Which is SUBJECT's?",
            "options": [f"{SECRET} {n} {place}" for place in range(4)],
            "option_chunk_ids": [f"c{n}" if place == n % 4 else f"o{place}" for place in range(4)], "answer": n % 4,
            "reference": f"{SECRET} {n} {n % 4}", "status": "kept", "context_answer": 0, "search_answer": None,
            "validator": "similarity",
        }
        for n in range(80)
    ]  # fmt: skip
    free = {
        **rows[0], "task_id": "f" * 32, "kind": "answer_as_subject", "question": "What to this?\nhello",
        "options": [], "option_chunk_ids": [], "answer": -1, "reference": SECRET,
    }  # fmt: skip
    return INSIGHT_TASKS.conform(pl.DataFrame([*rows, free]))


FIRST = pl.int_range(pl.len()) == 0
FREE = pl.col("answer") == -1
Check = Callable[[pl.DataFrame], CheckOutcome]
BAD: dict[str, tuple[Check, pl.Expr]] = {
    "skewed": (answers_balanced, pl.when(FREE).then("answer").otherwise(pl.lit(0)).alias("answer")),
    "no place": (answers_balanced, pl.when(FIRST).then(pl.lit(4)).otherwise("answer").alias("answer")),
    "same but for case": (
        options_distinct,
        pl.when(FIRST)
        .then(pl.concat_list(pl.col("options").list.head(3), pl.col("options").list.get(0).str.to_uppercase()))
        .otherwise("options")
        .alias("options"),
    ),
    "blank": (
        options_distinct,
        pl.col("options").list.eval(pl.element().str.replace(f"{SECRET} 0 3", " ")).alias("options"),
    ),
    "another reference": (
        options_distinct,
        pl.when(FIRST).then(pl.lit("x")).otherwise("reference").alias("reference"),
    ),
    "one chunk twice": (
        options_distinct,
        pl.col("option_chunk_ids").list.eval(pl.element().str.replace("o2", "o3")).alias("option_chunk_ids"),
    ),
    "free with options": (
        options_distinct,
        pl.when(FREE).then(pl.lit(["a"], pl.List(pl.String))).otherwise("options").alias("options"),
    ),
    "a question of its own": (
        questions_tell_nothing,
        pl.when(FIRST).then(pl.col("reference")).otherwise("question").alias("question"),
    ),
    "given away": (
        questions_tell_nothing,
        pl.when(FREE).then(pl.lit(f"He: {SECRET}!")).otherwise("question").alias("question"),
    ),
    "none kept": (some_tasks_kept, pl.when(FREE).then(pl.lit("too_short")).otherwise("status").alias("status")),
}  # fmt: skip


@pytest.mark.parametrize("check", [answers_balanced, options_distinct, questions_tell_nothing, some_tasks_kept])
def test_good_rows_and_no_rows_pass(check: Check) -> None:
    assert check(tasks()).passed
    assert check(INSIGHT_TASKS.empty()).passed


@pytest.mark.parametrize("name", BAD)
def test_each_check_fails_on_its_own_bad_row(name: str) -> None:
    check, spoiled = BAD[name]
    outcome = check(tasks().with_columns(spoiled))
    assert not outcome.passed
    assert SECRET not in repr(outcome)
