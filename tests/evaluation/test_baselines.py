"""Histories are cut right, and the baselines are what their names say."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from planted import histories as planted

from user_embeddings_dagster.evaluation.baselines import (
    Fitted,
    Tuning,
    baselines,
    decayed_mean,
    fit_baselines,
    next_chunk_queries,
    own_past,
    running_mean,
    train_statistics,
    tune,
    user_pools,
    whitened_decayed,
)
from user_embeddings_dagster.evaluation.histories import histories_of
from user_embeddings_dagster.evaluation.plda import fit_two_covariance
from user_embeddings_dagster.evaluation.ranking import full_ranks, unit
from user_embeddings_dagster.schema import TRAINING_SNAPSHOT


def mrr(histories, prediction) -> float:
    gold = next_chunk_queries(histories)
    past = own_past(histories, gold)
    return float((1 / full_ranks(prediction.queries[gold - 1], prediction.candidates, gold, excluded=past).rank).mean())


def test_histories_follow_datadao_user_and_position():
    at = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [("c3", "u2", 0), ("c1", "u1", 0), ("c2", "u1", 1), ("c4", "u2", 1)]
    snapshot = TRAINING_SNAPSHOT.conform(
        pl.DataFrame(rows, schema=["chunk_id", "user_id", "position"], orient="row").with_columns(
            datadao=pl.lit("zig"), split=pl.lit("test"), started_at=pl.lit(at), ended_at=pl.lit(at),
            window_id=pl.lit("w"), thread_id=pl.lit("t"),
        )
    )  # fmt: skip
    vectors = np.array([[4.0, 0], [1, 0], [2, 0], [3, 0], [9, 9]])
    found = histories_of(snapshot, ["c4", "c1", "c2", "c3", "other"], vectors)
    assert found.vectors[:, 0].tolist() == [1, 2, 3, 4]
    assert found.offsets.tolist() == [0, 2, 4]
    assert found.user_ids.tolist() == ["u1", "u2"]
    assert found.started[0] == at.timestamp()
    with pytest.raises(ValueError, match="1 of 4 snapshot chunks have no vector"):
        histories_of(snapshot, ["c1", "c2", "c3"], vectors[:3])
    nothing = histories_of(snapshot.clear(), ["c1"], vectors[:1])
    assert (nothing.n_histories, len(next_chunk_queries(nothing))) == (0, 0)


def test_decayed_mean_equals_the_sum_by_hand_and_never_crosses_users():
    h = planted(5, lengths=np.array([3, 1, 7, 2, 5]), dim=6)
    found = decayed_mean(h, 0.4)
    for user in range(5):
        rows = h.vectors[h.offsets[user] : h.offsets[user + 1]]
        for i in range(len(rows)):
            expected = np.sum([0.4 ** (i - j) * rows[j] for j in range(i + 1)], axis=0, keepdims=True)
            assert np.allclose(found[h.offsets[user] + i], unit(expected)[0], atol=1e-6)
    assert np.allclose(decayed_mean(h, 0.0), unit(h.vectors))
    assert np.allclose(running_mean(h)[2], unit(h.vectors[:3].mean(axis=0, keepdims=True))[0], atol=1e-6)


def test_every_baseline_is_causal():
    """Changing a later chunk changes no earlier query."""
    h = planted(4, 6)
    fitted = replace(fit_baselines(planted(30, 6, seed=9)), tuning=Tuning())
    changed = h.vectors.copy()
    changed[h.positions == 5] += 7
    for name, predict in baselines(fitted).items():
        before, after = predict(h).queries, predict(h.with_vectors(changed)).queries
        assert np.allclose(before[h.positions < 5], after[h.positions < 5]), name


def test_whitening_makes_the_training_vectors_isotropic_and_needs_some():
    vectors = planted(200, 10).vectors
    statistics = train_statistics(vectors, ridge=0.0)
    whitened = (vectors - statistics.mean) @ statistics.whitening
    assert np.allclose(np.cov(whitened.T), np.eye(24), atol=0.02)
    assert np.isfinite(train_statistics(vectors[:3]).whitening).all()  # fewer vectors than dimensions
    with pytest.raises(ValueError, match="no training user"):
        train_statistics(vectors[:0])


def test_whitening_wins_on_anisotropic_vectors_and_random_is_chance():
    """C36: the order that was measured on real chat."""
    train, test = planted(100, 8, seed=1), planted(60, 8, seed=2)
    scale = np.logspace(1, -1.5, 24).astype(np.float32)  # a few directions drown the rest
    train, test = train.with_vectors(train.vectors * scale), test.with_vectors(test.vectors * scale)
    fitted = Fitted(train_statistics(train.vectors, ridge=0.001), fit_two_covariance(train, ridge=0.001))
    found = {n: mrr(test, p(test)) for n, p in baselines(fitted).items()}
    assert found["whitened_decayed_mean"] > found["decayed_mean_0.3"] > found["popularity"]
    assert found["random"] < 0.05


def test_tuning_finds_the_better_decay_and_falls_back_without_validation_users():
    steady, jumpy = planted(30, 12, persistence=0.5, common=0), planted(30, 12, persistence=0.0, common=0)
    walk = jumpy.with_vectors(np.cumsum(jumpy.vectors, axis=0))  # the last item is all there is to know
    statistics = train_statistics(steady.vectors)
    assert tune(steady, statistics).decay > tune(walk, statistics).decay
    tuned = tune(steady, statistics)
    default = mrr(steady, whitened_decayed(steady, statistics))
    assert mrr(steady, whitened_decayed(steady, statistics, tuned.whitened_decay, tuned.mean_weight)) >= default
    assert tune(planted(0), statistics) == Tuning()


def test_user_pools_depend_on_the_order_of_chunks_no_more_than_a_mean_does():
    """Pools are functions of histories: one row per user, the same whatever the order of their chunks."""
    h = planted(7, lengths=np.array([3, 1, 7, 2, 5, 4, 6]), dim=6)
    backwards = h.with_vectors(np.concatenate([h.vectors[a:b][::-1] for a, b in pairwise(h.offsets)]))
    fitted = fit_baselines(planted(30, 6, dim=6, seed=9))
    pools = user_pools(fitted.statistics, fitted.two_covariance)
    assert set(pools) == {"mean_pool", "whitened_mean", "plda_mean"}
    for name, pool in pools.items():
        assert pool(h).shape == (7, 6)
        assert np.allclose(pool(h), pool(backwards), atol=1e-5), name
