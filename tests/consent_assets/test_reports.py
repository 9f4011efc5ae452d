"""What the ledger tells of bad rows and of rows about nobody: by line, in counts, without names (C14)."""

import polars as pl
from consent_chat import EVERYTHING, NAMES, STATEMENT, materialise, say

from assets.consent_ledger import consent_ledger
from assets.containment import reported
from assets.reporting import check_result
from user_embeddings_dagster.cli import main
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.consent.report import grants_of_somebody
from user_embeddings_dagster.schema import MESSAGES


def test_the_ledger_names_nobody_where_it_is_shown(store):
    """Bad rows are warned about by line; neither account nor grant id is in the log, metadata or table."""
    say(store, ann=EVERYTHING, bob="sell")
    found = materialise(store, [consent_ledger])
    assert not found["checks"]["grants_readable"]
    shown = str(found) + str(store.lake.read("consent_ledger", "dao").rows())
    shown += str(store.lake.read("rejected_grants", "dao").rows())
    assert "ann" not in shown and "bob" not in shown
    assert store.lake.read("rejected_grants", "dao").select("file", "line", "reason").rows() == [
        ("consent.csv", 3, "unknown_purpose")
    ]


def test_rows_of_nobody_here_are_told_by_line_everywhere(store, capsys):
    """A revocation of a mistyped account revokes nothing: that is a warning, and goes once the account is mended."""
    (store.layout.landing / "dao" / "datadao.json").write_text(STATEMENT)
    say(store, ann=EVERYTHING, bbo=f"{EVERYTHING},,2021-01-01", cta=EVERYTHING)
    found = materialise(store, [consent_ledger])
    assert found["consent_ledger"]["train_granted"] == 4 and found["consent_ledger"]["grants_of_nobody"] == 2
    assert found["consent_ledger"]["lines_of_nobody_ended"] == "3"
    assert found["consent_ledger"]["lines_of_nobody"] == "4"
    shown = check_result(grants_of_somebody(store.lake.read("rejected_grants", "dao")), "consent_ledger")
    assert reported(shown).metadata["lines_of_nobody_ended"].value == "3", "as the check shows it"
    assert found["checks"]["grants_readable"] and not found["checks"]["grants_of_somebody"]
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "consent.csv, lines 3: revoked or expired, but about nobody" in text
        assert "consent.csv, lines 4: about nobody" in text
    assert not any(name in str(found) + told.out + told.err for name in ("bbo", "cta"))

    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},,2021-01-01", cat=EVERYTHING)
    found = materialise(store, [consent_ledger])
    assert found["consent_ledger"]["train_granted"] == 3 and found["consent_ledger"]["grants_of_nobody"] == 0
    assert found["checks"]["grants_of_somebody"] and "lines_of_nobody" not in found["consent_ledger"]
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    assert "nobody" not in capsys.readouterr().out


def test_whose_export_arrives_later_is_nobody_until_then(store):
    """The ledger is the same; what it warns of is asked again with the messages."""
    say(store, ann=EVERYTHING, eve=EVERYTHING)
    assert not materialise(store, [consent_ledger])["checks"]["grants_of_somebody"]
    messages = store.lake.read("messages", "dao")
    eve = messages.tail(1).with_columns(
        message_id=pl.lit("e" * 32), author_id=pl.lit(user_id(store.key, "reddit", "eve"))
    )
    store.lake.commit(MESSAGES, pl.concat([messages, eve]), "dao", "again")
    assert materialise(store, [consent_ledger])["checks"]["grants_of_somebody"]
    assert store.lake.read("rejected_grants", "dao").is_empty()


def test_a_consent_file_with_semicolons_is_told_so(store, capsys):
    say(store, ann=EVERYTHING)
    path = store.layout.landing / "dao" / "consent.csv"
    path.write_text(path.read_text().replace(",", ";"))
    materialise(store, [consent_ledger])
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    told = capsys.readouterr()
    assert "consent.csv, not_separated_by_commas, the whole file" in told.out
    assert "consent.csv, the whole file: not_separated_by_commas" in told.err


def test_the_command_line_prints_counts_alone(store, capsys):
    """C14: by purpose and state; before the first ledger it says what is missing."""
    command = ["--data", str(store.layout.root), "consent", "dao"]
    assert main(command) == 2
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2021-01-01", cat="serve,,2021-01-01", dan="sell")
    materialise(store, [consent_ledger])
    assert main(command) == 0
    told = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines()}
    assert rows["serve"] == ["1", "1", "1", "1"] and rows["train"] == ["1", "0", "1", "2"]
    assert "unknown_purpose, lines 5" in told
    assert not any(name in told for name in NAMES)
