"""Which grants hold when, for whom, and how they are counted (C14)."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from consent_rows import NOBODY, holding, someone, stated

from benchmarks.consent import AT, PURPOSES, ledger_of
from user_embeddings_dagster.privacy.consent.ledger import build_ledger, of_nobody
from user_embeddings_dagster.privacy.consent.live import last_change, live, live_hash, states
from user_embeddings_dagster.privacy.consent.report import grants_of_somebody
from user_embeddings_dagster.schema import CONSENT_LEDGER


def test_a_grant_holds_from_its_beginning_until_it_expires_or_is_revoked(tmp_path):
    """C14: half-open intervals, in UTC whatever offset they are written with."""
    rows = (
        "1,reddit:ann,,train serve,2024-01-01T02:00:00+02:00,2024-01-03,\n"
        "2,reddit:bob,,train,2024-01-01,,2024-01-02T00:00:00Z\n"
    )
    for day, names in ((0, set()), (1, {"ann", "bob"}), (2, {"ann"}), (3, set())):
        as_of = datetime(2023, 12, 31, tzinfo=UTC) + timedelta(days=day)
        assert {
            name for name, purpose in holding(tmp_path, ["ann", "bob"], as_of, rows=rows) if purpose == "train"
        } == names
        before = as_of + timedelta(days=1) - timedelta(microseconds=1)
        assert {name for name, purpose in holding(tmp_path, ["ann", "bob"], before) if purpose == "train"} == names
    with pytest.raises(ValueError, match="zone"):
        live(CONSENT_LEDGER.empty(), datetime(2024, 1, 1))


def test_a_statement_covers_everybody_without_a_row_of_their_own(tmp_path):
    """Also a revoked, an expired or an unreadable row of their own."""
    statement = {"consent": {"basis": "public archive", "purposes": ["train", "compare"]}}
    rows = (
        "1,reddit:ann,,evaluate,2024-01-01,,\n2,reddit:bob,,train,2020-01-01,2021-01-01,\n"
        "3,reddit:cat,,train,2020-01-01,,2021-01-01\n4,reddit:dan,,train,yesterday,,\n"
    )
    names = ["ann", "bob", "cat", "dan", "eve"]
    assert holding(tmp_path, names, rows=rows, statement=statement) == {
        ("ann", "evaluate"), ("eve", "train"), ("eve", "compare"),
    }  # fmt: skip


def test_without_any_word_nobody_has_consented(tmp_path):
    assert holding(tmp_path, ["ann", "bob"]) == set()


def test_rows_of_nobody_here_are_located_and_those_that_ended_told_apart(tmp_path):
    """A mistyped account grants to nobody and revokes nobody's grant; the erased are not asked about."""
    rows = (
        "1,reddit:ann,,train,2024-01-01,,2024-01-02\n"
        "2,reddit:amn,,train,2024-01-01,,2024-01-02\n"
        "3,reddit:amm,,train,2024-01-01,2999-01-01,\n"
        "4,reddit:aan,,train,2024-01-01,2024-01-02,2999-01-01\n"
        "5,reddit:anm,,sell,2024-01-01,,2024-01-02\n"
        "6,,nobody,train,2024-01-01,,\n"
        "7,reddit:gone,,train,2024-01-01,,\n"
        "8,reddit:ammn,,train,2024-01-01,,yesterday\n"
    )
    found, erased = stated(tmp_path, rows), NOBODY.with_users([someone("gone")])
    lines = of_nobody("dao", found, pl.Series([someone("ann")]), erased, AT)
    assert lines.select("file", "line", "reason").sort("line").rows() == [
        ("consent.csv", 3, "of_nobody_ended"), ("consent.csv", 4, "of_nobody"), ("consent.csv", 5, "of_nobody_ended"),
        ("consent.csv", 6, "of_nobody_ended"), ("consent.csv", 7, "of_nobody"), ("consent.csv", 9, "of_nobody"),
    ]  # fmt: skip
    outcome = grants_of_somebody(lines)
    assert not outcome.passed and outcome.severity == "warning"
    assert outcome.places == {"lines_of_nobody_ended": "3, 5, 6", "lines_of_nobody": "4, 7, 9"}
    assert grants_of_somebody(lines.clear()).passed and not grants_of_somebody(lines.clear()).places


def test_the_erased_have_no_grant(tmp_path):
    found = stated(tmp_path, "1,reddit:ann,,train,2024-01-01,,\n2,reddit:bob,,train,2024-01-01,,\n")
    erased = NOBODY.with_users([someone("ann")])
    ledger = build_ledger("dao", found, pl.Series([someone("bob")]), erased).ledger
    assert ledger["user_id"].to_list() == [someone("bob")]


def test_counts_per_purpose():
    ledger = ledger_of(
        {"a": "granted", "b": "revoked", "c": "expired", "d": "not_begun", "e": "other_purpose"}, "train"
    )
    counted = states(ledger, pl.Series(list("abcdefg")), AT)
    train = dict(counted.filter(purpose="train").select("state", "n").iter_rows())
    assert train == {"granted": 1, "revoked": 1, "expired": 1, "none": 4}
    assert counted["n"].sum() == 7 * len(PURPOSES)


def test_what_holds_changes_by_the_clock_and_says_when():
    ledger = ledger_of({"a": "granted", "b": "expired"}, "train")
    long_ago = AT - timedelta(days=3650)
    assert live_hash(live(ledger, long_ago)) != live_hash(live(ledger, AT))
    assert live_hash(live(ledger, AT)) == live_hash(live(ledger, AT + timedelta(seconds=1)))
    assert last_change(ledger, AT) == ledger["expires_at"].drop_nulls().max()
    assert last_change(ledger, long_ago) is None
