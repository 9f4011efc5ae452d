"""Whose chunks are trained and evaluated on: by purpose, and only where a DataDAO is prepared in full (C14)."""

import dagster as dg
import polars as pl
import pytest
from consent_chat import EVERYTHING, NAMES, PREPARED, TRAINING, materialise, say

from assets.training_snapshot import training_snapshot
from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.mining.pairs import training_pairs
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.schema import INSIGHT_TASKS, MASKED_CHUNKS, MESSAGES, TABLES


def test_the_split_decides_which_purpose_the_snapshot_needs(store):
    """C14: train for the training and validation splits, evaluate for the test split; counted."""
    needs = {
        n: "evaluate" if split_of(user_id(store.key, "reddit", n), store.key) == "test" else "train" for n in NAMES
    }
    other = {"train": "evaluate serve compare", "evaluate": "train serve compare"}

    def users() -> set[str]:
        return set(store.lake.read("training_snapshot")["user_id"])

    for right in (True, False):
        say(store, **{name: purpose if right else other[purpose] for name, purpose in needs.items()})
        materialise(store, PREPARED)
        counts = materialise(store, [training_snapshot])["training_snapshot"]
        left_out = counts["users_without_consent_to_train"] + counts["users_without_consent_to_evaluate"]
        assert left_out == (0 if right else len(NAMES))
        assert bool(users()) == right


def test_a_chunk_without_a_summary_is_left_out_of_the_training_and_stops_nothing(training):
    """The model gave no answer about it, or its summary was purged before or after the snapshot was made."""
    say(training, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(training, PREPARED)
    whole = materialise(training, TRAINING)["training_snapshot"]
    assert (whole["without_summary"], whole["dagster/row_count"]) == (0, whole["chunks"])
    snapshot = training.lake.read("training_snapshot")
    first = snapshot.filter(split="train", position=0)["chunk_id"][0]
    tasks = snapshot.filter(datadao="dao").select("datadao", "user_id", "split", "chunk_id", n_history="position")
    empty = {"option_chunk_ids": pl.lit([], pl.List(pl.String)), "options": pl.lit([], pl.List(pl.String))}
    texts = {name: pl.lit("") for name in ("kind", "question", "reference", "status", "validator")}
    numbers = {name: pl.lit(-1) for name in ("answer", "context_answer", "search_answer")}
    rows = tasks.with_columns(task_id="chunk_id", **empty, **texts, **numbers)
    training.lake.commit(INSIGHT_TASKS, INSIGHT_TASKS.conform(rows), "dao")
    training.lake.purge(TABLES["chunk_summaries"], "dao", pl.col("chunk_id") == first)
    training.lance.delete("dao", "summary_embeddings", [first])

    gated = consented_snapshot(training.lake)
    assert gated.height == snapshot.height - 1 and gated["position"].min() == 0, "after the snapshot was made"
    asked = consented_tasks(training.lake, gated)
    placed = asked.join(gated, on="chunk_id")
    assert placed.height == asked.height > 0
    assert (placed["n_history"] == placed["position"]).all(), "each would be asked one chunk too late"
    found = materialise(training, TRAINING)
    assert found["training_snapshot"]["without_summary"] == 1
    assert training.lake.read("training_snapshot").equals(gated)
    assert not found["hard_negatives"]["reused"] and first not in training.lake.read("hard_negatives")["chunk_id"]
    training.lance.delete("dao", "summary_embeddings", [gated["chunk_id"][0]])
    with pytest.raises(ValueError, match="1 chunks of the snapshot are not in summary_embeddings"):
        training_pairs(gated, training.lake, training.lance)


def test_a_datadao_that_is_masked_alone_is_left_out_of_the_training_and_named(training):
    """Its preparation failed after masking: the others are trained on all the same."""
    say(training, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(training, PREPARED)
    alone = materialise(training, TRAINING)["training_snapshot"]
    lake = training.lake
    for table in (MASKED_CHUNKS, MESSAGES, TABLES["consent_ledger"]):
        rows = lake.read(table.name, "dao").with_columns(datadao=pl.lit("another"))
        lake.commit(table, rows, "another", stats={"holds": "", "rejected": 0})
    found = materialise(training, TRAINING)["training_snapshot"]
    assert found["datadaos_left_out"] == ["another: no chunk_summaries, chunk_embeddings, summary_embeddings"]
    assert (found["split_hash"], found["without_summary"]) == (alone["split_hash"], 0)
    lake.commit(TABLES["chunk_summaries"], lake.read("chunk_summaries", "dao"), "another")
    found = materialise(training, TRAINING)["training_snapshot"]
    assert found["datadaos_left_out"] == ["another: no chunk_embeddings, summary_embeddings"]
    assert found["split_hash"] == alone["split_hash"] and "datadaos_left_out" not in alone
    for table in ("chunk_embeddings", "summary_embeddings"):
        training.lance.drop("dao", table)
    with pytest.raises(dg.Failure, match="no DataDAO is summarised and embedded yet"):
        materialise(training, TRAINING)
