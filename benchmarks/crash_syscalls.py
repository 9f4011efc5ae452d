"""Every commit killed before each system call that changes a file, and at random moments; what a power loss takes.

    python -m benchmarks.crash_syscalls [--stage NAME] [--random 240] [--every 1]

For each stage (benchmarks.commit_stages): the commit runs once and its M changing calls are counted, over all threads.
Then it runs M times on a fresh copy of the state before, and SIGKILL falls before call 1, 2, … M
(benchmarks.syscalls). With TMPDIR on a tmpfs it is several times as fast: a flush costs nothing there.
Our own reader must find the state before or after, raise nothing, and the commit, run again, must make the state after.
Durability is judged on the undisturbed run: nothing may be unflushed when the commit returns, nor when it removes an
older file. Controls: Dagster's default IO manager is torn; LanceDB without our flush leaves everything unflushed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import syscalls
from benchmarks.commit_stages import CONTROLS, PRELOADED, STAGES, Stage

os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of LanceDB about forks: no runtime of its runs before them
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)


@dataclass
class Outcome:
    """What the kills of one stage did."""

    calls: int
    disk: syscalls.Unflushed
    killed: int = 0
    before: int = 0
    after: int = 0
    between: int = 0
    bad: list[str] = field(default_factory=list)

    def judge(self, bench: "Bench", place: str) -> None:
        """Read the folder as a user of it would, commit again, and count what was found."""
        found, wrong = bench.apart(_judge, bench.states)
        self.bad += [f"{place}: {what}" for what in wrong]
        self.before += found == "before"
        self.after += found == "after"
        self.between += found == "between"


def _judge(stage: Stage, root: Path, states: tuple) -> tuple[str, list[str]]:
    """In which state the folder is, and what is wrong with that, or with the commit run again."""
    try:
        found = stage.read(root)
    except Exception as error:  # noqa: BLE001 - whatever a reader raises is the finding
        return "none", [f"{type(error).__name__}: {str(error)[:120]}"]
    wrong = [] if stage.between(found, *states) else ["neither the state before nor the one after"]
    stage.commit(root)
    if stage.read(root) != states[1]:
        wrong.append("the commit run again makes another state")
    kind = "before" if found == states[0] else "after" if found == states[1] else "between"
    return kind, wrong


def _states(stage: Stage, root: Path, origin: Path) -> tuple:
    """The states before and after the commit; `origin` is made in the state before."""
    stage.setup(origin)
    shutil.copytree(origin, root)
    before = stage.read(root)
    stage.commit(root)
    return before, stage.read(root)


class Bench:
    """One stage, its two states and fresh copies of the first."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.origin, self.root = folder / "origin", folder / "root"
        self.origin.mkdir(parents=True)
        self.states = self.apart(_states, self.origin)
        if self.states[0] == self.states[1] and stage.name not in UPKEEP:
            raise RuntimeError(f"{stage.name}: the commit changes nothing")

    def _fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.origin, self.root)

    def traced(self, kill_at: int = 0) -> tuple[syscalls.Trace, set[str]]:
        """The commit in a process of its own, killed before its `kill_at`-th call; and what was there before."""
        self._fresh()
        existed = {str(path) for path in self.root.rglob("*")} | {str(self.root)}
        process, ours = self._start()
        trace = syscalls.trace(process.pid or 0, self.root, lambda: ours.send(True), kill_at)
        ours.close()
        process.join(5)
        return trace, existed

    def killed_after(self, seconds: float) -> bool:
        """The commit killed at a moment; False if it had ended before."""
        self._fresh()
        process, ours = self._start()
        ours.send(False)
        time.sleep(seconds)
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL

    def seconds(self) -> float:
        """Duration of an undisturbed commit in a process of its own."""
        self._fresh()
        process, ours = self._start()
        started = time.monotonic()
        ours.send(False)
        process.join()
        return time.monotonic() - started

    def apart(self, function: Callable[..., Any], *arguments: object) -> Any:
        """`function(stage, root, …)` in a process of its own: after hundreds of calls LanceDB's threads may hang."""
        ours, theirs = FORKS.Pipe()
        process = FORKS.Process(target=_apart, args=(theirs, function, self.stage.name, self.root, *arguments))
        process.start()
        theirs.close()
        if not ours.poll(PATIENCE):
            process.kill()
            raise TimeoutError(f"{self.stage.name}: {function.__name__} took more than {PATIENCE} s")
        result = ours.recv()
        process.join()
        return result

    def _start(self):
        ours, theirs = FORKS.Pipe()
        process = FORKS.Process(target=_commit, args=(self.stage.name, self.root, theirs))
        process.start()
        theirs.close()
        ours.recv()
        return process, ours


PATIENCE = 120  # seconds
UPKEEP = ("vectors, compact", "vectors, index")


def _apart(connection, function: Callable[..., Any], name: str, *arguments: object) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    connection.send(function((STAGES | CONTROLS)[name], *arguments))
    os._exit(0)


def _commit(name: str, root: Path, connection) -> None:
    """The process that is killed: says that it is ready, waits, commits, ends at once."""
    stage = (STAGES | CONTROLS)[name]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    connection.send("ready")
    if connection.recv():
        syscalls.announce()
    stage.commit(root)
    os._exit(0)


def crash(stage: Stage, folder: Path, every: int = 1) -> Outcome:
    """Kill the stage's commit before each changing call (or each `every`-th), judge each state."""
    bench = Bench(stage, folder)
    trace, existed = bench.traced()
    if trace.status != 0:
        raise RuntimeError(f"{stage.name}: the undisturbed commit ended with {trace.status}")
    outcome = Outcome(len(trace.calls), syscalls.unflushed(trace.calls, existed, bench.root))
    kill_at = 1
    while True:  # until a run is through: not every run makes the same number of calls
        run, _ = bench.traced(kill_at)
        if run.status == 0:
            break
        outcome.killed += 1
        last = run.calls[-1]
        outcome.judge(bench, f"before call {kill_at}, {last.name} {Path(last.paths[-1]).name}")
        kill_at += every
    return outcome


def crash_at_random(stage: Stage, folder: Path, kills: int, generator: random.Random) -> Outcome:
    """Kill the stage's commit at random moments of its duration."""
    bench = Bench(stage, folder)
    outcome = Outcome(0, syscalls.Unflushed(0, [], []))
    seconds = sorted(bench.seconds() for _ in range(3))[1]
    while outcome.killed < kills:
        if bench.killed_after(generator.uniform(0, seconds)):
            outcome.killed += 1
            outcome.judge(bench, f"random kill {outcome.killed}")
    return outcome


def main() -> int:
    """Run the experiment; returns 1 on any state that may not be, anything unflushed, or a blind control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", help="only the stages whose name contains this")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--random", type=int, default=240, help="random kills, over the stages")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stages = [stage for name, stage in (STAGES | CONTROLS).items() if not options.stage or options.stage in name]
    wrong = 0
    print(f"{'stage':36}  calls  kills before  after between  bad  syncs  unflushed: at end, at removal")
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        for number, stage in enumerate(stages):
            outcome = crash(stage, Path(folder, str(number)), options.every)
            wrong += report(stage, outcome)
            shutil.rmtree(Path(folder, str(number)))
        generator, ours = random.Random(options.seed), [stage for stage in stages if stage.name in STAGES]
        killed = bad = 0
        for number, stage in enumerate(ours):
            share = options.random // len(ours) + (number < options.random % len(ours))
            outcome = crash_at_random(stage, Path(folder, f"random-{number}"), share, generator)
            killed, bad = killed + outcome.killed, bad + len(outcome.bad)
            for line in outcome.bad:
                print(f"    {stage.name}: {line}")
        print(f"{killed} kills at random moments, {bad} bad")
    return 1 if wrong or bad else 0


def report(stage: Stage, outcome: Outcome) -> bool:
    """Print one line; whether it is wrong: for a control, that it found nothing."""
    disk = outcome.disk
    print(
        f"{stage.name:36} {outcome.calls:6} {outcome.killed:6} {outcome.before:6} {outcome.after:6} {outcome.between:7}"
        f" {len(outcome.bad):4} {disk.syncs:6}  {len(disk.at_end)}, {len(disk.at_removal)}",
        flush=True,
    )
    control = stage.name in CONTROLS
    for line in outcome.bad[: 1 if control else 20]:
        print(f"    {line}")
    for line in (disk.at_end + disk.at_removal)[: 0 if control else 20]:
        print(f"    unflushed: {line}")
    found = bool(outcome.bad or disk.at_end or disk.at_removal)
    return found != control


if __name__ == "__main__":
    sys.exit(main())
