"""LanceTables: one row per id whatever happens, hostile ids, exactness, refusal of bad rows."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import lancedb
import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.storage import lance_tables, vector_rows
from user_embeddings_dagster.storage.lance_tables import LanceTables

HOSTILE = ["x' OR '1'='1", 'a"; DROP TABLE t; --', "' || id || '", "\\'", "%", "é\u202e\n", "NULL", "id"]


def rows(ids: list[str], version: str = "v1", seed: int = 0, dimension: int = 8) -> pl.DataFrame:
    vectors = np.random.default_rng(seed).normal(size=(len(ids), dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pl.DataFrame({"id": ids, "user_id": ["u"] * len(ids), "version": [version] * len(ids)}).with_columns(
        vector=pl.Series(vectors)
    )


@pytest.fixture
def tables(tmp_path: Path) -> LanceTables:
    return LanceTables(tmp_path / "lancedb")


def numbered(n: int) -> list[str]:
    return [f"{i:032x}" for i in range(n)]


def test_upsert_twice_leaves_one_row_per_id(tables: LanceTables) -> None:
    first = rows(numbered(20))
    tables.upsert("dao", "chunk_embeddings", first)
    before = tables.content_hash("dao", "chunk_embeddings")
    tables.upsert("dao", "chunk_embeddings", first.reverse())
    assert tables.count("dao", "chunk_embeddings") == 20
    assert tables.content_hash("dao", "chunk_embeddings") == before
    tables.upsert("dao", "chunk_embeddings", rows(numbered(5), version="v2", seed=9))
    assert tables.ids("dao", "chunk_embeddings", "v2") == numbered(5)
    assert len(tables.ids("dao", "chunk_embeddings")) == 20
    assert tables.content_hash("dao", "chunk_embeddings") != before


def test_content_hash_ignores_order_and_fragments(tables: LanceTables) -> None:
    all_rows = rows(numbered(30))
    tables.upsert("a", "t", all_rows)
    for start in (20, 0, 10):
        tables.upsert("b", "t", all_rows[start : start + 10].reverse())
    tables.compact("b", "t")
    assert tables.content_hash("a", "t") == tables.content_hash("b", "t")
    changed = all_rows.with_columns(vector=pl.Series(np.nextafter(all_rows["vector"].to_numpy(), np.float32(2))))
    tables.upsert("a", "t", changed[:1])
    assert tables.content_hash("a", "t") != tables.content_hash("b", "t")


def test_vectors_come_back_bit_for_bit(tables: LanceTables) -> None:
    written = rows(numbered(50))
    tables.upsert("dao", "t", written)
    ids, vectors = tables.vectors("dao", "t", ids=[numbered(50)[7], "absent", numbered(50)[3], numbered(50)[7]])
    assert ids == [numbered(50)[3], numbered(50)[7]]
    assert np.array_equal(vectors, written["vector"].to_numpy()[[3, 7]])


def test_hostile_ids_act_on_exactly_one_row(tables: LanceTables) -> None:
    tables.upsert("dao", "t", rows([*HOSTILE, "plain"]))
    total = len(HOSTILE) + 1
    for gone, hostile in enumerate(HOSTILE, 1):
        assert tables.vectors("dao", "t", [hostile])[0] == [hostile]
        assert tables.search("dao", "t", np.ones(8), 9, ids=[hostile])["id"].to_list() == [hostile]
        assert tables.delete("dao", "t", [hostile]) == 1
        assert tables.count("dao", "t") == total - gone
    assert tables.ids("dao", "t") == ["plain"]


def test_hostile_id_in_an_f_string_would_delete_everything(tables: LanceTables) -> None:
    """The broken twin of `delete`: why filters are expressions."""
    tables.upsert("dao", "t", rows(["a", "b", HOSTILE[0]]))
    tables.open("dao", "t").delete(f"id = '{HOSTILE[0]}'")
    assert tables.count("dao", "t") == 0


@pytest.mark.parametrize("name", ["../up", "a/b", "", "A", ".hidden", "a b"])
def test_names_cannot_leave_the_root(tables: LanceTables, name: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        tables.upsert(name, "t", rows(["a"]))
    with pytest.raises(ValueError, match="not a"):
        tables.upsert("dao", name, rows(["a"]))


def test_half_created_table_is_created_again(tables: LanceTables) -> None:
    """C70: a process killed before its first commit leaves files but no version."""
    leftover = tables.folder("dao", "t") / "data"
    leftover.mkdir(parents=True)
    (leftover / "torn.lance").write_bytes(b"torn")
    (tables.folder("dao", "t") / "_versions").mkdir()
    assert not tables.exists("dao", "t")
    assert (tables.ids("dao", "t"), tables.count("dao", "t")) == ([], 0)
    tables.upsert("dao", "t", rows(["a"]))
    assert tables.ids("dao", "t") == ["a"]


def test_drop_leaves_no_file(tables: LanceTables) -> None:
    tables.upsert("dao", "t", rows(["a"]))
    tables.drop("dao", "t")
    tables.drop("dao", "t")
    assert list((tables.root / "dao").iterdir()) == []
    with pytest.raises(FileNotFoundError, match="dao/t has not been materialised yet"):
        tables.open("dao", "t")
    tables.upsert("dao", "t", rows(["b"], dimension=9))
    assert tables.dimension("dao", "t") == 9


def test_keep_only_deletes_what_is_stale(tables: LanceTables) -> None:
    tables.upsert("dao", "t", rows(numbered(10)))
    assert tables.keep_only("dao", "t", [*numbered(6), "not there"]) == 4
    assert tables.ids("dao", "t") == numbered(6)
    assert tables.keep_only("dao", "t", numbered(6)) == 0


def test_bad_rows_are_refused_and_leave_the_table(tables: LanceTables) -> None:
    tables.upsert("dao", "t", rows(["a", "b"]))
    before = tables.content_hash("dao", "t")
    good = rows(["c", "d"])
    nan = np.full((2, 8), np.nan, dtype=np.float32)
    bad = {
        "repeated": rows(["c", "c"]),
        "nulls": good.with_columns(id=pl.Series([None, "d"])),
        "finite": good.with_columns(vector=pl.Series(nan)),
        "different lengths": good.with_columns(vector=pl.Series([[1.0], [1.0, 2.0]])),
        "rows lack": good.drop("version"),
        "has id": rows(["c", "d"], dimension=9),
    }
    for message, frame in bad.items():
        with pytest.raises(ValueError, match=message) as caught:
            tables.upsert("dao", "t", frame)
        assert "0.3" not in str(caught.value)
    assert tables.content_hash("dao", "t") == before


def test_search_is_exact_and_names_its_index(tables: LanceTables) -> None:
    written = rows(numbered(600), dimension=16)
    vectors = written["vector"].to_numpy()
    tables.upsert("dao", "t", written)
    assert tables.ensure_indices("dao", "t") == lance_tables.IndexInfo(600, "BTREE", "flat")
    expected = np.argsort(-(vectors[:4] @ vectors.T), axis=1)[:, :5]
    found = tables.search("dao", "t", vectors[:4], 5)
    assert found["id"].to_list() == [numbered(600)[i] for i in expected.ravel()]
    np.testing.assert_allclose(found["similarity"].to_numpy()[::5], 1, atol=1e-5)
    info = tables.ensure_indices("dao", "t", index_rows=500)
    assert info.vector_index == "IVF_FLAT"
    assert tables.search("dao", "t", vectors[:4], 1)["id"].to_list() == numbered(4)


def test_search_among_few_ids_finds_all_of_them_despite_the_index(tables: LanceTables) -> None:
    written = rows(numbered(3000), dimension=16)
    tables.upsert("dao", "t", written)
    tables.ensure_indices("dao", "t", index_rows=500)
    chosen = numbered(3000)[::300]
    found = tables.search("dao", "t", written["vector"].to_numpy()[1], 10, ids=chosen)
    assert sorted(found["id"]) == chosen


def test_new_rows_are_found_after_the_index_was_built(tables: LanceTables) -> None:
    tables.upsert("dao", "t", rows(numbered(1000), dimension=16))
    tables.ensure_indices("dao", "t", index_rows=500)
    late = rows(["late"], seed=5, dimension=16)
    tables.upsert("dao", "t", late)
    assert tables.ensure_indices("dao", "t", index_rows=500).rows == 1001
    assert tables.search("dao", "t", late["vector"].to_numpy(), 1)["id"].to_list() == ["late"]


def rows_after_two_stale_writers(root: Path, written: pl.DataFrame) -> int:
    """Rows after two handles opened before any write have merged the same new ids, one after the other."""
    database = lancedb.connect(root / "dao")
    schema = lance_tables.arrow_rows(written).schema
    handles = [database.create_table("t", schema=schema), lancedb.connect(root / "dao").open_table("t")]
    for handle in handles:
        merge = handle.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(lance_tables.arrow_rows(written))
    return LanceTables(root).count("dao", "t")


def test_concurrent_writers_of_the_same_ids_make_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same new ids only one writer's rows remain; without the mark on `id` (the twin) all do."""
    assert rows_after_two_stale_writers(tmp_path / "marked", rows(["a", "b", "c"])) == 3
    monkeypatch.setattr(vector_rows, "PRIMARY_KEY", None)
    assert rows_after_two_stale_writers(tmp_path / "unmarked", rows(["a", "b", "c"])) == 6


KILLED = """
import sys
from pathlib import Path
import numpy as np, polars as pl
from user_embeddings_dagster.storage.lance_tables import LanceTables
tables = LanceTables(Path(sys.argv[1]))
v = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
f = pl.DataFrame({"id": [f"{i:032x}" for i in range(1000)], "version": ["v"] * 1000})
f = f.with_columns(vector=pl.Series(v))
print("ready", flush=True)
for start in range(0, 1000, 25):
    tables.upsert("dao", "t", f[start : start + 25])
tables.compact("dao", "t")
tables.ensure_indices("dao", "t", index_rows=500)
print(tables.content_hash("dao", "t"), flush=True)
"""


def test_kill_and_rerun_gives_the_undisturbed_table(tmp_path: Path) -> None:
    """C70: kill -9 at any moment, run again: the same rows, none twice."""

    def started(root: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    undisturbed = started(tmp_path / "a").communicate()[0].strip()
    for seconds in (0.1, 0.6):
        process = started(tmp_path / "b")
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert started(tmp_path / "b").communicate()[0].strip() == undisturbed
    assert LanceTables(tmp_path / "b").count("dao", "t") == 1000
