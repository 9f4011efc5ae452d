"""The personalised decoder: a user's states through Perceiver and injection into a frozen decoder.

What is trained is a preset (User-LLM section 3.3 and table 5; "perceiver" and "enc" are the seed document's own):

    proj        the projector and the gates alone
    perceiver   Perceiver and injection (default)
    enc         and the sequence encoder
    lora        Perceiver and injection, and low-rank adapters on the decoder
    full        Perceiver, injection, sequence encoder and every weight of the decoder
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from training import lora
from training.decoder import head_of, mean_log_likelihoods, token_log_likelihoods
from training.injection import CrossAttentionInjection, SoftPrompt, layers_of, spread
from training.perceiver import Perceiver

PRESETS = ("proj", "perceiver", "enc", "lora", "full")
INJECTIONS = ("cross_attention", "soft_prompt")
VOICE = "voice."
"""How the names of the voice's weights begin (`PersonalisedDecoder.voice`)."""
_ATTENTION = re.compile(r"attn|attention")


@dataclass(frozen=True)
class Shape:
    """Sizes of what is between states and decoder.

    The Perceiver reads the first `state_dimension` axes of a user's last `max_states` states; in training it reads
    `dropout` of them as the mean.
    """

    state_dimension: int
    tokens: int = 16
    width: int = 128
    perceiver_layers: int = 1
    heads: int = 4
    injected_layers: int = 1
    injection: str = "cross_attention"
    max_states: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown injection, or heads that do not divide the width."""
        if self.injection not in INJECTIONS:
            raise ValueError(f"injection must be one of {INJECTIONS}")
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


class PersonalisedDecoder(nn.Module):
    """Perceiver and injection as submodules; the decoder is held beside, its weights are not this module's."""

    def __init__(self, decoder: Any, shape: Shape) -> None:
        super().__init__()
        self.shape, self._decoder = shape, [decoder]
        self.perceiver = Perceiver(
            shape.state_dimension, shape.width, shape.tokens, shape.perceiver_layers, shape.heads, shape.dropout
        )
        self.register_buffer("prior", torch.zeros(shape.state_dimension))
        self.perceived = nn.Linear(shape.width, shape.width, bias=False)
        nn.init.eye_(self.perceived.weight)
        self.direct = nn.Linear(shape.state_dimension, shape.width, bias=False)
        nn.init.zeros_(self.direct.weight)
        places = spread(decoder.config.num_hidden_layers, shape.injected_layers)
        self.injection: CrossAttentionInjection | SoftPrompt = (
            CrossAttentionInjection(decoder, shape.width, places, shape.heads)
            if shape.injection == "cross_attention"
            else SoftPrompt(decoder, shape.width)
        )
        self.voice: CrossAttentionInjection | SoftPrompt | None = None

    @property
    def decoder(self) -> Any:
        """The decoder, with low-rank adapters where the preset has them."""
        return self._decoder[0]

    def adapt_decoder(self, rank: int) -> None:
        """Put low-rank adapters on every linear layer of the decoder's attention (preset "lora").

        Raises ValueError for an architecture whose attention goes by another name.
        """
        self._decoder[0] = lora.attach(self.decoder, rank, 2 * rank, attention_layers(self.decoder), None)

    def add_voice(self) -> None:
        """Give the decoder an injection of its own for what it writes as a user; at first a copy of that which it reads
        with. What is said about a user, and any other question, stays as it was, whatever the voice is trained to."""
        self.voice = copy.deepcopy(self.injection)

    @property
    def speaking(self) -> CrossAttentionInjection | SoftPrompt:
        """The injection with which the decoder writes as a user: the voice, or where there is none as it reads."""
        return self.injection if self.voice is None else self.voice

    @property
    def is_adapted(self) -> bool:
        """The decoder has low-rank adapters."""
        return hasattr(self.decoder, "disable_adapter")

    @contextmanager
    def bare(self) -> Iterator[Any]:
        """The bare decoder, within: without its adapters. Of preset "full", the decoder as it was trained."""
        with self.decoder.disable_adapter() if self.is_adapted else nullcontext():
            yield self.decoder

    def prepare(self, states: torch.Tensor, prior: torch.Tensor, preset: str) -> None:
        """Before training: scale of training users' states [n, d], the population's prior [d], and gates opened, unless
        what they gate stays as it is (preset "proj")."""
        read = self.shape.state_dimension
        self.perceiver.fit_scale(states[:, :read])
        self.get_buffer("prior").copy_(prior[:read])
        if isinstance(self.injection, CrossAttentionInjection) and preset != "proj":
            self.injection.open()

    @torch.no_grad()
    def begin_with(self, weights: torch.Tensor) -> None:
        """Add x · W to the last layer's stream, in units of rms(h), and nothing else; x is `mean_state`, and
        W [state_dimension, hidden] `weights`.

        All user tokens are then alike, and whatever is attended to is their value. Of W's rank, `width` is kept.
        """
        if not isinstance(self.injection, CrossAttentionInjection):
            raise ValueError("a soft prompt adds nothing to the last layer")
        block, width = self.injection.last, self.shape.width
        left, sizes, right = torch.linalg.svd(weights, full_matrices=False)
        rank = min(width, len(sizes))
        root = sizes[:rank].sqrt()
        values = torch.zeros(width, weights.shape[0], device=weights.device)
        values[:rank] = (left[:, :rank] * root).T
        into = block.value.weight @ self.injection.projector.weight
        self.direct.weight.copy_(torch.linalg.solve(into, values))
        self.perceived.weight.zero_()
        block.output.weight.zero_()
        block.output.weight[:, :rank] = (root[:, None] * right[:rank]).T / block.gates.tanh()[:, None]

    def user_tokens(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens [B, tokens, width] of B users; states [B, T, d], mask [B, T].

        What the Perceiver finds is the difference to the population's, and the linear reading is of the user's own
        states: of whom nothing is known, the bare decoder speaks.
        """
        prior, states = self.get_buffer("prior"), states[..., : self.shape.state_dimension]
        everybody = self.perceiver(prior[None, None], torch.ones(1, 1, dtype=torch.bool, device=prior.device))
        found = self.perceived(self.perceiver(states, mask) - everybody)
        return found + self.direct(self.perceiver.dropout(self.mean_state(states, mask)))[:, None]

    def mean_state(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mean [B, d] of users' own states as the Perceiver reads them; 0 of the population's mean, and of nobody's."""
        states = states[..., : self.shape.state_dimension]
        own = (mask & (states != self.get_buffer("prior")).any(-1))[..., None]
        return (self.perceiver.scaled(states) * own).sum(1) / own.sum(1).clamp(min=1)

    @property
    def is_late(self) -> bool:
        """Nothing of the decoder but its head lies above the injection: what lies below can be computed once."""
        last = len(layers_of(self.decoder)) - 1
        return isinstance(self.injection, CrossAttentionInjection) and self.injection.places == (last,)

    def late_log_likelihoods(
        self, users: torch.Tensor, hidden: torch.Tensor, ids: torch.Tensor, counted: torch.Tensor
    ) -> torch.Tensor:
        """`log_likelihoods` [B, L] of the `counted` [B, L] tokens (0 for others) of a late injection.

        `hidden` [B, L, D] is what the bare decoder's last layer says to ids[:, :-1].
        """
        if not isinstance(self.injection, CrossAttentionInjection):
            raise ValueError("a soft prompt is read by every layer")
        written = self.injection.last(hidden, self.injection.tokens(users))
        logits = head_of(self.decoder)(written[counted]).float()
        values = -F.cross_entropy(logits, ids[:, 1:][counted], reduction="none")
        return torch.zeros(counted.shape, device=values.device).masked_scatter(counted, values)

    @contextmanager
    def written_for(self, users: torch.Tensor, speaking: bool = False) -> Iterator[Any]:
        """The decoder, within: row b of each batch is written for the user tokens `users` [B, n, width]; `speaking`: in
        their voice."""
        injection = self.speaking if speaking else self.injection
        if isinstance(injection, SoftPrompt):
            raise ValueError("a soft prompt is part of the input: use log_likelihoods, or training.sampling")
        with injection.bound(self.decoder, users):
            yield self.decoder

    def log_likelihoods(self, users: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
        """log p [B, L - 1] of each token of `ids` [B, L] after the first, for users (None: by the bare decoder)."""
        if users is None:
            with self.bare() as decoder:
                return token_log_likelihoods(decoder, ids)
        if isinstance(self.injection, SoftPrompt):
            return self._after_soft_prompt(self.injection.tokens(users), ids)
        with self.written_for(users):
            return token_log_likelihoods(self.decoder, ids)

    def _after_soft_prompt(self, prompt: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        embedded = self.decoder.get_input_embeddings()(ids[:, :-1])
        inputs = torch.cat([prompt.to(embedded.dtype), embedded], dim=1)
        logits = self.decoder(inputs_embeds=inputs).logits[:, prompt.shape[1] :].float()
        return logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)

    def option_scores(
        self, users: torch.Tensor | None, ids: torch.Tensor, counted: torch.Tensor, options: int
    ) -> torch.Tensor:
        """Mean log-likelihood [tasks, options] of each option's tokens; rows of `ids` are task by task."""
        repeated = None if users is None else users.repeat_interleave(options, 0)
        return mean_log_likelihoods(self.log_likelihoods(repeated, ids), counted).view(-1, options)


def attention_layers(decoder: Any) -> list[str]:
    """Names, within a layer, of the linear layers of a decoder's attention. Raises ValueError where none is found."""
    from transformers.pytorch_utils import Conv1D

    linear = {
        name
        for layer in layers_of(decoder)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _ATTENTION.search(name.rpartition(".")[0])
    }
    if not linear:
        raise ValueError(f"{type(decoder).__name__}: no part of its layers is called attention")
    return sorted(linear)


def trained_parameters(model: PersonalisedDecoder, preset: str, encoder: nn.Module) -> dict[str, nn.Parameter]:
    """What the preset trains, by name; everything else is frozen by this call.

    Raises ValueError on another preset, and on "lora" before `adapt_decoder`.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}")
    if preset == "lora" and not any(lora.MARK in name for name, _ in model.decoder.named_parameters()):
        raise ValueError('preset "lora": the decoder has no low-rank adapters; adapt_decoder puts them there')
    parts = {"model": model, "encoder": encoder, "decoder": model.decoder}
    every = {f"{part}.{name}": weight for part, module in parts.items() for name, weight in module.named_parameters()}
    chosen = {name: weight for name, weight in every.items() if _is_trained(name, preset)}
    for name, weight in every.items():
        weight.requires_grad_(name in chosen)
    return dict(sorted(chosen.items()))


def _is_trained(name: str, preset: str) -> bool:
    part = name.partition(".")[0]
    if part == "model":
        return preset != "proj" or ".projector." in name or name.endswith(".gates")
    if part == "encoder":
        return preset in ("enc", "full")
    return preset == "full" or (preset == "lora" and lora.MARK in name)
