"""The frozen layers below the adapters: run without gradients in half precision, once per text if there is room.

With adapters in the top layers only, what the lower layers compute for a text never changes during a training.
`FrozenLayers` splits any Hugging Face encoder there, without touching its modules; `ActivationCache` keeps the
activations of a split's texts in one memory-mapped file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.storage.manifest import CorruptArtifact, read_sealed, write_sealed


class _Reached(Exception):
    """The input of the first trained layer is known; what lies above need not run."""


class FrozenLayers:
    """An encoder cut below layer `depth`: `states` runs the part under the cut, `replay` all but that part.

    Raises ValueError if the encoder's layers are not one list of modules, or if an encoding by way of `states` is
    not the encoding: such an architecture must be trained without the cache.
    """

    def __init__(self, model: Any, depth: int) -> None:
        self.model = model
        self.layers = self._layers(model)
        self.depth = depth
        self.bfloat16 = base_model.native_bfloat16()
        self._tuples = False
        self._verify()

    @staticmethod
    def _layers(model: Any) -> list[Any]:
        size = model.config.num_hidden_layers
        lists = [
            module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == size
        ]
        if len(lists) != 1:
            raise ValueError(f"{model.config.model_type}: no one list of {size} layers; set cache_layers to false")
        return list(lists[0])

    @torch.no_grad()
    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows, length, d] float16 that enter layer `depth`.

        On a processor with bfloat16 products the linear layers below the cut use them.
        """
        found: list[torch.Tensor] = []

        def reached(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(arguments[0] if arguments else named["hidden_states"])
            raise _Reached

        handle = self.layers[self.depth].register_forward_pre_hook(reached, with_kwargs=True)
        try:
            with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.bfloat16):
                self.model(input_ids=ids, attention_mask=mask)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0].half()

    @contextmanager
    def replay(self, hidden: torch.Tensor) -> Iterator[None]:
        """Within it, the model's layers below the cut give `hidden` [rows, length, d] for whatever they get."""
        hidden = hidden.to(self.model.device, torch.float32)
        output = (hidden,) if self._tuples else hidden
        below = self.layers[: self.depth]
        for layer in below:
            layer.forward = lambda *_, **__: output
        try:
            yield
        finally:
            for layer in below:
                del layer.forward

    @torch.no_grad()
    def _verify(self) -> None:
        """Two short texts, one padded: cut and whole give the same; finds out whether layers return tuples."""
        ids = torch.tensor([[5, 6, 7], [8, 6, 0]], device=self.model.device)
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]], device=self.model.device)

        def look(_module: Any, _arguments: Any, output: Any) -> None:
            self._tuples = isinstance(output, tuple)

        handle = self.layers[0].register_forward_hook(look)
        try:
            whole = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        finally:
            handle.remove()
        with self.replay(self.states(ids, mask)):
            cut = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if (cut - whole)[mask.bool()].norm() > 0.05 * whole[mask.bool()].norm():
            name = self.model.config.model_type
            raise ValueError(f"{name}: its layers cannot be run from their input alone; set cache_layers to false")


class ActivationCache:
    """Activations of texts' tokens, float16, in one file mapped into memory: its pages are the system's to evict.

    The file is complete under its name or absent, and its bytes follow from model and texts alone: a resumed
    training finds the same, by the SHA-256 beside it, or remakes it.
    """

    def __init__(self, path: Path, lengths: np.ndarray, dimension: int) -> None:
        self.ends = np.cumsum(lengths)
        self.lengths = lengths
        shape = (int(self.ends[-1]), dimension)
        self.values: np.ndarray = np.memmap(path, dtype=np.float16, mode="r", shape=shape)

    @staticmethod
    def bytes(lengths: np.ndarray, dimension: int) -> int:
        """Size of the file in bytes."""
        return int(lengths.sum()) * dimension * 2

    @classmethod
    def build(
        cls,
        path: Path,
        tokens: Sequence[list[int]],
        layers: FrozenLayers,
        pad_id: int,
        tokens_per_batch: int,
    ) -> "ActivationCache":
        """The cache of these texts: read if the file is there and whole, else written."""
        lengths = np.array([len(row) for row in tokens])
        dimension = layers.model.config.hidden_size
        if not _whole(path):
            temporary = path.with_name(f".{path.name}.partial")
            shape = (int(lengths.sum()), dimension)
            values = np.memmap(temporary, dtype=np.float16, mode="w+", shape=shape)
            starts = np.cumsum(lengths) - lengths
            for rows in base_model.token_budget_batches(lengths, tokens_per_batch):
                ids, mask = base_model.padded([tokens[row] for row in rows], pad_id)
                hidden = layers.states(ids.to(layers.model.device), mask.to(layers.model.device)).cpu().numpy()
                for row, states in zip(rows, hidden, strict=True):
                    values[starts[row] : starts[row] + lengths[row]] = states[: lengths[row]]
            values.flush()
            temporary.replace(path)
            write_sealed(_seal(path), file_sha256(path))
        return cls(path, lengths, dimension)

    def padded(self, rows: np.ndarray) -> torch.Tensor:
        """Activations of these texts [len(rows), longest, d] float16, zero where there is no token."""
        lengths = self.lengths[rows]
        hidden = np.zeros((len(rows), lengths.max(), self.values.shape[1]), dtype=np.float16)
        for place, (end, length) in enumerate(zip(self.ends[rows], lengths, strict=True)):
            hidden[place, :length] = self.values[end - length : end]
        return torch.from_numpy(hidden)


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _whole(path: Path) -> bool:
    """Whether the file is there and, bit for bit, what was written."""
    try:
        return read_sealed(_seal(path)) == file_sha256(path)
    except (FileNotFoundError, CorruptArtifact):
        return False
