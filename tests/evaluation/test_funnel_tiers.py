"""C50: the tiers from chunks to training tasks: caps and whether they left anything out, reasons, tokens, cost."""

import json
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from user_embeddings_dagster.evaluation.funnel import (
    FunnelTables,
    Prices,
    data_funnel,
    funnel_violations,
    model_stages,
)
from user_embeddings_dagster.evaluation.plots import funnel_bars
from user_embeddings_dagster.schema import DATA_FUNNEL, INSIGHT_TASKS


def tasks(n: int = 10, kept: int = 6) -> pl.DataFrame:
    """Tasks of 100 characters each, 25 tokens, of five users in turn; every second kept one is of the test split."""
    lost = ["context_disagrees", "both_disagree", "both_disagree"]
    rows = [
        {
            "task_id": f"t{i}", "datadao": "zig", "user_id": f"u{i % 5}", "split": "train" if i % 2 else "test",
            "kind": "next_thread", "chunk_id": f"c{i}", "n_history": 3, "question": "q" * 40, "options": ["o" * 10] * 4,
            "option_chunk_ids": ["c"] * 4, "answer": 0, "reference": "r" * 20,
            "status": "kept" if i < kept else lost[i % 3], "context_answer": 0, "search_answer": None,
            "validator": "similarity",
        }
        for i in range(n)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=INSIGHT_TASKS.schema)


def tables(**changes: Any) -> FunnelTables:
    ids = [f"c{n}" for n in range(8)]
    empty = FunnelTables(
        raw_files=pl.DataFrame({"n_messages": [8], "n_rejected": [0]}),
        rejected_records=pl.DataFrame({"reason": []}, schema={"reason": pl.String}),
        dropped_messages=pl.DataFrame(schema={"reason": pl.String, "n": pl.Int64}),
        messages=pl.DataFrame({"author_id": ["u"] * 8, "is_subject": [True] * 8, "text": ["four"] * 8}),
        masked_chunks=pl.DataFrame({"chunk_id": ids, "user_id": ["u"] * 8, "n_tokens": [100] * 8}),
        insight_tasks=tasks(),
    )
    return replace(empty, **changes)


def by_stage(funnel: pl.DataFrame) -> dict[str, dict[str, Any]]:
    assert funnel.schema == DATA_FUNNEL.schema
    return {row["stage"]: row for row in funnel.iter_rows(named=True)}


def test_tasks_are_stages_with_reasons_tokens_and_cost() -> None:
    """C50: asked, kept, and why not."""
    rows = by_stage(
        data_funnel("zig", tables(stats={"insight_tasks": {"usd": 0.75, "cap_per_user": 2, "over_cap": 0}}))
    )
    asked, kept = rows["insight_tasks"], rows["insight_tasks_kept"]
    assert (asked["n"], asked["n_users"], asked["n_tokens"], asked["estimated_usd"]) == (10, 5, 250, 0.75)
    assert (kept["n"], kept["n_users"], kept["n_tokens"]) == (6, 5, 150)
    reasons = json.loads(kept["drop_reasons"])
    assert reasons == {"both_disagree": 2, "context_disagrees": 2} and kept["dropped"] == 4 == 10 - 6
    assert json.loads(asked["caps"]) == {"per_user": {"cap": 2, "left_out": 0}}


def test_chunks_say_their_caps_and_whether_they_left_anything_out() -> None:
    counted = {
        "too_little_said": 3,
        "capped_chunks": 7,
        "orphans": 99,
        "cap_max_chunks_per_user": 25,
        "cap_max_users": 400,
    }
    counted["unsampled_user_chunks"] = 0
    rows = by_stage(data_funnel("zig", tables(stats={"masked_chunks": counted})))
    assert json.loads(rows["chunks"]["caps"]) == {
        "max_chunks_per_user": {"cap": 25, "left_out": 7}, "max_users": {"cap": 400, "left_out": 0},
    }  # fmt: skip
    reasons = json.loads(rows["chunks"]["drop_reasons"])
    assert reasons == {"too_little_said": 3, "capped_chunks": 7, "unsampled_user_chunks": 0}
    assert rows["chunks"]["dropped"] == 10


def test_a_stage_that_is_not_there_is_no_row() -> None:
    """Neither a table without a commit nor a decoder that was not trained is a stage of none."""
    rows = by_stage(data_funnel("zig", tables(insight_tasks=None)))
    assert not {"insight_tasks", "insight_tasks_kept", "supervised_tasks", "reward_tasks"} & rows.keys()
    assert rows["chunks"]["caps"] is None and rows["chunks"]["drop_reasons"] is None
    assert model_stages([tasks()], {}).is_empty() and model_stages([], {}).schema == DATA_FUNNEL.schema


def test_what_the_decoders_were_trained_on_is_counted_over_all_datadaos() -> None:
    """C50: three kept training tasks of 25 tokens in each of two DataDAOs."""
    trained = {
        "supervised_decoder": {"train_tasks": 6, "train_users": 3},
        "personalised_decoder": {"train_tasks": 4, "cap_tasks": 4, "over_cap": 2},
    }
    both = [tasks(), tasks().lazy()]
    rows = by_stage(model_stages(both, trained, Prices(training=2.0)))
    supervised, reward = rows["supervised_tasks"], rows["reward_tasks"]
    assert supervised["datadao"] == reward["datadao"] == "all"
    assert (supervised["n"], supervised["n_tokens"], supervised["n_users"]) == (6, 150, 3)
    assert supervised["estimated_usd"] == pytest.approx(150 * 2e-6) and supervised["caps"] is None
    assert (reward["n"], reward["n_users"]) == (4, None)
    assert json.loads(reward["caps"]) == {"tasks": {"cap": 4, "left_out": 2}}


def test_the_chain_ends_in_what_was_trained_on() -> None:
    """A decoder cannot be trained on more tasks than were asked in all DataDAOs; control: on exactly as many."""
    both = [data_funnel("zig", tables()), data_funnel("ant", tables())]
    within = pl.concat([*both, model_stages([tasks()], {"supervised_decoder": {"train_tasks": 20}})])
    assert funnel_violations(within) == []
    beyond = pl.concat([*both, model_stages([tasks()], {"personalised_decoder": {"train_tasks": 21}})])
    assert funnel_violations(beyond) == ["all: reward_tasks after insight_tasks: n grows from 20 to 21"]
    grown = both[0].with_columns(n=pl.when(pl.col("stage") == "insight_tasks_kept").then(11).otherwise("n"))
    assert funnel_violations(grown) == ["zig: insight_tasks_kept after insight_tasks: n grows from 10 to 11"]


def test_the_plot_marks_caps_that_left_something_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_EMBEDDINGS_REPORT_MIN_PEOPLE", "1")
    biting = {"masked_chunks": {"capped_chunks": 7, "cap_max_chunks_per_user": 25}}
    idle = {"masked_chunks": {"capped_chunks": 0, "cap_max_chunks_per_user": 25}}
    plots = [funnel_bars(data_funnel("zig", tables(stats=stats))) for stats in (biting, idle, {})]
    assert plots[0] != plots[1] and plots[1] == plots[2]
