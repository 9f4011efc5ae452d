"""SHA-256 of every file of a LanceDB table, compared before its rows are read.

    <table>.lance/sums.json    SHA-256 by path: data, lists of deleted rows, indices, manifests of versions

Lance keeps no checksums: a vector, an index or a list of deleted rows whose bytes were changed on the disk is read as
another one, mostly without an error, and compacting would write it anew as if it were right. Its files never change
once a version refers to them, so each is hashed once when it was written, and once by every process that opens the
table; that costs less than reading the vectors does (`python -m benchmarks.vector_sums`), so every opening compares,
and no audit has to be waited for. Files that no version refers to may still be written: they are left alone.

A file that is not in the list (a process was killed before it came to that, or the table is older than the list) is
not compared, and is taken in by the next write. Like every hash here it finds damage, not forgery.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from user_embeddings_dagster.keys import sha256_once
from user_embeddings_dagster.storage.durability import Damaged, alone, read_json, write_json

SUMS = "sums.json"
_UNREAD = "transaction file"  # of a commit that is done


def record(folder: Path, dataset: Any) -> None:
    """Note the files of a dataset's version, and forget those that are gone. To be called once they are flushed."""
    with alone(folder):
        known = _known(folder)
        there = {path: digest for path, digest in known.items() if (folder / path).exists()}
        new = {path: sha256_once(folder / path) for path in _files(dataset) if path not in there}
        if new or len(there) < len(known):
            write_json(folder / SUMS, there | new)


def verified(folder: Path, open_table: Callable[[], Any]) -> Any:
    """A LanceDB table as `open_table` gives its newest version, with every file of that compared.

    Raises Damaged, which names the one that is not what was written.
    """
    while True:
        table = open_table()
        if (wrong := _wrong(folder, table.to_lance())) is None:
            return table
        if open_table().version == table.version:  # else another process replaced it meanwhile, and removed the files
            raise Damaged(f"{folder / wrong}; remove {folder}, and materialise {folder.stem} again")


def _wrong(folder: Path, dataset: Any) -> str | None:
    known, files = _known(folder), _files(dataset)
    if not files:
        return f"_versions: the manifest of version {dataset.version} is gone"
    for path in files:
        try:
            if path in known and sha256_once(folder / path) != known[path]:
                return f"{path}: damaged, not what was written"
        except FileNotFoundError:
            return f"{path}: gone"
    return None


def _known(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    remedy = "remove it: the next write makes it again"
    return read_json(path, dict[str, str], remedy) if path.exists() else {}


def _files(dataset: Any) -> list[str]:
    """Of one version, below the table's folder: those that reading it may read."""
    files = dataset.tracked_files(min_version=dataset.version).read_all().to_pylist()
    return [row["path"] for row in files if row["version"] == dataset.version and row["type"] != _UNREAD]
