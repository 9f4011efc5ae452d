"""Insight tasks as the jobs read them: what has gone since they were made moves no task beyond its own chunk."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from granting import grant
from insight_platform import platform

from training.user_states import StateHistories
from user_embeddings_dagster.personalisation.build import build_tasks
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.privacy.erasure import stores
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.schema import INSIGHT_TASKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake

VALIDATED = {"status": "kept", "context_answer": 0, "search_answer": 0, "validator": "similarity"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    snapshot, chunks, koais, vectors = platform(overlap=False)
    made = build_tasks(snapshot, chunks, koais, vectors, per_user=3, seed=0)
    lake.commit(TRAINING_SNAPSHOT, snapshot)
    lake.commit(INSIGHT_TASKS, made.with_columns(**{name: pl.lit(value) for name, value in VALIDATED.items()}), "zig")
    grant(lake, "zig", snapshot["user_id"])
    return lake


def histories(snapshot: pl.DataFrame) -> tuple[StateHistories, dict[str, int]]:
    """States that name the last chunk read, and the chunk of each name."""
    rows = snapshot.sort("datadao", "user_id", "position").with_row_index("row")
    users = list(rows.select("datadao", "user_id").unique(maintain_order=True).iter_rows())
    ends = rows.group_by("datadao", "user_id", maintain_order=True).len()["len"].cum_sum()
    names = np.arange(rows.height, dtype=np.float32)[:, None]
    known = StateHistories(users, np.array([0, *ends]), names, np.array([-1.0]))
    return known, dict(rows.select("chunk_id", "row").iter_rows())


def read_by(lake: Lake, tasks: pl.DataFrame) -> list[set[int]]:
    """Which chunks the states that each task is asked with have read last."""
    known, _ = histories(consented_snapshot(lake))
    found = []
    for datadao, user, seen in tasks.select("datadao", "user_id", "n_history").iter_rows():
        states, counted = known.batch([(datadao, user)], [seen], 64)
        found.append({int(name) for name in states[counted].flatten().tolist()})
    return found


@pytest.mark.parametrize("oldest", [0, 1, 2])
def test_what_went_since_lets_no_embedding_read_the_chunk_it_is_asked_about(lake: Lake, oldest: int):
    """C42, C45: after a purge or an erasure of each user's oldest chunks a task counts those that are left."""
    before = consented_tasks(lake, consented_snapshot(lake))
    snapshot = lake.read("training_snapshot")
    gone = snapshot.filter(pl.col("position") < oldest)["chunk_id"].to_list()
    if gone:
        stores.erase_tables(Journal([], chunks={"zig": sorted(gone)}), Layout(lake.root))
    left = consented_snapshot(lake)
    assert left["position"].max() == snapshot["position"].max() - oldest, "no gaps"
    tasks = consented_tasks(lake, left)
    assert 0 < tasks.height <= before.height
    _, rows = histories(left)
    for chunk, read in zip(tasks["chunk_id"], read_by(lake, tasks), strict=True):
        assert rows[chunk] not in read and (not rows[chunk] or max(read) == rows[chunk] - 1 or -1 in read)


def test_a_history_that_grew_is_not_asked_about(lake: Lake):
    """It may say what the task asks: the tasks are made again first."""
    snapshot = lake.read("training_snapshot")
    first = snapshot.filter(position=0)
    earlier = first.with_columns(chunk_id=pl.col("chunk_id") + "-earlier")
    grown = pl.concat([earlier, snapshot.with_columns(pl.col("position") + 1)])
    lake.commit(TRAINING_SNAPSHOT, TRAINING_SNAPSHOT.conform(grown))
    assert consented_tasks(lake, consented_snapshot(lake)).is_empty()
