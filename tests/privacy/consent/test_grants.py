"""What is read of consent.csv and datadao.json, and what is located without what it holds (C14)."""

import pytest
from consent_rows import HEADER, KEY, holding, someone, stated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.privacy.consent.grants import read_stated
from user_embeddings_dagster.privacy.erasure.identity import of_account
from user_embeddings_dagster.privacy.erasure.raw_files import cut_grants


def test_bad_rows_are_located_without_what_they_hold_and_good_rows_kept(tmp_path):
    rows = (
        "1,reddit:ann,,train,2024-01-01,,\n"
        "2,myspace:zoe,,train,2024-01-01,,\n"
        "3,reddit:bob,,sell,2024-01-01,,\n"
        "4,reddit:cat,,train,2024-13-01,,\n"
        "5,reddit:dan,someone,train,2024-01-01,,\n"
        "6,reddit:eve,,,2024-01-01,,\n"
        ",reddit:fay,,train,2024-01-01,,\n"
        "8,reddit:gus,,train,,,\n"
        "9,reddit:hal,,train,2024-01-01,,\n"
        "9,reddit:hal,,train,2024-01-01,,2024-01-02\n"
        "10,reddit:ida,,train\n"
    )
    found = stated(tmp_path, rows)
    assert [(r.file, r.line, r.reason) for r in sorted(found.rejected, key=lambda r: r.line)] == [
        ("consent.csv", 3, "bad_account"), ("consent.csv", 4, "unknown_purpose"), ("consent.csv", 5, "bad_time"),
        ("consent.csv", 6, "bad_account"), ("consent.csv", 7, "unknown_purpose"), ("consent.csv", 8, "no_grant_id"),
        ("consent.csv", 9, "bad_time"), ("consent.csv", 10, "repeated_grant"), ("consent.csv", 11, "repeated_grant"),
        ("consent.csv", 12, "wrong_number_of_cells"),
    ]  # fmt: skip
    assert [grant.user_id for grant in found.grants] == [someone("ann")]
    assert not found.whole, "a row of nobody knows whom may be a revocation by anybody"
    assert keyed_id(KEY, "grant", "1") == found.grants[0].grant_id


def test_a_person_is_found_by_account_link_or_contributor(tmp_path):
    links = {"ann": "0xA"}
    found = stated(tmp_path, "1,reddit:Ann,,train,2024-01-01,,\n2,,0xA,serve,2024-01-01,,\n", links=links)
    assert {grant.user_id for grant in found.grants} == {keyed_id(KEY, "contributor", "0xA")}


@pytest.mark.parametrize(
    ("typed", "account"),
    [
        ("telegram:11111111", ("telegram", "user11111111")), ("telegram: User11111111", ("telegram", "user11111111")),
        ("telegram:channel7", ("telegram", "channel7")), ("reddit:u/Ann", ("reddit", "ann")),
        ("reddit:/u/Ann", ("reddit", "ann")), ("reddit:/user/ann/", ("reddit", "ann")),
        ("reddit:11111111", ("reddit", "11111111")), ("chatgpt:u/ann", ("chatgpt", "u/ann")),
    ],
)  # fmt: skip
def test_an_account_is_read_as_people_type_it(tmp_path, typed, account):
    """As the exports write it; an erasure takes what was typed letter by letter along."""
    assert stated(tmp_path, f"1,{typed},,train,2024-01-01,,\n").grants[0].user_id == user_id(KEY, *account)
    erased = of_account(tmp_path, KEY, typed)
    literal = user_id(KEY, typed.partition(":")[0], typed.partition(":")[2].strip())
    assert erased == {user_id(KEY, *account), literal}


def test_a_row_of_an_account_as_typed_keeps_the_statement_from_both_readings(tmp_path):
    """A bare Reddit file below the folder u/ has the account u/ann: the row may be a revocation by that one."""
    statement = {"consent": {"basis": "public archive", "purposes": ["train"]}}
    rows = "1,reddit:u/ann,,train,2024-01-01,,2024-01-02\n"
    assert holding(tmp_path, ["ann", "u/ann", "bob"], rows=rows, statement=statement) == {("bob", "train")}
    assert cut_grants(tmp_path, KEY, frozenset({someone("u/ann")})) == 1


def test_a_handle_is_nobodys_account_on_telegram(tmp_path):
    """Exports have no handles of others: the row may be anybody's revocation."""
    statement = {"consent": {"basis": "public archive", "purposes": ["train"]}}
    rows = "1,telegram:@ann,,train,2024-01-01,,2024-01-02\n"
    assert holding(tmp_path, ["bob"], rows=rows, statement=statement) == set()
    assert [each.reason for each in stated(tmp_path).rejected] == ["bad_account"]
    with pytest.raises(ValueError, match="by number, not by @handle"):
        of_account(tmp_path, KEY, "telegram:@ann")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "not_utf8"), (b"account,purposes\n", "wrong_columns"), (b"", "wrong_columns"),
        (HEADER.replace(",", ";").encode(), "not_separated_by_commas"),
        (HEADER.replace(",", "\t").encode(), "not_separated_by_commas"),
        (HEADER.encode() + b'1,"reddit:ann', "malformed_csv"), (HEADER.encode() + b"1,a\0nn,,,,,\n", "bad_account"),
    ],
)  # fmt: skip
def test_of_a_file_that_cannot_be_read_nothing_holds_and_no_statement_does(tmp_path, content, reason):
    """The rest of it may say who revoked."""
    (tmp_path / "consent.csv").write_bytes(content)
    statement = {"consent": {"basis": "public archive", "purposes": ["train"]}}
    assert holding(tmp_path, ["ann"], statement=statement) == set()
    assert [each.reason for each in stated(tmp_path).rejected] == [reason]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "malformed_json"), ("[" * 100_000, "malformed_json"), ("[]", "no_object"),
        ('{"consent": 1}', "no_object"),
        ('{"consent": {"purposes": ["train"]}}', "bad_basis"),
        ('{"consent": {"basis": "a\\nb", "purposes": ["train"]}}', "bad_basis"),
        ('{"consent": {"basis": "x", "purposes": ["sell"]}}', "unknown_purpose"),
        ('{"consent": {"basis": "x", "purposes": "train"}}', "unknown_purpose"),
        ('{"consent": {"basis": "x", "purposes": ["serve"], "purposes": ["train"]}}', "repeated_key"),
    ],
)  # fmt: skip
def test_a_statement_that_cannot_be_read_states_nothing(tmp_path, text, reason):
    (tmp_path / "datadao.json").write_text(text)
    assert holding(tmp_path, ["ann"]) == set()
    assert [(each.file, each.reason) for each in stated(tmp_path).rejected] == [("datadao.json", reason)]


@given(content=st.binary(max_size=200), about=st.sampled_from(["consent.csv", "datadao.json"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_located(tmp_path, content, about):
    """Nothing is raised, and what is not understood consents to nothing."""
    (tmp_path / about).write_bytes(HEADER.encode() * (about == "consent.csv") + content)
    found = read_stated(tmp_path, KEY, {})
    assert all(each.reason and each.file == about for each in found.rejected)
    assert not found.grants or about == "consent.csv"
    (tmp_path / about).unlink()
