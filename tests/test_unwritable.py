"""A data root that is full, read-only or somebody else's is told in one line; other errors keep their traceback."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from user_embeddings_dagster import cli, unwritable
from user_embeddings_dagster.storage.durability import DiskFull


def of_disk(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize(("place", "named"), [("/disk/landing/a", "/disk/landing/a"), (None, "/data")])
def test_path_and_reason_are_told(number, place, named, tmp_path):
    assert unwritable.as_line(of_disk(number, place), Path("/data")) == f"{named}: {os.strerror(number)}"


def test_what_was_being_written_is_told(tmp_path):
    said = unwritable.as_line(DiskFull(errno.ENOSPC, "messages: no space left on the disk of /data/a"), tmp_path)
    assert said is not None and said.endswith("messages: no space left on the disk of /data/a")


@pytest.mark.parametrize("error", [of_disk(errno.EIO, "/a"), of_disk(errno.ENOENT), ValueError("a"), OSError("a")])
def test_other_errors_are_not(error, tmp_path):
    assert unwritable.as_line(error, tmp_path) is None


def readonly(path) -> str:
    sqlite3.connect(path).executescript("create table t (a); insert into t values (1)")
    return f"file:{path}?mode=ro"


def test_a_database_that_cannot_be_written_is_told_without_its_statement(tmp_path):
    uri = readonly(tmp_path / "runs.db")
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True))
    with engine.connect() as connection, pytest.raises(OperationalError) as raised:
        connection.execute(sqlalchemy.text("insert into t values (2)"))
    assert unwritable.as_line(raised.value, tmp_path) == f"{tmp_path}: attempt to write a readonly database"
    with pytest.raises(sqlite3.OperationalError) as plain:
        sqlite3.connect(uri, uri=True).execute("insert into t values (2)")
    assert unwritable.as_line(plain.value, tmp_path) == f"{tmp_path}: attempt to write a readonly database"


def test_a_full_disk_is_told_where_sqlite_calls_it_an_error_of_the_disk(tmp_path, monkeypatch):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert unwritable.as_line(error, tmp_path) == f"{tmp_path}: disk I/O error"
    monkeypatch.setattr(unwritable, "scarce", lambda path: True)
    assert unwritable.as_line(error, tmp_path) == f"{tmp_path}: disk I/O error, no space left on the disk"


def test_a_database_without_a_table_keeps_its_traceback(tmp_path):
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(OperationalError) as raised:
        connection.execute(sqlalchemy.text("insert into t values (2)"))
    assert unwritable.as_line(raised.value, tmp_path) is None


def test_every_command_tells_it(tmp_path, monkeypatch, capsys):
    def refused(*_: object):
        raise of_disk(errno.EROFS, str(tmp_path / "landing"))

    monkeypatch.setattr("user_embeddings_dagster.samples.generate", refused)
    assert cli.main(["--data", str(tmp_path), "samples"]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/landing: Read-only file system\n"
    monkeypatch.setattr("user_embeddings_dagster.samples.generate", lambda *_: (tmp_path / "none" / "a").read_bytes())
    with pytest.raises(FileNotFoundError):
        cli.main(["--data", str(tmp_path), "samples"])
