"""Erase contributors from a copy of a materialised platform, each killed half way by SIGKILL and then resumed (F4).

    python -m benchmarks.erasure DATA [--contributors 20]

DATA is a data root, such as that of `make demo`; it is copied and stays as it is. Prints for each contributor their
share of the chunks, whether the first process was killed, and what the scan found before and after.
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
        users = chunks.group_by("user_id").len().sort("len", "user_id")
        step = max(1, users.height // options.contributors)
        for number, (user, n) in enumerate(users[::step].head(options.contributors).iter_rows()):
            status = _erase(layout.root, user, kill_after=SECONDS_TO_STEPS * (number % 5) / 4)
            told = "in one go"
            if status == -signal.SIGKILL:
                status, told = _erase(layout.root, user), "killed, resumed"
            print(f"{n / chunks.height:8.3%} of the chunks  {told:16} exit status {status}", flush=True)
        found = receipts(layout)
        dirty = [receipt.person for receipt in found if not receipt.clean]
        before = sum(sum(receipt.hits_before.values()) for receipt in found)
        print(f"{len(found)} erased, found {before:,} times before; {len(dirty)} of them found, or unsure, afterwards")
    return 1 if dirty else 0


def _chunks(lake: Lake) -> pl.DataFrame:
    return pl.concat(
        [lake.scan("masked_chunks", name).select("user_id") for name in lake.partitions("masked_chunks")]
    ).collect()


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
