"""C19: a backup opens only with the key store, and an erasure reaches it; the others are restored bit for bit."""

import csv
import importlib.util
import io
import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import polars as pl
import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.landing import LINKS
from user_embeddings_dagster.exports.sealing import seal_folder
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.audit.canaries import Scan, scan
from user_embeddings_dagster.privacy.backup import write
from user_embeddings_dagster.privacy.backup.contents import LIST, PLATFORM, NoBackup, read_list, write_list
from user_embeddings_dagster.privacy.backup.key_store import copy_keys
from user_embeddings_dagster.privacy.backup.restore import DAMAGED, MISSING, SHREDDED, restore
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import evidence, identity, report, stores
from user_embeddings_dagster.privacy.erasure.erase import erase
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.sealed_format import MAGIC, owner_of
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import Damaged
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.models import Models, TaintedModel

_SPEC = importlib.util.spec_from_file_location("small_platform", Path(__file__).with_name("small_platform.py"))
assert _SPEC and _SPEC.loader
small_platform = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(small_platform)


class Killed(BaseException):
    pass


def key_store(layout: Layout) -> ContributorKeys:
    return ContributorKeys.of(layout)


@pytest.fixture(scope="module")
def sealed_platform(tmp_path_factory) -> Layout:
    layout = small_platform.materialise(tmp_path_factory.mktemp("built") / "data")
    with key_store(layout) as keys:
        for folder in sorted(layout.landing.glob("[a-z]*")):
            links = contributor_links(folder / LINKS)
            assert not seal_folder(folder, load_or_create_key(layout.key), keys, links).left
    return layout


@pytest.fixture(scope="module")
def backed_up(sealed_platform, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backup") / "one"
    back_up(sealed_platform, folder)
    return folder


@pytest.fixture
def layout(sealed_platform, tmp_path) -> Layout:
    shutil.copytree(sealed_platform.root, tmp_path / "data", symlinks=True)
    return Layout(tmp_path / "data")


@pytest.fixture
def backup(backed_up, tmp_path) -> Path:
    return Path(shutil.copytree(backed_up, tmp_path / "backup"))


def person(layout: Layout) -> frozenset[str]:
    """Who contributed most to the Telegram DataDAO."""
    chunks = Lake(layout.root).read("masked_chunks", "telegram")
    user = chunks.group_by("user_id").len().sort("len", "user_id")["user_id"][-1]
    return identity.of_user(layout.landing, load_or_create_key(layout.key), user)


def canaries(layout: Layout, users: frozenset[str]) -> list[str | bytes]:
    """What an erasure looks for."""
    key, journal = load_or_create_key(layout.key), Journal(sorted(users))
    with key_store(layout) as keys:
        stores.plan(journal, layout, key, keys)
        evidence.gather(journal, layout, key, keys)
    return journal.canaries


def empty_with_keys_of(layout: Layout, name: str) -> Layout:
    """A data root after the loss of everything but the key store."""
    new = Layout(layout.root.with_name(name))
    shutil.copytree(layout.key.parent, new.key.parent)
    return new


def tables(layout: Layout) -> dict[str, pl.DataFrame]:
    """Messages, chunks and summaries of every DataDAO, computed from what is in the landing folder."""
    lake = Lake(layout.root.with_name(f"{layout.root.name} again"))
    key, found = load_or_create_key(layout.key), {}
    with key_store(layout) as keys:
        for folder in sorted(layout.landing.glob("[a-z]*")):
            erased = Tombstones.load(layout.erased, key)
            small_platform.build_messages(folder.name, layout.landing, lake, key, keys=keys, erased=erased, threads=1)
            for table in ("messages", "participants", "raw_files"):
                found[f"{table}/{folder.name}"] = lake.read(table, folder.name)
    return found


def looked_at(layout: Layout, folder: Path, wanted: list[str | bytes]) -> Scan:
    with key_store(layout) as keys:
        return scan(folder, wanted, keys)


def test_restoring_a_backup_made_before_an_erasure_brings_nobody_back_and_loses_nobody(layout, backup):
    """C19, F4: backup, erase, lose everything but the keys, restore: 0 found of the erased, the others' rows the same.

    Control: with the key store as it was before the erasure, the same restore brings everything back.
    """
    users = person(layout)
    wanted = canaries(layout, users)
    before = empty_with_keys_of(layout, "keys of before")
    assert len(looked_at(layout, backup, wanted).canaries) > 20, "the audit sees what is in the backup"
    receipt = erase(layout, users)
    assert receipt.clean and receipt.removed[stores.OWN_SEALED] >= 1 and receipt.removed["keys"] == 1
    told = report.as_text(receipt)
    assert "shredded: " in told and "sealed under the DataDAO's key" in told
    new = empty_with_keys_of(layout, "new")
    done = restore(new, backup)
    assert done.counts[SHREDDED] >= receipt.removed[stores.OWN_SEALED] and not done.counts[DAMAGED]
    after = looked_at(new, new.root, wanted)
    assert not after.hits and not after.undecoded and after.files > 30
    ours, theirs = tables(layout), tables(new)
    assert ours.keys() == theirs.keys() and sum(frame.height for frame in ours.values()) > 500
    assert [name for name in ours if not ours[name].equals(theirs[name])] == []
    restore(before, backup)
    assert len(looked_at(before, before.root, wanted).canaries) > 20


def test_nothing_in_a_backup_is_in_clear_and_no_key_lies_in_it(layout, backup):
    """C19: names, texts, ids and names of files are found with the keys, and not without."""
    wanted = canaries(layout, person(layout))
    files = [path for path in backup.rglob("*") if path.is_file()]
    assert {path.name for path in files if path.parent == backup} == {LIST}
    assert all(path.read_bytes().startswith(MAGIC) for path in files if path.parent != backup)
    assert not scan(backup, wanted).hits
    found = looked_at(layout, backup, wanted)
    assert len(found.canaries) > 20 and not found.undecoded
    secrets = [path.read_text().strip() for path in (layout.key, layout.master_key)]
    with sqlite3.connect(layout.contributor_keys) as store:
        wrapped = [row[0] for row in store.execute("SELECT wrapped FROM keys").fetchall()]
    assert wrapped and not looked_at(layout, backup, [*secrets, *map(bytes.fromhex, secrets), *wrapped]).hits


def test_what_was_erased_in_the_backed_up_rows_does_not_come_back(layout, backup):
    """contributors.csv and consent.csv: each row is under the key of its person."""
    users = person(layout)
    people = identity.contributors(layout.landing, load_or_create_key(layout.key), users)
    old = {path: path.read_bytes() for path in sorted(layout.landing.glob("*/*.csv"))}
    assert people
    erase(layout, users)
    new = empty_with_keys_of(layout, "new")
    restore(new, backup)
    for path, content in old.items():
        rows = list(csv.DictReader((new.landing / path.relative_to(layout.landing)).read_text().splitlines()))
        kept = list(csv.DictReader(path.read_text().splitlines()))
        assert rows == kept and len(kept) <= len(content.splitlines()) - 1
        assert not people & {row.get("contributor") for row in rows}


def test_a_model_trained_on_somebody_erased_since_is_marked_again(layout, backup):
    erase(layout, person(layout))
    new = empty_with_keys_of(layout, "new")
    done = restore(new, backup)
    assert done.counts["models marked: trained on somebody who was erased"] == 2
    with pytest.raises(TaintedModel):
        Models(new.models).current("item_encoder")
    assert Models(new.models).current("summary_program").complete


def test_tombstones_of_the_backup_hold_where_the_platform_lost_its_own(layout, tmp_path):
    """C19: erase, back up, and restore with an older copy of the key store, which still has the key."""
    users = person(layout)
    wanted = canaries(layout, users)
    old_keys = empty_with_keys_of(layout, "old keys")
    shutil.copytree(layout.landing, tmp_path / "landing")
    erase(layout, users)
    back_up(layout, tmp_path / "after")
    restore(old_keys, tmp_path / "after")
    assert not looked_at(old_keys, old_keys.landing, wanted).hits
    for folder in sorted((tmp_path / "landing").glob("[a-z]*")):  # the same exports turn up again
        shutil.copytree(folder, old_keys.landing / folder.name, dirs_exist_ok=True)
    assert Tombstones.load(old_keys.erased, load_or_create_key(old_keys.key))
    authors = {user for frame in tables(old_keys).values() if "author_id" in frame for user in frame["author_id"]}
    assert authors and not authors & users


def test_what_is_there_stays_and_damaged_or_missing_files_are_told(layout, backup):
    files = sorted((backup / "files").iterdir())
    with key_store(layout) as keys:
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
    with key_store(layout) as keys:
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
    small_platform.generate(new.landing, seed=3, contributors=20)
    (new.landing / "telegram" / "link.json").symlink_to(tmp_path / "outside.json")
    (tmp_path / "outside.json").write_text("{}")
    told = back_up(new, tmp_path / "backup")
    assert told.counts["exports sealed on their way"] > 20 and sum("links" in what for what in told.counts) == 1
    with key_store(layout) as keys:
        whose = {owner_of(path, keys) for path in (tmp_path / "backup" / "files").iterdir()}
        assert {owner_of(path, keys) for path in (backed_up / "files").iterdir()} - {PLATFORM} <= whose
    assert all(path.read_bytes().startswith(MAGIC) for path in (tmp_path / "backup" / "files").iterdir())


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


def test_the_commands_seal_check_and_tell(tmp_path, capsys):
    layout = Layout(tmp_path / "data")
    small_platform.generate(layout.landing, seed=3, contributors=20)
    root = ["--data", str(layout.root)]
    assert cli.main([*root, "seal"]) == 0 and cli.main([*root, "seal"]) == 0
    told = capsys.readouterr().out
    assert "chatgpt: 0 files sealed" in told and "USER_EMBEDDINGS_SEAL is on" in told
    assert cli.main([*root, "seal", "--check"]) == 0 and "intact" in capsys.readouterr().out
    path = next(layout.landing.rglob("*.sealed"))
    os.truncate(path, path.stat().st_size - 1)
    assert cli.main([*root, "seal", "--check"]) == 1
    assert str(path) in (told := capsys.readouterr().out) and "is cut off" in told


def test_answers_of_a_language_model_are_not_in_clear_and_shredded_with_the_key(layout, tmp_path):
    """C19: nothing of an answer is in the cache's bytes. Control: the same answers in a store in clear are found."""
    users = person(layout)
    rows = Lake(layout.root).read("masked_chunks", "telegram").filter(pl.col("user_id").is_in(list(users)))
    middles = rows["text"].str.slice(rows["text"].str.len_chars().max() // 8, 40).to_list()
    wanted = [text for text in middles if len(text) == 40][:20]
    clear = tmp_path / "clear"
    clear.mkdir()
    with sqlite3.connect(clear / "answers.sqlite") as store:
        store.execute("CREATE TABLE answers (value TEXT)")
        store.executemany("INSERT INTO answers VALUES (?)", [(text,) for text in rows["text"]])
    assert len(wanted) > 5 and scan(clear, wanted).canaries == set(wanted)
    cache = layout.language_model_cache
    with sqlite3.connect(cache) as store:
        assert store.execute("SELECT count(*) FROM entries").fetchone()[0] > 20
    assert not scan(cache.parent, wanted).hits


@pytest.mark.parametrize("command", [["backup"], ["backup", "--keys"], ["seal", "--check"]])
def test_a_data_root_that_is_mistyped_is_not_backed_up(tmp_path, capsys, command):
    target = [str(tmp_path / "backup")] if "backup" in command else []
    assert cli.main(["--data", str(tmp_path / "no"), *command, *target]) == 2
    assert "no data root there" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_no_keys_are_no_copy_of_keys(tmp_path):
    with pytest.raises(ValueError, match="no key store there"):
        copy_keys(Layout(tmp_path / "data"), tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


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
