"""`kill -9` of the whole lineage at random moments, then a re-run: is the result that of an undisturbed run?

    python -m benchmarks.crash --kills 20

One data root runs undisturbed; for each kill, a fresh root (same key, same exports) is run, its whole process
group killed with SIGKILL at a moment drawn uniformly from the undisturbed run's duration, and run again to its
end. Row counts and content hashes of every table and model must then equal the undisturbed ones.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.inventory import inventory

KEY = "5f" * 32


def main() -> int:
    """Run the experiment; returns 1 if any state differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--contributors", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        root = Path(folder)
        seconds = _finish(_prepare(root / "undisturbed"), options)
        expected = inventory(Layout(root / "undisturbed"))
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} tables and models")
        wrong = 0
        for number in range(options.kills):
            moment = generator.uniform(0, seconds)
            data = _prepare(root / "killed")
            process = _start(data, options)
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            stage = _last_stage(data)
            again = _finish(data, options)
            found = inventory(Layout(data))
            differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            wrong += bool(differing)
            print(f"kill {number + 1:2} at {moment:5.1f} s ({stage}): re-run {again:.0f} s, differing: {differing or 'none'}")
            shutil.rmtree(data)
    print(f"{options.kills} kills, {wrong} with a differing result")
    return 1 if wrong else 0


def _prepare(data: Path) -> Path:
    (data / "keys").mkdir(parents=True)
    (data / "keys" / "identity.key").write_text(KEY)
    return data


def _start(data: Path, options: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "user_embeddings_dagster.cli", "--data", str(data), "demo"]
    command += ["--contributors", str(options.contributors), "--dimensions", "64"]
    log = (data / "run.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _finish(data: Path, options: argparse.Namespace) -> float:
    started = time.monotonic()
    process = _start(data, options)
    if process.wait() != 0:
        raise SystemExit(f"the run failed: see {data / 'run.log'}\n{(data / 'run.log').read_text()[-2000:]}")
    return time.monotonic() - started


def _last_stage(data: Path) -> str:
    stages = [line[3:] for line in (data / "run.log").read_text().splitlines() if line.startswith("== ")]
    return stages[-1] if stages else "start"


if __name__ == "__main__":
    sys.exit(main())
