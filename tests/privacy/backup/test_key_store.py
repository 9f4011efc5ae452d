"""C19: the key store is copied apart from backups, and restored before them."""

import shutil
import stat

import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.privacy.backup.key_store import copy_keys
from user_embeddings_dagster.privacy.backup.restore import restore
from user_embeddings_dagster.settings import Layout


def test_the_key_store_is_copied_apart_and_with_a_warning(layout, backup, tmp_path, capsys):
    for refused in (backup / "keys", layout.root / "copy"):
        with pytest.raises(ValueError, match="apart"):
            copy_keys(layout, refused)
    assert cli.main(["--data", str(layout.root), "backup", "--keys", str(tmp_path / "keys")]) == 0
    assert "WARNING" in capsys.readouterr().err
    copied = sorted((tmp_path / "keys").iterdir())
    assert [path.name for path in copied] == sorted(path.name for path in layout.key.parent.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in copied} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert cli.main(["--data", str(layout.root), "backup", "--keys", str(tmp_path / "keys")]) == 2
    new = Layout(tmp_path / "restored")
    with pytest.raises(FileNotFoundError, match="key store first"):
        restore(new, backup)
    shutil.copytree(tmp_path / "keys", new.key.parent)
    assert restore(new, backup).counts["exports restored"] > 10


def test_no_keys_are_no_copy_of_keys(tmp_path):
    with pytest.raises(ValueError, match="no key store there"):
        copy_keys(Layout(tmp_path / "data"), tmp_path / "keys")
    assert not (tmp_path / "keys").exists()
