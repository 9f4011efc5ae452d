"""The runtime of a training job: the same from a shell and under Dagster Pipes.

    python -P -m training.<job> --inputs DIR --output DIR

`<inputs>/config.json` and the other files of the inputs folder are all that a job reads. While it runs it
works in `<output>.work/` (checkpoints, `result/`); a finished result is renamed to `<output>`, which so is
absent or whole, with a manifest. A job whose `<output>` was made from the same inputs, configuration and code
returns at once. Killed at any moment and started again, it goes on from its last checkpoint.

No torch at module level: a job that has nothing to do does not pay for its import.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.record import METRICS, append, cut, fingerprint, plain, progress
from user_embeddings_dagster.privacy.containment import contained
from user_embeddings_dagster.settings import collect_rarely, prepare_environment, torch_threads
from user_embeddings_dagster.storage.durability import sync, write_json, writing
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise, verify

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOPPED = 128 + signal.SIGTERM
STOP_SECONDS = 15  # a step longer than this is not waited for: the last checkpoint stands
LOG_SECONDS = 2.0  # at most one progress line in this time, since each is an event under Pipes
RECORD = "job.json"


class Job:
    """One run of a job: its inputs, its result folder, its progress, its report."""

    def __init__(self, name: str, inputs: Path, output: Path, code_version: str, pipes: Any = None) -> None:
        self.name = name
        self.inputs = Path(inputs).absolute()
        self.output = Path(output).absolute()
        self.config: dict[str, Any] = json.loads((self.inputs / "config.json").read_bytes())
        self.fingerprint = fingerprint(name, code_version, self.inputs, self.config)
        self.work = self.output.with_name(f"{self.output.name}.work")
        self.result = self.work / "result"
        self.threads = int(self.config.get("threads") or torch_threads())
        self.finished = False
        self._pipes = pipes
        self._started = time.monotonic()
        # Of the runs that this one resumes.
        self._before = {"seconds": 0.0, "host_bytes": 0, "device_bytes": 0}
        self._steps = 0
        self._resumed_step = 0
        self._last_log = self._last_save = self._started
        self._first: tuple[int, float] | None = None
        self._stopping = False

    def log(self, message: str) -> None:
        """One line to Dagster's log under Pipes, else to stderr. Never personal text."""
        if self._pipes is not None:
            self._pipes.log.info(message)
        else:
            print(f"[{self.name}] {message}", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Wall seconds of this run and of those it resumes."""
        return self._before["seconds"] + time.monotonic() - self._started

    def prepare(self) -> dict[str, Any] | None:
        """The record of a complete current result, else None with the work folder ready.

        Work that another configuration left behind is removed; a damaged result is refused in the log.
        """
        for folder in (self.output, self.result):
            record = self._complete(folder)
            if record is not None:
                self._deliver(folder)
                return record
        if self.work.exists() and not self._is_ours(self.work):
            shutil.rmtree(self.work)
        self.result.mkdir(parents=True, exist_ok=True)
        for path in self.result.iterdir():
            if path.name != METRICS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.work / "fingerprint").write_text(self.fingerprint)
        return None

    def _is_ours(self, work: Path) -> bool:
        path = work / "fingerprint"
        return path.exists() and path.read_text() == self.fingerprint

    def _complete(self, folder: Path) -> dict[str, Any] | None:
        try:
            record = json.loads((folder / RECORD).read_bytes())
            if record["fingerprint"] != self.fingerprint:
                return None
            verify(folder)
        except FileNotFoundError:
            return None
        except (CorruptArtifact, ValueError, KeyError) as error:
            if folder == self.output:
                self.log(f"the existing result is refused and made again: {error}")
            return None
        return record

    def seed(self) -> str:
        """Seed Python, numpy and torch from config["seed"], set torch's threads; returns the device."""
        import random

        import numpy as np
        import torch

        seed = int(self.config["seed"])
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        torch.set_num_threads(self.threads)
        return str(self.config.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))

    def resume(self) -> Any:
        """The last good checkpoint (`.step`, `.state`) or None; call it when the model is built and seeded.

        Restores the global random generators and the accounting; cuts `metrics.jsonl` to the resumed step.
        """
        from training.checkpoint import Checkpoints

        checkpoint = Checkpoints(self.work / "checkpoints").latest(self.log)
        cut(self.result / METRICS, checkpoint.step if checkpoint else 0)
        if checkpoint is None:
            return None
        self._before = checkpoint.state.pop("$job")
        self._steps = self._resumed_step = checkpoint.step
        self.log(f"resumed at step {checkpoint.step}, after {self._before['seconds']:.0f} s")
        return checkpoint

    def step(self, step: int, total: int, state: Callable[[], dict[str, Any]] | None = None, **values: float) -> None:
        """Call after each optimizer step (1-based): metrics, progress, checkpoint if due or told to stop.

        `state()` gives the nested state that `resume` will return. Raises ValueError on a value that is not
        finite, SystemExit(143) after SIGTERM or SIGINT, with the checkpoint saved.
        """
        numbers = plain(values, f"step {step}")
        self._steps = step
        append(self.result / METRICS, step, numbers)
        now = time.monotonic()
        self._first = self._first or (step, now)
        if now - self._last_log >= LOG_SECONDS or step == total:
            self._last_log = now
            self.log(progress(step, total, numbers, step - self._first[0], now - self._first[1]))
        due = now - self._last_save >= float(self.config.get("checkpoint_seconds", 10))
        if state is not None and (due or self._stopping):
            self.save(step, state())
        if self._stopping:
            self.log(f"stopped by a signal at step {step} of {total}")
            raise SystemExit(STOPPED)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save a checkpoint now; the lines of `metrics.jsonl` up to here are synced with it."""
        from training.checkpoint import Checkpoints

        if (self.result / METRICS).exists():
            sync(self.result / METRICS)
        usage = {"seconds": self.seconds, **self._peaks()}
        Checkpoints(self.work / "checkpoints").save(step, {**state, "$job": usage})
        self._last_save = time.monotonic()

    def _peaks(self) -> dict[str, int]:
        """Peak resident bytes (host) and allocated bytes (device) over this run and those it resumes."""
        torch = sys.modules.get("torch")
        device = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else 0
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
        return {
            "host_bytes": max(host, self._before["host_bytes"]),
            "device_bytes": max(device, self._before["device_bytes"]),
        }

    def finish(self, metadata: dict[str, Any], data_version: str, device: str = "cpu") -> None:
        """Make the files in `result` the output, and report: the one place where a job's metadata leaves it.

        Adds wall seconds, peak memory, device, threads and steps. Raises ValueError on NaN or infinity,
        TypeError on a value that is no plain or numpy scalar, string, list or dict of these.
        """
        peaks = self._peaks()
        measured = {
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(peaks["host_bytes"] / 1e6, 1),
            "peak_device_memory_mb": round(peaks["device_bytes"] / 1e6, 1),
            "device": device,
            "threads": self.threads,
            "steps": self._steps,
        }
        checked = plain({**metadata, **measured}, "metadata")
        record = {"fingerprint": self.fingerprint, "data_version": data_version, "metadata": checked}
        write_json(self.result / RECORD, record)
        finalise(self.result)
        self._deliver(self.result)
        self.report(record, reused=False)

    def report(self, record: dict[str, Any], reused: bool) -> None:
        """Report the materialisation once under Pipes; from a shell, print it to stdout as one JSON line."""
        metadata = {**record["metadata"], "reused": reused}
        self.finished = True
        if self._pipes is not None:
            asset = self._pipes.asset_keys[0]  # a step that makes several assets may run a job for all of them
            self._pipes.report_asset_materialization(metadata, record["data_version"], asset)
        else:
            print(json.dumps({"data_version": record["data_version"], "metadata": metadata}, sort_keys=True))

    def _deliver(self, complete: Path) -> None:
        if complete != self.output:
            old = self.work / "replaced"
            shutil.rmtree(old, ignore_errors=True)
            if self.output.exists():
                self.output.rename(old)
            complete.rename(self.output)
            sync(self.output.parent)
        shutil.rmtree(self.work, ignore_errors=True)
        sync(self.output.parent)

    def on_signal(self, number: int, _frame: object) -> None:
        """First signal: stop after the current step, with a checkpoint; before any step, or again: now."""
        if self._stopping or self._steps == self._resumed_step:
            os._exit(128 + number)
        self._stopping = True
        signal.alarm(STOP_SECONDS)


def run(name: str, train: Callable[[Job], None], code_version: str = "1", argv: list[str] | None = None) -> int:
    """Run a job to its end; `train(job)` writes files to `job.result` and calls `job.finish`. Returns 0.

    Raises RuntimeError if `train` returns without having finished: silence is not success.
    """
    parser = argparse.ArgumentParser(prog=f"python -P -m training.{name}")
    parser.add_argument("--inputs", type=Path, required=True, help="folder with config.json and the job's tables")
    parser.add_argument("--output", type=Path, required=True, help="folder of the result, made or replaced")
    arguments = parser.parse_args(argv)
    prepare_environment()
    collect_rarely()
    # transformers imports it wherever it is installed, 1.5 s of every job, for a decoding that no job does.
    sys.modules.setdefault("sklearn", None)  # pyright: ignore[reportArgumentType]
    with _pipes() as pipes:
        try:
            _work(Job(name, arguments.inputs, arguments.output, code_version, pipes), train)
            return 0
        except Exception as error:  # noqa: BLE001 - raised below: raised here, the error would be its context
            failure = contained(error)
        told = "".join(traceback.format_exception(failure)).splitlines(keepends=True)
        sys.stderr.writelines(f"[{name}] {line}" for line in told)
        raise failure


def _work(job: Job, train: Callable[[Job], None]) -> None:
    """The job itself."""
    os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    # Spinning threads on a busy machine made a training of 14 s take 250 s.
    for number in (signal.SIGTERM, signal.SIGINT):  # Dagster's cancel sends SIGINT
        signal.signal(number, job.on_signal)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(STOPPED))
    with _lock(job):
        if (record := job.prepare()) is not None:
            job.log("the result is complete and current: nothing to train")
            return job.report(record, reused=True)
        with writing(f"training.{job.name}", job.output):
            train(job)
    if not job.finished:
        raise RuntimeError(f"training.{job.name} ended without a report")


@contextlib.contextmanager
def _pipes() -> Iterator[Any]:
    """The Pipes context if Dagster started this process, which then dies with its parent; else None."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield None
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as context:
        yield context


@contextlib.contextmanager
def _lock(job: Job) -> Iterator[None]:
    """Hold `<output>.work` alone: a second process waits for the first, then finds its result."""
    path = job.output.with_name(f".{job.output.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            job.log("another process is at work on this output; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
