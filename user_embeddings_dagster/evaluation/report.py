"""The scores as plain text, for a terminal."""

import polars as pl

from user_embeddings_dagster.evaluation.comparison import differences
from user_embeddings_dagster.evaluation.disclosure import published
from user_embeddings_dagster.quality.escaping import csv_cell, line
from user_embeddings_dagster.settings import report_min_people

HEADLINES = (
    ("item_encoder_scores", "chunk finds its own summary", "all", ("recall@1", "recall@10", "mrr")),
    ("item_encoder_scores", "right SUBJECT among the same window", "same_window", ("recall@1",)),
    ("sequence_encoder_scores", "next chunk, full ranking", "all", ("recall@1", "recall@10", "mrr")),
    ("sequence_encoder_scores", "next chunk, within 30 days", "±30d", ("recall@1", "recall@10", "mrr")),
    ("user_matching_scores", "half a history finds the other half", "all", ("recall@1", "mrr")),
    ("sparse_user_scores", "next chunk of new users, after one chunk", "start=1", ("recall@10", "mrr")),
    ("user_probe_scores", "future topics, linear probe on the past", "topic_shares", ("r2",)),
    ("user_probe_scores", "future active hours, linear probe on the past", "active_hours", ("r2",)),
    ("membership_inference_scores", "users trained on, by the item encoder's loss", "item users", ("auc", "tpr@1%fpr")),
    (
        "membership_inference_scores",
        "users trained on, by the next chunk's loss",
        "sequence users",
        ("auc", "tpr@1%fpr"),
    ),
    ("embedding_inversion_scores", "words read from a vector", "words", ("f1",)),
    ("cross_user_retrieval_scores", "others' items among the ten nearest", "item search", ("foreign@10",)),
    ("datadao_comparison", "next chunk at equal budget", "next_chunk", ("recall@10", "mrr")),
    (
        "datadao_comparison",
        "next chunk at equal budget, the first DataDAO's less the second's",
        "next_chunk:",
        ("recall@10_difference", "mrr_difference"),
    ),
)


def results_table(scores: pl.DataFrame, full: bool = False) -> str:
    """Headline figures with intervals, by task, DataDAO and model; `full` gives every row of every asset.

    Figures about fewer people than the operator allows are hidden (evaluation.disclosure).
    """
    if scores.is_empty():
        return "no scores yet"
    least = report_min_people()
    scores = published(scores, least)
    if full:
        groups = scores.select("asset", "slice").unique().sort("asset", "slice").rows()
        parts = [_section(scores, asset, slice_, slice_, None) for asset, slice_ in groups]
    else:
        parts = [_section(scores, asset, slice_, title, wanted) for asset, title, slice_, wanted in HEADLINES]
    hidden = int(scores["hidden"].sum())
    omitted = scores["value"].null_count() - hidden
    note = [f"{omitted} scores could not be measured (too few users or queries)"] if omitted else []
    if hidden:
        note.append(f"{hidden} scores are hidden: they are about fewer than {least} people, or would tell of these")
    return "\n\n".join([*filter(None, parts), *note])


def as_csv(scores: pl.DataFrame) -> str:
    """Every row that may be published, as CSV that no spreadsheet takes for formulas."""
    rows = published(scores, report_min_people())
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    return rows.with_columns(pl.col(texts).map_elements(csv_cell, return_dtype=pl.String)).write_csv()


def _section(scores: pl.DataFrame, asset: str, slice_: str, title: str, metrics: tuple[str, ...] | None) -> str:
    rows = scores.filter(pl.col("asset") == asset)
    task = slice_.removesuffix(":")
    rows = rows.filter(pl.col("slice") == slice_) if task == slice_ else differences(rows, task)
    rows = rows.filter(pl.col("value").is_not_null() | pl.col("hidden"))
    if metrics is not None:
        rows = rows.filter(pl.col("metric").is_in(metrics))
    if rows.is_empty():
        return ""
    names = list(metrics) if metrics is not None else rows["metric"].unique().sort().to_list()
    cells = {(r["datadao"], r["model"], r["metric"]): _cell(r) for r in rows.iter_rows(named=True)}
    keys = rows.group_by("datadao", "model").agg(pl.col("value").max(), pl.col("n").max(), pl.col("n_users").max())
    keys = keys.sort("datadao", "value", "model")
    table = [["datadao", "model", *names, "n", "users"]]
    for datadao, of_datadao in keys.group_by("datadao", maintain_order=True):
        values = {model: [cells.get((*datadao, model, name), "") for name in names] for model in of_datadao["model"]}
        if of_datadao["value"].null_count() == len(values) > 1:
            alike = [of[0] if len(set(of)) == 1 else "hidden" for of in zip(*values.values(), strict=True)]
            table.append([line(*datadao), f"each of {len(values)} models", *alike, "", ""])
            continue
        for _, model, _, n, users in of_datadao.iter_rows():
            counts = ("", "") if n is None else (f"{n:,}", f"{users:,}")
            table.append([line(*datadao), line(model), *values[model], *counts])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([f"{asset}: {title}", *lines])


def _cell(row: dict[str, object]) -> str:
    if row["hidden"]:
        return f"<{report_min_people()}" if row["few"] else "hidden"
    if row["ci_low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
