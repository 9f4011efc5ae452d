"""Contributor keys: one for each, kept wrapped, gone for good when destroyed."""

import multiprocessing
import shutil
import stat

import pytest

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys, WrongMasterKey
from user_embeddings_dagster.settings import Layout

MASTER = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "contributors.sqlite"


def test_a_contributor_keeps_one_random_key(path):
    with ContributorKeys(path, MASTER) as keys:
        ann, ben, none = keys.key("ann"), keys.key("ben"), keys.key("")
        assert len({ann, ben, none}) == 3 and all(len(key) == 32 for key in (ann, ben, none))
    with ContributorKeys(path, MASTER) as keys:
        assert (keys.key("ann"), keys.existing("ben"), keys.existing("")) == (ann, ben, none)
        assert keys.existing("cleo") is None
    with ContributorKeys(path.with_name("other.sqlite"), MASTER) as keys:
        assert keys.key("ann") != ann  # random, not derived: destroying it would be vain otherwise


def test_a_derived_key_depends_on_master_and_purpose(path):
    with ContributorKeys(path, MASTER) as keys, ContributorKeys(path.with_name("other"), bytes(32)) as others:
        assert keys.derived("a") == keys.derived("a")
        assert len({keys.derived("a"), keys.derived("b"), others.derived("a")}) == 3


def test_the_file_shows_neither_contributor_nor_key(path):
    with ContributorKeys(path, MASTER) as keys:
        key = keys.key("canary-contributor")
        stored = _bytes(path)
    assert b"canary-contributor" not in stored and key not in stored and MASTER not in stored
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_destroyed_key_leaves_no_bytes_and_no_trace(path):
    """C19: the row is gone from the raw file; who contributes again gets another key."""
    with ContributorKeys(path, MASTER) as keys:
        first, ben = keys.key("ann"), keys.key("ben")
        name, wrapped = _row(keys, "ann")
        assert name in _bytes(path) and wrapped in _bytes(path)  # the scan sees what is there
        assert keys.destroy("ann") and not keys.destroy("ann")
        assert name not in _bytes(path) and wrapped not in _bytes(path)
        assert keys.existing("ann") is None and keys.existing("ben") == ben
        assert keys.key("ann") != first


def test_without_secure_delete_the_scan_would_find_the_key(path):
    with ContributorKeys(path, MASTER) as keys:
        keys.key("ann"), keys.key("ben")
        _, wrapped = _row(keys, "ann")
        keys._connection.execute("PRAGMA secure_delete = OFF")
        keys.destroy("ann")
        assert wrapped in _bytes(path)


def test_a_row_moved_to_another_contributor_does_not_open(path):
    with ContributorKeys(path, MASTER) as keys:
        keys.key("ann"), keys.key("ben")
        update = "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE name = ?) WHERE name = ?"
        keys._connection.execute(update, (keys._name("ann"), keys._name("ben")))
        with pytest.raises(WrongMasterKey):
            keys.key("ben")


def test_another_master_key_is_refused_at_once(path):
    """A lost or swapped master key stops the run: it must not look like an empty cache."""
    with ContributorKeys(path, MASTER) as keys:
        ann = keys.key("ann")
    with pytest.raises(WrongMasterKey, match=r"contributors\.sqlite: made with another master key"):
        ContributorKeys(path, bytes(32))
    with ContributorKeys(path, MASTER) as keys:
        assert keys.key("ann") == ann  # the attempt has changed nothing


def test_a_key_destroyed_by_another_process_is_gone_here(path):
    with ContributorKeys(path, MASTER) as keys:
        first = keys.key("ann")
        with ContributorKeys(path, MASTER) as elsewhere:
            elsewhere.destroy("ann")
            assert keys.existing("ann") is None
            second = elsewhere.key("ann")
        assert keys.key("ann") == second != first


def test_an_old_copy_of_the_file_is_what_backups_must_not_outlive(path):
    """What destroying cannot reach, stated: a copy of the key file still opens under the master key."""
    with ContributorKeys(path, MASTER) as keys:
        key = keys.key("ann")
    shutil.copy(path, path.with_name("backup"))
    with ContributorKeys(path, MASTER) as keys:
        keys.destroy("ann")
    with ContributorKeys(path.with_name("backup"), MASTER) as keys:
        assert keys.existing("ann") == key


def _keys_of(path, barrier, queue):
    barrier.wait()  # before the file is there
    with ContributorKeys(path, MASTER) as keys:
        queue.put({owner: keys.key(owner) for owner in ("ann", "ben", "cleo", "dan")})


def test_processes_that_make_the_same_keys_at_once_agree(path):
    context = multiprocessing.get_context("forkserver")
    for attempt in range(2):
        barrier, queue = context.Barrier(4), context.Queue()
        file = path.with_name(f"{attempt}.sqlite")
        writers = [context.Process(target=_keys_of, args=(file, barrier, queue)) for _ in range(4)]
        for writer in writers:
            writer.start()
        made = [queue.get(timeout=30) for _ in writers]
        for writer in writers:
            writer.join(30)
        assert [writer.exitcode for writer in writers] == [0] * 4
        assert all(keys == made[0] for keys in made) and len(set(made[0].values())) == 4


def test_the_master_key_has_a_file_of_its_own(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    assert load_or_create_key(layout.master_key) != load_or_create_key(layout.key)
    monkeypatch.delenv("USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE", raising=False)
    assert layout.language_model_cache_url == f"sqlite://{tmp_path}/cache/language_models.sqlite"
    monkeypatch.setenv("USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE", "redis://cache:6379/0")
    assert layout.language_model_cache_url == "redis://cache:6379/0"


def test_who_finds_no_key_and_makes_one_too_late_gets_the_first(path, monkeypatch):
    """The race of two creators, step by step."""
    with ContributorKeys(path, MASTER) as first, ContributorKeys(path, MASTER) as second:
        monkeypatch.setattr(second, "existing", lambda owner: None)  # it looked before the first made it
        made = first.key("ann")
        assert second.key("ann") == made == first.key("ann")


def _row(keys, owner):
    [(name, wrapped)] = keys._connection.execute("SELECT * FROM keys WHERE name = ?", (keys._name(owner),)).fetchall()
    return name.encode(), wrapped


def _bytes(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))
