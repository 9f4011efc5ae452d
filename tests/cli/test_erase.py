"""`user-embeddings erase`: who may be named, and what is refused or told about it."""

import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.settings import Layout


@pytest.mark.parametrize("user", ["zzz", "A" * 32, "f" * 33, ""])
def test_only_a_user_id_is_erased(begun, capsys, user):
    assert cli.main([*begun, "erase", user]) == 2
    said = capsys.readouterr().err
    assert "32 hexadecimal digits" in said and "--account" in said


@pytest.mark.parametrize(
    ("name", "instead"),
    [(name, what) for name in ("contributors.csv", "consent.csv") for what in ("link", "folder")]
    + [("contributors.csv", "conflict")],
)
def test_an_erasure_waits_until_what_names_people_can_be_read(begun, tmp_path, capsys, instead, name):
    """Which of the accounts are the person's, and their grants: nothing is looked for or begun before."""
    path = tmp_path / "data" / "landing" / "dao" / name
    path.parent.mkdir()
    if instead == "link":
        path.symlink_to(tmp_path / "unmounted" / name)
    elif instead == "folder":
        path.mkdir()
    else:
        path.write_text("contributor,account\nann,x\nbob,x\n")
    for person in (["0" * 32], ["--account", "reddit:somebody"]):
        assert cli.main([*begun, "erase", *person]) == 2
        said = capsys.readouterr().err
        assert f"dao/{name}" in said and "looking for them" not in said
    assert not list(Layout(tmp_path / "data").erasures.glob("*"))


def test_an_erasure_of_nobody_is_told_from_one_of_somebody(begun, capsys):
    """C15: a misspelt account leaves the person where they are."""
    data = [*begun, "erase"]
    assert cli.main([*data, "--account", "reddit:mispelt"]) == 0
    assert "NOTHING WAS REMOVED" in capsys.readouterr().out
    assert cli.main([*data, "--resume"]) == 0
    assert "no erasure was left half way" in capsys.readouterr().err
