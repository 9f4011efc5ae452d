"""Insight tasks: about a chunk that the embedding has not seen, with matched options."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from user_embeddings_dagster.personalisation.matched import Moments, matched_others
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION, OPTIONS, THREAD, all_tasks, choice_tasks

USERS, CHUNKS = 8, 6


def platform(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    rng, rows, start = np.random.default_rng(seed), [], datetime(2024, 1, 1, tzinfo=UTC)
    for user in range(USERS):
        for position in range(CHUNKS):
            at = start + timedelta(hours=position * USERS + user)
            rows.append({
                "chunk_id": f"c{user}-{position}", "datadao": "zig", "user_id": f"u{user}",
                "split": "test" if user % 2 else "train", "position": position, "started_at": at, "ended_at": at,
                "window_id": f"w{user // 2}-{position}", "thread_id": "t",  # pairs of users share a window
                "speakers": ["<P1>", "SUBJECT", "<P1>", "SUBJECT"],
                "turns": [f"q{user}-{position}", f"a{user}-{position}", "x", f"b{user}-{position}"],
                "message_ids": [f"m{user // 2}-{position}-{turn}" for turn in range(4)],
                "vector": rng.normal(size=4).tolist(),
            })  # fmt: skip
    frame = pl.DataFrame(rows)
    snapshot = frame.drop("speakers", "turns", "message_ids", "vector")
    return snapshot, frame.select("chunk_id", "speakers", "turns", "message_ids"), frame.select("chunk_id", "vector")


def test_every_task_asks_about_its_own_chunk_and_offers_three_others_of_its_split() -> None:
    """C43: from held-out future chunks; the embedding has seen the n_history chunks before."""
    snapshot, chunks, vectors = platform()
    tasks = choice_tasks(snapshot, chunks, vectors, kind=CONTRIBUTION, per_user=3, seed=0)
    about = {row["chunk_id"]: row for row in snapshot.iter_rows(named=True)}
    assert tasks.height == USERS * 3
    for task in tasks.iter_rows(named=True):
        assert task["option_chunk_ids"][task["answer"]] == task["chunk_id"]
        assert task["n_history"] == about[task["chunk_id"]]["position"]
        assert task["n_history"] >= CHUNKS - 3  # the last ones
        user, position = task["chunk_id"][1:].split("-")
        assert task["options"][task["answer"]] == f"a{user}-{position}\nb{user}-{position}"
        others = [about[name] for i, name in enumerate(task["option_chunk_ids"]) if i != task["answer"]]
        assert len({row["user_id"] for row in others} | {task["user_id"]}) == OPTIONS
        assert {row["split"] for row in others} == {task["split"]}
        own = set(snapshot.filter(user_id=task["user_id"])["window_id"])
        assert not own & {row["window_id"] for row in others}


def test_a_thread_is_what_others_said_before_subject_joined() -> None:
    snapshot, chunks, vectors = platform()
    tasks = choice_tasks(snapshot, chunks, vectors, kind=THREAD, per_user=2, seed=0)
    for task in tasks.iter_rows(named=True):
        assert task["options"][task["answer"]] == f"<P1>: q{task['chunk_id'][1:]}"
        assert not any("SUBJECT:" in option for option in task["options"])


def test_answers_are_spread_over_the_places_and_stay_where_they_are() -> None:
    snapshot, chunks, vectors = platform()
    few = choice_tasks(snapshot, chunks, vectors, kind=CONTRIBUTION, per_user=1, seed=0)
    all_ = choice_tasks(snapshot, chunks, vectors, kind=CONTRIBUTION, per_user=CHUNKS, seed=0)
    assert set(all_["answer"]) == set(range(OPTIONS))
    assert few.join(all_, on=["task_id", "answer", "options"], how="semi").height == few.height
    threads = choice_tasks(snapshot, chunks, vectors, kind=THREAD, per_user=1, seed=0)
    assert all_tasks([few, threads])["task_id"].is_unique().all()


def test_distractors_are_the_nearest_in_topic_among_those_near_in_time() -> None:
    topics = np.eye(4)[[0, 1, 0, 2, 0, 0]]
    moments = Moments(np.array([0, 1, 2, 3, 4, 0]), np.arange(6), topics)
    usable = np.ones(6, dtype=bool)
    assert set(matched_others(moments, np.array([0]), 2, usable)[0]) == {2, 4}
    assert set(matched_others(moments, np.array([0]), 2, usable & (np.arange(6) != 2))[0]) == {4, 1}
    assert matched_others(moments, np.array([0]), 5, usable)[0].tolist() == [-1] * 5
