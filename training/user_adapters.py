"""A low-rank adapter per user on one frozen decoder, for comparison with user embeddings; never written to disk.

Many users' adapters (Hu et al. 2021, arXiv:2106.09685; on the attention's four projections) are trained at once, each
on its own user's batch rows: every user's loss depends on that user's adapter alone and Adam works weight by weight,
so that each ends where it would have ended alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from training.decoder import token_log_likelihoods
from training.injection import layers_of

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class UserAdapters(nn.Module):
    """Adapters of `users` users; the decoder is held beside, frozen. y ← y + 2 · B_u A_u x, with B_u zero at first."""

    def __init__(self, decoder: Any, users: int, rank: int, seed: int) -> None:
        super().__init__()
        self._decoder, self.users = [decoder], users
        modules = layers_of(decoder).named_modules()
        self._layers = [m for name, m in modules if name.endswith(TARGETS) and isinstance(m, nn.Linear)]
        if not self._layers:
            raise ValueError(f"{type(decoder).__name__}: its attention has no linear layers {TARGETS}")
        device, generator = self._layers[0].weight.device, torch.Generator().manual_seed(seed)
        # The same start for every user, so that what differs is what they wrote.
        starts = [torch.randn(rank, m.in_features, generator=generator) * m.in_features**-0.5 for m in self._layers]
        self.down = nn.ParameterList(start.expand(users, -1, -1).clone().to(device) for start in starts)
        self.up = nn.ParameterList(torch.zeros(users, m.out_features, rank, device=device) for m in self._layers)

    @contextmanager
    def bound(self, rows: torch.Tensor) -> Iterator[Any]:
        """The decoder, within: batch row b is written by the adapter of user `rows` [B][b]."""
        handles = [
            layer.register_forward_hook(_adding(down[rows], up[rows]))
            for layer, down, up in zip(self._layers, self.down, self.up, strict=True)
        ]
        try:
            yield self._decoder[0]
        finally:
            for handle in handles:
                handle.remove()

    def fit(self, texts: list[torch.Tensor], steps: int, rows: int, learning_rate: float, seed: int) -> None:
        """Train each user's adapter for `steps` on `rows` random rows of `texts[user]` [n, length + 1] at a time."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=0.0)
        owners = torch.arange(self.users).repeat_interleave(rows)
        for step in range(steps):
            place = np.random.default_rng((seed, step)).random(rows)  # of every user, whoever else there is
            ids = torch.cat([text[(place * len(text)).astype(np.int64)] for text in texts]).to(self.down[0].device)
            with self.bound(owners) as decoder:
                loss = -token_log_likelihoods(decoder, ids).mean(1).sum() / rows
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def _adding(down: torch.Tensor, up: torch.Tensor) -> Any:
    """down [B, rank, in], up [B, out, rank]."""

    def hook(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        low = inputs[0].to(down.dtype) @ down.transpose(1, 2)
        return output + 2 * (low @ up.transpose(1, 2)).to(output.dtype)

    return hook
