"""The sequence encoder's network: a small causal residual over the whitened, pooled history.

With z in the item space of `sequence_features` (I axes, most predictable first), p in its person space (D axes, the
same) and d the dimension of the user state:

    s_t = recent_t + w · mean_t                  the tuned whitened baseline, I coordinates
    m_t = `MEAN_SCALE` · (rhythm_t, mean of p)   what tells people apart: hours of the day and items, 2 + D coordinates
    h_t = mixers(z_1 … z_t, s_t, time gaps)      causal, inner width at most 256
    c_t = first d coordinates of (s_t, m_t, 0 …) + g · O h_t         the user state
    q_t = c_t as I coordinates + ΔP c_t          the projector, from the state's space to the item space

O and ΔP start at zero, so that before training q_t is the whitened baseline exactly (I ≤ d) or its d most
predictable coordinates (d < I), and c_t keeps the distances between pooled histories: a transformer's bare
last state is a poor user embedding. Training can only add to this, and weight decay pulls it back there.

The mixers are a transformer's attention over a window, or a gated linear recurrence; with either, everything
that the next chunk needs is a memory of constant size (see `sequence_mixers`, `sequence_memory`). The inner width
does not grow with d: d = 4096 costs one matrix [width, d] and one [d, I] more than d = 64.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from training.cpc import SAME_USER
from training.sequence_features import GAP_BUCKETS, MEAN_SCALE, PLACE_BUCKETS, RHYTHM
from training.sequence_mixers import MIXERS, GatedRecurrence, WindowAttention

WIDTH_CAP = 256


@dataclass(frozen=True)
class SequenceSettings:
    """Configuration of model and training; every field may stand in config.json.

    mixer: "recurrence" or "attention" over the last `window` chunks. For ablations: `pooled` False starts the state
    from random weights instead of the pooled history, `projector` False compares the state itself with the chunks,
    `time_features` False hides the gaps between chunks. `truncation` is the q of `cpc.generalised`; 0 is the plain
    InfoNCE.
    """

    dimension: int
    seed: int
    mixer: str = "recurrence"
    window: int = 64
    layers: int = 1
    heads: int = 4
    width: int = 128
    dropout: float = 0.1
    residual_weight: float = 0.15
    pooled: bool = True
    projector: bool = True
    time_features: bool = True
    temperature: float = 0.05
    truncation: float = 0.5
    same_user_negatives: str = "future"
    negatives_across_datadaos: bool = False
    matched_days: float = 30.0
    matched_share: float = 0.0
    ridge: float = 0.1
    steps: int = 60
    batch_chunks: int = 1024
    extra_keys: int = 512
    max_length: int = 256
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    evaluate_every: int = 20
    patience: int = 3

    @classmethod
    def of(cls, config: dict[str, Any]) -> "SequenceSettings":
        """From config.json; keys that are not settings (threads, …) are the job's. Raises ValueError."""
        names = {field.name for field in fields(cls)}
        if missing := sorted({"dimension", "seed"} - config.keys()):
            raise ValueError(f"config.json: missing {missing}")
        settings = cls(**{name: value for name, value in config.items() if name in names})
        if settings.dimension < 1 or settings.steps < 0 or settings.batch_chunks < 2:
            raise ValueError("config.json: dimension ≥ 1, steps ≥ 0 and batch_chunks ≥ 2 are needed")
        if not 0 <= settings.truncation <= 1:
            raise ValueError("config.json: truncation must be between 0 and 1")
        if settings.same_user_negatives not in SAME_USER:
            raise ValueError(f"config.json: same_user_negatives must be one of {SAME_USER}")
        if settings.mixer not in MIXERS:
            raise ValueError(f"config.json: mixer must be one of {MIXERS}")
        if settings.inner_width % settings.heads:
            raise ValueError(f"config.json: width {settings.inner_width} is no multiple of {settings.heads} heads")
        return settings

    @property
    def inner_width(self) -> int:
        """Width of the transformer: at most the state's dimension and `WIDTH_CAP`."""
        return min(self.width, self.dimension, WIDTH_CAP)


@dataclass(frozen=True)
class Inputs:
    """Packed states of whole histories (or pieces of them), one after the other.

    items [M, I], pools [M, I + D + 2], gaps and places [M] (codes), since [M]: place in the history or piece, from 0.
    """

    items: torch.Tensor
    pools: torch.Tensor
    gaps: torch.Tensor
    places: torch.Tensor
    since: torch.Tensor


class Block(nn.Module):
    """Pre-norm residual block: mixer over time, feed-forward over width (Radford et al. 2019)."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        width = settings.inner_width
        self.dropout = settings.dropout
        self.mixer_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer: WindowAttention | GatedRecurrence = (
            GatedRecurrence(width)
            if settings.mixer == "recurrence"
            else WindowAttention(width, settings.heads, settings.window, settings.dropout)
        )
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, hidden: torch.Tensor, since: torch.Tensor, last: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden [M, width] → the same, and the mixer's memory after the rows `last`."""
        mixed, memory = self.mixer(self.mixer_norm(hidden), since, last)
        return self._fed(hidden + self._drop(mixed)), memory

    def step(self, memory: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [B, width], one position further."""
        mixed, memory = self.mixer.step(memory, self.mixer_norm(hidden))
        return self._fed(hidden + mixed), memory

    def _fed(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self._drop(self.feed(self.feed_norm(hidden)))

    def _drop(self, values: torch.Tensor) -> torch.Tensor:
        return F.dropout(values, self.dropout) if self.training else values


class SequenceModel(nn.Module):
    """States c_t [.., dimension] and projections q_t [.., item_dimension]; see the module's formulas.

    `item_dimension` I and `person_dimension` D of `sequence_features.ItemSpace`.
    """

    def __init__(self, settings: SequenceSettings, item_dimension: int, person_dimension: int) -> None:
        super().__init__()
        width, dimension = settings.inner_width, settings.dimension
        self.settings, self.dimension = settings, dimension
        self.item_dimension, self.person_dimension = item_dimension, person_dimension
        pools = item_dimension + person_dimension + RHYTHM
        self.input = nn.Linear(2 * item_dimension, width)
        self.gap, self.place = nn.Embedding(GAP_BUCKETS, width), nn.Embedding(PLACE_BUCKETS, width)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, dimension)
        self.weight = nn.Parameter(torch.tensor(settings.residual_weight))
        self.projector = nn.Linear(dimension, item_dimension, bias=False)
        # What tells people apart is large in the state, for distances; the projector sees the mean at length two.
        scale = torch.ones(dimension)
        scale[item_dimension:pools] = MEAN_SCALE / 2
        self.register_buffer("scale", scale, persistent=False)
        nn.init.normal_(self.gap.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        if settings.pooled:
            self._start_at_the_baseline(beyond=dimension - pools)
        if not settings.projector:
            nn.init.zeros_(self.projector.weight)
            self.projector.requires_grad_(False)

    def _start_at_the_baseline(self, beyond: int) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        nn.init.zeros_(self.projector.weight)
        # Coordinates beyond the pools are zero at the start whatever the projector does with them; it must do
        # something, or no gradient would ever reach them.
        if beyond > 0:
            nn.init.normal_(self.projector.weight[:, -beyond:], std=self.dimension**-0.5)

    def forward(
        self, inputs: Inputs, last: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """States [M, dimension], and each block's memory after the rows `last` (None: not asked for)."""
        hidden, memories = self._embedded(inputs), []
        for block in self.blocks:
            hidden, memory = block(hidden, inputs.since, last)
            memories.append(memory)
        return self._states(inputs.pools, hidden), memories

    def step(self, memories: list[torch.Tensor], inputs: Inputs) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """States [B, dimension] of B users one position further, and their memories."""
        hidden, stepped = self._embedded(inputs), []
        for block, memory in zip(self._layers(), memories, strict=True):
            hidden, memory = block.step(memory, hidden)
            stepped.append(memory)
        return self._states(inputs.pools, hidden), stepped

    def fresh(self, users: int) -> list[torch.Tensor]:
        """Memories of users of whom nothing was read."""
        return [block.mixer.fresh(users) for block in self._layers()]

    def _layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """q_t [.., D] of states [.., dimension]: what to compare with chunks in the item space, by cosine."""
        scale = self.get_buffer("scale")
        return resized(states, self.item_dimension) + self.projector(states / scale)

    def _embedded(self, inputs: Inputs) -> torch.Tensor:
        baseline = inputs.pools[..., : self.item_dimension]
        scale = self.item_dimension**0.5  # unit vectors have components of 1/√D; layers want about 1
        hidden = self.input(torch.cat([inputs.items, baseline], dim=-1) * scale)
        return hidden + self.gap(inputs.gaps) + self.place(inputs.places) if self.settings.time_features else hidden

    def _states(self, pools: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        residual = self.weight * self.output(self.norm(hidden))
        return resized(pools, self.dimension) + residual if self.settings.pooled else residual


def resized(values: torch.Tensor, dimension: int) -> torch.Tensor:
    """The first `dimension` coordinates, with zeros after the last where there are fewer."""
    return F.pad(values, (0, dimension - values.shape[-1]))
