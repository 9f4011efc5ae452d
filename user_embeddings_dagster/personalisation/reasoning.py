"""Rows of the scores table from the answers of `training/reasoning_bias.py` (C47)."""

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import Estimate
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.quality.outcome import WARNING, CheckOutcome

BARE, EMBEDDING, ADAPTER = "bare_decoder", "user_embedding", "user_adapter"
ON_SAME = "user_embedding (users with an adapter)"
VOICED = "user_embedding (in the user's voice)"
AGAINST = "user_embedding - user_adapter"
MAX_CHANGE = 0.01
CHANCE = 0.25


def bias_scores(answers: pl.DataFrame, gains: pl.DataFrame, scope: Scope, version: str) -> pl.DataFrame:
    """SCORES by model, on all questions and each kind; a user's figures are means over the questions.

    accuracy; accuracy_difference from the bare decoder's; accuracy_change, the same without its sign, so that users do
    not cancel; accuracy_range and accuracy_std over users; answers_changed; answer_kl (nats); gain (nats a token on the
    user's next chunk). Intervals are over people: the questions are taken as they are. VOICED: the embedding of users
    with an adapter, at the strength that the decoder speaks as them with.
    """
    sheet = ScoreSheet(scope)
    adapted = answers.filter(model=ADAPTER)["user"].unique()
    on_same = answers.filter(pl.col("user").is_in(adapted.implode()), model=EMBEDDING)
    models = {name: answers.filter(model=name) for name in (EMBEDDING, VOICED, ADAPTER)} | {ON_SAME: on_same}
    bare = answers.filter(model=BARE)
    for slice_, kind in [("all", None), *((f"kind={kind}", kind) for kind in bare["kind"].unique().sort())]:
        asked = bare if kind is None else bare.filter(kind=kind)
        right, candidates = float(asked["right"].to_numpy().mean()), f"options:4x{asked.height}"
        same = {"slice_": slice_, "candidates": candidates, "version": version}
        sheet.add(BARE, "accuracy", Estimate(right, None, None, asked.height, 0), **same)
        found = {
            name: _by_user(rows if kind is None else rows.filter(kind=kind), right) for name, rows in models.items()
        }
        for name, (users, values) in found.items():
            if not len(users):
                continue
            sheet.means(name, values, users, **same)
            n_users = len(np.unique(users))
            for metric, value in (
                ("accuracy_range", np.ptp(values["accuracy"])),
                ("accuracy_std", values["accuracy"].std()),
            ):
                sheet.add(name, metric, Estimate(float(value), None, None, len(users), n_users), **same)
        users, values = found[ADAPTER]
        if len(users):
            compared = ("accuracy_change", "answers_changed", "answer_kl")
            embedding = {metric: found[ON_SAME][1][metric] for metric in compared}
            sheet.differences(AGAINST, embedding, {metric: values[metric] for metric in compared}, users, **same)
    _write_gains(sheet, gains, version)
    return sheet.frame()


def _by_user(answers: pl.DataFrame, bare: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """By user in order, who it is (a person in two DataDAOs is two users), and by metric a value."""
    # In order: sums of threads' parts differ in the last digit from run to run.
    rows = answers.group_by("user", "person", maintain_order=True).agg(
        accuracy=pl.col("right").mean(), answers_changed=pl.col("changed").mean(), answer_kl=pl.col("kl").mean()
    )
    rows = rows.sort("user").with_columns(accuracy_difference=pl.col("accuracy") - bare)
    rows = rows.with_columns(accuracy_change=pl.col("accuracy_difference").abs())
    metrics = [name for name in rows.columns if name not in ("user", "person")]
    return rows["person"].to_numpy(), {name: rows[name].to_numpy() for name in metrics}


def _write_gains(sheet: ScoreSheet, gains: pl.DataFrame, version: str) -> None:
    """What each model is for, beside what it costs."""
    if gains.is_empty():
        for name in (EMBEDDING, ADAPTER):
            sheet.omit(name, "gain", reason="nobody asked has a next chunk", slice_="next chunk", version=version)
        return
    wide = gains.pivot("model", index=["user", "person"], values="gain").sort("user")
    users, same = wide["person"].to_numpy(), {"slice_": "next chunk", "candidates": "none", "version": version}
    values = {name: {"gain": wide[name].to_numpy()} for name in (EMBEDDING, ADAPTER)}
    for name, each in values.items():
        sheet.means(name, each, users, **same)
    sheet.differences(AGAINST, values[EMBEDDING], values[ADAPTER], users, **same)


def reasoning_unbiased(scores: pl.DataFrame) -> CheckOutcome:
    """A user's embedding changes the accuracy on neutral questions by less than a point, and by less than an adapter.

    Means over users of the change without its sign; the adapter's on the same users, where there are any.
    """
    rows = scores.filter(metric="accuracy_change", slice="all")
    change = {model: rows.filter(model=model)["value"] for model in (EMBEDDING, ON_SAME, ADAPTER)}
    figures = {name: float(values[0]) for name, values in change.items() if len(values)}
    passed = figures.get(EMBEDDING, 1.0) < MAX_CHANGE
    if ADAPTER in figures:
        passed &= figures[ON_SAME] < figures[ADAPTER]
    named = {"user_embedding": EMBEDDING, "user_embedding_same_users": ON_SAME, "user_adapter": ADAPTER}
    return CheckOutcome(
        "reasoning_unbiased", passed, WARNING, {name: figures[key] for name, key in named.items() if key in figures}
    )
