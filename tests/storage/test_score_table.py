"""The scores table: replaced per asset, idempotent, one writer, whole after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.score_table import Replacement, ScoreTable, ScoreTableBusy


def scores(asset: str, values: dict[str, float | None], seed: int = 0) -> pl.DataFrame:
    rows = [
        {
            "asset": asset, "datadao": "zig", "model": model, "metric": "mrr", "slice": "all", "value": value,
            "ci_low": None if value is None else value - 0.01, "ci_high": None if value is None else value + 0.01,
            "n": 10, "n_users": 5, "seed": seed, "split_hash": "a" * 32, "candidate_set": "full:10", "version": "1",
        }
        for model, value in values.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCORES.schema)


def test_replace_counts_what_changes_and_keeps_other_assets(tmp_path):
    table = ScoreTable(tmp_path / "below" / "scores.duckdb")
    assert table.read().equals(SCORES.empty())
    first = scores("a", {"x": 0.1, "y": 0.2, "z": None})
    assert table.replace("a", first) == Replacement(3, 0, 0, 0)
    assert table.replace("b", scores("b", {"x": 0.5})) == Replacement(1, 0, 0, 0)
    changed = scores("a", {"x": 0.1, "y": 0.3, "new": 0.4})
    assert table.replace("a", changed) == Replacement(inserted=1, updated=1, deleted=1, unchanged=1)
    assert table.read().filter(asset="a").equals(changed.sort(SCORES.primary_key))
    assert table.read().filter(asset="b").height == 1
    assert table.replace("a", SCORES.empty()) == Replacement(0, 0, 3, 0)


def test_the_same_rows_again_change_nothing_not_even_the_file(tmp_path):
    table = ScoreTable(tmp_path / "scores.duckdb")
    frame = scores("a", {"x": 0.1, "z": None})
    table.replace("a", frame)
    before, stat = file_sha256(table.path), table.path.stat()
    result = table.replace("a", frame.reverse())
    assert result == Replacement(0, 0, 0, 2)
    assert not result.changed
    table.read()
    assert file_sha256(table.path) == before
    assert table.path.stat().st_size == stat.st_size
    assert [path.name for path in tmp_path.iterdir()] == ["scores.duckdb"]


def test_refuses_foreign_rows_duplicates_and_missing_columns(tmp_path):
    table = ScoreTable(tmp_path / "scores.duckdb")
    with pytest.raises(ValueError, match="other assets"):
        table.replace("a", scores("b", {"x": 0.1}))
    with pytest.raises(ValueError, match="duplicate keys"):
        table.replace("a", pl.concat([scores("a", {"x": 0.1}), scores("a", {"x": 0.2})]))
    with pytest.raises(ValueError, match="missing columns"):
        table.replace("a", scores("a", {"x": 0.1}).drop("seed"))


def test_hostile_names_are_data(tmp_path):
    table = ScoreTable(tmp_path / "scores.duckdb")
    table.replace("a", scores("a", {"x": 0.1}))
    name = "a' OR '1'='1"
    table.replace(name, scores(name, {"'); DROP TABLE scores; --": 0.1}))
    table.replace(name, SCORES.empty())
    assert table.read()["asset"].to_list() == ["a"]


def test_connections_cannot_reach_files_or_extensions(tmp_path):
    table = ScoreTable(tmp_path / "scores.duckdb")
    table.replace("a", scores("a", {"x": 0.1}))
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with table._connected() as connection:
        with pytest.raises(duckdb.Error):
            connection.execute(f"SELECT * FROM read_csv('{secret}')")
        with pytest.raises(duckdb.Error):
            connection.execute("INSTALL httpfs")
        with pytest.raises(duckdb.Error):
            connection.execute("SET enable_external_access = true")


HOLD = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_waits_for_another_process_then_says_who_is_in_the_way(tmp_path):
    path = tmp_path / "scores.duckdb"
    ScoreTable(path).replace("a", scores("a", {"x": 0.1}))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), "60"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(ScoreTableBusy, match=r"scores\.duckdb is open in another process; waited 0\.3 s"):
            ScoreTable(path, lock_seconds=0.3).read()
    finally:
        holder.kill()
        holder.wait()
    assert ScoreTable(path, lock_seconds=10).read().height == 1


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_score_table import scores
from user_embeddings_dagster.storage.score_table import ScoreTable
table = ScoreTable(Path(sys.argv[1]))
for seed in range(int(sys.argv[3]) + 1, 100_000):
    table.replace("a", scores("a", {f"m{n}": 0.5 for n in range(300)}, seed))
    print(seed, flush=True)
"""


def test_a_kill_at_any_moment_leaves_one_whole_version(tmp_path):
    path = tmp_path / "scores.duckdb"
    table = ScoreTable(path)
    table.replace("b", scores("b", {"x": 0.1}))
    table.replace("a", scores("a", {f"m{n}": 0.5 for n in range(300)}, 0))
    seed = 0
    for number in range(6):
        arguments = [sys.executable, "-c", WRITE, str(path), str(Path(__file__).parent), str(seed)]
        writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, "POLARS_MAX_THREADS": "1"})
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())
        time.sleep(0.011 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        rows = table.read()
        assert rows.filter(asset="b").height == 1
        assert rows.filter(asset="a").height == 300
        assert rows.filter(asset="a")["seed"].n_unique() == 1
        seed = rows.filter(asset="a")["seed"][0]
        assert seed >= acknowledged  # what `replace` returned from is there
    assert table.replace("a", scores("a", {"m0": 0.5}, 0)).deleted == 299
