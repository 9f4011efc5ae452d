"""Damaged files of the platform, whichever command meets them: named, with what to do, and left as they are."""

import polars as pl
import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.schema import CONSENT_LEDGER, MASKED_CHUNKS, MESSAGES, REJECTED_GRANTS
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables


@pytest.mark.parametrize(
    ("place", "content", "command", "message"),
    [
        ("keys/identity.key", "zz", "erase --account reddit:somebody", "identity.key: not a key"),
        ("keys/master.key", "ab" * 32, "seal --check", "contributors.sqlite: made with another master key"),
        ("keys/contributors.sqlite", "zz" * 99, "erase --resume", "contributors.sqlite: damaged, no SQLite file"),
        ("keys/erased.json", "zz", "erase --account reddit:somebody", "erased.json: damaged, not JSON"),
        ("keys/erased_names.json", "zz", "erase --account reddit:somebody", "erased_names.json: damaged, not JSON"),
        ("keys/erased.json", "{}", "erase --account reddit:somebody", "erased.json: damaged, no list"),
        ("keys/erased.json", "[[1]]", "erase --account reddit:somebody", "erased.json: damaged, no list"),
        ("keys/erased_names.json", "{}", "erase --account reddit:somebody", "names.json: damaged, no HashedNames"),
        ("keys/erased_names.json", "[]", "erase --account reddit:somebody", "names.json: damaged, no HashedNames"),
        ("erasures/a.json", "{}", "erase --account reddit:somebody", "a.json: damaged, no Receipt in JSON"),
        ("erasures/a.journal", "zz", "erase --resume", "a.journal: damaged, or sealed under another key"),
        ("erasures/a.journal", "z" * 99, "erase --resume", "a.journal: damaged, or sealed under another key"),
        ("retention/purge.journal", "zz", "purge --dry-run", "purge.journal: damaged, not JSON; remove it"),
        ("retention/purge.journal", "{}", "purge --dry-run", "purge.journal: damaged, no _Journal"),
        ("models/item_encoder/current.json", "zz", "purge --dry-run", "current.json: not a pointer to a version"),
        ("landing/.linked.json", "[]", "real --exports {exports} dao=*.txt", ".linked.json: damaged, no dict"),
        ("landing/.linked.json", "zz", "real --exports {exports} dao=*.txt", ".linked.json: damaged, not JSON"),
        ("access/whitelist.sqlite", "zz" * 99, "access anchor", "whitelist.sqlite: damaged, no SQLite file"),
        ("scores.duckdb", "zz" * 99, "scores", "scores.duckdb: damaged; move it away"),
    ],
)
def test_a_damaged_file_of_the_platform_is_named(begun, tmp_path, capsys, place, content, command, message):
    """It was a traceback, or an error without the file's name."""
    ContributorKeys.of(Layout(tmp_path / "data"))
    (tmp_path / "export.txt").write_text("")
    damaged = tmp_path / "data" / place
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content)
    assert cli.main([*begun, *command.format(exports=tmp_path).split()]) == 2
    said = capsys.readouterr().err
    assert message in said and str(damaged.parent) in said
    assert damaged.read_text() == content


TORN = {
    "short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"of somebody's " * 99,
    "another middle": lambda content: content[:40] + bytes(40) + content[80:],  # which Polars reads as other rows
}
TABLES = (CONSENT_LEDGER, MASKED_CHUNKS, MESSAGES, REJECTED_GRANTS)
READING = ["consent some", f"trace some {'5' * 64} 7", "erase --account reddit:somebody"]


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("torn", TORN)
def test_a_damaged_table_is_named(begun, tmp_path, capsys, command, torn):
    """It was a traceback, and for another middle other rows."""
    lake = Lake(tmp_path / "data")
    for table in TABLES:
        lake.commit(table, table.empty(), "some")
    table = "consent_ledger" if command.startswith("consent") else "messages"
    file = lake.path(table, "some")
    file.write_bytes(TORN[torn](file.read_bytes()))
    assert cli.main([*begun, *command.split()]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"{file}: damaged, not what was committed; materialise {table}/some again"


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize(
    ("content", "what"),
    [("of somebody's", "not JSON"), ("", "not JSON"), ("[]", "no Commit"), ("{}", "no Commit"), ("null", "no Commit")],
)
def test_a_damaged_pointer_to_a_table_is_named(begun, tmp_path, capsys, command, content, what):
    lake = Lake(tmp_path / "data")
    for table in TABLES:
        lake.commit(table, table.empty(), "some")
    table = "consent_ledger" if command.startswith("consent") else "messages"
    pointer = lake.folder(table, "some") / "current.json"
    pointer.write_text(content)
    assert cli.main([*begun, *command.split()]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"{pointer}: damaged, {what}")
    assert said.endswith(f"; remove it, and materialise {table}/some again")


@pytest.mark.parametrize("file", ["_versions/*.manifest", "data/*.lance"])
def test_a_vector_table_that_was_cut_short_is_named(begun, tmp_path, capsys, file):
    lance = LanceTables(Layout(tmp_path / "data").lancedb)
    lance.upsert("some", "chunk_embeddings", pl.DataFrame({"id": ["a"], "version": "v", "vector": [[1.0, 2.0]]}))
    folder = lance.folder("some", "chunk_embeddings")
    for path in folder.glob(file):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = {
        "data": f"{next(folder.glob('data/*'))}: damaged, not what was written; remove {folder}",
        "_versions": f"{folder}: damaged, or cannot be read now; remove it",
    }
    assert cli.main([*begun, "erase", "--account", "reddit:somebody"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said[file.split("/")[0]])
