"""Erase contributors from a copy of a materialised platform, each killed half way by SIGKILL and then resumed (F4).

    python -m benchmarks.erasure DATA [--contributors 20]

DATA is a data root, such as that of `make demo`; it is copied and stays as it is. Prints for each contributor their
share of the chunks and of those of their DataDAO, whether the first process was killed, and what the scan found before
and after; of the others' vectors, how many are left and whether any bit of them changed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from user_embeddings_dagster.privacy.erasure.erase import receipts
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables

SECONDS_TO_STEPS = 1.0  # after the scan before: the stores are being emptied


def main() -> int:
    """Erase and print; returns 1 if anything of anybody was found afterwards, or could not be decoded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--contributors", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="erasure-") as folder:
        layout = Layout(Path(folder) / "data")
        shutil.copytree(options.data, layout.root, symlinks=False)
        chunks = _chunks(Lake(layout.root))
        share = pl.len() / pl.col("n_datadao").first()
        users = chunks.group_by("user_id").agg(n=pl.len(), share=share).sort("n", "user_id")
        last = max(1, options.contributors - 1)
        chosen = [number * (users.height - 1) // last for number in range(options.contributors)]
        for number, (user, n, of_datadao) in enumerate(users[chosen].iter_rows()):
            status = _erase(layout.root, user, kill_after=SECONDS_TO_STEPS * (number % 5) / 4)
            told = "in one go"
            if status == -signal.SIGKILL:
                status, told = _erase(layout.root, user), "killed, resumed"
            shares = f"{n / chunks.height:8.3%} of the chunks, {of_datadao:8.3%} of the DataDAO's"
            print(f"{shares}  {told:16} exit status {status}", flush=True)
        found = receipts(layout)
        dirty = [receipt.person for receipt in found if not receipt.clean]
        before = sum(sum(receipt.hits_before.values()) for receipt in found)
        print(f"{len(found)} erased, found {before:,} times before; {len(dirty)} of them found, or unsure, afterwards")
        told = {version for receipt in found for version in receipt.checkpoints}
        print(f"trained on them and named: {', '.join(sorted(told)) or 'nothing'}")
        left, changed, gone = _others(Layout(options.data), layout, set(users[chosen]["user_id"]))
        print(
            f"vectors of others: {left:,} left, {changed} of them changed; {gone} of chunks in which the erased spoke"
        )
    return 1 if dirty or changed else 0


def _chunks(lake: Lake) -> pl.DataFrame:
    """user_id of each chunk and n_datadao, the chunks of its DataDAO."""
    chunks = [
        lake.scan("masked_chunks", name).select("user_id", "chunk_id") for name in lake.partitions("masked_chunks")
    ]
    return pl.concat([frame.with_columns(n_datadao=pl.len()) for frame in chunks]).collect()


def _others(before: Layout, after: Layout, erased: set[str]) -> tuple[int, int, int]:
    """Vectors that are left; of them, those of which a bit has changed; those of people not erased that are gone."""
    chunks = _chunks(Lake(before.root))
    theirs = {*erased, *chunks.filter(pl.col("user_id").is_in(erased))["chunk_id"]}
    left = changed = gone = 0
    for folder in sorted(before.lancedb.glob("*/*.lance")):
        place = folder.parent.name, folder.stem, ["id", "version", "vector"]
        old, new = (LanceTables(layout.lancedb).read(*place) for layout in (before, after))
        left += new.height
        changed += new.height - new.join(old, on=["id", "version", "vector"], how="semi").height
        gone += len(set(old["id"]) - set(new["id"]) - theirs)
    return left, changed, gone


def _erase(root: Path, user: str, kill_after: float | None = None) -> int:
    """Run the command; with `kill_after`, SIGKILL it so many seconds after it began to remove. Its exit status."""
    command = [sys.executable, "-m", "user_embeddings_dagster.cli", "--data", str(root), "erase", user]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr
    for line in process.stderr:
        if kill_after is not None and "tombstone" in line:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
