"""`kill -9` of the whole lineage at random moments, then a re-run: is the result that of an undisturbed run?

    python -m benchmarks.crash --kills 20

One data root runs undisturbed. Then, in chains: a fresh root (same key, same exports) is run and its whole process
group killed with SIGKILL, again and again, each time at a moment drawn uniformly from the first half of the
undisturbed run's duration: what one attempt finished the next one finds, so the kills move over the graph. When an
attempt reaches the end before its kill (or the kills are used up), the chain is judged: row counts and content
hashes of every table and model must equal the undisturbed ones; with kills left, the next chain begins.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.small_settings import PERSONALISED
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.inventory import inventory

KEY = "5f" * 32
# Every stage runs for real, on little data: what is tested is the order of writes, not the models.
SMALL = {
    "masked_chunks": {"max_chunks_per_user": 6, "max_users": 16},
    "training_snapshot": {"min_chunks_per_user": 3},
    "item_encoder": {"steps": 6, "batch_size": 16},
    "sequence_encoder": {"steps": 20},
    **PERSONALISED,
}


def main() -> int:
    """Run the experiment; returns 1 if any state differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--contributors", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)  # the process that is killed
    options = parser.parse_args()
    if options.run:
        return _run(options.run, options.contributors)
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        root = Path(folder)
        seconds = _finish(_prepare(root / "undisturbed"), options)
        expected = inventory(Layout(root / "undisturbed"))
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} tables and models", flush=True)
        left, chains, wrong = options.kills, 0, 0
        while left:
            chains += 1
            data = _prepare(root / f"chain-{chains}")
            while left and (stage := _kill_after(generator.uniform(0, seconds / 2), data, options)):
                left -= 1
                print(f"chain {chains}, kill {options.kills - left:2} in: {stage}", flush=True)
            again = _finish(data, options)
            found = inventory(Layout(data))
            differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            wrong += bool(differing)
            print(f"chain {chains}: re-run {again:.0f} s, differing: {', '.join(differing) or 'none'}", flush=True)
    print(f"{options.kills} kills in {chains} chains, {wrong} chains with a differing result")
    return 1 if wrong else 0


def _kill_after(seconds: float, data: Path, options: argparse.Namespace) -> str | None:
    """Start a run, kill its process group after so many seconds; the stage it was in, None if it had ended."""
    process = _start(data, options)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _last_stage(data)
    if process.returncode != 0:
        raise SystemExit(f"the run failed: see {data / 'run.log'}\n{(data / 'run.log').read_text()[-2000:]}")
    return None


def _prepare(data: Path) -> Path:
    (data / "keys").mkdir(parents=True)
    (data / "keys" / "identity.key").write_text(KEY)
    return data


def _run(data: Path, contributors: int) -> int:
    """The whole lineage on small exports, in this process."""
    from user_embeddings_dagster.runner import open_instance, run_lineage
    from user_embeddings_dagster.samples import generate

    layout = Layout(data)
    generate(layout.landing, contributors=contributors)
    with open_instance(data / "dagster_home") as instance:
        runs = run_lineage(instance, layout, ["1024"], SMALL, lambda stage: print(f"== {stage}", flush=True))
    return 0 if runs and all(run.success for run in runs) else 1


def _start(data: Path, options: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.crash", "--run", str(data)]
    command += ["--contributors", str(options.contributors)]
    environment = {**os.environ, "USER_EMBEDDINGS_DATA": str(data)}
    log = (data / "run.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


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
