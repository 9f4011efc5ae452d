"""F15, F16: a commit killed before any of its system calls leaves the state before or after; what a power loss takes.

The whole figure: `python -m benchmarks.crash_syscalls`. Here: two stages sampled, both controls.
"""

import shutil
import subprocess
import sys

import pytest

from benchmarks import syscalls
from benchmarks.commit_stages import CONTROLS, STAGES
from benchmarks.crash_syscalls import Bench, crash

pytestmark = pytest.mark.skipif(not syscalls.available, reason="not run: ptrace here is written for Linux on x86-64")


@pytest.fixture(autouse=True, scope="module")
def tracing_is_allowed(tmp_path_factory):
    try:
        Bench(STAGES["tombstones"], tmp_path_factory.mktemp("probe")).traced()
    except OSError as error:
        pytest.skip(f"not run: {error}")


@pytest.mark.parametrize(("name", "every"), [("Parquet table", 4), ("vectors, merge", 36)])
def test_every_kill_leaves_the_state_before_or_after_and_nothing_is_unflushed(name, every, tmp_path):
    """C70: killed before the N-th call, over all threads, and run again: the same table."""
    outcome = crash(STAGES[name], tmp_path, every)
    assert outcome.bad == []
    assert outcome.killed >= outcome.calls // every
    assert outcome.before and outcome.after, "the kills fall on both sides of the commit"
    assert outcome.disk.syncs >= 2 and outcome.disk.at_end == outcome.disk.at_removal == []


def test_controls_are_caught(tmp_path):
    """A writer to the final path is torn, LanceDB alone flushes nothing: the same harness must say so."""
    torn = crash(CONTROLS["control: pickle to the final path"], tmp_path / "torn")
    assert torn.bad
    raw = crash(CONTROLS["control: raw LanceDB merge"], tmp_path / "raw", every=100)
    assert raw.disk.syncs == 0 and len(raw.disk.at_end) > 3


@pytest.mark.skipif(shutil.which("strace") is None, reason="not run: no strace")
def test_strace_counts_the_same_calls(tmp_path):
    """The tracer misses nothing: strace sees as many calls that change a file below the folder."""
    bench = Bench(STAGES["Parquet table"], tmp_path / "ours")
    ours = [call.name for call in bench.traced()[0].calls]
    root = tmp_path / "strace"
    STAGES["Parquet table"].setup(root)
    names = ",".join(sorted({name for name, _ in syscalls.CALLS.values()}))
    script = "import sys; from pathlib import Path; from benchmarks.commit_stages import STAGES\n"
    script += "STAGES['Parquet table'].commit(Path(sys.argv[1]))"
    log = tmp_path / "log"
    command = ["strace", "-f", "-y", "-o", log, "-e", f"trace={names}", sys.executable, "-c", script, root]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ptrace" in ran.stderr or "not permitted" in ran.stderr:
        pytest.skip(f"not run: {ran.stderr[:100]}")
    assert ran.returncode == 0, ran.stderr[-500:]
    theirs = []
    for line in log.read_text().splitlines():
        name = line.split(None, 1)[1].split("(")[0]
        if str(root) in line and "resumed>" not in line and not (name == "openat" and "O_RDONLY" in line):
            theirs.append(name)
    assert sorted(theirs) == sorted(ours)
