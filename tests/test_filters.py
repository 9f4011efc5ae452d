"""F23: no value is written into the text of a query, and a hostile id acts on its own row and no other."""

import ast
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.language_models.cache_stores import SqliteStore
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories

ROOT = Path(__file__).parents[1]
FOLDERS = ("user_embeddings_dagster", "assets", "resources", "training", "benchmarks", "tests")
QUERIES = {
    "where",
    "delete",
    "update",
    "merge",
    "execute",
    "executemany",
    "executescript",
    "sql",
    "query",
    "read",
    "_rows",
}
# Parts of queries that are no values: names of columns and tables out of our schemas, and question marks.
STRUCTURE = {
    "_COLUMNS", "marks", "columns", "', '.join(_quoted())", "', '.join(columns)", "_quoted(schema)", "_quoted(table)",
    "_quoted(table.decode())",
    "pragma", "table", "self.select", "_REMOVED", "source", "NEAR_MIN_CHARACTERS", "NEAR_MICROSECONDS", "_MAX_OBJECT",
}  # fmt: skip
CONTROLS = {
    ("tests/storage/test_lance_tables.py", "HOSTILE[0]"),
    ("tests/storage/test_score_table.py", "secret"),
    ("tests/test_filters.py", "hostile"),
}
"""Tests that show what a filter of text does."""

HOSTILE = (
    "x' OR '1'='1", "'; DROP TABLE scores; --", 'a"b', "a\\'b", "\\", "%", "_", "*", "NULL", "日本語'🙂", "a\u202eb",
    "O''Brien", "{0}", "$1", "?", "--", "/*", "a\nb", "\u0000x"[1:], "y" * 65_536,
)  # fmt: skip


def texts(function: ast.AST) -> dict[str, ast.expr]:
    """Texts that are put together in a function, by the name they are given."""
    return {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _composed(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _composed(node: ast.expr) -> bool:
    return (
        (isinstance(node, ast.JoinedStr) and any(isinstance(value, ast.FormattedValue) for value in node.values))
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod) and _has_text(node))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format")
    )


def _has_text(node: ast.expr) -> bool:
    """Whether strings are joined: sums of bytes go into hashes, which have an `update` too."""
    if any(isinstance(part, ast.Attribute) and part.attr in ("encode", "to_bytes") for part in ast.walk(node)):
        return False
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in ast.walk(node)
    )


def _parts(node: ast.expr) -> Iterator[tuple[str, bool]]:
    """What is put into a text, as source, and whether it stands in quotes there, as a value would."""
    if isinstance(node, ast.JoinedStr):
        before = ""
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                yield ast.unparse(value.value), before.endswith(("'", '"'))
            else:
                before = str(value.value) if isinstance(value, ast.Constant) else ""
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = node.left, node.right
        yield from (() if isinstance(left, ast.Constant) else _parts(left))
        before = left.right if isinstance(left, ast.BinOp) else left
        if not isinstance(right, ast.Constant):
            yield ast.unparse(right), isinstance(before, ast.Constant) and str(before.value).endswith(("'", '"'))
    else:
        yield ast.unparse(node), True


def violations(source: str, file: str = "") -> list[tuple[int, str]]:
    """Line and source of every value that is written into the text of a query."""
    tree, found = ast.parse(source), []
    functions = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]
    for function in functions:
        named = texts(function)
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Attribute) or call.func.attr not in QUERIES:
                continue
            for argument in [*call.args[:1], *(keyword.value for keyword in call.keywords)]:
                text = named.get(argument.id) if isinstance(argument, ast.Name) else argument
                if text is None or not _composed(text):
                    continue
                found += [
                    (call.lineno, part)
                    for part, quoted in _parts(text)
                    if (quoted or part not in STRUCTURE) and (file, part) not in CONTROLS
                ]
    return sorted(set(found))


def test_no_value_is_written_into_a_query():
    """F23: over every module of the repository."""
    found = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if lines := violations(path.read_text(), name):
            found[name] = lines
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "table.where(f\"id = '{user}'\")",
        "table.delete(f'id = {user}')",
        "table.update(where=f\"id = '{user}'\", values={})",
        'connection.execute("SELECT 1 WHERE a = \'" + user + "\'")',
        'connection.execute("SELECT %s" % user)',
        'connection.sql("SELECT {}".format(user))',
        "def f():\n    query = f\"DELETE FROM t WHERE id = '{user}'\"\n    connection.execute(query)",
        "connection.execute(f\"SELECT * FROM t WHERE c = '{table}'\")",
    ],
)
def test_the_lint_sees_planted_cases(source):
    assert violations(source)


def test_the_lint_lets_parameters_and_expressions_pass():
    assert not violations('table.where(col("id").isin(batch))\nc.execute("SELECT 1 WHERE a = ?", (user,))')
    assert not violations('c.execute(f"SELECT {_COLUMNS} FROM memories WHERE user_id = ?", (user,))')


def rows() -> pl.DataFrame:
    ids = [*HOSTILE, "innocent"]
    vectors = pl.Series(np.arange(len(ids) * 2, dtype=np.float32).reshape(-1, 2))
    return pl.DataFrame({"id": ids, "version": "v"}).with_columns(vector=vectors)


def test_a_hostile_id_acts_on_one_row_in_lance(tmp_path):
    """F23: found, replaced and deleted, alone."""
    tables = LanceTables(tmp_path)
    tables.upsert("dao", "t", rows())
    left = len(HOSTILE) + 1
    assert tables.count("dao", "t") == left
    for hostile in HOSTILE:
        assert tables.read("dao", "t", ["id"], [hostile])["id"].to_list() == [hostile]
        assert tables.delete("dao", "t", [hostile]) == 1
        left -= 1
        assert tables.count("dao", "t") == left
    assert tables.ids("dao", "t") == ["innocent"]


def test_the_control_a_filter_of_text_wipes_the_lance_table(tmp_path):
    tables = LanceTables(tmp_path)
    tables.upsert("dao", "t", rows())
    hostile = HOSTILE[0]
    tables.open("dao", "t").delete(f"id = '{hostile}'")
    assert tables.count("dao", "t") == 0


def score(asset: str) -> pl.DataFrame:
    row = {
        name: asset if name == "asset" else "x" if dtype == pl.String else 1 for name, dtype in SCORES.schema.items()
    }
    return pl.DataFrame([row], schema=SCORES.schema)


def test_a_hostile_id_acts_on_one_row_in_duckdb(tmp_path):
    scores = ScoreTable(tmp_path / "scores.duckdb")
    for asset in (*HOSTILE, "innocent"):
        assert scores.replace(asset, score(asset)).inserted == 1
    for asset in HOSTILE:
        replaced = scores.replace(asset, SCORES.empty())
        assert (replaced.deleted, replaced.inserted) == (1, 0)
    assert scores.read()["asset"].to_list() == ["innocent"]


def test_the_control_a_filter_of_text_wipes_the_duckdb_table(tmp_path):
    path = tmp_path / "scores.duckdb"
    for asset in HOSTILE[:3]:
        ScoreTable(path).replace(asset, score(asset))
    hostile = HOSTILE[0]
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"DELETE FROM scores WHERE asset = '{hostile}'")
    assert ScoreTable(path).read().is_empty()


def test_a_hostile_id_acts_on_one_row_in_sqlite(tmp_path):
    with UserMemories(tmp_path / "m.sqlite") as memories:
        users = [*HOSTILE, "innocent"]
        memories.write([(user, "v", 1, "h") for user in users], np.zeros((len(users), 4), np.uint8))
        for user in HOSTILE:
            assert memories.holds([user]) == 1
            assert memories.read([user])[0][0][0] == user
            memories.erase([user])
            assert memories.holds([user]) == 0
        assert memories.known("v")["user_id"].to_list() == ["innocent"]


def test_the_control_a_filter_of_text_wipes_the_sqlite_table(tmp_path):
    with UserMemories(tmp_path / "m.sqlite") as memories:
        memories.write([(user, "v", 1, "h") for user in HOSTILE[:3]], np.zeros((3, 4), np.uint8))
    hostile = HOSTILE[0]
    with sqlite3.connect(tmp_path / "m.sqlite") as connection:
        connection.execute(f"DELETE FROM memories WHERE user_id = '{hostile}'")
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (0,)


def test_hostile_bytes_act_on_one_entry_of_the_cache(tmp_path):
    store = SqliteStore(tmp_path / "c.sqlite")
    keys = [text.encode()[:32].ljust(32, b"\0") for text in HOSTILE[:6]]
    for key in keys:
        store.write(key, b"v", 0.0)
    for n, key in enumerate(keys, 1):
        assert store.erase(key[:16]) == 1
        assert store.count() == len(keys) - n
    store.close()
