"""C19: what a backup holds, where it may lie, and how it is begun again."""

import shutil

import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.privacy.backup import write
from user_embeddings_dagster.privacy.backup.contents import LIST, PLATFORM, NoBackup
from user_embeddings_dagster.privacy.backup.restore import restore
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import MAGIC, owner_of
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.settings import Layout


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"account,purpose\nreddit:jos\xe9,train\n", "line 2: not UTF-8"), (b"account\njos\0e\n", "line 2: a NUL")],
)
def test_a_consent_file_that_cannot_be_read_is_named_by_file_and_line(layout, tmp_path, content, why):
    """Nothing of what stands there is shown, and no backup is finished without it."""
    (layout.landing / "telegram" / "consent.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"telegram/consent\.csv, line \d+: ") as raised:
        back_up(layout, tmp_path / "backup")
    assert why in str(raised.value) and "jos" not in str(raised.value)
    assert not (tmp_path / "backup" / LIST).exists()


def test_killed_while_it_is_written_a_backup_is_unfinished_and_begun_again(layout, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(write, "platform_files", lambda _: (_ for _ in ()).throw(Killed))
        back_up(layout, tmp_path / "backup")
    with pytest.raises(NoBackup):
        restore(layout, tmp_path / "backup")
    back_up(layout, tmp_path / "backup")
    assert restore(layout, tmp_path / "backup").counts.keys() == {"there already"}
    with pytest.raises(ValueError, match="holds something"):
        back_up(layout, tmp_path / "backup")


def test_exports_in_clear_are_sealed_on_their_way(layout, backed_up, tmp_path):
    """USER_EMBEDDINGS_SEAL=off: the landing folder stays as it is, the backup does not."""
    new = Layout(tmp_path / "clear" / "data")
    shutil.copytree(layout.key.parent, new.key.parent)
    generate(new.landing, seed=3, contributors=20)
    (new.landing / "telegram" / "link.json").symlink_to(tmp_path / "outside.json")
    (tmp_path / "outside.json").write_text("{}")
    told = back_up(new, tmp_path / "backup")
    assert told.counts["exports sealed on their way"] > 20 and sum("links" in what for what in told.counts) == 1
    with ContributorKeys.of(layout) as keys:
        whose = {owner_of(path, keys) for path in (tmp_path / "backup" / "files").iterdir()}
        assert {owner_of(path, keys) for path in (backed_up / "files").iterdir()} - {PLATFORM} <= whose
    assert all(path.read_bytes().startswith(MAGIC) for path in (tmp_path / "backup" / "files").iterdir())


@pytest.mark.parametrize("command", [["backup"], ["backup", "--keys"], ["seal", "--check"]])
def test_a_data_root_that_is_mistyped_is_not_backed_up(tmp_path, capsys, command):
    target = [str(tmp_path / "backup")] if "backup" in command else []
    assert cli.main(["--data", str(tmp_path / "no"), *command, *target]) == 2
    assert "no data root there" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("keys", [[], ["--keys"]])
def test_a_target_that_is_a_file_is_told(layout, tmp_path, capsys, keys):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        assert cli.main(["--data", str(layout.root), "backup", *keys, str(target)]) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'file'}: a file, but a backup" in said and "Errno" not in said


def test_no_backup_lies_in_the_data_root(layout, tmp_path, capsys):
    """It would be lost with what it is a backup of; also by a link."""
    (tmp_path / "link").symlink_to(layout.root)
    for target in (layout.root / "backup", layout.root, tmp_path / "link" / "landing" / "dao"):
        before = sorted(layout.root.rglob("*"))
        assert cli.main(["--data", str(layout.root), "backup", str(target)]) == 2
        assert "inside of the data root" in capsys.readouterr().err
        assert sorted(layout.root.rglob("*")) == before
