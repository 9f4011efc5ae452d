"""How a position of the sequence encoder looks back: two causal mixers behind one interface, with bounded memory.

Histories are packed: one stream [M, width] holds them one after the other, without padding; `since` [M] is each
state's place in its history, so that nothing looks back over a beginning. A mixer has

    forward(stream, since, last)  mixed stream [M, width], and its memory after the rows `last` (None: not asked for)
    step(memory, inputs)          one position further for B users: [B, width] and their memories
    fresh(users)                  memory of users of whom nothing was read

A memory is a tensor [B, …] whose size does not depend on the length of the history.
"""

import torch
import torch.nn.functional as F
from torch import nn


class WindowAttention(nn.Module):
    """Causal multi-head self-attention over the last `window` positions (Beltagy et al. 2020, Longformer, section 3.1).

    Exact full attention for histories of at most `window` states. The memory holds keys and values of the window:
    [B, window, 2·width + 1], the last column 1 where there is something.
    """

    def __init__(self, width: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.width, self.heads, self.window, self.dropout = width, heads, window, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(
        self, stream: torch.Tensor, since: torch.Tensor, last: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Blocks of `window` queries see their own block and the one before: O(M · window), no padding but the end."""
        m, w = len(stream), self.window
        qkv = self.qkv(stream)
        q, k, v = (
            part.view(-1, w, self.heads, self.width // self.heads).transpose(1, 2)  # [blocks, heads, w, c]
            for part in F.pad(qkv, (0, 0, 0, -m % w)).split(self.width, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(
            q, _with_previous(k), _with_previous(v), attn_mask=self._visible(since),
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        mixed = self.out(mixed.transpose(1, 2).reshape(-1, self.width)[:m])
        return mixed, None if last is None else self._memory(qkv, since, last)

    def _visible(self, since: torch.Tensor) -> torch.Tensor:
        """[blocks, 1, w, 2w]: which keys each query sees."""
        w = self.window
        places = torch.arange(2 * w, device=since.device)
        back = places[w:, None] - places[None, :]  # how far before the query the key lies [w, 2w]
        reach = F.pad(since, (0, -len(since) % w)).view(-1, w, 1).clamp(max=w - 1)
        return ((back >= 0) & (back <= reach)).unsqueeze(1)

    def _memory(self, qkv: torch.Tensor, since: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        back = torch.arange(self.window - 1, -1, -1, device=last.device)  # oldest first
        held = back <= since[last, None]
        rows = (last[:, None] - back).clamp(min=0)
        memory = torch.cat([qkv[rows][..., self.width :], torch.ones_like(held)[..., None]], dim=-1)
        return memory * held[..., None]

    def step(self, memory: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """inputs [B, width]; memory [B, window, 2·width + 1]."""
        q, kv = self.qkv(inputs).split([self.width, 2 * self.width], dim=-1)
        memory = torch.cat([memory[:, 1:], F.pad(kv, (0, 1), value=1.0)[:, None]], dim=1)
        k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, window, c]
            for part in memory[..., :-1].split(self.width, dim=-1)
        )
        q = q.unflatten(-1, (self.heads, 1, -1))
        visible = memory[:, None, None, :, -1] > 0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.out(mixed.flatten(1)), memory

    def fresh(self, users: int) -> torch.Tensor:
        """Nothing read yet."""
        return self.out.weight.new_zeros(users, self.window, 2 * self.width + 1)


def _with_previous(blocks: torch.Tensor) -> torch.Tensor:
    """[blocks, heads, w, c] → [blocks, heads, 2w, c]: each block after the one before it (zeros before the first)."""
    return torch.cat([F.pad(blocks, (0, 0, 0, 0, 0, 0, 1, 0))[:-1], blocks], dim=2)


class GatedRecurrence(nn.Module):
    """Gated linear recurrence h_t = a_t ⊙ h_{t-1} + (1 - a_t) ⊙ v_t, trained in parallel by a scan.

    a_t = σ(W_a x_t + b_a) and v_t = W_v x_t depend on the input alone (minGRU: Feng et al. 2024, "Were RNNs All We
    Needed?", section 3.1), out_t = W_o(h_t ⊙ silu(W_g x_t)). Biases b_a start spread over memories of about one to a
    hundred positions. The memory is h: [B, width].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        with torch.no_grad():
            self.inner.bias[:width] = torch.linspace(0.0, 4.6, width)  # σ⁻¹(0.99) = 4.6

    def forward(
        self, stream: torch.Tensor, since: torch.Tensor, last: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """O(M · log longest) by a scan over the packed stream."""
        keep, value, gate = self._parts(stream)
        hidden = linear_scan(keep * (since > 0).unsqueeze(-1), (1 - keep) * value, int(since.max()) + 1)
        return self.out(hidden * gate), None if last is None else hidden[last]

    def step(self, memory: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """inputs [B, width]; memory [B, width]."""
        keep, value, gate = self._parts(inputs)
        memory = torch.lerp(value, memory, keep)
        return self.out(memory * gate), memory

    def _parts(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keep, value, gate = self.inner(inputs).split(self.width, dim=-1)
        return torch.sigmoid(keep), value, F.silu(gate)

    def fresh(self, users: int) -> torch.Tensor:
        """Nothing read yet."""
        return self.out.weight.new_zeros(users, self.width)


def linear_scan(keep: torch.Tensor, values: torch.Tensor, longest: int) -> torch.Tensor:
    """h_t = keep_t · h_{t-1} + values_t along the first dimension [M, …], in ⌈log2 longest⌉ parallel rounds.

    keep is 0 at every beginning; no run between beginnings is longer than `longest`. (Hillis and Steele 1986, "Data
    parallel algorithms": the pair (a, b) of h → a·h + b composes associatively.)
    """
    reach = 1
    while reach < min(longest, len(values)):
        values = torch.cat([values[:reach], values[reach:] + keep[reach:] * values[:-reach]])
        keep = torch.cat([keep[:reach], keep[reach:] * keep[:-reach]])
        reach *= 2
    return values


MIXERS = ("attention", "recurrence")
