"""The lake: a partition is the old table or the new one, whole, and says what it was computed from (C67)."""

import json
from threading import Thread

import polars as pl
import pytest

from user_embeddings_dagster.schema import DROPPED_MESSAGES
from user_embeddings_dagster.storage import lake as module
from user_embeddings_dagster.storage.lake import CorruptTable, Lake, TornBuild, fingerprint

TABLE = DROPPED_MESSAGES


def rows(*counts: int) -> pl.DataFrame:
    return pl.DataFrame({"datadao": "dao", "raw_sha256": [str(n) for n in counts], "reason": "bot", "n": list(counts)})


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path)


def test_the_same_rows_in_any_order_give_the_same_bytes_and_another_partition_is_untouched(lake):
    """C67."""
    other = lake.commit(TABLE, rows(9), "other", "f")
    first = lake.commit(TABLE, rows(1, 2, 3), "dao", "f")
    again = lake.commit(TABLE, rows(3, 1, 2), "dao", "f")
    assert again == first
    assert lake.current(TABLE.name, "other") == other
    assert lake.partitions(TABLE.name) == ["dao", "other"]


def test_a_commit_replaces_and_leaves_one_file(lake):
    lake.commit(TABLE, rows(1), "dao", "f")
    commit = lake.commit(TABLE, rows(1, 2), "dao", "g")
    assert [path.name for path in lake.folder(TABLE.name, "dao").glob("*.parquet")] == [commit.file]
    assert lake.read(TABLE.name, "dao").height == 2


def test_a_kill_before_the_pointer_moves_leaves_the_old_table(lake, monkeypatch):
    """C67: the new file lies there already; a re-run ends as an undisturbed one."""
    old = lake.commit(TABLE, rows(1), "dao", "f")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_json", killed)
        lake.commit(TABLE, rows(1, 2), "dao", "g")
    assert lake.current(TABLE.name, "dao") == old
    assert lake.read(TABLE.name, "dao").height == 1
    new = lake.commit(TABLE, rows(1, 2), "dao", "g")
    assert [path.name for path in lake.folder(TABLE.name, "dao").glob("*.parquet")] == [new.file]


def test_staged_files_of_dead_processes_go_and_those_of_living_ones_stay(lake):
    folder = lake.folder(TABLE.name, "dao")
    folder.mkdir(parents=True)
    dead, alive = folder / "staged-999999999.parquet", folder / "staged-1.parquet"
    dead.touch()
    alive.touch()
    lake.stage(TABLE.name, "dao")
    assert (dead.exists(), alive.exists()) == (False, True)


@pytest.mark.parametrize("gone", [99, 1])
def test_what_is_committed_beside_a_purge_stays_whole(lake, monkeypatch, gone):
    """A commit comes before a purge or after it, whether it finds anything or not; never is its file taken away."""
    lake.commit(TABLE, rows(1), "dao", "f")
    beside = Thread(target=lake.commit, args=(TABLE, rows(2, 3), "dao", "g"))

    def read(self: Lake, *what: str) -> pl.DataFrame:
        frame = pl.read_parquet(self.path(*what))
        beside.start()
        beside.join(0.5)
        return frame

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "read", read)
        lake.purge(TABLE, "dao", pl.col("n") == gone)
    beside.join()
    assert lake.read(TABLE.name, "dao")["n"].to_list() == [2, 3]
    assert len(list(lake.folder(TABLE.name, "dao").iterdir())) == 2


@pytest.mark.parametrize("gone", [99, 1])
def test_a_purge_takes_what_was_killed_and_nothing_that_is_being_written(lake, gone):
    lake.commit(TABLE, rows(1, 2), "dao", "f")
    folder = lake.folder(TABLE.name, "dao")
    killed = {"staged-999999999-1.parquet", ".current.json.999999999", f"{'0' * 32}.parquet"}
    for name in {*killed, "staged-1-1.parquet"}:
        (folder / name).touch()
    lake.purge(TABLE, "dao", pl.col("n") == gone)
    assert {path.name for path in folder.iterdir()} == {
        "current.json", lake.path(TABLE.name, "dao").name, "staged-1-1.parquet"
    }  # fmt: skip


def test_a_write_that_fails_leaves_nothing_behind(lake, monkeypatch):
    monkeypatch.setattr(module, "sync", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lake.commit(TABLE, rows(1), "dao", "f")
    assert not list(lake.folder(TABLE.name, "dao").iterdir())


def test_up_to_date_asks_for_the_inputs_and_for_the_bytes(lake):
    commit = lake.commit(TABLE, rows(1), "dao", "f")
    assert lake.up_to_date(TABLE.name, "dao", "f") == commit
    assert lake.up_to_date(TABLE.name, "dao", "g") is None
    path = lake.path(TABLE.name, "dao")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert lake.up_to_date(TABLE.name, "dao", "f") is None
    path.unlink()
    with pytest.raises(CorruptTable):
        lake.path(TABLE.name, "dao")


def test_tables_of_one_build_must_be_of_the_same_build(lake):
    """A build commits its tables one after another; killed in between, the next stage must not mix them."""
    with pytest.raises(FileNotFoundError):
        lake.same_build(("messages", "participants"), "dao")
    for table in ("messages", "participants"):
        folder = lake.folder(table, "dao")
        folder.mkdir(parents=True)
        module.write_json(folder / "current.json", {"file": "x", "rows": 1, "content_hash": "h", "fingerprint": "f"})
    assert [commit.fingerprint for commit in lake.same_build(("messages", "participants"), "dao")] == ["f", "f"]
    pointer = lake.folder("participants", "dao") / "current.json"
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), "fingerprint": "newer"}))
    with pytest.raises(TornBuild):
        lake.same_build(("messages", "participants"), "dao")


def test_duplicate_keys_and_nulls_are_refused_without_their_values(lake):
    with pytest.raises(ValueError, match="duplicate primary keys"):
        lake.commit(TABLE, pl.concat([rows(1), rows(1)]), "dao")
    with pytest.raises(ValueError, match="reason") as refused:
        lake.commit(TABLE, rows(1).with_columns(reason=pl.lit(None, pl.String), raw_sha256=pl.lit("secret")), "dao")
    assert "secret" not in str(refused.value)


def test_a_fingerprint_sees_every_part():
    assert fingerprint("v1", ["a"], {"x": 1}) == fingerprint("v1", ["a"], {"x": 1})
    assert len({fingerprint("v1", ["a"], {"x": n}) for n in (1, 2)} | {fingerprint("v2", ["a"], {"x": 1})}) == 3
