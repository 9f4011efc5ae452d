"""The funnel counts what reaches each stage, accounts for every loss, and its checks catch a wrong one (C50)."""

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from user_embeddings_dagster.evaluation.funnel import (
    FunnelTables,
    Prices,
    cap_violations,
    data_funnel,
    funnel_violations,
)
from user_embeddings_dagster.schema import DATA_FUNNEL

AT = datetime(2024, 1, 1, tzinfo=UTC)
NEITHER = ("insight_tasks", "stats")


def tables() -> FunnelTables:
    chunk_ids = [f"c{n}" for n in range(6)]
    users = ["u1", "u1", "u1", "u2", "u2", "u3"]
    return FunnelTables(
        raw_files=pl.DataFrame({"n_messages": [8, 4], "n_rejected": [1, 0]}),
        rejected_records=pl.DataFrame({"reason": ["truncated"]}),
        dropped_messages=pl.DataFrame({"reason": ["bot", "exact_duplicate", "bot"], "n": [1, 1, 1]}),
        messages=pl.DataFrame(
            {
                "author_id": ["u1", "u1", "u1", "u2", "u2", "u3", "p", None, None],
                "is_subject": [True] * 6 + [False] * 3,
                "text": ["four"] * 9,
            }
        ),
        consenting=pl.DataFrame({"user_id": ["u1", "u2", "u3", "somebody else"]}),
        masked_chunks=pl.DataFrame({"chunk_id": chunk_ids, "user_id": users, "n_tokens": [100] * 6}),
        chunk_summaries=pl.DataFrame({"chunk_id": chunk_ids, "user_id": users, "text": ["x" * 40] * 6}),
        embedded=pl.DataFrame({"chunk_id": chunk_ids}),
        snapshot=pl.DataFrame(
            {"datadao": ["zig"] * 5, "chunk_id": chunk_ids[:5], "split": ["train"] * 3 + ["test"] * 2}
        ),
        hard_negatives=pl.DataFrame({"chunk_id": ["c0", "c0", "c1", "foreign"], "negative_chunk_id": list("abcd")}),
    )


def test_funnel_counts_samples_tokens_users_and_cost():
    """C8, C50."""
    prices = Prices(summary_input=10.0, summary_output=20.0, embedding=1.0, training=2.0)
    funnel = data_funnel("zig", tables(), prices)
    assert funnel.schema == DATA_FUNNEL.schema
    rows = {row["stage"]: row for row in funnel.iter_rows(named=True)}
    n = {stage: row["n"] for stage, row in rows.items()}
    assert n == {
        "records_read": 13, "rejected": 1, "exact_duplicate": 1, "bot": 2, "messages": 9, "subject_messages": 6,
        "consented_messages": 6,
        "chunks": 6, "summaries": 6, "embedded": 6, "snapshot": 5, "snapshot_train": 3, "snapshot_valid": 0,
        "snapshot_test": 2, "training_pairs": 3, "hard_negatives": 3, "sequences": 1,
    }  # fmt: skip
    assert (rows["messages"]["n_tokens"], rows["messages"]["n_users"]) == (9, 4)
    assert (rows["chunks"]["n_tokens"], rows["chunks"]["n_users"]) == (600, 3)
    assert rows["summaries"]["n_tokens"] == 60
    assert rows["summaries"]["estimated_usd"] == pytest.approx((600 * 10 + 60 * 20) / 1e6)
    assert rows["embedded"]["estimated_usd"] == pytest.approx(600e-6)
    assert rows["training_pairs"]["estimated_usd"] == pytest.approx(300 * 2e-6)
    assert funnel_violations(funnel) == []


def test_lazy_frames_and_missing_stages_are_fine():
    whole = data_funnel("zig", tables())
    lazy = FunnelTables(**{name: frame.lazy() for name, frame in vars(tables()).items() if name not in NEITHER})
    assert data_funnel("zig", lazy).equals(whole)
    begun = replace(tables(), masked_chunks=None)
    assert data_funnel("zig", begun)["stage"].to_list()[-1] == "consented_messages"
    assert data_funnel("other", tables()).filter(stage="snapshot")["n"].item() == 0


@pytest.mark.parametrize(
    ("stage", "n", "message"),
    [
        ("snapshot", 7, "snapshot after summaries: n grows from 6 to 7"),
        ("training_pairs", 4, "training_pairs after snapshot_train: n grows from 3 to 4"),
        ("bot", 1, "1 records read are neither messages nor counted as lost"),
        ("exact_duplicate", 5, "-4 records read are neither"),
    ],
)
def test_violations_are_found(stage, n, message):
    funnel = data_funnel("zig", tables())
    broken = funnel.with_columns(n=pl.when(pl.col("stage") == stage).then(n).otherwise("n"))
    assert any(message in violation for violation in funnel_violations(broken))
    healthy = data_funnel("apple", tables())
    assert all(violation.startswith("zig") for violation in funnel_violations(pl.concat([healthy, broken])))


def test_users_may_not_grow_either():
    funnel = data_funnel("zig", tables())
    broken = funnel.with_columns(n_users=pl.when(pl.col("stage") == "sequences").then(9).otherwise("n_users"))
    assert funnel_violations(broken) == ["zig: sequences after snapshot: n_users grows from 2 to 9"]


def test_unknown_loss_is_refused():
    odd = replace(tables(), dropped_messages=pl.DataFrame({"reason": ["mystery"], "n": [3]}))
    with pytest.raises(ValueError, match="mystery"):
        data_funnel("zig", odd)


def test_cap():
    snapshot = pl.DataFrame({"datadao": ["a", "a", "b"], "user_id": ["u", "u", "u"]})
    assert cap_violations(snapshot, 2) == 0
    assert cap_violations(snapshot, 1) == 1
    assert cap_violations(snapshot, None) == 0
