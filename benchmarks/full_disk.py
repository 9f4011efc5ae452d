"""Every commit on a disk of 6 MB that is full: the state before stands, the error says what and where, a re-run works.

    python -m benchmarks.full_disk [--stage NAME]        (as root: mounts a tmpfs)

For each stage (benchmarks.commit_stages) the disk is filled but for 0, 1, 2, 4, … pages, the commit runs in a process
of its own; then room is made, the state is read, and the commit run again. Control: torch.save leaves a stub at the
final path.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commit_stages import STAGES, Stage
from benchmarks.crash_syscalls import FORKS

PAGE = 4096
DISK = "6m"
NEED_NO_ROOM = ("vectors, drop",)


@dataclass
class Outcome:
    """Of one stage: commits that failed for want of room, errors that do not say what and where, bad states."""

    failed: int = 0
    unclear: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of 6 MB. Raises CalledProcessError where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(stage: Stage, folder: Path, growth: int = 2) -> Outcome:
    """Run the stage's commit with 0, 1, growth, growth², … free pages, until it fails no more."""
    outcome, free = Outcome(), 0
    origin = folder / "origin"
    origin.mkdir()
    stage.setup(origin)
    with small_disk(folder / "disk") as disk:
        root, ballast = disk / "root", disk / "ballast"
        while True:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(origin, root)
            before = stage.read(root)
            _fill(disk, ballast, free)
            error = _committed(stage.name, root)
            if error is None:
                ballast.unlink()
                return outcome
            outcome.failed += 1
            if str(root) not in error or "DiskFull" not in error:
                outcome.unclear.append(f"{free} pages free: {error[:300]}")
            _judge(stage, root, before, ballast, outcome, f"{free} pages free")
            free = max(1, free * growth)


def _judge(stage: Stage, root: Path, before: object, ballast: Path, outcome: Outcome, place: str) -> None:
    ballast.unlink()
    twin = root.with_name("after")
    try:
        found = stage.read(root)
        stage.commit(root)
        after = stage.read(root)
        if not stage.between(found, before, after):
            outcome.bad.append(f"{place}: neither the state before nor the one after")
        shutil.copytree(root.parent.parent / "origin", twin)
        stage.commit(twin)
        if stage.read(twin) != after:
            outcome.bad.append(f"{place}: the commit run again makes another state")
    except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
        outcome.bad.append(f"{place}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        shutil.rmtree(twin, ignore_errors=True)


def _fill(disk: Path, ballast: Path, free: int) -> None:
    """Leave `free` pages on the disk."""
    status = os.statvfs(disk)
    with ballast.open("wb") as stream:
        stream.write(bytes(max(0, status.f_bavail * status.f_frsize - free * PAGE)))


def _committed(name: str, root: Path) -> str | None:
    """The error of the commit in a process of its own, None if it went through."""
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_commit, args=(name, root, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        return f"the process ended with {process.exitcode}"
    finally:
        process.join()


def _commit(name: str, root: Path, connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    try:
        STAGES[name].commit(root)
    except Exception as error:  # noqa: BLE001 - its text is what is judged
        connection.send(f"{type(error).__name__}: {error}")
    else:
        connection.send(None)
    os._exit(0)


def stub_of_torch_save(folder: Path) -> bool:
    """Control: whether torch.save to the final path leaves a file there that cannot be read, in place of a good one."""
    import torch

    with small_disk(folder) as disk:
        path = disk / "checkpoint.pt"
        torch.save({"w": torch.zeros(1000)}, path)
        _fill(disk, disk / "ballast", 8)
        with suppress(OSError, RuntimeError):
            torch.save({"w": torch.zeros(100_000)}, path)
        try:
            torch.load(path)
        except Exception:  # noqa: BLE001 - torch names many
            return True
        return False


def main() -> int:
    """Run the experiment; returns 1 on a bad state, an unclear error or a blind control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default="", help="only the stages whose name contains this")
    options = parser.parse_args()
    wrong = 0
    print(f"{'stage':36} failed for want of room, unclear errors, bad states")
    with tempfile.TemporaryDirectory(prefix="full-") as folder:
        for number, stage in enumerate(stage for stage in STAGES.values() if options.stage in stage.name):
            place = Path(folder, str(number))
            place.mkdir()
            outcome = full_disk(stage, place)
            print(f"{stage.name:36} {outcome.failed:3} {len(outcome.unclear):3} {len(outcome.bad):3}", flush=True)
            for line in (outcome.unclear + outcome.bad)[:4]:
                print(f"    {line}")
            wrong += bool(outcome.unclear or outcome.bad or not (outcome.failed or stage.name in NEED_NO_ROOM))
        stub = stub_of_torch_save(Path(folder, "control"))
        print(f"control: torch.save leaves a stub: {stub}")
    return 1 if wrong or not stub else 0


if __name__ == "__main__":
    sys.exit(main())
