"""Ranks equal a plain loop's, ties never flatter, metrics and chance levels are right."""

import numpy as np
import pytest

from user_embeddings_dagster.evaluation import ranking
from user_embeddings_dagster.evaluation.ranking import (
    Ranks,
    expected_at_random,
    full_ranks,
    group_ranks,
    metrics,
    sampled,
    unit,
)


def loop_rank(queries, candidates, gold, allowed):
    """Reference: one query at a time, in float64."""
    out = []
    for i, g in enumerate(gold):
        scores = unit(candidates).astype(np.float64) @ unit(queries[i : i + 1])[0].astype(np.float64)
        ahead = [c for c in range(len(candidates)) if c != g and allowed[i, c] and scores[c] >= scores[g] - 1e-6]
        out.append(1 + len(ahead))
    return np.array(out, dtype=float)


@pytest.mark.parametrize("block", [1, 37, 10**9])
def test_ranks_equal_a_plain_loop_with_exclusions_and_time_window(monkeypatch, block):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", block)
    rng = np.random.default_rng(1)
    queries, candidates = rng.standard_normal((40, 8)), rng.standard_normal((60, 8))
    gold = rng.integers(10, 60, 40)
    excluded = np.stack([np.zeros(40, dtype=int), rng.integers(0, 10, 40)], axis=1)
    times = rng.integers(0, 100, 60)
    columns = np.arange(60)
    outside = ~((columns >= excluded[:, :1]) & (columns < excluded[:, 1:]))
    near = np.abs(times[None, :] - times[gold][:, None]) <= 30
    plain = full_ranks(queries, candidates, gold, excluded=excluded)
    assert plain.rank.tolist() == loop_rank(queries, candidates, gold, outside).tolist()
    windowed = full_ranks(queries, candidates, gold, excluded=excluded, times=times, within=30)
    assert windowed.rank.tolist() == loop_rank(queries, candidates, gold, outside & near).tolist()
    assert windowed.n_candidates.tolist() == (outside & near).sum(axis=1).tolist()


def test_a_collapsed_encoder_gets_the_worst_rank_not_the_best():
    same = np.ones((50, 4))
    ranks = full_ranks(same, same, np.arange(50))
    assert (ranks.rank == 50).all()
    assert (full_ranks(np.zeros((50, 4)), same, np.arange(50)).rank == 50).all()


def test_bad_input_is_refused():
    vectors = np.eye(3)
    with pytest.raises(ValueError, match="right answer is among the excluded"):
        full_ranks(vectors, vectors, np.array([1]), excluded=np.array([[0, 2]]))
    with pytest.raises(ValueError, match="NaN"):
        full_ranks(np.full((3, 3), np.nan), vectors, np.arange(3))


def test_group_ranks_equal_a_plain_loop_inside_the_groups():
    rng = np.random.default_rng(2)
    queries, candidates = rng.standard_normal((30, 6)), rng.standard_normal((80, 6))
    gold = rng.choice(80, 30, replace=False)
    groups = np.array([f"w{n}" for n in rng.integers(0, 20, 80)])
    allowed = groups[None, :] == groups[gold][:, None]
    found = group_ranks(queries, candidates, gold, groups)
    assert found.rank.tolist() == loop_rank(queries, candidates, gold, allowed).tolist()
    assert found.n_candidates.tolist() == allowed.sum(axis=1).tolist()


def test_metrics_by_hand():
    values = metrics(Ranks(np.array([1.0, 4.0, 20.0]), np.array([20, 20, 20])))
    assert values["recall@1"].tolist() == [1, 0, 0]
    assert values["recall@5"].tolist() == [1, 1, 0]
    assert values["recall@10"].tolist() == [1, 1, 0]
    assert values["mrr"].tolist() == [1, 0.25, 0.05]


def test_chance_level_is_what_random_orders_score():
    rng = np.random.default_rng(3)
    n = np.array([7] * 200_000)
    drawn = metrics(Ranks(rng.integers(1, 8, 200_000).astype(float), n))
    expected = expected_at_random(Ranks(n.astype(float), n))
    for metric in ("recall@1", "recall@5", "recall@10", "mrr"):
        assert drawn[metric].mean() == pytest.approx(expected[metric].mean(), abs=0.004)


def test_no_queries_give_no_ranks():
    nothing = np.zeros((0, 4))
    assert len(full_ranks(nothing, np.eye(4), np.zeros(0, dtype=int))) == 0
    assert len(full_ranks(nothing, nothing, np.zeros(0, dtype=int))) == 0
    assert len(group_ranks(nothing, np.eye(4), np.zeros(0, dtype=int), ["a"] * 4)) == 0


def test_a_sample_is_reproducible_and_in_order():
    rows = np.arange(100) * 3
    assert sampled(rows, None, 0) is rows
    assert sampled(rows, 100, 0) is rows
    found = sampled(rows, 10, 4)
    assert len(np.unique(found)) == 10
    assert (np.diff(found) > 0).all()
    assert (found == sampled(rows, 10, 4)).all()
    assert (found != sampled(rows, 10, 5)).any()
