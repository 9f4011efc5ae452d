"""Leakage suites on planted members, words, owners and canaries: found where they are, else chance (C21)."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from planted import histories

from assets.leakage import CanaryConfig, CanaryTraining
from user_embeddings_dagster.evaluation.baselines import Predictions
from user_embeddings_dagster.evaluation.leakage import canaries as c
from user_embeddings_dagster.evaluation.leakage.checks import (
    filter_holds,
    members_not_named,
    one_insertion_not_exposed,
)
from user_embeddings_dagster.evaluation.leakage.cross_user import add_item_search, foreign_shares
from user_embeddings_dagster.evaluation.leakage.inversion import (
    WordTask,
    add_retrieval,
    add_words,
    presence,
    vocabulary,
)
from user_embeddings_dagster.evaluation.leakage.membership import (
    Losses,
    add_membership,
    info_nce,
    matched_users,
    sequence_losses,
)
from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.storage.lance_tables import LanceTables

SCOPE = Scope("leakage", "all", 0, "0" * 32)


def value(frame: pl.DataFrame, **where: str) -> float:
    return frame.filter(**where).row(0, named=True)["value"]


def test_members_and_non_members_are_matched_by_datadao_and_length():
    lengths = {"train": [2, 2, 3, 9, 40, 41], "test": [2, 8, 300]}
    rows = [
        {"datadao": "a", "user_id": f"{split}{i}", "split": split}
        for split, sizes in lengths.items()
        for i, n in enumerate(sizes)
        for _ in range(n)
    ]
    found = matched_users(pl.DataFrame(rows), seed=0)
    assert found["member"].sum() == 2
    assert sorted(found.filter(~pl.col("member"))["user_id"]) == ["test0", "test1"]  # nobody is as long as test2
    assert "train3" in found["user_id"]  # 9 chunks for 8


def test_info_nce_leaves_the_own_group_out():
    vectors = unit(np.eye(3, 4) + 0.1)
    everyone = info_nce(vectors, vectors, np.arange(3), np.arange(3), np.arange(3))
    alone = info_nce(vectors, vectors, np.arange(3), np.arange(3), np.zeros(3))
    assert (everyone > 0).all()
    assert alone == pytest.approx(np.zeros(3), abs=1e-9)


@pytest.mark.parametrize(("gap", "named"), [(0.0, False), (3.0, True)])
def test_membership_is_found_where_members_are_memorised(gap, named):
    rng = np.random.default_rng(0)
    users, member = np.repeat(np.arange(200), 3), np.repeat(np.arange(200) < 100, 3)
    untrained = rng.normal(5, 1, 600)
    losses = Losses(users.astype(str), member, untrained + rng.normal(0, 0.1, 600) - gap * member, untrained, "pool:9")
    sheet = ScoreSheet(SCOPE)
    add_membership(sheet, "encoder", [("item users", losses.by_user())], "v")
    frame = sheet.frame()
    control = frame.filter(model="untrained", metric="auc").row(0, named=True)
    assert control["ci_low"] < 0.5 < control["ci_high"]
    assert value(frame, model="chance", metric="auc") == 0.5
    assert (value(frame, model="encoder calibrated", metric="tpr@1%fpr") > 0.9) == named
    assert members_not_named(frame).passed != named
    difference = frame.filter(model="encoder - untrained", metric="auc_difference").row(0, named=True)
    assert (difference["ci_low"] > 0) == named


def test_a_sequence_encoder_that_memorised_its_users_is_told_from_the_frozen_mean():
    people = histories(60, chunks=6)
    people = people.__class__(**{**people.__dict__, "contexts": people.vectors})
    member = np.arange(60) < 30
    answers = unit(people.vectors).copy()
    queries = np.roll(answers, -1, axis=0)  # row i predicts exactly chunk i + 1 …
    strangers = ~member[people.history_of_row]
    queries[strangers] = unit(np.random.default_rng(0).normal(size=queries.shape))[strangers]  # … of members
    losses = sequence_losses(people, member, Predictions(queries, answers), seed=0).by_user()
    assert losses.trained[losses.member].max() < losses.trained[~losses.member].min()
    assert np.abs(losses.untrained[losses.member].mean() - losses.untrained[~losses.member].mean()) < 1


def test_a_text_is_found_from_its_vector_and_not_from_another():
    rng = np.random.default_rng(0)
    texts, users = rng.normal(size=(80, 16)), np.repeat(np.arange(20), 4)
    sheet = ScoreSheet(SCOPE)
    add_retrieval(sheet, "leaky", texts + 0.1 * rng.normal(size=texts.shape), texts, users, slice_="a", version="v")
    add_retrieval(sheet, "noise", rng.normal(size=texts.shape), texts, users, slice_="b", version="v")
    frame = sheet.frame()
    assert value(frame, model="leaky", metric="recall@1") > 0.95
    assert value(frame, model="noise", metric="recall@1") < 0.1
    assert value(frame, model="chance", metric="recall@1", slice="a") == pytest.approx(1 / 80)


def test_words_are_read_from_vectors_that_hold_them_and_not_from_noise():
    rng = np.random.default_rng(0)
    words = {
        split: (rng.random((n, 30)) < 0.1).astype(float) for split, n in (("train", 600), ("valid", 60), ("test", 90))
    }
    mixing = rng.normal(size=(30, 64))
    vectors = {
        "leaky": {split: table @ mixing for split, table in words.items()},
        "noise": {split: rng.normal(size=(len(table), 64)) for split, table in words.items()},
    }
    sheet = ScoreSheet(SCOPE)
    add_words(sheet, WordTask(vectors, words, np.repeat(np.arange(30), 3)), {}, slice_="words")
    frame = sheet.frame()
    assert value(frame, model="leaky") > 0.8  # guesses as many as in training: never quite 1
    assert value(frame, model="noise") < value(frame, model="most_frequent_words") + 0.05


def test_vocabulary_leaves_placeholders_rare_and_common_words_out():
    texts = pl.Series("text", [f"SUBJECT: the garden <EMAIL> rare{chr(97 + i % 26)}" for i in range(10)] + ["the"] * 90)
    assert vocabulary(texts) == ["garden", *sorted(f"rare{chr(97 + i)}" for i in range(10))]
    assert presence(texts[:2], ["garden", "the"]).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_search_with_a_filter_by_user_never_returns_anothers_items(tmp_path):
    """C21: unfiltered searches do, so that the check can see it."""
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "id": [f"{n:032x}" for n in range(60)],
            "user_id": [f"u{n % 6}" for n in range(60)],
            "version": "v",
            "vector": pl.Series(unit(rng.normal(size=(60, 8)))).cast(pl.List(pl.Float32)),
        }
    )
    lance = LanceTables(tmp_path)
    lance.upsert("a", "item_embeddings", rows)
    sheet = ScoreSheet(SCOPE)
    add_item_search(sheet, lance, "a", rows.select("id", "user_id"), rows.head(18), "v")
    frame = sheet.frame()
    assert value(frame, model="filtered_by_user", metric="foreign@10") == 0.0
    assert value(frame, model="no_filter", metric="foreign@10") > 0.7
    assert filter_holds(frame).passed
    leaky = frame.with_columns(value=pl.when(pl.col("model") == "filtered_by_user").then(0.1).otherwise("value"))
    assert not filter_holds(leaky).passed
    blind = frame.with_columns(value=pl.when(pl.col("metric") == "foreign@10").then(0.0).otherwise("value"))
    assert not filter_holds(blind).passed  # a search that finds nobody's items proves nothing


def test_an_item_without_an_owner_counts_as_anothers():
    found = pl.DataFrame({"query": [0, 0], "id": ["a", "b"]})
    shares = foreign_shares(found, pl.DataFrame({"id": ["a"], "user_id": ["u"]}), pl.DataFrame({"user_id": ["u", "w"]}))
    assert shares.tolist() == [0.5, 0.0]


def pool(n: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)]
    vectors = pl.Series(unit(rng.normal(size=(n, 8)))).cast(pl.List(pl.Float32))
    return pl.DataFrame(
        {
            "datadao": "a", "user_id": [f"u{i // 5}" for i in range(n)], "split": "train",
            "position": [i % 5 for i in range(n)], "started_at": times, "ended_at": times,
            "chunk_id": [f"c{i}" for i in range(n)], "window_id": [f"w{i}" for i in range(n)],
            "thread_id": "t", "vector": vectors, "context": vectors,
        }
    )  # fmt: skip


def test_canaries_are_inserted_as_often_as_said():
    chunks = pool(50)
    drawn = c.drawn_canaries(50, 3, (0, 1, 4), seed=0)
    frame = c.planted(chunks, chunks, drawn)
    assert frame.height == 50 + (c.PREFIX + 1) * 3 * (0 + 1 + 4)
    added = frame.filter(pl.col("user_id").str.starts_with("canary"))
    assert added["user_id"].n_unique() == 15
    assert added["chunk_id"].is_unique().all()
    assert added["window_id"].n_unique() == 6 * (c.PREFIX + 1)  # copies share theirs
    assert c.prompts(chunks, drawn).height == 9 * c.PREFIX


@pytest.mark.parametrize(("users", "why"), [(1, "one training user"), (2, "too few"), (12, None)])
def test_too_few_people_for_canaries_are_a_reason_not_an_error(users: int, why: str | None):
    snapshot = pool(5 * users).filter(pl.col("position") < 4)
    found = CanaryTraining.of(snapshot, CanaryConfig()).lacking()
    assert (found is None) if why is None else why in (found or "")


def test_exposure_is_the_most_for_a_memorised_secret_and_chance_for_an_unknown_one():
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(500, 16)))
    drawn = c.drawn_canaries(500, 200, (0, 1), seed=0)
    secret = vectors[drawn.rows[:, -1]]
    queries = np.where((drawn.repeats == 1)[:, None], secret, unit(rng.normal(size=secret.shape)))
    found, n = c.exposures(queries, vectors, drawn)
    assert n == 500 - c.PREFIX
    assert found[drawn.repeats == 1] == pytest.approx(np.log2(n))
    assert found[drawn.repeats == 0].mean() == pytest.approx(c.chance_exposure(n), abs=0.3)
    sheet = ScoreSheet(SCOPE)
    c.add_exposures(sheet, "sequence_encoder", found, n, drawn, "v")
    assert not one_insertion_not_exposed(sheet.frame()).passed
    unseen = ScoreSheet(SCOPE)
    c.add_exposures(unseen, "sequence_encoder", found[::-1], n, drawn, "v")
    assert one_insertion_not_exposed(unseen.frame()).passed


def test_chance_exposure_tends_to_one_over_ln_two():
    assert c.chance_exposure(1) == 0
    assert c.chance_exposure(2) == pytest.approx(0.5)
    assert c.chance_exposure(10**6) == pytest.approx(1 / np.log(2), abs=1e-4)
