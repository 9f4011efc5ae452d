"""C19: damaged or missing files of a backup, or of the platform beside it: told, and nothing half restored."""

import io
import json
import shutil
from pathlib import Path

import pytest
from sealed_platform import empty_with_keys_of

from user_embeddings_dagster import cli
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.backup import write
from user_embeddings_dagster.privacy.backup.contents import LIST, PLATFORM, NoBackup, read_list, write_list
from user_embeddings_dagster.privacy.backup.restore import DAMAGED, MISSING, restore
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import owner_of
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import Damaged


def test_what_is_there_stays_and_damaged_or_missing_files_are_told(layout, backup):
    files = sorted((backup / "files").iterdir())
    with ContributorKeys.of(layout) as keys:
        exports = [path for path in files if len(owner_of(path, keys)) == 32]
    whole = exports[0].read_bytes()
    exports[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    exports[1].unlink()
    new = empty_with_keys_of(layout, "new")
    first = restore(new, backup)
    assert (first.counts[DAMAGED], first.counts[MISSING]) == (1, 1) and "frame" in first.details[0]
    assert cli.main(["--data", str(new.root), "restore", str(backup)]) == 1
    state = {path: path.read_bytes() for path in new.root.rglob("*") if path.is_file()}
    exports[0].write_bytes(whole)
    again = restore(new, backup)
    assert again.counts["exports restored"] + again.counts["files of the platform restored"] <= 1
    assert all(path.read_bytes() == content for path, content in state.items())


def test_a_list_that_was_changed_is_refused(layout, backup):
    listed = json.loads((backup / LIST).read_text())
    listed["files"].popitem()
    (backup / LIST).write_text(json.dumps(listed))
    with pytest.raises(NoBackup, match="changed"):
        restore(layout, backup)
    (backup / LIST).unlink()
    with pytest.raises(NoBackup, match="no finished backup"):
        restore(layout, backup)

    for content in ("zz", "[]", "{}", '{"files": [], "mac": ""}', '{"files": {"a": "b"}, "mac": ""}'):
        (backup / LIST).write_text(content)
        with pytest.raises(NoBackup, match="no finished backup"):
            restore(layout, backup)
    (backup / LIST).write_text('{"files": {}, "mac": "\\ud800"}')
    with pytest.raises(NoBackup, match="changed"):
        restore(layout, backup)


def planted(layout: Layout, backup: Path, name: bytes, content: bytes) -> None:
    """A file more in a finished backup, as the platform itself would have sealed it."""
    with ContributorKeys.of(layout) as keys:
        sizes, writing = read_list(backup, keys), write._Backup(layout, backup, load_or_create_key(layout.key), keys)
        writing._write("planted", PLATFORM, name, io.BytesIO(content))
        write_list(backup, sizes | writing.sizes, keys)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("keys/erased.json", "of somebody's"),
        ("keys/erased.json", "{}"),
        ("keys/erased.json", "[1]"),
        ("keys/erased_names.json", "[]"),
        ("keys/erased_names.json", "{}"),
        ("keys/erased_names.json", '{"names": [], "sizes": ["of somebody\'s"], "lengths": []}'),
        ("rows/telegram/consent.csv", "of somebody's"),
        ("rows/telegram/consent.csv", "{}"),
        ("rows/telegram/consent.csv", '[["account"], ["of somebody\'s"]]'),
    ],
)
def test_a_backup_whose_files_about_people_are_damaged_leaves_nothing_half_restored(
    layout, backup, capsys, name, content
):
    """C19: it was a traceback after some exports were restored, with the erased in them; {} was nobody erased."""
    planted(layout, backup, b"//" + name.encode(), content.encode())
    new = empty_with_keys_of(layout, "new")
    assert cli.main(["--data", str(new.root), "restore", str(backup)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"which is {name.replace('rows/', 'landing/')}: damaged, no" in said and "somebody" not in said
    assert said.endswith("; nothing was restored; restore another backup")
    assert {path.name for path in new.root.iterdir()} <= {"keys", "erasures"}
    assert {path.name for path in new.key.parent.iterdir()} == {path.name for path in layout.key.parent.iterdir()}


def test_damaged_tombstones_of_the_platform_are_neither_backed_up_nor_restored_beside(layout, backup, tmp_path):
    new = empty_with_keys_of(layout, "new")
    for file in (new.erased, new.erased_names):
        shutil.copytree(layout.key.parent, new.key.parent, dirs_exist_ok=True)
        file.write_text("7")
        with pytest.raises(Damaged, match=f"{file.name}: damaged"):
            restore(new, backup)
        assert not new.landing.exists() and not new.models.exists()
        with pytest.raises(Damaged, match=f"{file.name}: damaged"):
            back_up(new, tmp_path / "later")
        assert not list((tmp_path / "later" / "files").iterdir())
        file.unlink()
