"""Equal budgets, intervals, differences that find planted ones and stay quiet between equals (C49)."""

import numpy as np
import pytest
from planted import histories as planted

from user_embeddings_dagster.evaluation.bootstrap import bootstrap_means
from user_embeddings_dagster.evaluation.comparison import (
    common_budget,
    cosines,
    datadao_comparison,
    equal_samples,
    equal_statistics,
    transfer_models,
)
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.suites import ItemModel

SCOPE = Scope("datadao_comparison", "all", 1, "e" * 32)


def compare(histories, training, items=None):
    budget = common_budget(histories)
    samples = equal_samples(histories, budget, 1)
    statistics = equal_statistics(training, 1)
    models = transfer_models(statistics)
    predictions = {
        name: {model: predict(sample) for model, predict in models.items()} for name, sample in samples.items()
    }
    made = None if items is None else {name: items(sample) for name, sample in samples.items()}
    return samples, datadao_comparison(
        SCOPE, samples, predictions, statistics=statistics, items=made, omitted=budget.omitted
    )


def test_budget_is_equal_for_all_and_takes_the_latest_chunks():
    """C49: same number of users, chunks, queries and candidates, whatever the sizes."""
    histories = {"big": planted(80, 30, seed=1), "small": planted(9, 12, seed=2), "tiny": planted(3, 30)}
    budget = common_budget(histories)
    assert (budget.users, budget.chunks_per_user, budget.omitted) == (9, 12, ("tiny",))
    samples = equal_samples(histories, budget, 5)
    assert {name: (s.n_histories, len(s.vectors)) for name, s in samples.items()} == {
        "big": (9, 108), "small": (9, 108),
    }  # fmt: skip
    assert samples["small"].chunk_ids[11] == histories["small"].chunk_ids[11]
    again = equal_samples(dict(reversed(histories.items())), budget, 5)
    assert (again["big"].chunk_ids == samples["big"].chunk_ids).all()
    assert (equal_samples(histories, budget, 6)["big"].user_ids != samples["big"].user_ids).any()
    assert common_budget({"tiny": histories["tiny"]}).users == 0
    statistics = equal_statistics({"a": planted(50, 10).vectors, "b": planted(5, 10).vectors}, 0)
    assert {s.n for s in statistics.values()} == {50}


def test_comparison_has_intervals_every_task_transfer_and_omissions():
    def items(sample):
        return {"untuned": ItemModel(sample.vectors, sample.vectors, "0")}

    histories = {"reddit": planted(30, 20, seed=1), "telegram": planted(30, 20, seed=2), "tiny": planted(2, 20)}
    training = {name: planted(60, 10, seed=9).vectors for name in ("reddit", "telegram")}
    _, scores = compare(histories, training, items)
    measured = scores.drop_nulls("value")
    assert measured["ci_low"].null_count() == 0
    tasks = {slice_.split(":")[0] for slice_ in measured["slice"]}
    assert tasks == {"next_chunk", "chunk_to_summary", "same_user", "geometry"}
    assert "whitened_decayed_mean@telegram" in set(measured.filter(datadao="reddit")["model"])
    assert scores.filter(datadao="tiny")["value"].to_list() == [None]
    n = measured.filter(metric="mrr", slice="next_chunk")["n"].unique().to_list()
    assert len(n) == 1  # equal numbers of queries
    assert measured.filter(slice="next_chunk:reddit-telegram")["datadao"].unique().to_list() == ["all"]


def test_a_planted_difference_is_found_and_equals_are_not():
    training = {name: planted(60, 10, seed=9).vectors for name in ("a", "b", "c")}
    false_alarms = 0
    for seed in range(100, 106):
        histories = {
            "a": planted(60, 20, seed=seed, persistence=0.4),
            "b": planted(60, 20, seed=seed + 50, persistence=0.4),
            "c": planted(60, 20, seed=seed + 90, persistence=0.6),
        }
        _, scores = compare(histories, training)
        rows = scores.filter(model="whitened_decayed_mean@a", metric="mrr_difference")
        difference = {row["slice"]: row for row in rows.iter_rows(named=True)}
        assert difference["next_chunk:a-c"]["ci_high"] < 0
        equal = difference["next_chunk:a-b"]
        false_alarms += not equal["ci_low"] <= 0 <= equal["ci_high"]
    assert false_alarms <= 1


def test_cosines_equal_the_pairs_and_have_an_honest_interval():
    h = planted(6, 5, common=0.5)
    rows, of = unit(h.vectors).astype(float), h.history_of_row
    products = rows @ rows.T
    inside = [products[of == u][:, of == u][~np.eye(5, dtype=bool)].mean() for u in range(6)]
    across = products[of[:, None] != of[None, :]].mean()
    found = cosines(h)
    assert found["within_user_cosine"] == pytest.approx(np.array(inside), abs=1e-6)
    assert found["between_user_cosine"].mean() == pytest.approx(across, abs=1e-6)
    expected, held = truth(0.5), 0
    for seed in range(100):
        sample = planted(30, 5, seed=seed, common=0.5)
        estimate = bootstrap_means(
            cosines(sample)["between_user_cosine"][:, None], sample.user_ids, seed=seed, resamples=200
        )[0]
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= expected <= estimate.high
    assert held >= 85  # half as wide, as averages per user would be taken: about 67


def truth(common: float) -> float:
    """Mean cosine between users, from a large sample."""
    return float(cosines(planted(4_000, 5, seed=12_345, common=common))["between_user_cosine"].mean())


def test_pairs_are_compared_once():
    histories = {name: planted(10, 8, seed=n) for n, name in enumerate("abc")}
    _, scores = compare(histories, {name: h.vectors for name, h in histories.items()})
    pairs = {s.split(":")[1] for s in scores["slice"] if ":" in s}
    assert pairs == {"a-b", "a-c", "b-c"}
