"""Small PNG plots of scores, losses and funnels, for the metadata of assets.

Drawn on figures of their own (no pyplot state), so that threads do not meet; the same numbers give the same
bytes. Labels are model, metric, stage and DataDAO names: nothing personal.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.disclosure import published_funnel, visible
from user_embeddings_dagster.quality.escaping import label
from user_embeddings_dagster.settings import report_min_people

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#22303c", "#8a97a3", "#e3e8ec"
PALETTE = ("#2f6fbb", "#d9822b", "#3a9a6e", "#a84b8f", "#6b7f2a", "#c2453d", "#4aa5b5", "#7a5cc0")
DPI = 110
WIDTH = 7.2  # inches
NOTHING = "nothing to show: nothing was measured, or only of too few people to be told"


def score_bars(
    scores: pl.DataFrame,
    *,
    metric: str = "mrr",
    slice_: str = "all",
    title: str,
    highlighted: Sequence[str] = (),
) -> bytes:
    """Horizontal bars of one metric per model, with 95% intervals, best on top; `highlighted` models in colour."""
    rows = _rows(_shown(scores), metric, slice_).sort("value", "model")
    figure, axes = _figure(0.9 + 0.32 * max(3, rows.height))
    places = np.arange(rows.height)
    colours = [PALETTE[0] if model in highlighted else "#b8c4ce" for model in rows["model"]]
    axes.barh(places, rows["value"].to_numpy(), height=0.68, color=colours)
    _intervals(axes, rows, places, horizontal=True)
    axes.set_yticks(places, [_short(model) for model in rows["model"]])
    top = float(rows.select(pl.max_horizontal("value", "ci_high").max()).item() or 1.0)
    for place, row in zip(places, rows.iter_rows(named=True), strict=True):
        axes.text(max(row["value"], row["ci_high"] or 0) + 0.015 * top, place, f"{row['value']:.3f}", va="center")
    axes.set_xlim(0, top * 1.14)
    axes.set_xlabel(_labelled(metric, rows))
    return _png(figure, axes, title, grid="x")


def score_lines(
    scores: pl.DataFrame,
    *,
    metric: str,
    slices: Mapping[str, str],
    title: str,
    xlabel: str,
    logarithmic: bool = False,
) -> bytes:
    """One line per model over `slices` ({slice: tick label}, in order); the two best on average with intervals."""
    figure, axes = _figure(3.4)
    order = list(slices)
    rows = _shown(scores).filter(pl.col("metric") == metric, pl.col("slice").is_in(order)).drop_nulls("value")
    means = rows.group_by("model").agg(pl.col("value").mean()).sort(["value", "model"], descending=[True, False])
    models = means["model"].to_list()
    for number, model in enumerate(models):
        mine = {row["slice"]: row for row in rows.filter(model=model).iter_rows(named=True)}
        places = [place for place, name in enumerate(order) if name in mine]
        found = [mine[order[place]] for place in places]
        colour, style = PALETTE[number % len(PALETTE)], "-" if number < len(PALETTE) else "--"
        axes.plot(
            places, [row["value"] for row in found], style, marker="o", ms=4, lw=1.8, color=colour, label=_short(model)
        )
        if number < 2 and all(row["ci_low"] is not None for row in found):
            low, high = [row["ci_low"] for row in found], [row["ci_high"] for row in found]
            axes.fill_between(places, low, high, color=colour, alpha=0.13, lw=0)
    axes.set_xticks(range(len(order)), [slices[name] for name in order])
    axes.set_xlabel(xlabel)
    axes.set_ylabel(metric)
    if logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    _legend(axes)
    return _png(figure, axes, title, grid="y")


def history_lines(scores: pl.DataFrame, *, metric: str = "recall@10", title: str) -> bytes:
    """`metric` by length of history, from the rows of `sparse_user_scores`."""
    found = scores["slice"].unique().str.extract(r"^history=(\d+)$").drop_nulls().cast(pl.Int64).sort()
    slices = {f"history={length}": str(length) for length in found}
    return score_lines(scores, metric=metric, slices=slices, title=title, xlabel="chunks of history before the target")


def grouped_bars(
    scores: pl.DataFrame, *, metric: str = "mrr", slice_: str | None = None, by: str = "datadao", title: str
) -> bytes:
    """One group of bars per DataDAO (or other column `by`), one bar per model, with intervals.

    `slice_` None: of every slice. DataDAO `all` stands for none of them and is no group.
    """
    scores = _shown(scores)
    rows = scores.filter(metric=metric) if slice_ is None else scores.filter(metric=metric, slice=slice_)
    rows = rows.drop_nulls("value")
    if by == "datadao":
        rows = rows.filter(pl.col("datadao") != "all")
    groups, models = rows[by].unique().sort().to_list(), rows["model"].unique().sort().to_list()
    figure, axes = _figure(3.6)
    width = 0.8 / max(1, len(models))
    for number, model in enumerate(models):
        mine = rows.filter(model=model).sort(by)
        places = np.array([groups.index(name) for name in mine[by]]) + (number - (len(models) - 1) / 2) * width
        axes.bar(
            places, mine["value"].to_numpy(), width * 0.92, color=PALETTE[number % len(PALETTE)], label=_short(model),
            hatch="//" if number >= len(PALETTE) else None, edgecolor="white", linewidth=0,
        )  # fmt: skip
        _intervals(axes, mine, places, horizontal=False)
    axes.set_xticks(range(len(groups)), [_short(name) for name in groups])
    axes.set_ylabel(_labelled(metric, rows))
    _legend(axes)
    return _png(figure, axes, title, grid="y")


def difference_lines(scores: pl.DataFrame, *, metric: str, title: str) -> bytes:
    """One line per difference (DataDAO column and model): its value with its 95% interval, beside zero."""
    rows = _shown(scores).filter(metric=metric).drop_nulls("value").sort("datadao", "model", descending=True)
    figure, axes = _figure(0.9 + 0.32 * max(3, rows.height))
    places = np.arange(rows.height)
    if rows.height:
        axes.axvline(0, color=MUTED, lw=1)
        axes.plot(rows["value"].to_numpy(), places, "o", color=PALETTE[0], markersize=5)
    _intervals(axes, rows, places, horizontal=True)
    axes.set_yticks(
        places, [_short(f"{datadao}: {model}") for datadao, model in rows.select("datadao", "model").rows()]
    )
    axes.set_xlabel(_labelled(metric, rows))
    return _png(figure, axes, title, grid="x")


def loss_curve(metrics: Sequence[Mapping[str, Any]], title: str = "Training loss") -> bytes:
    """Loss by step from the lines of `metrics.jsonl` (`step`, `loss`, perhaps `valid_loss`); bold: running mean."""
    figure, axes = _figure(3.0)
    for number, key in enumerate(("loss", "valid_loss")):
        points = [(line["step"], line[key]) for line in metrics if line.get(key) is not None]
        if not points:
            continue
        steps, losses = np.array(points, dtype=np.float64).T
        colour = PALETTE[number]
        if key == "loss":
            axes.plot(steps, losses, color=colour, alpha=0.28, lw=1)
            window = max(1, len(losses) // 20)
            sums = np.cumsum(np.insert(losses, 0, 0.0))
            begin = np.maximum(np.arange(len(losses)) + 1 - window, 0)
            losses = (sums[1:] - sums[begin]) / (np.arange(len(losses)) + 1 - begin)
        axes.plot(steps, losses, color=colour, lw=2, marker="o" if key == "valid_loss" else "", ms=4, label=key)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if len(axes.lines) > 2:
        _legend(axes)
    return _png(figure, axes, title, grid="both")


def funnel_bars(funnel: pl.DataFrame, title: str = "Data funnel") -> bytes:
    """Samples per stage of a DATA_FUNNEL frame, DataDAOs summed, on a logarithmic axis; losses in a muted colour.

    "(capped)": a configured cap left something out on the way to the stage.
    """
    from user_embeddings_dagster.evaluation.funnel import LOSSES

    bit = pl.col("caps").str.extract_all(r'"left_out": [1-9]').list.len().fill_null(0).sum() > 0
    whole = funnel.group_by("stage_order", "stage").agg(pl.col("n").sum(), _people(pl.col("n_users")), capped=bit)
    rows = published_funnel(whole.with_columns(datadao=pl.lit("all")), report_min_people())
    rows = rows.sort("stage_order", descending=True)
    figure, axes = _figure(0.9 + 0.26 * max(3, rows.height))
    places, n = np.arange(rows.height), rows["n"].to_numpy()
    colours = ["#d8a7a3" if stage in LOSSES else PALETTE[0] for stage in rows["stage"]]
    axes.barh(places, np.maximum(n, 0.5), height=0.72, color=colours)
    for place, count, capped in zip(places, n, rows["capped"], strict=True):
        axes.text(max(count, 0.5) * 1.15, place, f"{count:,}" + (" (capped)" if capped else ""), va="center")
    axes.set_yticks(places, [stage.replace("_", " ") for stage in rows["stage"]])
    axes.set_xscale("log")
    axes.set_xlim(0.5, float(n.max(initial=1)) * 14)
    axes.set_xlabel("samples (logarithmic; red: lost)")
    return _png(figure, axes, title, grid="x")


def dimension_sweep(rows: pl.DataFrame, *, metric: str = "mrr", title: str = "Embedding dimension") -> bytes:
    """Quality, size and time by dimension: `dimension`, `value`, `ci_low`, `ci_high`, `bytes`, `seconds`."""
    figure, axes = _figure(2.9, columns=3)
    rows = rows.sort("dimension")
    x = rows["dimension"].to_numpy()
    panels = ((metric, rows["value"]), ("MB of weights", rows["bytes"] / 1e6), ("training seconds", rows["seconds"]))
    for number, (panel, (name, values)) in enumerate(zip(axes, panels, strict=True)):
        panel.plot(x, values.to_numpy(), marker="o", ms=4, lw=1.8, color=PALETTE[number])
        if number == 0 and not rows["ci_low"].null_count():
            panel.fill_between(
                x, rows["ci_low"].to_numpy(), rows["ci_high"].to_numpy(), color=PALETTE[0], alpha=0.14, lw=0
            )
        if len(x):  # nothing has no logarithm
            panel.set_xscale("log", base=2)
        panel.set_xticks(x, [str(dimension) for dimension in x])
        panel.set_ylim(bottom=0)
        panel.set_xlabel("dimension")
        panel.set_title(name, fontsize=9, color=INK)
        _style(panel, "y")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK)
    return _png(figure)


def _shown(scores: pl.DataFrame) -> pl.DataFrame:
    """The rows of SCORES that may be published; a frame that is not about people is left as it is."""
    return visible(scores, report_min_people()) if {"asset", "n_users"} <= set(scores.columns) else scores


def _people(column: pl.Expr) -> pl.Expr:
    """Sum over DataDAOs; null where none tells."""
    return pl.when(column.count() > 0).then(column.sum()).alias("n_users")


def _rows(scores: pl.DataFrame, metric: str, slice_: str) -> pl.DataFrame:
    return scores.filter(pl.col("metric") == metric, pl.col("slice") == slice_).drop_nulls("value")


def _labelled(metric: str, rows: pl.DataFrame) -> str:
    users = rows["n_users"].max()
    return metric if users is None else f"{metric} (95% interval over {users} users)"


def _short(model: str) -> str:
    return label(model.replace("_", " "))


def _figure(height: float, columns: int = 1) -> tuple["Figure", Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _intervals(axes: "Axes", rows: pl.DataFrame, places: np.ndarray, *, horizontal: bool) -> None:
    """Error bars where there is an interval."""
    known = rows["ci_low"].is_not_null().to_numpy()
    part = rows.filter(pl.col("ci_low").is_not_null())
    if part.is_empty():
        return
    value = part["value"].to_numpy()
    error = np.maximum(np.stack([value - part["ci_low"].to_numpy(), part["ci_high"].to_numpy() - value]), 0)
    style: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.1, "capsize": 2.5, "alpha": 0.8}
    if horizontal:
        axes.errorbar(value, places[known], xerr=error, **style)
    else:
        axes.errorbar(places[known], value, yerr=error, **style)


def _legend(axes: "Axes") -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=INK)


def _style(axes: "Axes", grid: Literal["x", "y", "both"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=8, length=3)
    axes.grid(axis=grid, color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_fontsize(9)
        text.set_color(INK)
    for text in axes.texts:
        text.set_fontsize(8)
        text.set_color(INK)


def _png(figure: "Figure", axes: "Axes | None" = None, title: str = "", grid: Literal["x", "y", "both"] = "y") -> bytes:
    if axes is not None:
        if not axes.has_data():
            axes.text(0.5, 0.5, NOTHING, transform=axes.transAxes, ha="center", va="center")
        _style(axes, grid)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
