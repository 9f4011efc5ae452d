"""Resume state of a training job: saved whole or not at all, verified before it is used.

    <folder>/step-00000120/tensors.safetensors   every tensor of the state, by number
    <folder>/step-00000120/state.json            the nested state, with a reference in place of each tensor
    <folder>/step-00000120/manifest.json         SHA-256 of both

A checkpoint is written under a temporary name, synced, then renamed; the last two are kept, so that one
damaged checkpoint costs the steps since the one before it and never the run. Nothing is pickled: loading
executes nothing.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from user_embeddings_dagster.storage.durability import make_folder, sync, writing
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise, refuse_code, verify

KEPT = 2
TENSOR = "$tensor"
ITEMS = "$items"
TUPLE = "$tuple"


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimizer steps; `state` is what was given to `save`, tensors on the CPU."""

    step: int
    state: dict[str, Any]


class Checkpoints:
    """Checkpoints of one run, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Save a nested state (dicts, lists, tuples, tensors, JSON values) and the random generators.

        Raises TypeError for a value that is neither a tensor nor JSON, OSError when the disk is full; the
        checkpoints before it are untouched either way.
        """
        make_folder(self.folder)
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".step-{step:08d}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors: dict[str, torch.Tensor] = {}
        skeleton = _pack({"step": step, "state": state, "random": random_state()}, tensors)
        with writing(f"checkpoint of step {step}", final):
            save_file(tensors, temporary / "tensors.safetensors")
            (temporary / "state.json").write_text(json.dumps(skeleton))
            finalise(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(self.folder)
        self._clean(final)
        return final

    def _clean(self, newest: Path) -> None:
        """Remove leftovers of killed saves and all but the last checkpoints up to the newest."""
        for stale in self.folder.glob(".step-*"):
            shutil.rmtree(stale)
        saved = [path for path in self.paths() if path.name <= newest.name]
        for old in saved[:-KEPT]:
            shutil.rmtree(old)
        sync(self.folder)

    def paths(self) -> list[Path]:
        """Folders of the saved checkpoints, oldest first, damaged or not."""
        return sorted(self.folder.glob("step-*"))

    def latest(self, log: Callable[[str], None]) -> Checkpoint | None:
        """The last good checkpoint, with the random generators restored; None if there is none.

        A damaged one is refused with a line in the log and removed, and the one before it is used.
        """
        for path in reversed(self.paths()):
            try:
                return _restore(path)
            except CorruptArtifact as error:
                log(f"checkpoint refused: {error}")
                shutil.rmtree(path)
        return None


def _restore(path: Path) -> Checkpoint:
    checkpoint, generators = read(path)
    restore_random_state(generators)
    return checkpoint


def read(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """A checkpoint and the state of the random generators. Raises CorruptArtifact if it is damaged."""
    verify(path)
    refuse_code(path)
    tensors = load_tensors(path / "tensors.safetensors")
    content = _unpack(json.loads((path / "state.json").read_bytes()), tensors)
    return Checkpoint(content["step"], content["state"]), content["random"]


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file on the CPU. Raises CorruptArtifact, naming it, if it is anything else."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise CorruptArtifact(f"{path}: not a safetensors file ({error})") from None


def random_state() -> dict[str, Any]:
    """State of the random generators of Python, numpy and torch (CPU and every CUDA device)."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the random generators to a state of `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for a nested value; its tensors go to `tensors` and leave a reference."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        # Pairs, because an optimizer's state has integer keys and JSON has none.
        return {ITEMS: [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a checkpoint holds tensors and JSON values, not {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == TENSOR:
        return tensors[content]
    if kind == TUPLE:
        return tuple(_unpack(item, tensors) for item in content)
    return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
