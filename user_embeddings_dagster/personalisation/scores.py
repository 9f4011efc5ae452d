"""Rows of the scores table from the answers of `training/personalised_answers.py` (C45)."""

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.quality.outcome import WARNING, CheckOutcome

EMBEDDING, SUPERVISED, NOBODY, OTHER = "user_embedding", "supervised", "nobody", "other_user"
COMPARED = (
    (EMBEDDING, NOBODY), (EMBEDDING, OTHER), (EMBEDDING, "mean_vector"), (EMBEDDING, "text"), (EMBEDDING, SUPERVISED),
    (EMBEDDING, "stuffed"), ("embedding_text", "text"), ("embedding_text", EMBEDDING), ("embedding_recent", "recent"),
    ("embedding_recent", EMBEDDING),
)  # fmt: skip
HISTORY = (0, 1, 2, 5, 10, 50)
"""First length of each slice `history=`."""
ACCURACY, JUDGED = "accuracy", "judge_score"


def personalization(tasks: pl.DataFrame, answers: pl.DataFrame, scope: Scope, version: str, judge: str) -> pl.DataFrame:
    """SCORES by condition: accuracy of choices, judge score of free-form answers, and paired differences.

    `tasks`: INSIGHT_TASKS; `answers`: task_id, condition, score. Over all tasks, by kind, by length of history, and of
    the tasks that the validators kept; of all DataDAOs together and of each. Intervals are over users; who is
    in two DataDAOs is one.
    """
    sheet = ScoreSheet(scope)
    begin = pl.lit(None, dtype=pl.Int64)
    for length in HISTORY:
        begin = pl.when(pl.col("n_history") >= length).then(length).otherwise(begin)
    rows = answers.join(tasks, on="task_id").with_columns(user="user_id", history=begin, choice=pl.col("answer") >= 0)
    for metric, part, candidates in (
        (ACCURACY, rows.filter("choice"), "options:4"),
        (JUDGED, rows.filter(~pl.col("choice")), f"judge:{judge}"),
    ):
        for datadao in ("all", *part["datadao"].unique().sort()):
            mine = part if datadao == "all" else part.filter(datadao=datadao)
            slices = {"all": mine, "kept": mine.filter(status="kept")}
            slices |= {f"kind={kind}": mine.filter(kind=kind) for kind in mine["kind"].unique().sort()}
            if datadao == "all":
                slices |= {f"history={n}": mine.filter(history=n) for n in HISTORY}
            for slice_, chosen in slices.items():
                _write(sheet, chosen, metric, slice_, datadao, candidates, version)
    return sheet.frame()


def _write(
    sheet: ScoreSheet, rows: pl.DataFrame, metric: str, slice_: str, datadao: str, candidates: str, version: str
) -> None:
    of = {
        condition: part.sort("task_id") for (condition,), part in sorted(rows.group_by("condition"), key=lambda p: p[0])
    }
    same = {"slice_": slice_, "candidates": candidates, "version": version}
    for condition, part in of.items():
        values = {metric: part["score"].to_numpy()}
        sheet.means(condition, values, part["user"].to_numpy(), datadao=datadao, **same)
    if datadao != "all":
        return
    for better, base in COMPARED:
        if better in of and base in of:
            both = of[better].join(of[base].select("task_id", base="score"), on="task_id").sort("task_id")
            ours, theirs = ({metric: both[name].to_numpy().astype(np.float64)} for name in ("score", "base"))
            sheet.differences(f"{better} - {base}", ours, theirs, both["user"].to_numpy(), **same)


def embedding_helps(scores: pl.DataFrame) -> CheckOutcome:
    """With their own embedding users' choices are found more often than without, and than with somebody else's: both
    differences are above 0 with their 95% intervals."""
    figures: dict[str, float] = {}
    for base in (NOBODY, OTHER):
        row = _difference(scores, f"{EMBEDDING} - {base}", ACCURACY)
        if row is not None:
            figures |= {f"over_{base}": row["value"], f"over_{base}_low": row["ci_low"]}
    lows = [value for name, value in figures.items() if name.endswith("_low")]
    return CheckOutcome("embedding_helps", len(lows) == 2 and min(lows) > 0, WARNING, figures)


def reward_rose(scores: pl.DataFrame) -> CheckOutcome:
    """The reward stage raised the judge's score of free-form answers of held-out users, with the 95% interval, and cost
    no accuracy of choices: the upper end of that difference is not below 0."""
    figures: dict[str, float] = {}
    judged = _difference(scores, f"{EMBEDDING} - {SUPERVISED}", JUDGED)
    chosen = _difference(scores, f"{EMBEDDING} - {SUPERVISED}", ACCURACY)
    if judged is not None:
        figures |= {"judge_score": judged["value"], "judge_score_low": judged["ci_low"]}
    if chosen is not None:
        figures |= {"accuracy": chosen["value"], "accuracy_high": chosen["ci_high"]}
    passed = figures.get("judge_score_low", 0.0) > 0 and figures.get("accuracy_high", 0.0) >= 0
    return CheckOutcome("reward_rose", passed, WARNING, figures)


def _difference(scores: pl.DataFrame, model: str, metric: str) -> dict | None:
    rows = scores.filter(model=model, metric=f"{metric}_difference", slice="all", datadao="all").drop_nulls("ci_low")
    return rows.row(0, named=True) if rows.height else None
