"""Linear probes find what is linear, and nothing where there is nothing (C40)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from planted import histories as planted

from user_embeddings_dagster.evaluation.attributes import Attribute, attributes_of, topics
from user_embeddings_dagster.evaluation.baselines import Predictions, train_statistics
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.probes import (
    NO_FEATURES,
    SPLITS,
    ProbeModel,
    ProbeTask,
    auc,
    probe,
    probe_scores,
    r_squared,
)
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.user_probes import measure_probes
from user_embeddings_dagster.schema import MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import Lake

SCOPE = Scope("user_probe_scores", "all", 3, "f" * 32)
SIZES = {"train": 150, "valid": 60, "test": 80}


def planted_probe(noise: float = 0.3, seed: int = 0) -> tuple[dict[str, ProbeModel], list[ProbeTask]]:
    """Embeddings of 12 coordinates; an amount and a class that are linear in them, and an amount that is not."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((12, 2))
    features = {split: rng.standard_normal((n, 12)) for split, n in SIZES.items()}
    classes = ("a", "b", "c")

    def attribute(name, values, classes=()):
        return {split: Attribute(name, values(rows), classes) for split, rows in features.items()}

    attributes = [
        attribute("linear", lambda x: x @ weights + noise * rng.standard_normal((len(x), 2))),
        attribute("class", lambda x: x[:, :3].argmax(axis=1), classes),
        attribute("nothing", lambda x: rng.standard_normal((len(x), 1))),
    ]
    users = np.array([f"u{i}" for i in range(SIZES["test"])])
    shuffled = {split: rng.permutation(rows) for split, rows in features.items()}
    models = {
        "whitened_mean": ProbeModel(features, "baseline"),
        "shuffled": ProbeModel(shuffled, "baseline"),
        "scaled": ProbeModel({split: 1e4 * rows + 7 for split, rows in features.items()}, "baseline"),
    }
    return models, [ProbeTask(attribute, users) for attribute in attributes]


def value(scores: pl.DataFrame, model: str, slice_: str, metric: str) -> float:
    return scores.filter(model=model, slice=slice_, metric=metric)["value"].item()


def test_a_probe_finds_what_is_linear_and_nothing_in_shuffled_embeddings():
    """C40: what the embedding linearly predicts, and what it does not; each beside the mean or the majority."""
    models, tasks = planted_probe()
    scores = probe_scores(SCOPE, tasks, models, compared=["shuffled"])
    assert value(scores, "whitened_mean", "linear", "r2") > 0.9
    assert value(scores, "whitened_mean", "class", "accuracy") > 0.75
    assert value(scores, "whitened_mean", "class", "auc") > 0.85
    for slice_, metric, chance in (("linear", "r2", 0.0), ("class", "auc", 0.5), ("nothing", "r2", 0.0)):
        assert value(scores, "shuffled", slice_, metric) == pytest.approx(chance, abs=0.12)
        assert value(scores, NO_FEATURES, slice_, metric) == pytest.approx(chance, abs=0.05)
    assert value(scores, "whitened_mean", "nothing", "r2") < 0.1
    assert value(scores, "scaled", "linear", "r2") == pytest.approx(value(scores, "whitened_mean", "linear", "r2"))
    worse = scores.filter(model="shuffled - whitened_mean", slice="linear", metric="r2_difference").row(0, named=True)
    assert worse["ci_high"] < -0.7
    assert (worse["n"], worse["n_users"], worse["candidate_set"]) == (80, 80, "amounts:2")
    assert scores["ci_low"].null_count() == 0
    assert scores.filter(slice="class")["candidate_set"].unique().to_list() == ["classes:3"]


def test_the_penalty_is_chosen_on_validation_users_and_the_fit_never_sees_test_users():
    models, [task, *_] = planted_probe(noise=3.0)
    model = models["whitened_mean"]
    chosen = probe(model, task)
    flipped = {**task.attributes, "test": task.attributes["test"].of(np.arange(80)[::-1])}
    assert (probe(model, replace(task, attributes=flipped)) == chosen).all()
    # Validation users for whom everything is the other way round: the strongest penalty, near the mean.
    against = {**task.attributes, "valid": replace(task.attributes["valid"], values=-task.attributes["valid"].values)}
    assert np.abs(probe(model, replace(task, attributes=against))).mean() < 0.1 * np.abs(chosen).mean()


def test_rounding_noise_is_no_feature():
    """An encoder's null directions come with arbitrary axes: their float noise must not become a feature."""
    models, [task, *_] = planted_probe()
    features = models["whitened_mean"].features
    rng = np.random.default_rng(0)
    noisy = {split: np.hstack([rows, 1e-7 * rng.standard_normal((len(rows), 40))]) for split, rows in features.items()}
    assert probe(ProbeModel(noisy, "0"), task) == pytest.approx(probe(models["whitened_mean"], task), abs=1e-12)
    wide = {split: np.hstack([rows, 1e-3 * rng.standard_normal((len(rows), 40))]) for split, rows in features.items()}
    assert np.abs(probe(ProbeModel(wide, "0"), task) - probe(models["whitened_mean"], task)).max() > 1e-3


def test_r_squared_and_auc_equal_their_definitions_under_weights():
    rng = np.random.default_rng(1)
    values, predicted = rng.standard_normal((30, 2)), rng.standard_normal((30, 2))
    weights = rng.integers(0, 3, (4, 30)).astype(float)
    positive, scores = rng.random(30) < 0.4, rng.integers(0, 6, 30).astype(float)  # with ties
    for row, r2, area in zip(
        weights, r_squared(values, predicted, weights), auc(positive, scores, weights), strict=True
    ):
        drawn = np.repeat(np.arange(30), row.astype(int))
        v, p = values[drawn], predicted[drawn]
        assert r2 == pytest.approx(1 - ((v - p) ** 2).sum() / ((v - v.mean(axis=0)) ** 2).sum())
        good, bad = scores[drawn][positive[drawn]], scores[drawn][~positive[drawn]]
        pairs = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
        assert area == pytest.approx(pairs)
    assert np.isnan(auc(np.ones(30, dtype=bool), scores, weights)).all()


def test_what_does_not_differ_or_has_too_few_users_is_an_explicit_omission():
    models, [task, *_] = planted_probe()
    constant = {split: replace(a, values=np.ones_like(a.values)) for split, a in task.attributes.items()}
    rare = {split: Attribute("rare", (np.arange(n) < 2).astype(int), ("no", "yes")) for split, n in SIZES.items()}
    few = {split: a.of(np.arange(3)) for split, a in task.attributes.items()}
    some = {name: ProbeModel({s: x[:3] for s, x in m.features.items()}, "0") for name, m in models.items()}
    for attributes, chosen, users in (
        (constant, models, task.users),
        (rare, models, task.users),
        (few, some, task.users[:3]),
    ):
        scores = probe_scores(SCOPE, [ProbeTask(attributes, users)], chosen, compared=["shuffled"])
        assert scores["value"].null_count() == scores.height > 0
        assert scores["n"].unique().to_list() == [0]


def test_attributes_are_those_of_the_chunks():
    h = planted(2, lengths=np.array([2, 3]), dim=6)
    at = np.array([1, 2, 13, 14, 19]) * 3_600 + 86_400 * np.array([0, 7, 0, 1, 14])
    h = replace(h, started=at - 60, ended=at)
    facts = pl.DataFrame(
        {
            "chunk_id": h.chunk_ids,
            "datadao": ["zig"] * 2 + ["reddit"] * 3,
            "n_subject_turns": [1, 1, 2, 2, 2],
            "n_turns": [2, 6, 2, 4, 6],
            "n_tokens": [10, 30, 5, 5, 5],
            "opens": [True, False, True, True, False],
        }
    )
    statistics = train_statistics(planted(30, 6, dim=6).vectors)
    directions = statistics.centred(h.vectors[[0, 4]])
    found = attributes_of(h, facts, statistics, directions, ["reddit", "zig"])
    assert found["active_hours"].values.tolist() == [[1, 0, 0, 0], [0, 0, 2 / 3, 1 / 3]]
    assert found["dominant_hours"].values.tolist() == [0, 2]
    assert found["datadao"].values.tolist() == [1, 0]
    assert found["opens_window"].values[:, 0] == pytest.approx([1 / 2, 2 / 3])
    assert found["subject_turn_share"].values[:, 0] == pytest.approx([2 / 8, 6 / 12])
    assert found["chunk_tokens"].values[:, 0] == pytest.approx(np.log1p([20, 5]))
    weeks = (at[[1, 4]] - at[[0, 2]] + 60) / 604_800
    assert found["chunks_per_week"].values[:, 0] == pytest.approx(np.log([2, 3] / weeks))
    assert found["topic_shares"].values.sum(axis=1) == pytest.approx([1, 1])
    assert found["dominant_hours"].targets.tolist() == [[1, -1, -1, -1], [-1, -1, 1, -1]]
    with pytest.raises(ValueError, match="1 of 5 chunks"):
        attributes_of(h, facts[1:], statistics, directions, ["reddit", "zig"])


def test_topics_are_the_planted_clusters_and_the_same_every_time():
    rng = np.random.default_rng(0)
    centres = 4 * np.eye(10)[:5]
    which = rng.integers(0, 5, 400)
    vectors = (centres[which] + 0.3 * rng.standard_normal((400, 10))).astype(np.float32)
    statistics = train_statistics(vectors)
    directions = topics(vectors, statistics, seed=0, n_topics=5)
    closest = unit(statistics.centred(centres.astype(np.float32))) @ directions.T
    assert sorted(closest.argmax(axis=1)) == [0, 1, 2, 3, 4]
    assert closest.max(axis=1).min() > 0.98
    assert (topics(vectors, statistics, seed=0, n_topics=5) == directions).all()
    assert len(topics(np.ones((6, 10), np.float32), statistics, seed=0)) >= 1


class Pooled:
    """A stand-in for a sequence model: the mean vector of the history."""

    encoder = type("Encoder", (), {"version": "v7"})()

    def __call__(self, histories) -> Predictions:
        raise AssertionError("probes need states alone")

    def states(self, histories):
        return np.add.reduceat(histories.vectors, histories.offsets[:-1], axis=0) / histories.lengths[:, None]


def test_measured_from_the_lake_over_all_and_within_each_datadao(tmp_path):
    """C40: from the tables, with the user embedding of the past and the attributes of the future."""
    rng = np.random.default_rng(0)
    rows, vectors = [], []
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for user in range(150):
        datadao, split = ("reddit", "zig")[user % 2], SPLITS[(0, 0, 0, 1, 2)[user % 5]]
        person, hour = rng.standard_normal(8), int(rng.integers(0, 24))
        for position in range(8):
            at = start + timedelta(days=2 * position, hours=hour)
            rows.append(
                {
                    "chunk_id": f"{len(rows):032x}", "datadao": datadao, "user_id": f"{user:032x}", "split": split,
                    "position": position, "started_at": at, "ended_at": at + timedelta(minutes=5),
                    "window_id": f"{len(rows):032x}", "thread_id": "t", "n_tokens": int(60 + 40 * np.tanh(person[0])),
                    "opens": bool(person[1] > 0),
                }
            )  # fmt: skip
            vectors.append(person + 0.3 * rng.standard_normal(8))
    frame = pl.DataFrame(rows)
    lake = Lake(tmp_path)
    for name in ("reddit", "zig"):
        lake.commit(MASKED_CHUNKS, chunks(frame.filter(datadao=name)), name)
    snapshot = TRAINING_SNAPSHOT.conform(frame)
    inputs = EvaluationInputs(snapshot, frame["chunk_id"], np.array(vectors, dtype=np.float32), 0)
    scores = measure_probes(lake, inputs, {"sequence_encoder_8": Pooled()})
    assert scores["datadao"].unique().sort().to_list() == ["all", "reddit", "zig"]
    assert (scores["asset"] == "user_probe_scores").all()
    everyone = scores.filter(datadao="all")
    assert value(everyone, "sequence_encoder_8", "chunk_tokens", "r2") > 0.7
    assert value(everyone, "sequence_encoder_8", "opens_window", "r2") > 0.3
    assert value(everyone, "random", "chunk_tokens", "r2") < 0.2
    assert (
        value(everyone, "sequence_encoder_8", "active_hours", "r2")
        < 0.3
        < 0.9
        < (value(everyone, "past_attributes", "active_hours", "r2"))
    )
    assert value(everyone, "datadao_only", "datadao", "accuracy") == 1.0
    assert everyone.filter(model="sequence_encoder_8")["version"].unique().to_list() == ["v7"]
    assert scores.equals(measure_probes(lake, inputs, {"sequence_encoder_8": Pooled()}))


def chunks(frame: pl.DataFrame) -> pl.DataFrame:
    """MASKED_CHUNKS rows; text is filler."""
    speakers = pl.when("opens").then(pl.lit(["SUBJECT", "<P1>"])).otherwise(pl.lit(["<P1>", "SUBJECT"]))
    return frame.with_columns(
        speakers=speakers, turns=pl.lit(["one", "two"]), text=pl.lit("text"), message_ids=pl.lit(["m", "n"]),
        n_subject_turns=1, n_masked=0, context_free=False, community=None,
    )  # fmt: skip
