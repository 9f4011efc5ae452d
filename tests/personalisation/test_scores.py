"""Scores of the personalised LLM: conditions, slices, paired differences, and the two checks on them."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.personalisation.scores import embedding_helps, personalization, reward_rose
from user_embeddings_dagster.schema import INSIGHT_TASKS, SCORES

USERS, CHOICES, FREE = 20, 4, 2


def tasks() -> pl.DataFrame:
    """Four choices, of which one is not kept, and two questions of each of 20 users of two DataDAOs."""
    rows: list[dict[str, Any]] = []
    for user in range(USERS):
        for number in range(CHOICES + FREE):
            free = number >= CHOICES
            rows.append({
                "task_id": f"{user:02}.{number}", "datadao": "zag" if user % 2 else "zig", "user_id": f"u{user // 2}",
                "split": "test", "kind": "answer_as_subject" if free else ("next_thread", "stance")[number % 2],
                "chunk_id": f"{user}.{number}", "n_history": (0, 1, 3, 60)[number % 4], "question": "?",
                "options": [] if free else list("abcd"), "option_chunk_ids": [] if free else list("abcd"),
                "answer": -1 if free else 0, "reference": "a",
                "status": "both_disagree" if number == 3 else "kept", "validator": "similarity",
            })  # fmt: skip
    return pl.DataFrame(rows, schema=INSIGHT_TASKS.schema)


def answers(right: dict[str, float], judged: dict[str, float]) -> pl.DataFrame:
    """Of each condition a share of right choices, and judge scores around a mean."""
    rng, rows = np.random.default_rng(0), []
    for task_id, answer in tasks().select("task_id", "answer").iter_rows():
        luck = rng.random()
        for condition, level in (right if answer >= 0 else judged).items():
            score = float(luck < level) if answer >= 0 else level + 0.05 * luck
            rows.append((task_id, condition, score))
    return pl.DataFrame(rows, schema=["task_id", "condition", "score"], orient="row")


RIGHT = {"nobody": 0.3, "other_user": 0.3, "user_embedding": 0.8, "supervised": 0.7, "text": 0.5}
JUDGED = {"nobody": 0.2, "user_embedding": 0.6, "supervised": 0.4, "other_user": 0.2}


def scored(right: dict[str, float] = RIGHT, judged: dict[str, float] = JUDGED, **both: Any) -> pl.DataFrame:
    found = answers(right, judged) if not both else both["answers"]
    scope = Scope("personalization_scores", "all", 0, "split")
    return personalization(tasks(), found, scope, "v1", "word_overlap")


def value(scores: pl.DataFrame, **where: str) -> float:
    """The one value of these keys."""
    found = scores.filter(**where)
    assert found.height == 1, where
    return found["value"].item()


def test_a_condition_is_scored_over_all_tasks_and_by_slice() -> None:
    """C45: by kind, by length of history, by DataDAO, and of the tasks that the validators kept."""
    scores, given = scored(), answers(RIGHT, JUDGED).join(tasks(), on="task_id")
    SCORES.conform(scores)
    mine = given.filter(condition="user_embedding")
    chosen = mine.filter(pl.col("answer") >= 0)
    same = {"model": "user_embedding", "metric": "accuracy"}
    for slice_, part in {
        "all": chosen,
        "kept": chosen.filter(status="kept"),
        "kind=stance": chosen.filter(kind="stance"),
        "history=0": chosen.filter(n_history=0),
        "history=1": chosen.filter(n_history=1),
        "history=2": chosen.filter(n_history=3),
        "history=50": chosen.filter(n_history=60),
    }.items():
        assert 0 < part.height < mine.height
        assert value(scores, datadao="all", slice=slice_, **same) == pytest.approx(part["score"].mean())
    zig = chosen.filter(datadao="zig")
    assert value(scores, datadao="zig", slice="all", **same) == pytest.approx(zig["score"].mean())
    free = mine.filter(pl.col("answer") < 0)
    judged = scores.filter(model="user_embedding", metric="judge_score", slice="all", datadao="all")
    assert judged["value"].item() == pytest.approx(free["score"].mean())
    assert judged["candidate_set"].item() == "judge:word_overlap"


def test_what_no_task_has_is_left_out_rather_than_zero() -> None:
    scores = scored()
    empty = scores.filter(pl.col("slice").is_in(["history=5", "history=10"]))
    assert empty["value"].null_count() == empty.height


def test_who_is_in_two_datadaos_is_one_person() -> None:
    """Intervals and the rule on few people count people."""
    row = scored().filter(model="nobody", metric="accuracy", slice="all", datadao="all")
    assert (row["n"].item(), row["n_users"].item()) == (USERS * CHOICES, USERS // 2)


def test_differences_are_paired_by_task() -> None:
    """C45: a baseline asked fewer tasks is compared on these alone, and luck that both share cancels."""
    scores = scored()
    row = scores.filter(model="user_embedding - supervised", metric="accuracy_difference", slice="all")
    own, base = (
        scores.filter(model=name, metric="accuracy", slice="all", datadao="all")
        for name in ("user_embedding", "supervised")
    )
    assert row["value"].item() == pytest.approx(own["value"].item() - base["value"].item())
    width = row["ci_high"].item() - row["ci_low"].item()
    assert width < own["ci_high"].item() - own["ci_low"].item()
    given = answers(RIGHT, JUDGED)
    few = given.filter((pl.col("condition") != "text") | pl.col("task_id").str.ends_with(".0"))
    some = scored(answers=few).filter(model="user_embedding - text", metric="accuracy_difference", slice="all")
    assert some["n"].item() == USERS
    first = given.filter(pl.col("task_id").str.ends_with(".0"))
    means = [first.filter(condition=name)["score"].mean() for name in ("user_embedding", "text")]
    assert some["value"].item() == pytest.approx(means[0] - means[1])


def test_the_order_of_the_answers_changes_nothing() -> None:
    given = answers(RIGHT, JUDGED)
    assert scored(answers=given.sample(fraction=1.0, shuffle=True, seed=1)).equals(scored(answers=given))


@pytest.mark.parametrize(
    ("changed", "passes"),
    [({}, True), ({"user_embedding": 0.3}, False), ({"other_user": 0.8}, False), ({"nobody": 0.8}, False)],
)
def test_the_embedding_must_help_and_be_the_users_own(changed: dict[str, float], passes: bool) -> None:
    """C45: better than nobody's is not enough where anybody's would do."""
    outcome = embedding_helps(scored(RIGHT | changed))
    assert outcome.passed is passes


def test_without_answers_for_others_nothing_is_shown_to_help() -> None:
    right = {name: share for name, share in RIGHT.items() if name != "other_user"}
    assert not embedding_helps(scored(right)).passed


@pytest.mark.parametrize(
    ("right", "judged", "passes"),
    [
        ({}, {}, True),
        ({}, {"user_embedding": 0.4}, False),
        ({}, {"user_embedding": 0.3}, False),
        ({"user_embedding": 0.3}, {}, False),
    ],
)
def test_the_reward_must_rise_and_cost_no_choices(
    right: dict[str, float], judged: dict[str, float], passes: bool
) -> None:
    """C44: equal, worse, or bought with accuracy is no rise."""
    assert reward_rose(scored(RIGHT | right, JUDGED | judged)).passed is passes


def test_without_free_form_answers_no_reward_rose() -> None:
    given = answers(RIGHT, JUDGED).join(tasks().filter(pl.col("answer") >= 0), on="task_id", how="semi")
    assert not reward_rose(scored(answers=given)).passed
