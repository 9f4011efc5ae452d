"""How user tokens reach a frozen decoder: gated cross-attention into chosen layers, or a soft prompt.

Gated cross-attention (Alayrac et al. 2022, arXiv:2204.14198, section 3.1.2; User-LLM section 3.2), through forward
hooks on any Hugging Face causal LM: after layer l with hidden states h [B, L, D] and user tokens u [B, n, W],

    h ← h + tanh(α_l) ⊙ rms(h) · CrossAttention(norm(h), u)

α [D] starts at zero, so that the logits are those of the bare decoder, to the bit. A gate per channel and rms(h) are
ours: what is not of the size of the stream (7 to 100 in trained decoders) does not move the logits. There is no
feed-forward layer, which could only change what the decoder says to everybody. Nothing of it depends on the decoder's
own key-value cache: generation works as without.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn


def layers_of(decoder: Any) -> nn.ModuleList:
    """The decoder's transformer layers. Raises ValueError for an architecture that keeps them elsewhere."""
    inner = decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder
    for path in ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers"):
        try:
            return inner.get_submodule(path)
        except AttributeError:
            continue
    raise ValueError(f"{type(inner).__name__}: its layers are at none of the known places")


def spread(depth: int, count: int) -> list[int]:
    """`count` layers spread evenly over a decoder of `depth` layers, the last one among them.

    All of them if it has no more. Raises ValueError unless `count` is at least 1.
    """
    if count < 1:
        raise ValueError(f"{count} injected layers: there must be at least one")
    count = min(count, depth)
    return [round((i + 1) * depth / count) - 1 for i in range(count)]


class GatedCrossAttention(nn.Module):
    """One injection, after one layer."""

    def __init__(self, hidden: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(hidden)
        self.query, self.output = nn.Linear(hidden, width, bias=False), nn.Linear(width, hidden, bias=False)
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.gates = nn.Parameter(torch.zeros(hidden))
        nn.init.orthogonal_(self.value.weight)

    def open(self) -> None:
        """Open the gates for training, with nothing behind them yet: the logits are still those of the bare decoder.

        With the gates at zero no gradient would reach what they gate (as with B of LoRA, Hu et al. 2021, section 4.1).
        """
        nn.init.zeros_(self.output.weight)
        nn.init.ones_(self.gates)

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """hidden [B, L, hidden] in the decoder's precision, tokens [B, n, width] in the adapters'."""
        precision, hidden = hidden.dtype, hidden.to(self.gates.dtype)
        return (hidden + self.size(hidden) * self.relative(hidden, tokens)).to(precision)

    def size(self, hidden: torch.Tensor) -> torch.Tensor:
        """rms(h) [B, L, 1]."""
        return hidden.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()  # at 0 its gradient would be infinite

    def relative(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What is added [B, L, hidden], in units of rms(h)."""
        q = self.query(self.norm(hidden)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.key, self.value)
        )  # [B, heads, n, width / heads]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        return self.gates.tanh() * self.output(mixed)

    def first_order(
        self, hidden: torch.Tensor, slopes: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inner products [T, U, L] of `slopes` with what is added to `hidden` (both [T, L, hidden]) for each of U
        users, tokens [T, U, n, W]; and the mean square of that, in units of rms(h).

        As from `relative`, but nothing of the size of `hidden` is made for each user.
        """
        q = self.query(self.norm(hidden)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(2, 3) for layer in (self.key, self.value)
        )  # [T, U, heads, n, W / heads]
        q = q[:, None].expand(-1, k.shape[1], -1, -1, -1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(-2)  # [T, U, L, W]
        written = self.gates.tanh()[:, None] * self.output.weight  # [hidden, W]
        along = (self.size(hidden) * slopes) @ written  # [T, L, W]
        sizes = (mixed @ (written.T @ written) * mixed).sum(-1) / len(written)
        return (mixed * along[:, None]).sum(-1), sizes


class CrossAttentionInjection(nn.Module):
    """Gated cross-attention into `layers` of a decoder; active within `bound`."""

    def __init__(self, decoder: Any, width: int, layers: Sequence[int], heads: int = 4) -> None:
        super().__init__()
        self.places = tuple(layers)
        self.projector = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.projector.weight)
        self.blocks = nn.ModuleList(GatedCrossAttention(decoder.config.hidden_size, width, heads) for _ in layers)

    @property
    def last(self) -> GatedCrossAttention:
        """The injection after the highest layer."""
        return cast(GatedCrossAttention, self.blocks[-1])

    def open(self) -> None:
        """`GatedCrossAttention.open` of every layer."""
        for block in self.blocks:
            cast(GatedCrossAttention, block).open()

    @torch.no_grad()
    def scale(self, times: float) -> None:
        """Add so many times what was added."""
        for block in self.blocks:
            cast(GatedCrossAttention, block).output.weight.mul_(times)

    def tokens(self, user: torch.Tensor) -> torch.Tensor:
        """User tokens [B, n, width] of the Perceiver in the space that the layers read."""
        return self.projector(user)

    @contextmanager
    def bound(self, decoder: Any, user: torch.Tensor) -> Iterator[None]:
        """Within, row b of every batch that the decoder reads is written for user b. user [B, n, width]."""
        tokens, layers = self.tokens(user), layers_of(decoder)
        handles = [
            layers[place].register_forward_hook(_adding(block, tokens))
            for place, block in zip(self.places, self.blocks, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adding(block: nn.Module, tokens: torch.Tensor) -> Any:
    def hook(_layer: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (block(output[0], tokens), *output[1:])
        return block(output, tokens)

    return hook


class SoftPrompt(nn.Module):
    """The alternative: user tokens as the first positions of the input (Lester et al. 2021, arXiv:2104.08691)."""

    def __init__(self, decoder: Any, width: int) -> None:
        super().__init__()
        embeddings = decoder.get_input_embeddings().weight
        self.projector = nn.Linear(width, decoder.config.hidden_size)
        with torch.no_grad():  # of the size of the decoder's own embeddings, or it would read noise
            self.projector.weight.mul_(embeddings.float().std() / self.projector.weight.std() / width**0.5)
            self.projector.bias.zero_()

    def tokens(self, user: torch.Tensor) -> torch.Tensor:
        """User tokens [B, n, hidden] as input embeddings."""
        return self.projector(user)
