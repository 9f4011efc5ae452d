"""The suites' rows: right values, every row complete, honest with little data."""

import numpy as np
import polars as pl
import pytest
from planted import DAY
from planted import histories as planted

from user_embeddings_dagster.evaluation.baselines import Predictions, baselines, train_statistics
from user_embeddings_dagster.evaluation.scores import Scope, omissions
from user_embeddings_dagster.evaluation.suites import ItemModel, item_encoder_scores, sequence_encoder_scores
from user_embeddings_dagster.evaluation.user_suites import (
    HISTORY_LENGTHS,
    UserModel,
    sparse_cases,
    sparse_model,
    sparse_user_scores,
    temporal_halves,
    user_baselines,
    user_matching_scores,
)
from user_embeddings_dagster.schema import SCORES

STATISTICS = train_statistics(planted(100, 8, seed=7).vectors)


def scope(asset: str) -> Scope:
    return Scope(asset, "zig", 3, "f" * 32)


def value(scores: pl.DataFrame, model: str, metric: str, slice_: str = "all") -> float:
    return scores.filter(model=model, metric=metric, slice=slice_)["value"].item()


def assert_complete(scores: pl.DataFrame) -> None:
    """Law 6: seed, split hash, candidate set, n and interval on every row; deterministic and finite."""
    assert scores.schema == SCORES.schema
    assert scores.select(SCORES.primary_key).is_unique().all()
    assert scores["seed"].unique().to_list() == [3]
    assert scores["split_hash"].unique().to_list() == ["f" * 32]
    assert (scores["candidate_set"].str.len_chars() > 0).all()
    measured = scores.drop_nulls("value")
    assert (measured["n"] > 0).all()
    assert measured["value"].is_finite().all()
    assert (measured.filter(pl.col("n_users") >= 5)["ci_low"].is_not_null()).all()
    inside = measured.drop_nulls("ci_low").select(
        (pl.col("ci_low") <= pl.col("value")) & (pl.col("value") <= pl.col("ci_high"))
    )
    assert inside.to_series().all()


def items(n_users: int = 12, per_user: int = 10) -> pl.DataFrame:
    n = n_users * per_user
    return pl.DataFrame(
        {
            "chunk_id": [f"c{i}" for i in range(n)],
            "user_id": [f"u{i % n_users}" for i in range(n)],
            "window_id": [f"w{i // 3}" for i in range(n)],
            "split": ["test" if i % n_users < 8 else "train" for i in range(n)],
        }
    )


def test_item_encoder_scores_of_a_perfect_a_blind_and_a_window_blind_encoder():
    """C31, C32: own summary among all held-out ones; right SUBJECT among same-window rivals; paired difference."""
    frame = items()
    rng = np.random.default_rng(0)
    summaries = rng.standard_normal((frame.height, 64))
    windows = rng.standard_normal((frame.height // 3, 64))[np.arange(frame.height) // 3]
    models = {
        "untuned": ItemModel(rng.standard_normal(summaries.shape), summaries, "0"),
        "tuned": ItemModel(summaries + 0.1 * rng.standard_normal(summaries.shape), summaries, "1"),
        "collapsed": ItemModel(np.ones_like(summaries), np.ones_like(summaries), "2"),
        "window_only": ItemModel(windows, windows + 1e-3 * rng.standard_normal(windows.shape), "3"),
    }
    scores = item_encoder_scores(scope("item_encoder_scores"), frame, models)
    assert_complete(scores)
    assert value(scores, "tuned", "recall@1") == 1.0
    assert value(scores, "tuned", "recall@1", "same_window") == 1.0
    assert value(scores, "collapsed", "recall@10") == 0.0
    assert value(scores, "window_only", "recall@10") > 0.9
    assert value(scores, "window_only", "recall@1", "same_window") < 0.6
    assert value(scores, "chance", "recall@1", "same_window") == pytest.approx(1 / 3, abs=0.01)
    gain = scores.filter(model="tuned - untuned", metric="recall@1_difference", slice="all").row(0, named=True)
    assert gain["ci_low"] > 0.8
    assert gain["candidate_set"] == "full:80"
    assert gain["n"] == 80


def test_sequence_scores_rank_everything_but_the_own_past_and_slice_by_gap():
    h = planted()
    oracle_queries = np.roll(h.vectors, -1, axis=0)
    predictions = {name: predict(h) for name, predict in baselines(STATISTICS).items()}
    predictions["oracle"] = Predictions(oracle_queries, h.vectors, version="v9")
    names = set(predictions) - {"oracle"}
    scores = sequence_encoder_scores(scope("sequence_encoder_scores"), h, predictions, baseline_names=names)
    assert_complete(scores)
    assert value(scores, "oracle", "mrr") == 1.0
    assert value(scores, "whitened_decayed_mean", "mrr") > value(scores, "random", "mrr") * 3
    assert value(scores, "oracle - whitened_decayed_mean", "mrr_difference") > 0
    assert set(scores["slice"]) >= {"all", "±30d", "gap<20min", "gap 20min-6h", "gap 6h-7d", "gap>7d"}
    n = {name: scores.filter(model="oracle", metric="mrr", slice=name)["n"].item() for name in set(scores["slice"])}
    assert n["all"] == 40 * 15 == sum(count for name, count in n.items() if name.startswith("gap") and "±" not in name)
    near = scores.filter(model="random", metric="mrr", slice="±30d").row(0, named=True)
    assert near["candidate_set"].startswith("±30d:")
    assert near["value"] > value(scores, "random", "mrr")  # fewer candidates


def test_sequence_scores_sample_queries_reproducibly_and_refuse_misaligned_predictions():
    h = planted()
    predictions = {"w": baselines(STATISTICS)["whitened_decayed_mean"](h)}
    first = sequence_encoder_scores(scope("s"), h, predictions, max_queries=50, min_history=4)
    assert first.equals(sequence_encoder_scores(scope("s"), h, predictions, max_queries=50, min_history=4))
    assert first.filter(metric="mrr", slice="all")["n"].item() == 50
    short = {"w": Predictions(h.vectors[1:], h.vectors[1:])}
    with pytest.raises(ValueError, match="predictions have 639 rows for 640 chunks"):
        sequence_encoder_scores(scope("s"), h, short)


@pytest.mark.parametrize("n_users", [0, 1, 3])
def test_too_few_users_are_said_not_hidden(n_users):
    """Little data: values without an interval, or counted omissions; never NaN, never an error."""
    h = planted(n_users, 6)
    predictions = {name: predict(h) for name, predict in baselines(STATISTICS).items()}
    sequence = sequence_encoder_scores(scope("s"), h, predictions)
    halves = temporal_halves(h)
    matching = user_matching_scores(scope("m"), halves, user_baselines(halves, STATISTICS))
    cases = sparse_cases(h)
    models = {name: sparse_model(cases, predict) for name, predict in baselines(STATISTICS).items()}
    sparse = sparse_user_scores(scope("u"), cases, models)
    for scores in (sequence, matching, sparse):
        assert_complete(scores)
        assert scores["ci_low"].null_count() == scores.height
    assert omissions(sparse) == sparse.height  # six chunks: no target has ten before it
    assert omissions(sequence.filter(slice="all")) == (sequence.filter(slice="all").height if n_users == 0 else 0)
    no_items = item_encoder_scores(
        scope("i"), items().clear(), {"untuned": ItemModel(np.zeros((0, 4)), np.zeros((0, 4)), "0")}
    )
    assert omissions(no_items) == no_items.height > 0


def test_halves_find_the_person_and_chance_is_reported_beside():
    """C41: half a history finds the other half among all users."""
    h = planted(50, 12)
    halves = temporal_halves(h)
    models = user_baselines(halves, STATISTICS)
    models["shuffled"] = UserModel(models["mean_pool"].first, models["mean_pool"].second[::-1], "0")
    scores = user_matching_scores(scope("user_matching_scores"), halves, models)
    assert_complete(scores)
    n = halves.first.n_histories
    assert value(scores, "whitened_mean", "recall@1") > 0.9
    assert value(scores, "shuffled", "recall@1") < 0.1
    assert value(scores, "chance", "recall@1") == pytest.approx(1 / n)
    assert value(scores, "shuffled - whitened_mean", "recall@1_difference") < -0.8


def test_halves_are_temporal_and_do_not_share_a_conversation():
    h = planted(20, 10)
    halves = temporal_halves(h)
    last = halves.first.ended[halves.first.offsets[1:] - 1]
    first = halves.second.started[halves.second.offsets[:-1]]
    assert (first - last >= 20 * 60).all()
    assert (halves.first.user_ids == halves.second.user_ids).all()
    one_conversation = planted(3, 10)
    same = one_conversation.started[0] + 60 * one_conversation.positions
    crowded = type(h)(
        one_conversation.vectors, one_conversation.offsets, one_conversation.user_ids, same, same + 1,
        one_conversation.chunk_ids,
    )  # fmt: skip
    assert temporal_halves(crowded).n_omitted == 3


def test_sparse_users_predict_the_same_targets_from_less():
    """C38: 0, 1, 2, 5, 10 chunks; no history gives the population prior, no error."""
    h = planted(30, 16, persistence=0.45, common=0)
    cases = sparse_cases(h)
    assert HISTORY_LENGTHS == (0, 1, 2, 5, 10)
    assert (h.positions[cases.gold] >= 10).all()
    assert len(np.unique(cases.gold)) == len(cases.gold) == 30 * 5
    for length in cases.lengths:
        part = cases.truncated(length)
        assert (part.lengths == length).all()
        if length:
            assert (part.vectors[part.offsets[1:] - 1] == h.vectors[cases.gold - 1]).all()
    models = {name: sparse_model(cases, predict) for name, predict in baselines(STATISTICS).items()}
    scores = sparse_user_scores(scope("sparse_user_scores"), cases, models)
    assert_complete(scores)
    curve = [value(scores, "mean_pool", "mrr", f"history={length}") for length in HISTORY_LENGTHS]
    assert curve[0] < curve[1] < curve[3] < curve[4]  # steady interests: more history helps
    assert (models["popularity"].queries[0] == STATISTICS.mean).all()
    assert scores["candidate_set"].unique().to_list() == ["full:480"]


def test_a_model_without_prior_is_refused():
    cases = sparse_cases(planted(6, 16))
    with pytest.raises(ValueError, match="population prior"):
        sparse_model(cases, lambda h: Predictions(h.vectors, h.vectors))


def test_gap_slices_use_the_time_since_the_last_chunk():
    h = planted(10, 6)
    later = h.started + np.arange(len(h.started)) * 8 * DAY
    spread = type(h)(h.vectors, h.offsets, h.user_ids, later, later + 60, h.chunk_ids)
    scores = sequence_encoder_scores(scope("s"), spread, {"m": Predictions(h.vectors, h.vectors)})
    assert scores.filter(metric="mrr", slice="gap>7d")["n"].item() == 50
    assert scores.filter(metric="mrr", slice="gap<20min")["value"].item() is None
