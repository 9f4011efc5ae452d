"""Domain checks on leakage scores: what a reader must be told without reading the table."""

import polars as pl

from user_embeddings_dagster.evaluation.leakage.cross_user import FILTERED
from user_embeddings_dagster.evaluation.leakage.membership import UNTRAINED
from user_embeddings_dagster.evaluation.ranking import CHANCE
from user_embeddings_dagster.quality.outcome import ERROR, WARNING, CheckOutcome


def members_not_named(scores: pl.DataFrame) -> CheckOutcome:
    """No attack names trained users above chance: the intervals of its true-positive rates reach down to chance's."""
    rows = scores.filter(
        pl.col("metric") == "tpr@1%fpr", pl.col("slice").str.ends_with("users"), pl.col("ci_low").is_not_null()
    )
    chance = scores.filter(model=CHANCE, metric="tpr@1%fpr").select("datadao", "slice", chance="value")
    attacks = rows.filter(~pl.col("model").is_in([CHANCE, UNTRAINED])).join(chance, on=["datadao", "slice"])
    above = attacks.filter(pl.col("ci_low") > pl.col("chance"))
    worst = attacks["value"].max()
    metrics = {"attacks": attacks.height, "above_chance": above.height, "highest": float(str(worst or 0.0))}
    return CheckOutcome("members_not_named", above.height == 0, WARNING, metrics)


def filter_holds(scores: pl.DataFrame) -> CheckOutcome:
    """No search filtered by user returned another person's item, and the same searches without the filter did."""
    searches = scores.filter(metric="foreign@10", slice="item search")
    filtered, free = searches.filter(model=FILTERED), searches.filter(pl.col("model") == "no_filter")
    foreign = float(filtered["value"].fill_null(0.0).sum())
    unfiltered = float(free["value"].fill_null(0.0).sum())
    n = int(filtered["n"].sum())
    return CheckOutcome(
        "filter_holds", foreign == 0 and (unfiltered > 0 or n == 0), ERROR,
        {"searches": n, "foreign": foreign, "foreign_unfiltered": unfiltered},
    )  # fmt: skip


def one_insertion_not_exposed(scores: pl.DataFrame) -> CheckOutcome:
    """A history inserted once is not exposed: the interval of its exposure reaches down to chance."""
    once = scores.filter(pl.col("slice") == "inserted 1", pl.col("metric") == "exposure")
    chance = once.filter(model=CHANCE)["value"]
    found = once.filter(pl.col("model") != CHANCE).drop_nulls("ci_low")
    exposed = found.filter(pl.col("ci_low") > (chance[0] if len(chance) else 0.0)).height
    metrics = {"n": float(found["n"].sum()), "exposed": float(exposed)}
    return CheckOutcome("one_insertion_not_exposed", exposed == 0, WARNING, metrics)
