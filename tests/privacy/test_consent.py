"""Consent: what is read, what holds when, what passes the gates, what happens when it ends (C14, F6)."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.consent import AT, CASES, PURPOSES, GateOff, expected, ledger_of, platform, reached
from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.privacy.consent.grants import read_stated
from user_embeddings_dagster.privacy.consent.ledger import build_ledger, of_nobody
from user_embeddings_dagster.privacy.consent.live import Consent, last_change, live, live_hash, states
from user_embeddings_dagster.privacy.consent.report import grants_of_somebody
from user_embeddings_dagster.privacy.consent.withdrawal import mark_models, withdraw_memories, withdraw_vectors
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.identity import of_account
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.erasure.raw_files import UnreadableGrants, cut_grants
from user_embeddings_dagster.privacy.erasure.stores import erase_landing
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import CONSENT_LEDGER
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import write_json
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import Models, TaintedModel
from user_embeddings_dagster.storage.user_memories import UserMemories

KEY = bytes(32)
HEADER = "grant_id,account,contributor,purposes,granted_at,expires_at,revoked_at\n"
NOBODY = Tombstones(KEY, frozenset())


def stated(folder: Path, rows: str = "", statement: object = None, links: dict[str, str] | None = None):
    if rows:
        (folder / "consent.csv").write_text(HEADER + rows)
    if statement is not None:
        (folder / "datadao.json").write_text(json.dumps(statement))
    return read_stated(folder, KEY, links or {})


def someone(name: str) -> str:
    return user_id(KEY, "reddit", name)


def holding(folder: Path, subjects: list[str], as_of: datetime = AT, **files) -> set[tuple[str, str]]:
    found = stated(folder, **files)
    ledger = build_ledger("dao", found, pl.Series([someone(name) for name in subjects]), NOBODY).ledger
    by_id = {someone(name): name for name in subjects}
    return {(by_id.get(user, user), purpose) for _, user, purpose in live(ledger, as_of).iter_rows()}


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


def test_the_erased_have_no_grant(tmp_path):
    found = stated(tmp_path, "1,reddit:ann,,train,2024-01-01,,\n2,reddit:bob,,train,2024-01-01,,\n")
    erased = NOBODY.with_users([someone("ann")])
    ledger = build_ledger("dao", found, pl.Series([someone("bob")]), erased).ledger
    assert ledger["user_id"].to_list() == [someone("bob")]


def test_erasure_cuts_the_grants_of_one_person_and_leaves_the_bytes_of_the_others(tmp_path):
    """C15: also of a row that is too short to be read, which must not become readable."""
    rest = '2,reddit:bob,,train,"2024-01-01"\r\n3, reddit:cat ,,serve,2024-01-01,,\n'
    (tmp_path / "consent.csv").write_text(HEADER + "1,reddit:ann,,train,2024-01-01,,\n" + rest, newline="")
    assert cut_grants(tmp_path, KEY, frozenset({someone("ann")})) == 1
    with (tmp_path / "consent.csv").open(newline="") as stream:
        assert stream.read() == HEADER + rest
    assert cut_grants(tmp_path, KEY, frozenset({someone("cat")})) == 1


def test_erasure_tells_which_of_the_two_files_cannot_be_read(tmp_path):
    """Links that cannot be read stop it before anything is cut: nobody knows whose the accounts are."""
    layout = Layout(tmp_path)
    folder = layout.landing / "dao"
    folder.mkdir(parents=True)
    grants = HEADER + "1,reddit:ann,,train,2024-01-01,,\n"
    (folder / "consent.csv").write_text(grants)
    (folder / "contributors.csv").write_bytes("contributor,account\np-1,José\n".encode("cp1252"))
    with (
        ContributorKeys(tmp_path / "keys" / "c.sqlite", KEY) as keys,
        pytest.raises(ValueError, match=r"^dao/contributors\.csv, line 2: not UTF-8"),
    ):
        erase_landing(Journal([someone("ann")]), layout, KEY, keys)
    with pytest.raises(ValueError, match=r"^dao/contributors\.csv, line 2: not UTF-8") as caught:
        cut_grants(folder, KEY, frozenset({someone("ann")}))
    assert not isinstance(caught.value, UnreadableGrants)
    assert (folder / "consent.csv").read_text() == grants
    (folder / "contributors.csv").unlink()
    (folder / "consent.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableGrants, match=r"^dao/consent\.csv: "):
        cut_grants(folder, KEY, frozenset({someone("ann")}))


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


# F6: rows in front of and behind every gate.

cases = st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=12)


@given(cases=cases, purpose=st.sampled_from(PURPOSES))
@settings(max_examples=60, deadline=None)
def test_no_row_passes_a_gate_without_a_grant_that_holds_for_its_purpose(cases, purpose):
    """F6: absent, expired, revoked, not yet begun, of another purpose, DataDAO or person → 0 rows; valid → all."""
    users = {f"{number:032x}": case for number, case in enumerate(cases)}
    ledger = ledger_of(users, purpose)
    for gate, rows in reached(platform(users), ledger, AT).items():
        assert rows == expected(users, purpose, gate), gate


def test_control_without_the_gate_the_rows_pass():
    """F6: the check can fail: with the gate removed, every user's rows are there."""
    users = {f"{number:032x}": "revoked" for number in range(8)}
    for gate, rows in reached(platform(users), GateOff(ledger_of(users, "train")).opened(users), AT).items():
        assert rows == expected(users, "train", gate, gated=False), gate
        assert not reached(platform(users), ledger_of(users, "train"), AT)[gate]


# What happens when consent ends.


def test_vectors_of_who_withdrew_leave_no_byte(tmp_path):
    """C14, C15: the control is that they were found before."""
    lance, users = LanceTables(tmp_path), [f"{n:032x}" for n in range(6)]
    vectors = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    rows = pl.DataFrame({"id": [f"c{user}" for user in users], "user_id": users, "version": "v"})
    lance.upsert("dao", "item_embeddings", rows.with_columns(vector=pl.Series(vectors)))
    states_ = pl.DataFrame({"id": users, "version": "v"}).with_columns(vector=pl.Series(vectors + 1))
    lance.upsert("dao", "user_embeddings", states_)

    def found(vector: np.ndarray) -> int:
        return sum(path.read_bytes().count(vector.tobytes()[:24]) for path in tmp_path.rglob("*") if path.is_file())

    assert found(vectors[2]) and found(vectors[2] + 1)
    kept = pl.Series([user for user in users if user != users[2]])
    before = lance.read("dao", "item_embeddings", ["id", "vector"]).filter(pl.col("id") != f"c{users[2]}")
    for table in ("item_embeddings", "user_embeddings"):
        assert withdraw_vectors(lance, "dao", table, kept) == 1
        assert withdraw_vectors(lance, "dao", table, kept) == 0
    assert not found(vectors[2]) and not found(vectors[2] + 1)
    assert lance.read("dao", "item_embeddings", ["id", "vector"]).equals(before)
    assert found(vectors[3]) and found(vectors[3] + 1)


def test_memories_of_who_withdrew_are_overwritten(tmp_path):
    path, secret = tmp_path / "dao.sqlite", b"only-theirs" * 9
    with UserMemories(path) as memories:
        rows = [("a", "v", 1, "h"), ("b", "v", 1, "h")]
        memories.write(rows, np.frombuffer(secret + secret[::-1], np.uint8).reshape(2, -1).copy())
        assert withdraw_memories(memories, pl.Series(["b"])) == 1
        assert memories.users() == ["b"]
    assert secret not in path.read_bytes() and secret[::-1] in path.read_bytes()


def version(models: Models, encoder: str, name: str, data_version: str) -> None:
    folder = models.folder(encoder, name)
    folder.output.mkdir(parents=True)
    write_json(folder.output / "job.json", {"metadata": {}, "data_version": data_version})
    finalise(folder.output)


def test_models_trained_on_who_revoked_are_named_and_refused_until_they_consent_again(tmp_path):
    """C14: also those on its vectors, and those of which nobody knows whom they are trained on; no others."""
    models, users = Models(tmp_path), pl.DataFrame({"datadao": ["dao", "dao", "two"], "user_id": ["ann", "bob", "ann"]})
    for encoder, name, rows, basis in (
        ("item_encoder", "a", users, None), ("sequence_encoder", "b", users.clear(), "item_encoder"),
        ("other", "c", users.filter(user_id="bob"), None), ("third", "d", users.filter(datadao="two"), None),
    ):  # fmt: skip
        version(models, encoder, name, encoder)
        models.folder(encoder, name).note_subjects(subjects_of(KEY, rows))
        if basis:
            models.folder(encoder, name).note_basis(basis)
    version(models, "unknown", "e", "unknown")

    def marked(revoked: bool) -> list[str]:
        case = "revoked" if revoked else "granted"
        ledger = pl.concat([
            ledger_of({"ann": case, "bob": "granted"}, "train"),
            ledger_of({"ann": "granted"}, "train", datadao="two"),
        ])  # fmt: skip
        return mark_models(models, ledger, Consent(live(ledger, AT)), KEY)

    assert marked(False) == []
    assert marked(True) == ["item_encoder/a", "sequence_encoder/b", "unknown/e"]
    for encoder, name in (("item_encoder", "a"), ("sequence_encoder", "b"), ("unknown", "e")):
        again = (
            "materialise it again" if encoder == "unknown" else "train, then embed_items .* then train_sequence_encoder"
        )
        with pytest.raises(TaintedModel, match=f"consent revoked by people it was trained on: .*{again}"):
            models.promote(encoder, name)
        Models(tmp_path, release_tainted=True).promote(encoder, name)
    for encoder, name in (("other", "c"), ("third", "d")):
        models.promote(encoder, name)
    assert marked(False) == []
    models.promote("item_encoder", "a")
    models.folder("item_encoder", "a").taint(["somebody"])
    assert marked(False) == []
    with pytest.raises(TaintedModel, match="erased"):
        models.promote("item_encoder", "a")
