"""Splits are by user, stable, and no test user's text reaches a trained chunk."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from user_embeddings_dagster.evaluation.splits import (
    build_snapshot,
    leakage_check,
    split_hash,
    split_of,
    user_splits,
)

KEY = bytes(range(32))
START = datetime(2024, 1, 1, tzinfo=UTC)


def named(split: str, count: int = 1, key: bytes = KEY) -> list[str]:
    """Users whose hash falls into `split`."""
    users = (f"{number:032x}" for number in range(10_000))
    found = [user for user in users if split_of(user, key) == split]
    return found[:count]


def chunk(user: str, number: int, turns: list[tuple[str, str]], datadao: str = "telegram", minutes: int | None = None):
    """One MASKED_CHUNKS row (the columns that matter); `turns` are (speaker, message id)."""
    at = START + timedelta(minutes=number if minutes is None else minutes)
    return {
        "chunk_id": f"{datadao}-{user}-{number}" if datadao != "copy" else f"telegram-{user}-{number}",
        "datadao": datadao, "user_id": user, "window_id": f"w{number}", "thread_id": "t", "started_at": at,
        "ended_at": at + timedelta(seconds=5), "speakers": [speaker for speaker, _ in turns],
        "message_ids": [message for _, message in turns],
    }  # fmt: skip


def alone(user: str, count: int, datadao: str = "telegram") -> list[dict]:
    """Chunks in which only `user` speaks."""
    return [chunk(user, n, [("SUBJECT", f"{datadao}-{user}-m{n}")], datadao) for n in range(count)]


def build(rows: list[dict], **options):
    options = {"key": KEY, "min_chunks_per_user": 1, "max_chunks_per_user": None, **options}
    return build_snapshot(pl.DataFrame(rows), **options)


def test_split_is_a_stable_function_of_key_and_user_with_the_asked_shares():
    users = pl.Series([f"{n:032x}" for n in range(5_000)])
    splits = user_splits(users, KEY)
    assert splits.equals(user_splits(users.sample(fraction=1, shuffle=True, seed=1), KEY))
    shares = dict(splits["split"].value_counts(normalize=True).iter_rows())
    assert shares["train"] == pytest.approx(0.7, abs=0.02)
    assert shares["valid"] == pytest.approx(0.1, abs=0.02)
    other = user_splits(users, bytes(32))
    assert (splits["split"] != other["split"]).sum() > 1_000  # only the key's holder knows the sides
    with pytest.raises(ValueError, match="sum to 1"):
        split_of("a" * 32, KEY, shares=(0.5, 0.1, 0.1))


def test_the_same_person_in_two_datadaos_is_on_one_side():
    users = named("train", 3) + named("test", 3)
    rows = [row for user in users for row in alone(user, 3, "telegram") + alone(user, 3, "reddit")]
    snapshot = build(rows).snapshot
    assert snapshot.group_by("user_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert snapshot["datadao"].n_unique() == 2
    positions = snapshot.sort("datadao", "user_id", "ended_at")["position"].to_list()
    assert positions == [0, 1, 2] * 12


def test_trained_chunks_that_hold_a_test_users_message_are_left_out():
    """C32, Law 7: also where the windows differ and only a message is shared."""
    train, test, valid = named("train")[0], named("test")[0], named("valid")[0]
    rows = [
        chunk(train, 1, [("SUBJECT", "m1"), ("<P1>", "m2")]),  # the test user's m2, in the same window
        chunk(test, 1, [("<P1>", "m1"), ("SUBJECT", "m2")]),
        chunk(train, 2, [("SUBJECT", "m3"), ("<P1>", "m2")]),  # the test user's m2, in another window
        chunk(valid, 4, [("SUBJECT", "m6"), ("<P1>", "m2")]),
        chunk(train, 3, [("SUBJECT", "m4"), ("<P1>", "m5")]),  # nobody else's
        chunk(valid, 3, [("<P1>", "m4"), ("SUBJECT", "m5")]),
    ]
    result = build(rows)
    assert sorted(result.snapshot.select("user_id", "window_id").rows()) == sorted(
        [(test, "w1"), (train, "w3"), (valid, "w3")]
    )
    assert (result.counts["leaking_train"], result.counts["leaking_valid"]) == (2, 1)
    report = leakage_check(result.snapshot, [pl.DataFrame(rows)])
    assert report.clean
    assert report.train_chunks_with_valid_text == 1


def test_the_leakage_check_sees_a_snapshot_that_leaks():
    train, test = named("train")[0], named("test")[0]
    rows = [
        chunk(train, 1, [("SUBJECT", "m1"), ("<P1>", "m2")]),
        chunk(test, 1, [("<P1>", "m1"), ("SUBJECT", "m2")]),
    ]
    honest = build(rows).snapshot
    trained = honest.with_columns(chunk_id=pl.lit(rows[0]["chunk_id"]), user_id=pl.lit(train), split=pl.lit("train"))
    leaking = pl.concat([honest, trained])
    report = leakage_check(leaking, [pl.DataFrame(rows)])
    assert not report.clean
    assert report.trained_chunks_with_test_text == 1
    assert report.test_chunks_sharing_context_with_trained == 1
    two_sides = pl.concat([honest, honest.with_columns(chunk_id=pl.lit("x"), split=pl.lit("valid"))])
    assert leakage_check(two_sides, [pl.DataFrame(rows)]).users_in_two_splits == 1


def test_authors_protect_a_test_user_without_a_chunk_of_their_own():
    train, test = named("train")[0], named("test")[0]
    rows = [chunk(train, 1, [("SUBJECT", "m1"), ("<P1>", "m9")]), *alone(train, 1, "reddit")]
    authors = pl.DataFrame({"message_id": ["m9", "m8"], "author_id": [test, None]})
    assert build(rows).counts["leaking_train"] == 0
    assert build(rows, authors=authors).counts["leaking_train"] == 1
    snapshot = build(rows).snapshot
    tested = snapshot.head(1).with_columns(user_id=pl.lit(test), chunk_id=pl.lit("y"), split=pl.lit("test"))
    with_test = pl.concat([snapshot, tested])
    assert leakage_check(with_test, [pl.DataFrame(rows)], authors).trained_chunks_with_test_text == 1


def test_minimum_and_cap_hold_per_user_and_datadao_and_are_counted():
    """C50: the cap keeps the latest chunks, in time order."""
    user, small = named("train", 2)
    result = build(alone(user, 6) + alone(small, 2), min_chunks_per_user=3, max_chunks_per_user=4)
    kept = result.snapshot.sort("position")
    assert kept["window_id"].to_list() == ["w2", "w3", "w4", "w5"]
    assert kept["position"].to_list() == [0, 1, 2, 3]
    assert (result.counts["too_few_chunks"], result.counts["over_cap"]) == (2, 2)


def test_chunks_without_a_summary_are_left_out_and_counted():
    """One that no summary could be written of stopped every training, although one in ten is let pass."""
    user = named("train")[0]
    rows = alone(user, 4) + [{**row, "datadao": "apublic"} for row in alone(user, 1)]
    unsummarised = pl.DataFrame({"datadao": ["apublic", "telegram"], "chunk_id": [rows[0]["chunk_id"]] * 2})
    result = build(rows, unsummarised=unsummarised.head(1))
    assert (result.counts["without_summary"], result.snapshot["datadao"].unique().to_list()) == (1, ["telegram"])
    result = build(rows, unsummarised=unsummarised)
    assert (result.counts["chunks"], result.counts["without_summary"], result.snapshot.height) == (5, 2, 3)
    assert sorted(result.snapshot["position"]) == [0, 1, 2]


def test_a_chunk_of_two_datadaos_is_kept_once():
    user = named("train")[0]
    rows = alone(user, 2) + [{**row, "datadao": "apublic"} for row in alone(user, 2)]
    result = build(rows)
    assert result.counts["duplicates_across_datadaos"] == 2
    assert result.snapshot["datadao"].unique().to_list() == ["apublic"]


def test_same_chunks_in_any_order_and_form_give_the_same_snapshot_and_hash():
    rows = [row for user in named("train", 4) + named("test", 2) for row in alone(user, 3)]
    first = build(rows)
    again = build_snapshot(
        [pl.DataFrame(rows[7:]).lazy(), pl.DataFrame(rows[:7]).lazy()],
        key=KEY, min_chunks_per_user=1, max_chunks_per_user=None,
    )  # fmt: skip
    assert again.snapshot.sort("chunk_id").equals(first.snapshot.sort("chunk_id"))
    assert again.split_hash == first.split_hash == split_hash(first.snapshot.reverse())
    assert build(rows[1:]).split_hash != first.split_hash


def test_no_chunks_give_an_empty_snapshot():
    empty = pl.DataFrame(alone(named("train")[0], 1)).clear()
    result = build_snapshot(empty, key=KEY, min_chunks_per_user=1, max_chunks_per_user=5)
    assert result.snapshot.height == 0
    assert result.counts["train_users"] == 0
