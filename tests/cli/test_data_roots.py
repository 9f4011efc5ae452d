"""Data roots that are none: mistyped, or a file."""

import pytest

from user_embeddings_dagster import cli


@pytest.mark.parametrize(
    "command",
    ["scores", "trace a 00 1", "consent a", "erase --resume", "erase --account reddit:somebody", "purge",
     "purge --dry-run", "access anchor", "access verify-log", "access enrol 00 ed25519:00", "seal", "backup x",
     "export-model --to x"],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["mistyped", "."])
def test_a_data_root_that_is_none_gets_no_keys(tmp_path, capsys, command, folder):
    """An erasure there was clean and told of nothing left; what `access` wrote, nothing would ever read."""
    (tmp_path / "messages.txt").write_text("of somebody's")
    assert cli.main(["--data", str(tmp_path / folder), *command.split()]) == 2
    assert "no data root there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["messages.txt"]


def test_a_data_root_that_is_a_file_is_told(tmp_path, capsys):
    (tmp_path / "data").write_text("")
    assert cli.main(["--data", str(tmp_path / "data"), "consent", "some"]) == 2
    assert "a data root is a folder" in capsys.readouterr().err
