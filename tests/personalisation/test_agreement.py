"""C44: judges against the gold, against each other, and against themselves with the answers swapped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.personalisation.agreement import judged, kappa, pairs_of, write_agreement
from user_embeddings_dagster.personalisation.judges import Pair
from user_embeddings_dagster.personalisation.past import Past

USERS, EACH = 12, 20


def world() -> tuple[pl.DataFrame, Past]:
    tasks = [
        {
            "task_id": f"t{user}-{n}", "user_id": f"u{user}", "n_history": 1,
            "kind": "stance" if n % 2 else "knowledge",
            "question": "Which?", "options": [f"own {user}" if i == n % 4 else f"other {i}" for i in range(4)],
            "answer": n % 4, "reference": f"own {user}",
        }
        for user in range(USERS)
        for n in range(EACH)
    ]  # fmt: skip
    users = [f"u{user}" for user in range(USERS)]
    past = Past(
        {user: np.array([0, 1]) for user in users},
        {user: np.ones((2, 2), dtype=np.float32) for user in users},
        {user: [f"SUBJECT: {user}", "SUBJECT: the future"] for user in users},
    )
    return pl.DataFrame(tasks), past


@dataclass
class Right:
    """Always right; with `share`, on that share of the pairs, and wrong on the others."""

    name: str
    share: float = 1.0

    def preferences(self, pairs: Sequence[Pair]) -> np.ndarray:
        lucky = [hash_of(pair) < self.share for pair in pairs]
        own = [pair.first.startswith("own") for pair in pairs]
        return np.array([float(one == good) for one, good in zip(own, lucky, strict=True)])


def hash_of(pair: Pair) -> float:
    """The same whichever way round."""
    return sum(map(ord, "".join(sorted((pair.first, pair.second))))) * 7 % 101 / 101


@dataclass
class FirstComes:
    """A model that takes whatever stands first."""

    name: str = "first"

    def preferences(self, pairs: Sequence[Pair]) -> np.ndarray:
        raise NotImplementedError

    def one_order(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.ones(len(pairs))


def test_pairs_hold_the_gold_at_either_place_and_nothing_of_the_future() -> None:
    tasks, past = world()
    pairs, asked = pairs_of(tasks, past, 200, seed=0)
    assert len(pairs) == asked.height == 200
    first = [pair.first.startswith("own") for pair in pairs]
    assert first == asked["gold_first"].to_list() and 70 < sum(first) < 130
    assert all(pair.second.startswith("other") == is_first for pair, is_first in zip(pairs, first, strict=True))
    assert {pair.reference for pair in pairs} == {f"SUBJECT: u{user}" for user in range(USERS)}
    again, _ = pairs_of(tasks.sample(fraction=1.0, shuffle=True, seed=1), past, 200, seed=0)
    assert again == pairs
    assert pairs_of(tasks.with_columns(n_history=0), past, 200, seed=0)[0] == []


def test_scores_say_who_is_right_who_is_steady_and_who_agrees() -> None:
    tasks, past = world()
    pairs, asked = pairs_of(tasks, past, 240, seed=0)
    judges = [Right("good"), Right("poor", 0.5), FirstComes()]
    found = judged(judges, pairs, asked)  # pyright: ignore[reportArgumentType]
    sheet = ScoreSheet(Scope("judge_agreement_scores", "all", 0, "a" * 32))
    write_agreement(sheet, found, [(judge.name, "1") for judge in judges])
    rows = {(r["model"], r["metric"], r["slice"]): r for r in sheet.frame().iter_rows(named=True)}
    value = {key: row["value"] for key, row in rows.items()}
    assert value["good", "pair_accuracy", "all"] == 1.0
    assert 0.3 < value["poor", "pair_accuracy", "all"] < 0.7
    assert value["first", "pair_accuracy", "all"] == 0.5 and value["first", "order_consistency", "all"] == 0.0
    assert value["good", "order_consistency", "stance"] == 1.0
    assert abs(value["good ~ poor", "kappa", "all"]) < 0.4 and value["good ~ first", "kappa", "all"] == 0.0
    row = rows["poor", "pair_accuracy", "all"]
    assert row["ci_low"] < row["value"] < row["ci_high"] and row["n_users"] == USERS


def test_kappa_is_cohens() -> None:
    """Against a table worked by hand: 20 and 15 agreements of 50; observed .7, by chance .5."""
    one = np.array([1] * 25 + [0] * 25)
    other = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    verdicts = np.stack([one, other]).astype(float)
    assert kappa(verdicts, np.ones((1, 50)))[0, 0] == pytest.approx(0.4)
    assert kappa(np.stack([one, one]).astype(float), np.ones((1, 50)))[0, 0] == pytest.approx(1.0)
    assert kappa(np.ones((2, 50)), np.ones((1, 50)))[0, 0] == 0.0
