"""Every commit of the platform, each on small data: what the crash, durability and disk benchmarks run.

A stage makes the state before, its commit makes the state after, and its reader, which is the platform's own, says
in which of the two a folder is. A commit may be repeated.
"""

import contextlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import commits_of_files as files
from user_embeddings_dagster.privacy.erasure.raw_files import cut_links
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.durability import write_json, writing
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, arrow_rows
from user_embeddings_dagster.storage.manifest import finalise, verify
from user_embeddings_dagster.storage.models import Models
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories

EMPTY_TABLE = "no rows yet"
PRELOADED = ["benchmarks.commit_stages", "lancedb", "lance", "torch", "safetensors.torch", "training.checkpoint"]


@dataclass(frozen=True)
class Stage:
    """A commit in a folder: `setup` makes the state before, `commit` the one after, `read` tells them apart.

    `between` says whether a state may be found after a kill; of a commit in steps it may be one between the two.
    """

    name: str
    setup: Callable[[Path], None]
    commit: Callable[[Path], Any]
    read: Callable[[Path], Any]
    between: Callable[[Any, Any, Any], bool] = lambda state, before, after: state in (before, after)


def numbered(first: int, last: int, seed: int = 0) -> pl.DataFrame:
    """Rows of a vector table with ids `first` to `last` - 1."""
    vectors = np.random.default_rng(first + seed).normal(size=(last - first, 8)).astype(np.float32)
    ids = [f"{i:032x}" for i in range(first, last)]
    return pl.DataFrame({"id": ids, "version": [f"v{seed}"] * len(ids)}).with_columns(vector=pl.Series(vectors))


def scores(asset: str, model: str, n: int = 20) -> pl.DataFrame:
    """Scores of one asset."""
    rows = [
        {
            "asset": asset, "datadao": "zig", "model": model, "metric": f"m{i}", "slice": "all", "value": i / 7,
            "ci_low": None, "ci_high": None, "n": 10, "n_users": 5, "seed": 0, "split_hash": "a" * 32,
            "candidate_set": "full:10", "version": model,
        }
        for i in range(n)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCORES.schema)


def _table(version: str) -> Callable[[Path], None]:
    return lambda root: Lake(root).commit(SCORES, scores("a", version), "zig", version) and None


def _read_table(root: Path) -> Any:
    lake = Lake(root)
    commit = lake.current("scores", "zig")
    if commit is None:
        return None
    assert lake.up_to_date("scores", "zig", commit.fingerprint) == commit
    return commit.content_hash, commit.fingerprint, lake.read("scores", "zig").rows()


def _purge_table(root: Path) -> None:
    Lake(root).purge(SCORES, "zig", pl.col("metric") == "m3")


def _lance(root: Path) -> LanceTables:
    return LanceTables(root / "lancedb")


def _vectors(root: Path) -> None:
    for first in (0, 40, 80):
        _lance(root).upsert("dao", "t", numbered(first, first + 40))


def _read_vectors(root: Path) -> Any:
    tables = _lance(root)
    if not tables.exists("dao", "t"):
        return None
    assert tables.count("dao", "t") == len(set(tables.ids("dao", "t")))
    return tables.content_hash("dao", "t") if tables.count("dao", "t") else EMPTY_TABLE


def _indexed(root: Path) -> None:
    _lance(root).upsert("dao", "t", numbered(0, 100))
    _lance(root).ensure_indices("dao", "t", index_rows=60)
    _lance(root).upsert("dao", "t", numbered(100, 140))
    _lance(root).delete("dao", "t", numbered(0, 30)["id"].to_list())


def _first_vectors(root: Path) -> None:
    _lance(root).upsert("dao", "t", numbered(0, 40))


def _keep_vectors(root: Path) -> None:
    _lance(root).keep_only("dao", "t", numbered(20, 80)["id"].to_list())


def _purge_vectors(root: Path) -> None:
    _lance(root).purge("dao", "t", numbered(50, 60)["id"].to_list())


def _memories(seed: int) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        rows = [(f"{i:032x}", f"v{seed}", seed, f"h{seed}") for i in range(30)]
        with UserMemories(root / "zig.sqlite") as memories:
            memories.write(rows, np.full((30, 700), seed, dtype=np.uint8))

    return write


def _read_memories(root: Path) -> Any:
    with UserMemories(root / "zig.sqlite") as memories:
        return memories.content()


def _erase_memories(root: Path) -> None:
    with UserMemories(root / "zig.sqlite") as memories:
        memories.erase([f"{3:032x}"])


def _score_table(model: str) -> Callable[[Path], None]:
    return lambda root: ScoreTable(root / "scores.duckdb").replace("a", scores("a", model)) and None


def _read_scores(root: Path) -> Any:
    return ScoreTable(root / "scores.duckdb").read().rows()


def _trained(root: Path, version: str) -> None:
    folder = Models(root).folder("encoder", version)
    if folder.complete:
        return
    shutil.rmtree(folder.output, ignore_errors=True)
    folder.output.mkdir(parents=True)
    (folder.output / "model.safetensors").write_bytes(version.encode() * 3000)
    finalise(folder.output)


def _two_versions(root: Path) -> None:
    _trained(root, "one")
    _trained(root, "two")
    Models(root).promote("encoder", "one")


def _taint(root: Path) -> None:
    Models(root).folder("encoder", "one").taint(["u"])


def _read_model(root: Path) -> Any:
    folder = Models(root, release_tainted=True).current("encoder")
    return folder.root.name, verify(folder.output), sorted(folder.tainted)


def _job(version: int) -> Callable[[Path], None]:
    def run(root: Path) -> None:
        from training.job import Job

        # As training.job.run does, but for the report, which it prints.
        with writing("training.toy", root), contextlib.redirect_stdout(io.StringIO()):
            write_json(root / "inputs" / "config.json", {"seed": version, "threads": 1})
            job = Job("toy", root / "inputs", root / "output", "1")
            if job.prepare() is None:
                (job.result / "model.safetensors").write_bytes(bytes([version]) * 9000)
                job.finish({"loss": version}, f"v{version}")

    return run


def _read_job(root: Path) -> Any:
    if not (root / "output").exists():
        return None
    verify(root / "output")
    record = json.loads((root / "output" / "job.json").read_text())
    return (root / "output" / "model.safetensors").read_bytes(), record["data_version"]


def _checkpoint(step: int) -> Callable[[Path], None]:
    def save(root: Path) -> None:
        import torch

        from training.checkpoint import Checkpoints

        torch.manual_seed(step)
        Checkpoints(root / "checkpoints").save(step, {"w": torch.full((40, 40), float(step)), "note": ["x", step]})

    return save


def _three_checkpoints(root: Path) -> None:
    for step in (1, 2, 3):
        _checkpoint(step)(root)


def _read_checkpoint(root: Path) -> Any:
    from training.checkpoint import Checkpoints

    refused: list[str] = []
    found = Checkpoints(root / "checkpoints").latest(refused.append)
    assert found is not None and not refused, refused
    return found.step, found.state["w"].unique().tolist(), found.state["note"]


STAGES = {
    stage.name: stage
    for stage in (
        Stage("Parquet table", _table("1"), _table("2"), _read_table),
        Stage("Parquet table, first", files.nothing, _table("1"), _read_table),
        Stage("Parquet table, erasure", _table("1"), _purge_table, _read_table),
        Stage("vectors, first", files.nothing, _first_vectors, _read_vectors,
              lambda state, before, after: state in (before, after, EMPTY_TABLE)),
        Stage("vectors, merge", _vectors, lambda root: _lance(root).upsert("dao", "t", numbered(100, 140, seed=1)),
              _read_vectors),
        Stage("vectors, delete", _vectors, _keep_vectors, _read_vectors),
        Stage("vectors, compact", _indexed, lambda root: _lance(root).compact("dao", "t", timedelta(0)), _read_vectors),
        Stage("vectors, index", _vectors, lambda root: _lance(root).ensure_indices("dao", "t", 60), _read_vectors),
        Stage("vectors, erasure", _indexed, _purge_vectors, _read_vectors),
        Stage("vectors, drop", _vectors, lambda root: _lance(root).drop("dao", "t"), _read_vectors),
        Stage("user memories", _memories(1), _memories(2), _read_memories),
        Stage("user memories, erasure", _memories(1), _erase_memories, _read_memories),
        Stage("scores", _score_table("1"), _score_table("2"), _read_scores),
        Stage("scores, first", files.nothing, _score_table("1"), _read_scores),
        Stage("model, promotion", _two_versions, lambda root: Models(root).promote("encoder", "two"), _read_model),
        Stage("model, taint", _two_versions, _taint, _read_model),
        Stage("job, result", _job(1), _job(2), _read_job,
              lambda state, before, after: state in (before, after, None)),
        Stage("training checkpoint", _three_checkpoints, _checkpoint(4), _read_checkpoint),
        Stage("language model cache", files.answers(0, 3), files.answers(3, 6), files.read_answers, files.grows),
        Stage("language model cache, erasure", files.answers(0, 6), files.forget_answers, files.read_answers),
        Stage("batch shard", files.shard(2), files.shard(5), files.read_batch),
        Stage("erasure journal", files.journal_of(2), files.journal_of(5), files.read_journal),
        Stage("tombstones", files.tombstones(2), files.tombstones(5),
              lambda root: Tombstones.load(root / "keys" / "gone.json", files.KEY).version),
        Stage("contributors.csv", files.links, lambda root: cut_links(root / "contributors.csv", {"person-7"}),
              lambda root: (root / "contributors.csv").read_text()),
        Stage("platform key", files.nothing, files.platform_key, files.read_platform_key),
    )
}  # fmt: skip


def _pickled(size: int) -> Callable[[Path], None]:
    """A value through Dagster's default IO manager, which writes to the final path."""

    def write(root: Path) -> None:
        import dagster as dg
        from dagster._core.storage.fs_io_manager import PickledObjectFilesystemIOManager
        from upath import UPath

        manager = PickledObjectFilesystemIOManager(base_dir=str(root))
        manager.dump_to_path(dg.build_output_context(), list(range(size)), UPath(root / "value"))

    return write


def _plain_pickle(size: int) -> Callable[[Path], Any]:
    return lambda root: (root / "value").write_bytes(pickle.dumps(list(range(size))))


def _torn(root: Path) -> Any:
    return pickle.loads((root / "value").read_bytes())[-1]


def _raw_merge(root: Path) -> None:
    """LanceDB's own merge, without our flush."""
    table = _lance(root).open("dao", "t")
    table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(
        arrow_rows(numbered(100, 140, seed=1))
    )


CONTROLS = {
    stage.name: stage
    for stage in (
        Stage("control: Dagster's file IO manager", _pickled(20_000), _pickled(30_000), _torn),
        Stage("control: pickle to the final path", _plain_pickle(2000), _plain_pickle(3000), _torn),
        Stage("control: raw LanceDB merge", _vectors, _raw_merge, _read_vectors),
    )
}
