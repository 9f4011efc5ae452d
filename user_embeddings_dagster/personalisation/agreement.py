"""Do judges agree with the gold, with each other, and with themselves when two answers change places?

Every choice task gives one pair: SUBJECT's option and one that is another's. What a judge is shown beside them is the
end of SUBJECT's history before the task, so it must tell who said which from that alone. Tasks count whatever their
validation said: a validator is a judge too, and would pick the tasks that it agrees on.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import bootstrap_statistics
from user_embeddings_dagster.evaluation.scores import ScoreSheet
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.personalisation.judges import Judge, Pair, both_orders
from user_embeddings_dagster.personalisation.past import Past

EVIDENCE_TOKENS = 250
"""Of the history's end: what the frozen text encoder reads of a text."""
CANDIDATES = "gold option and one distractor"


def pairs_of(tasks: pl.DataFrame, past: Past, max_pairs: int, seed: int) -> tuple[list[Pair], pl.DataFrame]:
    """At most `max_pairs` pairs of choice tasks with history of one DataDAO, and their tasks with `gold_first`.

    Which tasks, which distractor and which order, hashes decide.
    """
    choices = tasks.filter(pl.col("answer") >= 0, pl.col("n_history") > 0)
    draws = [int(content_id("pair", str(seed), name)[:8], 16) for name in choices["task_id"]]
    chosen = choices.with_columns(draw=pl.Series(draws, dtype=pl.Int64)).sort("draw", "task_id").head(max_pairs)
    chosen = chosen.with_columns(gold_first=pl.col("draw") % 2 == 0)
    pairs = []
    for task in chosen.iter_rows(named=True):
        others = [text for place, text in enumerate(task["options"]) if place != task["answer"]]
        other = others[task["draw"] // 2 % len(others)]
        shown = "\n\n".join(past.stuffed(task["user_id"], task["n_history"], EVIDENCE_TOKENS))
        sides = (task["reference"], other) if task["gold_first"] else (other, task["reference"])
        pairs.append(Pair(task["user_id"], task["question"], shown, *sides))
    return pairs, chosen.drop("draw")


def judged(judges: Sequence[Judge], pairs: Sequence[Pair], asked: pl.DataFrame) -> pl.DataFrame:
    """`asked` with, for each judge, `<name>` (preference for the first answer) and `<name> steady` (in both orders).

    A judge that is a model is asked in both orders; one that scores each answer for itself cannot turn.
    """
    columns = {}
    for judge in judges:
        ask: Callable[[Sequence[Pair]], np.ndarray] = getattr(judge, "one_order", judge.preferences)
        preferred, steady = both_orders(ask, pairs)
        columns |= {judge.name: pl.Series(preferred, dtype=pl.Float64), f"{judge.name} steady": pl.Series(steady)}
    return asked.with_columns(**columns)


def write_agreement(sheet: ScoreSheet, found: pl.DataFrame, judges: Sequence[tuple[str, str]]) -> None:
    """Rows of the scores: `pair_accuracy` and `order_consistency` of each judge (name, version), `kappa` of each two.

    By task kind and over all, with intervals over users. A pair that a judge finds equal counts half.
    """
    slices = {"all": found, **{kind: part for (kind,), part in sorted(found.group_by("kind"))}}
    for slice_, rows in slices.items():
        users, where = rows["user_id"].to_numpy(), {"slice_": slice_, "candidates": CANDIDATES}
        gold = rows["gold_first"].cast(pl.Float64).to_numpy()
        for name, version in judges:
            said = rows[name].to_numpy()
            values = {
                "pair_accuracy": 1.0 - np.abs(said - gold),
                "order_consistency": rows[f"{name} steady"].cast(pl.Float64).to_numpy(),
            }
            sheet.means(name, values, users, version=version, **where)
        for (one, version), (other, _) in combinations(judges, 2):
            table = np.stack([rows[name].to_numpy() for name in (one, other)])
            if rows.height:
                (estimate,) = bootstrap_statistics(lambda w, t=table: kappa(t, w), users, seed=sheet.scope.seed)
                sheet.add(f"{one} ~ {other}", "kappa", estimate, version=version, **where)


def kappa(verdicts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cohen's kappa [r, 1] of two judges' verdicts [2, n] under weights [r, n] (Cohen 1960).

    0 where both give everything the same verdict: nothing above chance was shown.
    """
    total = np.maximum(weights.sum(axis=1), 1e-12)
    seen = (weights * (verdicts[0] == verdicts[1])).sum(axis=1) / total
    chance = np.zeros(len(weights))
    for value in np.unique(verdicts):
        shares = [(weights * (row == value)).sum(axis=1) / total for row in verdicts]
        chance += shares[0] * shares[1]
    return np.where(chance < 1 - 1e-9, (seen - chance) / np.maximum(1 - chance, 1e-9), 0.0)[:, None]
