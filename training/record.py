"""What a job writes down of itself: its fingerprint, its metrics and progress, and only plain finite values."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from user_embeddings_dagster.keys import file_sha256

METRICS = "metrics.jsonl"
# How a job is executed, not what it computes: a result stays current when these change.
EXECUTION = ("threads", "device", "checkpoint_seconds")


def fingerprint(name: str, code_version: str, inputs: Path, config: dict[str, Any]) -> str:
    """SHA-256 over the job, its code version, its configuration and the bytes of every input file."""
    settings = {key: value for key, value in config.items() if key not in EXECUTION}
    files = {
        path.relative_to(inputs).as_posix(): file_sha256(path)
        for path in sorted(inputs.rglob("*"))
        if path.is_file() and path != inputs / "config.json"
    }
    return hashlib.sha256(json.dumps([name, code_version, settings, files], sort_keys=True).encode()).hexdigest()


def append(path: Path, step: int, values: dict[str, Any]) -> None:
    """Append one line of metrics: `{"step": …, …}`."""
    with path.open("a") as stream:
        stream.write(json.dumps({"step": step, **values}) + "\n")


def progress(step: int, total: int, values: dict[str, Any], steps: int, seconds: float) -> str:
    """A line about a step. `steps` were made in `seconds` after the first of this run, before which the model is loaded
    and validated: without any there is no estimate."""
    shown = " ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))
    told = f"step {step}/{total} {shown}".rstrip()
    if steps == 0:
        return told
    return f"{told} {steps / max(seconds, 1e-9):.1f} steps/s {(total - step) * seconds / steps:.0f} s left"


def cut(path: Path, step: int) -> None:
    """Keep the whole lines up to `step`: a killed run wrote steps that the resumed one repeats."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain(value: Any, where: str) -> Any:
    """`value` with numpy and torch scalars as Python's.

    Raises ValueError on NaN or infinity, TypeError on anything but numbers, strings, and lists or dicts of
    these; both name the place.
    """
    if isinstance(value, dict):
        return {str(key): plain(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | int | float):
        value = value.item()  # raises for an array of more than one value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}")
    if value is None or isinstance(value, str | int | float):
        return float(value) if isinstance(value, float) else value  # np.float64 is a float, but not JSON's
    raise TypeError(f"{where}: {type(value).__name__} is not a number, a string or a list or dict of these")
