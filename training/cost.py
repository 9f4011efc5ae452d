"""What a forward costs: floating-point operations as torch counts them, bytes of the tensors that it makes."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


@dataclass
class Cost:
    """`flops`: two for each multiplication with its addition; `peak_bytes`: most bytes of its tensors at one time."""

    flops: int = 0
    peak_bytes: int = 0


def _attention(query: Shape, key: Shape, value: Shape, causal: bool) -> int:
    """Operations of scaled dot-product attention; of a causal one, the half that it needs."""
    *batch, asked, width = query
    pairs = asked * (asked + 1) // 2 if causal and asked == key[-2] else asked * key[-2]
    return 2 * pairs * (width + value[-1]) * int(torch.Size(batch).numel())


def _flash(query: Shape, key: Shape, value: Shape, _dropout: float = 0.0, is_causal: bool = False, *_: Any, **__: Any):
    return _attention(query, key, value, is_causal)


def _biased(
    query: Shape, key: Shape, value: Shape, _bias: Any, _sums: bool, _dropout: float = 0.0, is_causal: bool = False,
    *_: Any, **__: Any,
):  # fmt: skip
    return _attention(query, key, value, is_causal)


_ATEN = torch.ops.aten
ATTENTION = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _flash,  # torch itself does not count it
    _ATEN._scaled_dot_product_flash_attention: _flash,
    _ATEN._scaled_dot_product_efficient_attention: _biased,
    _ATEN._scaled_dot_product_cudnn_attention: _biased,
}
"""Counted here rather than by torch, which counts a causal attention whole."""


class _LiveTensors(TorchDispatchMode):
    """Bytes of the storages that operations make, from when they are made to when the last tensor on one is gone."""

    def __init__(self) -> None:
        super().__init__()
        self._live, self.peak, self._known = 0, 0, weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given and storage not in self._known:
                    self._known.add(storage)
                    self._live += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self._live)
        return output

    def _freed(self, size: int) -> None:
        self._live -= size


def operations() -> FlopCounterMode:
    """A counter of the operations of what runs within it; of fake tensors too, which cost nothing to compute."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


@contextmanager
def counted() -> Iterator[Cost]:
    """The cost of what runs within, there once it has ended."""
    cost = Cost()
    with operations() as flops, _LiveTensors() as live:
        yield cost
    cost.flops, cost.peak_bytes = flops.get_total_flops(), live.peak
