"""Plots are small PNGs, the same bytes for the same numbers, and survive little data."""

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.report import results_table
from user_embeddings_dagster.schema import DATA_FUNNEL, SCORES

PNG = b"\x89PNG\r\n\x1a\n"


def scores(n_models: int = 10, intervals: bool = True) -> pl.DataFrame:
    rows = []
    for asset in ("sequence_encoder_scores", "sparse_user_scores", "datadao_comparison"):
        for datadao in ("reddit", "telegram"):
            for number in range(n_models):
                for slice_ in ("all", "history=0", "history=10", "next_chunk"):
                    value = 0.05 * (number + 1)
                    rows.append(
                        {
                            "asset": asset, "datadao": datadao, "model": f"whitened_decayed_mean_{number}",
                            "metric": "mrr", "slice": slice_, "value": value,
                            "ci_low": value - 0.02 if intervals else None,
                            "ci_high": value + 0.02 if intervals else None,
                            "n": 100, "n_users": 40, "seed": 0, "split_hash": "a" * 32, "candidate_set": "full:9",
                            "version": "1",
                        }
                    )  # fmt: skip
    return pl.DataFrame(rows, schema=SCORES.schema)


SEQUENCE = scores().filter(asset="sequence_encoder_scores", datadao="reddit")
LOSSES = [{"step": n, "loss": 5 / (n + 1), "valid_loss": 1.0 if n % 10 == 0 else None} for n in range(100)]
FUNNEL = pl.DataFrame(
    [("zig", n, stage, 10 ** (5 - n), *[None] * 6) for n, stage in enumerate(["records_read", "bot", "chunks"])],
    schema=DATA_FUNNEL.schema,
    orient="row",
)
SWEEP = pl.DataFrame(
    {
        "dimension": [64, 128],
        "value": [0.1, 0.2],
        "ci_low": [0.05, 0.1],
        "ci_high": [0.2, 0.3],
        "bytes": [1e6, 2e6],
        "seconds": [3.0, 5.0],
    }
)
DRAW = {
    "score_bars": lambda: plots.score_bars(SEQUENCE, title="t", highlighted=["whitened_decayed_mean_3"]),
    "history_lines": lambda: plots.history_lines(SEQUENCE, metric="mrr", title="t"),
    "grouped_bars": lambda: plots.grouped_bars(scores(), slice_="next_chunk", title="t"),
    "grouped_by_slice": lambda: plots.grouped_bars(SEQUENCE, by="slice", title="t"),
    "difference_lines": lambda: plots.difference_lines(SEQUENCE.filter(slice="all"), metric="mrr", title="t"),
    "loss_curve": lambda: plots.loss_curve(LOSSES),
    "funnel_bars": lambda: plots.funnel_bars(FUNNEL),
    "dimension_sweep": lambda: plots.dimension_sweep(SWEEP),
}


@pytest.mark.parametrize("name", DRAW)
def test_plot_is_a_small_reproducible_png(name):
    """C71."""
    png = DRAW[name]()
    assert png.startswith(PNG)
    assert 3_000 < len(png) < 120_000
    assert png == DRAW[name]()


def test_plots_show_the_numbers():
    """Other numbers give other pictures: the plot is not of the labels alone."""
    other = SEQUENCE.with_columns(pl.col("value", "ci_low", "ci_high") * 0.5)
    assert plots.score_bars(other, title="t") != plots.score_bars(SEQUENCE, title="t")
    assert plots.loss_curve(LOSSES[:50]) != plots.loss_curve(LOSSES)


def test_a_plot_of_nothing_says_so(monkeypatch):
    """C71: where all figures are of too few people, an empty frame would look like a fault."""
    few = scores(2).with_columns(n_users=pl.lit(3, pl.Int64))

    def drawn(frame: pl.DataFrame) -> list[bytes]:
        return [
            plots.score_bars(frame, title="t"),
            plots.grouped_bars(frame, slice_="next_chunk", title="t"),
            plots.history_lines(frame, metric="mrr", title="t"),
            plots.difference_lines(frame, metric="mrr", title="t"),
        ]

    nothing, something = drawn(few), drawn(scores(2))
    monkeypatch.setattr(plots, "NOTHING", "other words")
    assert drawn(scores(2)) == something
    assert all(one != other for one, other in zip(drawn(few), nothing, strict=True))


def test_nothing_to_draw_and_no_interval_are_no_error():
    bare = scores(2, intervals=False).filter(datadao="reddit", asset="sequence_encoder_scores")
    for frame in (bare, SEQUENCE.clear(), bare.with_columns(value=pl.lit(None, pl.Float64))):
        assert plots.score_bars(frame, title="t").startswith(PNG)
        assert plots.grouped_bars(frame, title="t").startswith(PNG)
    assert plots.history_lines(SEQUENCE.clear(), title="t").startswith(PNG)
    assert plots.loss_curve([]).startswith(PNG)
    assert plots.loss_curve([{"step": 0, "loss": 1.0}]).startswith(PNG)
    assert plots.funnel_bars(FUNNEL.clear()).startswith(PNG)
    assert plots.dimension_sweep(SWEEP.clear()).startswith(PNG)


def test_results_table_shows_headlines_with_intervals_and_says_what_is_missing():
    text = results_table(scores(3))
    assert "0.150 [0.130, 0.170]" in text
    assert "history=10" not in text
    assert "history=10" in results_table(scores(3), full=True)
    omitted = scores(1).with_columns(value=pl.lit(None, pl.Float64), ci_low=pl.lit(None, pl.Float64))
    assert "24 scores could not be measured" in results_table(omitted)
    assert results_table(SCORES.empty()) == "no scores yet"
    assert np.all([len(line) < 200 for line in text.splitlines()])
