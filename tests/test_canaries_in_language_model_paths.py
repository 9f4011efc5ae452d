"""C27: canaries in chunks are in clear in the tables made of them alone, whichever asset asks a model, and how it ends.

Each asset runs in a process of its own (language_model_paths), and all that it wrote is scanned: data root, caches,
DAGSTER_HOME (event log, captured output), HOME, TMPDIR, DSPy's folder, standard output and error.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.canaries import scan

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "language_model_paths.py"
spec = importlib.util.spec_from_file_location("language_model_paths", SCRIPT)
assert spec and spec.loader
paths = importlib.util.module_from_spec(spec)
spec.loader.exec_module(paths)

PLACES = {"HOME": "home", "TMPDIR": "tmp", "DSPY_CACHEDIR": "dspy", "DAGSTER_HOME": "dagster"} | {
    f"XDG_{kind}_HOME": f"xdg/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA", "STATE")
}
# Where an asset may leave what was said, beside masked_chunks; what holds its cached answers.
TABLES = {
    "koais": {"koais"},
    "summary_program": set(),
    "relabelled_pairs": {"chunk_summaries"},
    "chunk_summaries": {"chunk_summaries"},
}
CACHES = {"lmdb": "data/cache/answers/data.mdb", "redis": "redis", "sqlite": "data/cache/answers"}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The processes of all paths, at once."""
    processes = {}
    for path in paths.PATHS:
        folder = tmp_path_factory.mktemp(path)
        for place in PLACES.values():
            (folder / place).mkdir(parents=True)
        settings = (ROOT / "user_embeddings_dagster" / "dagster.yaml").read_text()
        (folder / "dagster" / "dagster.yaml").write_text(settings)
        environment = os.environ | {name: str(folder / place) for name, place in PLACES.items()}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (folder / "output").open("w") as output:
            processes[path] = (
                folder,
                subprocess.Popen(
                    [sys.executable, "-P", SCRIPT, path, folder],
                    env=environment,
                    cwd=folder,
                    stdout=output,
                    stderr=output,
                ),
            )
    yield processes
    for _, process in processes.values():
        process.kill()
        process.wait()


def _scanned(started, path):
    folder, process = started[path]
    assert process.wait(timeout=300) == 0, (folder / "output").read_text()[-3000:]
    found = scan(folder, [*paths.CANARIES, paths.KEY])
    assert not found.undecoded
    return found, json.loads((folder / "told.json").read_text()), folder


def _place(file: str) -> str:
    """The table of a file, or the file; the same for what was kept of a failed run."""
    parts = file.removeprefix("failed/").split("/")
    return parts[2] if parts[:2] == ["data", "tables"] else file


@pytest.mark.parametrize("path", TABLES)
def test_canaries_are_in_their_tables_alone(started, path):
    """C27: after a refused key (or an engine that died) as after a run in which a fifth of the answers were faulty."""
    found, told, folder = _scanned(started, path)
    by_place = Counter()
    for file, hits in found.by_file.items():
        by_place[_place(file)] += hits
    print(f"{path}: {len(paths.CANARIES)} canaries, {found.files} files, {dict(by_place)}")
    assert by_place.keys() == {"masked_chunks", *TABLES[path]}
    in_chunks = {hit.canary for hit in found.hits if _place(hit.file) == "masked_chunks"}
    assert in_chunks == set(paths.CANARIES)  # the control: the scan sees each of them
    assert any(file.startswith("failed/") for file in found.by_file)
    assert list(folder.glob("dagster/history/**/*.db")) and list(folder.glob("failed/dagster/history/**/*.db"))
    assert (folder / CACHES[paths.PATHS[path][-1]]).stat().st_size > 1_000
    if path != "chunk_summaries":  # which a batch job made
        faults = {fault: told["outcomes"].get(fault, 0) for fault in paths.FAULTS}
        assert told["refused"] and (min if path != "summary_program" else max)(faults.values()) > 0
    if path == "summary_program":
        told = told["metadata"]
        assert told["adopted"] and told["proposals_no_text"] >= 2 and told["proposals_verbatim"] == 1
        assert list(folder.glob("data/**/program.json"))


def test_leaks_in_a_log_an_error_and_printed_would_be_found(started):
    """The control: an asset that logs a chunk, prints one and quotes one in its error is found out."""
    found, _, _ = _scanned(started, "planted")
    leaked = {hit.canary for hit in found.hits if hit.file.startswith("dagster/history/")}
    assert leaked == {paths.CANARIES[i] for i in (0, 1, 4, 5)}
    assert {hit.canary for hit in found.hits if hit.file == "output"} >= {paths.CANARIES[2], paths.CANARIES[3]}
