"""The suites' rows: right values, every row complete, honest with little data."""

import numpy as np
import polars as pl
import pytest
from planted import DAY
from planted import histories as planted

from user_embeddings_dagster.evaluation.baselines import Predictions, baselines, fit_baselines, user_pools
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.suites import ItemModel, item_encoder_scores, sequence_encoder_scores
from user_embeddings_dagster.evaluation.user_suites import (
    HISTORY_LENGTHS,
    UserModel,
    sparse_cases,
    sparse_model,
    sparse_user_scores,
    temporal_halves,
    user_matching_scores,
    user_models,
)
from user_embeddings_dagster.schema import SCORES

FITTED = fit_baselines(planted(100, 8, seed=7))
POOLS = user_pools(FITTED.statistics, FITTED.two_covariance)


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
    predictions = {name: predict(h) for name, predict in baselines(FITTED).items()}
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
    predictions = {"w": baselines(FITTED)["whitened_decayed_mean"](h)}
    first = sequence_encoder_scores(scope("s"), h, predictions, max_queries=50)
    assert first.equals(sequence_encoder_scores(scope("s"), h, predictions, max_queries=50))
    assert first.filter(metric="mrr", slice="all")["n"].item() == 50
    short = {"w": Predictions(h.vectors[1:], h.vectors[1:])}
    with pytest.raises(ValueError, match="predictions have 639 rows for 640 chunks"):
        sequence_encoder_scores(scope("s"), h, short)


@pytest.mark.parametrize("n_users", [0, 1, 3])
def test_too_few_users_are_said_not_hidden(n_users):
    """Little data: values without an interval, or counted omissions; never NaN, never an error."""
    h = planted(n_users, 6)
    predictions = {name: predict(h) for name, predict in baselines(FITTED).items()}
    sequence = sequence_encoder_scores(scope("s"), h, predictions)
    halves = temporal_halves(h)
    matching = user_matching_scores(scope("m"), halves, user_models(halves, POOLS))
    cases = sparse_cases(h)
    models = {name: sparse_model(cases, predict) for name, predict in baselines(FITTED).items()}
    sparse = sparse_user_scores(scope("u"), cases, models)
    for scores in (sequence, matching, sparse):
        assert_complete(scores)
        assert scores["ci_low"].null_count() == scores.height
    later = sparse.filter(pl.col("slice").str.starts_with("history"))
    assert later["value"].null_count() == later.height  # six chunks: no target has ten before it
    everything = sequence.filter(slice="all")
    assert everything["value"].null_count() == (everything.height if n_users == 0 else 0)
    no_items = item_encoder_scores(
        scope("i"), items().clear(), {"untuned": ItemModel(np.zeros((0, 4)), np.zeros((0, 4)), "0")}
    )
    assert no_items["value"].null_count() == no_items.height > 0


def test_halves_find_the_person_and_chance_is_reported_beside():
    """C41: half a history finds the other half among all users."""
    h = planted(50, 12)
    halves = temporal_halves(h)
    models = user_models(halves, POOLS)
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
    assert len(temporal_halves(crowded).histories) == 0


def test_matching_by_length_of_history_counts_everybody_once():
    """C41: short and long histories apart; the candidates stay everybody."""
    h = planted(30, lengths=np.repeat([6, 30], 15))
    scores = user_matching_scores(scope("m"), temporal_halves(h), user_models(temporal_halves(h), POOLS))
    assert_complete(scores)
    n = {s: scores.filter(model="whitened_mean", metric="mrr", slice=s)["n_users"].item() for s in set(scores["slice"])}
    assert n["all"] == n["half<10"] + n["half>=10"] > n["half<10"] > 0
    assert scores["candidate_set"].unique().to_list() == [f"full:{n['all']}"]
    few = user_matching_scores(scope("m"), temporal_halves(h), user_models(temporal_halves(h), POOLS), max_queries=7)
    assert few.filter(slice="all")["n"].unique().to_list() == [7]
    assert few["candidate_set"].unique().to_list() == [f"full:{n['all']}"]


def test_sparse_users_predict_the_same_targets_from_less():
    """C38: 0, 1, 2, 5, 10 chunks; no history gives the population prior, no error."""
    h = planted(30, 16, persistence=0.45, common=0)
    cases = sparse_cases(h)
    assert HISTORY_LENGTHS == (0, 1, 2, 5, 10)
    later = [cases[f"history={length}"] for length in HISTORY_LENGTHS]
    assert (h.positions[later[0].gold] >= 10).all()
    assert len(np.unique(later[0].gold)) == len(later[0].gold) == 30 * 5
    for case in later:
        assert (case.gold == later[0].gold).all()
        assert (case.known.lengths == case.length).all()
        if case.length:
            assert (case.known.vectors[case.known.last_rows] == h.vectors[case.gold - 1]).all()
    models = {name: sparse_model(cases, predict) for name, predict in baselines(FITTED).items()}
    scores = sparse_user_scores(scope("sparse_user_scores"), cases, models)
    assert_complete(scores)
    curve = [value(scores, "mean_pool", "mrr", f"history={length}") for length in HISTORY_LENGTHS]
    assert curve[0] < curve[1] < curve[3] < curve[4]  # steady interests: more history helps
    assert (models["popularity"].queries["history=0"] == FITTED.statistics.mean).all()
    assert scores["candidate_set"].unique().to_list() == ["full:480"]


def test_new_users_are_everybody_with_enough_chunks_and_know_only_their_first():
    """C38: `start=k` needs k + 1 chunks, not eleven."""
    h = planted(20, lengths=np.repeat([2, 6, 14], [8, 7, 5]))
    cases = sparse_cases(h)
    n = {length: len(cases[f"start={length}"].gold) for length in HISTORY_LENGTHS}
    assert n == {0: 20, 1: 20, 2: 12, 5: 12, 10: 5}
    assert len(cases["history=0"].gold) == 5 * 4
    two = cases["start=2"]
    assert (two.known.vectors == h.vectors[np.isin(np.arange(len(h.vectors)), [two.gold - 2, two.gold - 1])]).all()
    names = {"popularity", "mean_pool"}
    functions = {**{name: baselines(FITTED)[name] for name in names}, "trained": trained}
    models = {name: sparse_model(cases, function) for name, function in functions.items()}
    scores = sparse_user_scores(scope("s"), cases, models, reference="mean_pool", baseline_names=names)
    assert_complete(scores)
    assert set(scores.filter(pl.col("metric") == "mrr_difference")["model"]) == {"trained - mean_pool"}
    few = sparse_cases(h, max_queries=6, seed=1)
    assert {slice_: len(case.gold) for slice_, case in few.items() if slice_ != "start=10"} == {
        slice_: 6 for slice_ in few if slice_ != "start=10"
    }


def trained(histories):
    """The last item, with a prior."""
    return Predictions(histories.vectors, histories.vectors, np.zeros(histories.vectors.shape[1]), "v1")


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


def test_next_chunk_is_also_reported_by_the_number_of_known_chunks():
    h = planted(10, lengths=np.repeat([3, 40], 5))
    scores = sequence_encoder_scores(scope("s"), h, {"m": Predictions(h.vectors, h.vectors)})
    n = {row["slice"]: row["n"] for row in scores.filter(metric="mrr").iter_rows(named=True)}
    assert {name: n[name] for name in n if name.startswith("after")} == {
        "after 1-2": 10 * 2, "after 3-9": 5 * 7, "after >=10": 5 * 30,
    }  # fmt: skip


def test_item_queries_are_sampled_and_candidates_are_not():
    frame = items()
    vectors = np.random.default_rng(0).standard_normal((frame.height, 8))
    models = {"untuned": ItemModel(vectors, vectors, "0")}
    scores = item_encoder_scores(scope("i"), frame, models, max_queries=20)
    rows = scores.filter(model="untuned", metric="recall@1")
    assert rows["n"].to_list() == [20, 20]
    assert "full:80" in rows["candidate_set"].to_list()
