"""F9: no published figure is about fewer than k people, and none can be worked out of those that are published."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation.disclosure import published, published_funnel, visible
from user_embeddings_dagster.evaluation.report import as_csv, results_table
from user_embeddings_dagster.schema import DATA_FUNNEL, SCORES
from user_embeddings_dagster.settings import report_min_people

K = 10
Group = tuple[str, str]  # DataDAO and slice


def people(generator: np.random.Generator) -> dict[Group, frozenset[int]]:
    """Who each cell of a report is about: DataDAOs of 1 to 40 people, all of them, and those with long histories."""
    sizes = generator.integers(1, 41, generator.integers(1, 6))
    first, groups = 0, {}
    for number, size in enumerate(sizes):
        groups[f"dao{number}", "all"] = frozenset(range(first, first + size))
        first += size
    everybody = frozenset(range(first))
    groups["all", "all"] = everybody
    length = generator.integers(1, 12, first)
    for at_least in (1, 2, 5, 10):
        groups["all", f"start={at_least}"] = frozenset(user for user in everybody if length[user] >= at_least)
    edge = generator.integers(1, first + 1)
    groups["all", "half<3"] = frozenset(range(edge))
    groups["all", "half>=3"] = frozenset(range(edge, first))
    return {cell: users for cell, users in groups.items() if users}


def report(groups: dict[Group, frozenset[int]], values: np.ndarray) -> pl.DataFrame:
    rows = [
        {
            "asset": "a", "datadao": datadao, "model": model, "metric": "mrr", "slice": slice_,
            "value": float(np.mean([values[user] for user in users])), "ci_low": None, "ci_high": None,
            "n": len(users), "n_users": len(users), "seed": 0, "split_hash": "", "candidate_set": "", "version": "",
        }
        for (datadao, slice_), users in groups.items()
        for model in ("m", "w")
    ]  # fmt: skip
    return SCORES.conform(pl.DataFrame(rows, schema=SCORES.schema))


def told_apart(shown: set[Group], groups: dict[Group, frozenset[int]], k: int) -> list[frozenset[int]]:
    """Groups of 1 to k - 1 people of whom the shown means give the mean: shown themselves, the difference of two of
    which one holds the other, or a shown one less shown parts of it that do not overlap."""
    found = [groups[cell] for cell in shown]
    for one, other in combinations(sorted(shown), 2):
        large, small = sorted((groups[one], groups[other]), key=len, reverse=True)
        if small < large:
            found.append(large - small)
    for family in ("dao", "half"):
        parts = [cell for cell in shown if family in (cell[0][:3], cell[1][:4])]
        if ("all", "all") in shown:
            for n in range(1, len(parts) + 1):
                for chosen in combinations(parts, n):
                    users = [groups[cell] for cell in chosen]
                    if sum(map(len, users)) == len(frozenset().union(*users)):
                        found.append(groups["all", "all"] - frozenset().union(*users))
    return [users for users in found if 0 < len(users) < k]


@pytest.mark.parametrize("seed", range(60))
def test_nobody_learns_of_fewer_than_k_people(seed):
    """F9: an attacker who subtracts what is shown finds no group of 1 to 9; in the raw report, mostly some."""
    generator = np.random.default_rng(seed)
    groups = people(generator)
    scores = report(groups, generator.random(400))
    rows = published(scores, K).filter(~pl.col("hidden"), model="m")
    shown = set(rows.select("datadao", "slice").iter_rows())
    assert told_apart(shown, groups, K) == []
    assert all(n >= K for n in rows["n_users"])


def test_the_raw_reports_leak():
    """The control: the same attacker on what is not suppressed, and on what is without complementary suppression."""
    raw = simple = 0
    for seed in range(60):
        groups = people(np.random.default_rng(seed))
        raw += bool(told_apart(set(groups), groups, K))
        simple += bool(told_apart({cell for cell, users in groups.items() if len(users) >= K}, groups, K))
    assert raw > 50 and simple > 30


def test_large_reports_keep_their_figures():
    """Suppression costs nothing where groups are large."""
    groups = {(f"dao{n}", "all"): frozenset(range(50 * n, 50 * n + 50)) for n in range(4)}
    groups["all", "all"] = frozenset(range(200))
    groups |= {("all", f"start={at}"): frozenset(range(200 - 40 * at)) for at in (1, 2, 3)}
    scores = report(groups, np.zeros(200))
    assert not published(scores, K)["hidden"].any() and visible(scores, K).equals(scores)
    assert not published(report(people(np.random.default_rng(0)), np.zeros(400)), 1)["hidden"].any()


def test_a_difference_does_not_give_a_hidden_figure_away():
    groups = {("dao0", "next_chunk"): frozenset(range(5)), ("dao1", "next_chunk"): frozenset(range(5, 40))}
    groups["all", "next_chunk:dao0-dao1"] = frozenset(range(40))
    hidden = published(report(groups, np.zeros(40)), K).filter("hidden")
    expected = {("dao0", "next_chunk"), ("all", "next_chunk:dao0-dao1")}
    assert set(hidden.select("datadao", "slice").iter_rows()) == expected


def test_what_is_printed_and_written_says_so(monkeypatch):
    monkeypatch.setenv("USER_EMBEDDINGS_REPORT_MIN_PEOPLE", "10")
    groups = {("dao0", "all"): frozenset(range(5)), ("dao1", "all"): frozenset(range(5, 30))}
    groups["all", "all"] = frozenset(range(30))
    scores = report(groups, np.linspace(0.1111, 0.9876, 30))
    secret = [f"{value:.3f}" for value in scores.filter(datadao="dao0")["value"]]
    text = results_table(scores, full=True)
    assert "<10" in text and "hidden" in text and not any(value in text for value in secret)
    assert not any(value in as_csv(scores) for value in secret)
    monkeypatch.setenv("USER_EMBEDDINGS_REPORT_MIN_PEOPLE", "1")
    assert all(value in results_table(scores, full=True) for value in secret)  # the control
    for wrong in ("0", "-1", "ten", ""):
        monkeypatch.setenv("USER_EMBEDDINGS_REPORT_MIN_PEOPLE", wrong)
        with pytest.raises(ValueError, match="whole number"):
            report_min_people()


def test_models_all_of_whose_figures_are_hidden_take_one_line():
    groups = {("dao0", "all"): frozenset(range(5)), ("dao1", "all"): frozenset(range(5, 30))}
    scores = report(groups, np.linspace(0.1111, 0.9876, 30))
    several = pl.concat([scores.with_columns(model=pl.lit(f"model{number}")) for number in range(3)])
    rows = [row.split()[:2] for row in results_table(several, full=True).splitlines() if row.startswith("dao")]
    assert rows == [["dao0", "each"], *(["dao1", f"model{number}"] for number in range(3))]


def test_differences_of_pairs_of_datadaos_stand_among_the_headlines():
    """C49: of two DataDAOs of few people each, the difference is what may be published."""
    groups = {("all", f"next_chunk:dao{one}-dao{one + 1}"): frozenset(range(30)) for one in range(3)}
    pairs = report(groups, np.linspace(0.1, 0.9, 30)).with_columns(
        asset=pl.lit("datadao_comparison"), metric=pl.lit("mrr_difference")
    )
    baseline = pairs.with_columns(model=pl.lit("whitened_decayed_mean@dao1"))
    rows = [row.split()[:2] for row in results_table(pl.concat([pairs, baseline])).splitlines() if row[:3] == "dao"]
    assert rows == [[f"dao{one}-dao{one + 1}", model] for one in range(3) for model in ("m", "w")]


def test_a_funnel_shows_no_stage_of_few_and_no_loss_of_few():
    users = [50, 50, 45, 30, 6, None, 0]
    rows = [("all", order, f"s{order}", 100 - order, None, n, *[None] * 4) for order, n in enumerate(users)]
    funnel = pl.DataFrame(rows, schema=DATA_FUNNEL.schema, orient="row")
    assert published_funnel(funnel, K)["stage_order"].to_list() == [0, 1, 3, 5, 6]
    assert published_funnel(funnel, 1).equals(funnel)
