"""A LanceDB table whose files were changed on the disk is refused, whichever file it is (F20)."""

from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster import keys
from user_embeddings_dagster.storage import lance_sums, lance_tables
from user_embeddings_dagster.storage.durability import Damaged
from user_embeddings_dagster.storage.lance_sums import SUMS
from user_embeddings_dagster.storage.lance_tables import LanceTables

TABLE = "dao", "item_embeddings"


def rows(first: int, n: int) -> pl.DataFrame:
    vectors = np.random.default_rng(first).normal(size=(n, 16)).astype(np.float32)
    ids = [f"{i:032x}" for i in range(first, first + n)]
    return pl.DataFrame({"id": ids, "version": ["v1"] * n}).with_columns(vector=pl.Series(vectors))


@pytest.fixture
def tables(tmp_path: Path) -> LanceTables:
    """Two data files, deleted rows, both indices."""
    tables = LanceTables(tmp_path / "lancedb")
    tables.upsert(*TABLE, rows(0, 200))
    tables.upsert(*TABLE, rows(200, 100))
    tables.delete(*TABLE, [f"{7:032x}"])
    tables.ensure_indices(*TABLE, index_rows=100)
    return tables


def read_files(tables: LanceTables) -> list[Path]:
    """What the newest version reads."""
    folder = tables.folder(*TABLE)
    found = [path for part in ("data", "_deletions", "_indices") for path in folder.glob(f"{part}/**/*")]
    return [min((folder / "_versions").glob("*.manifest")), *(path for path in found if path.is_file())]


def flip(path: Path) -> None:
    """One bit in the middle; in a data file, of a vector."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_in_any_file_is_refused_and_named(tables):
    """Control: LanceDB alone reads other vectors from a data file with one."""
    files, before = read_files(tables), tables.vectors(*TABLE)[1]
    assert {path.relative_to(tables.folder(*TABLE)).parts[0] for path in files} == {
        "data", "_deletions", "_indices", "_versions",
    }  # fmt: skip
    query = np.ones((1, 16), dtype=np.float32)
    for path in files:
        whole = path.read_bytes()
        flip(path)
        for use in (
            lambda: tables.vectors(*TABLE),
            lambda: tables.search(*TABLE, query, 3),
            lambda: tables.upsert(*TABLE, rows(300, 1)),
            lambda: tables.compact(*TABLE, keep=timedelta(0)),
            lambda: LanceTables(tables.root).ids(*TABLE),
        ):
            with pytest.raises(Damaged, match=f"{path.name}: damaged, not what was written; remove .*materialise"):
                use()
        if path.parent.name == "data":
            alone = lancedb.connect(tables.root / "dao").open_table(TABLE[1]).search().select(["id", "vector"])
            found = pl.DataFrame(alone.to_arrow()).sort("id")["vector"].to_numpy()
            assert found.shape == before.shape and (found != before).any()
        path.write_bytes(whole)
    assert np.array_equal(tables.vectors(*TABLE)[1], before)
    (gone := files[1]).unlink()
    with pytest.raises(Damaged, match=f"{gone.name}: gone; remove .*materialise"):
        tables.count(*TABLE)


def test_a_process_hashes_a_file_once_and_what_it_wrote_when_it_wrote_it(tables, monkeypatch):
    hashed = list[str]()
    hashing = keys.file_sha256
    monkeypatch.setattr(keys, "file_sha256", lambda path: hashed.append(path.name) or hashing(path))
    for _ in range(3):
        tables.vectors(*TABLE)
    assert hashed == []
    keys._sha256_of.cache_clear()
    for _ in range(3):
        tables.vectors(*TABLE)
    assert sorted(hashed) == sorted(path.name for path in read_files(tables))
    hashed.clear()
    tables.upsert(*TABLE, rows(300, 5))
    tables.vectors(*TABLE)
    assert sum(name.endswith(".lance") for name in hashed) == sum(name.endswith(".manifest") for name in hashed) == 1


def test_files_without_a_sum_are_read_and_taken_in_by_the_next_write(tables, monkeypatch):
    """Of a table older than the list, and of a process killed between its commit and the list."""
    (tables.folder(*TABLE) / SUMS).unlink()
    assert tables.count(*TABLE) == 299
    with monkeypatch.context() as patch:
        patch.setattr(lance_tables, "record", lambda *_: None)
        tables.upsert(*TABLE, rows(300, 1))
    assert tables.count(*TABLE) == 300
    tables.ensure_indices(*TABLE, index_rows=100)
    for path in (tables.folder(*TABLE) / "data").iterdir():
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(Damaged, match=path.name):
            tables.count(*TABLE)
        path.write_bytes(whole)


def test_a_version_that_another_process_replaces_while_it_is_compared_is_opened_anew(tables, monkeypatch):
    opened, hashing = [], lance_sums.sha256_once

    def replaced(path: Path) -> str:
        if not opened:
            opened.append(path)
            LanceTables(tables.root).purge(*TABLE, [f"{i:032x}" for i in range(50)])
        return hashing(path)

    monkeypatch.setattr(lance_sums, "sha256_once", replaced)
    assert len(tables.vectors(*TABLE)[0]) == 250 and opened


def test_the_list_holds_what_is_there_and_a_damaged_one_is_named(tables):
    tables.purge(*TABLE, [f"{i:032x}" for i in range(50)])
    folder = tables.folder(*TABLE)
    listed = pl.read_json(folder / SUMS).columns
    assert sorted(listed) == sorted(path.relative_to(folder).as_posix() for path in read_files(tables))
    for content in ("{", "[]", '{"a": 1}'):
        (folder / SUMS).write_text(content)
        with pytest.raises(Damaged, match=f"{SUMS}: damaged, no.* remove it"):
            tables.count(*TABLE)
    (folder / SUMS).unlink()
    assert tables.count(*TABLE) == 250
