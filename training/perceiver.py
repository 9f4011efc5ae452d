"""Perceiver: a user's states, however many, to a fixed number of user tokens.

Latent tokens attend to the states and to each other, layer by layer (Jaegle et al. 2021, arXiv:2103.03206; as the
resampler of Alayrac et al. 2022, arXiv:2204.14198, section 3.1.1; User-LLM section 3.2). A user without any chunk has
the state before the first one, so that there is always something to attend to: the population's prior.
"""

import torch
import torch.nn.functional as F
from torch import nn

RECENCY_BUCKETS = 26  # two per doubling: the last is of states 2^12.5 and more chunks back


def recency_codes(mask: torch.Tensor) -> torch.Tensor:
    """Bucket [B, T] of how many states lie between each state and the user's last one. mask [B, T] bool."""
    after = mask.flip(1).cumsum(1).flip(1) - 1
    return (2 * (after.clamp(min=0) + 1).log2()).long().clamp(max=RECENCY_BUCKETS - 1)


class Attention(nn.Module):
    """Multi-head attention of queries [B, Q, width] over a memory [B, M, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.output = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        for layer in (self.value, self.output):  # of the size of what they read, so that users differ from the start
            nn.init.orthogonal_(layer.weight)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """mask [B, M] bool: what may be attended to."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, n, width / heads]
            for layer, x in ((self.query, queries), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.output(mixed.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """Latents attend to states and latents, then a feed-forward layer; pre-norm, residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_latents, self.norm_states = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, latents: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        queries = self.norm_latents(latents)
        memory = torch.cat([self.norm_states(states), queries], dim=1)
        seen = F.pad(mask, (0, latents.shape[1]), value=True)
        latents = latents + self.attention(queries, memory, seen)
        return latents + self.feed_forward(latents)


class Perceiver(nn.Module):
    """States [B, T, state_dimension] of B users to user tokens [B, tokens, width], for any T ≥ 1."""

    def __init__(
        self,
        state_dimension: int,
        width: int = 128,
        tokens: int = 16,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(state_dimension))
        self.register_buffer("deviation", torch.ones(()))
        self.input = nn.Linear(state_dimension, width)
        self.recency = nn.Embedding(RECENCY_BUCKETS, width)
        self.latents = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.recency.weight, std=0.02)
        nn.init.orthogonal_(self.input.weight)

    def fit_scale(self, states: torch.Tensor) -> None:
        """Take the mean of training users' states [n, state_dimension], and one deviation for all axes, out of what it
        reads: axes that vary more predict more."""
        mean = states.mean(dim=0)
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("deviation").copy_((states - mean).square().mean().sqrt().clamp(min=1e-6))

    def scaled(self, states: torch.Tensor) -> torch.Tensor:
        """States as they are read."""
        return (states - self.get_buffer("mean")) / self.get_buffer("deviation")

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """mask [B, T] bool: which states there are; the rest is padding, at the end of each row."""
        memory = self.input(self.dropout(self.scaled(states))) + self.recency(recency_codes(mask))
        latents = self.latents.expand(len(states), -1, -1)
        for layer in self.layers:
            latents = layer(latents, memory, mask)
        return self.norm(latents)
