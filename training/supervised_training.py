"""The supervised stage's steps (training.supervised_decoder): tasks drawn, losses, validation, the weights kept."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from training import lora
from training.discriminant import SIZES, discriminant
from training.injection import CrossAttentionInjection
from training.job_config import JobConfig
from training.llm_inputs import Choices, LLMInputs, Moment, batches, tokens_of
from training.personalised_model import PersonalisedDecoder, Shape, trained_parameters
from training.user_states import StateHistories, TrainedHistories
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION

SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)
"""Shares of what the best weights add that are tried, the least first."""
MIN_AXES, MAX_AXES, TASKS_PER_AXIS = 16, 128, 12
"""The fewer tasks, the fewer axes of a state can be told from noise: docs/personalised_llm.md has the figures."""


@dataclass(frozen=True)
class Config(JobConfig):
    """Hyperparameters; `longest` tokens of a text are read, `axes` of the item space (None: by the number of tasks).

    With `discriminant` the training begins with the linear one wherever it can.
    """

    seed: int
    preset: str = "perceiver"
    injection: str = "cross_attention"
    tokens: int = 16
    width: int = 128
    perceiver_layers: int = 1
    heads: int = 4
    injected_layers: int = 1
    max_states: int = 16
    axes: int | None = None
    discriminant: bool = True
    dropout: float = 0.5
    rank: int = 8
    steps: int = 300
    batch_tasks: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    warmup_share: float = 0.1
    scale: float = 20.0
    size_penalty: float = 3.0
    contribution_share: float = 0.7
    recall_share: float = 0.5
    recall_chunks: int = 4
    longest: int = 40
    cache_mb: int = 2048
    valid_tasks: int = 512
    validations: int = 3

    def shape(self, dimension: int, contributions: int) -> Shape:
        """Sizes of the model over states of `dimension` axes, for so many training tasks about what SUBJECT writes."""
        names = {field.name for field in fields(Shape)} - {"state_dimension"}
        chosen = {name: value for name, value in asdict(self).items() if name in names}
        axes = self.axes or min(MAX_AXES, max(MIN_AXES, contributions // TASKS_PER_AXIS))
        return Shape(state_dimension=min(axes, dimension), **chosen)


class SupervisedTraining:
    """Model and optimizer; what a resumed run needs is in `state`."""

    def __init__(self, config: Config, inputs: LLMInputs) -> None:
        self.config, self.inputs = config, inputs
        trains_encoder = config.preset in ("enc", "full")
        histories = TrainedHistories if trains_encoder else StateHistories.of
        self.states = histories(inputs.encoder, inputs.sequences)
        self.tasks = inputs.choices("train")
        self.contributions = np.flatnonzero((self.tasks["kind"] == CONTRIBUTION).to_numpy())
        shape = config.shape(self.states.dimension, len(self.contributions))
        self.model = PersonalisedDecoder(inputs.decoder, shape).to(inputs.device)
        states = self.states.every(inputs.users("train")).to(inputs.device)
        self.model.prepare(states, self.states.prior.to(inputs.device), config.preset)
        if config.preset == "lora":
            self.model.adapt_decoder(config.rank)
        self.trained = trained_parameters(self.model, config.preset, inputs.encoder.model)
        # Of a decoder that is trained itself, what it says of a text changes from step to step.
        cached = {"longest": config.longest, "cache_mb": 0 if config.preset == "full" else config.cache_mb}
        self.read = self._read()
        self.train = Choices(inputs, self.model, self.tasks[self.read], **cached)
        valid = inputs.choices("valid")
        self.valid = Choices(inputs, self.model, valid.sample(min(config.valid_tasks, valid.height), seed=0), **cached)
        self.best: tuple[float, dict[str, torch.Tensor]] | None = None
        decayed = [weight for weight in self.trained.values() if weight.ndim >= 2]
        plain = [weight for weight in self.trained.values() if weight.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate, weight_decay=config.weight_decay,
        )  # fmt: skip

    def _read(self) -> np.ndarray:
        """Rows of the tasks that the discriminant reads, or a step draws; no other is looked at."""
        if self.tasks.is_empty():
            return np.zeros(0, dtype=np.int64)
        drawn = [self._drawn(np.random.default_rng((self.config.seed, step + 1))) for step in range(self.config.steps)]
        return np.unique(np.concatenate([self._discriminated(), *drawn]))

    def _discriminated(self) -> np.ndarray:
        """Rows of the tasks about what SUBJECT writes; of all, if there are none."""
        return self.contributions if len(self.contributions) else np.arange(self.tasks.height)

    def begin(self) -> dict[str, float]:
        """Begin with the discriminant of training users' items (training.discriminant), of the size that costs
        validation users least; its validation loss. Not by setting, or where texts have no slopes, the Perceiver stays,
        or nobody validates."""
        begins = self.config.discriminant and self.config.preset != "proj" and len(self.valid)
        if not begins or self.train.texts.slopes is None:
            return {}
        rows = np.searchsorted(self.read, self._discriminated())
        options = self.train.options[rows]
        slopes = self.train.texts.mean_slopes(self.model, options.flatten()).unflatten(0, options.shape)
        items = self._items([moment for row in rows for moment in self.train.owners[row]]).unflatten(0, options.shape)
        weights = discriminant(items, slopes).to(self.inputs.device)
        found = {}
        for size in SIZES:
            self.model.begin_with(size * weights)
            found[size] = self.validated()
        best = min(found, key=lambda size: found[size]["valid_loss"])
        self.model.begin_with(best * weights)
        return {"begin_size": best, **{f"begin_{name}": value for name, value in found[best].items()}}

    @torch.no_grad()
    def _items(self, moments: list[Moment]) -> torch.Tensor:
        """Item vectors [n, d] of the chunks that follow these moments, scaled as the Perceiver reads states."""
        items = StateHistories.items(self.inputs.encoder, self.inputs.sequences)
        found = []
        for rows in batches(len(moments), 256):
            those = [moments[row] for row in rows]
            read = items.batch([user for user, _ in those], [n + 1 for _, n in those], 1)
            found.append(self.model.mean_state(*(part.to(self.inputs.device) for part in read)))
        return torch.cat(found).cpu()

    def state(self) -> dict[str, Any]:
        """Trained weights and optimizer; batches and learning rate follow from the step alone."""
        weights = {name: weight.detach() for name, weight in self.trained.items()}
        loss, best = self.best or (math.inf, weights)
        return {"weights": weights, "optimizer": self.optimizer.state_dict(), "best": best, "best_loss": loss}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self._set(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = (state["best_loss"], state["best"]) if state["best_loss"] < math.inf else None

    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(weights[name])

    def validated(self) -> dict[str, float]:
        """`validate`, and the weights are remembered if none before were better."""
        values = self.validate()
        if values and values["valid_loss"] < (self.best[0] if self.best else math.inf):
            self.best = (values["valid_loss"], {name: w.detach().clone() for name, w in self.trained.items()})
        return values

    def take_best(self) -> float:
        """Go back to the best weights, and add the least share of what they add whose validation loss is within one
        standard error of theirs (Hastie et al. 2009, section 7.10): it changes the decoder least elsewhere.

        Returns the share. Without validation users the last weights stay, and a soft prompt adds nothing to shrink.
        """
        if not self.best:
            return 1.0
        self._set(self.best[1])
        if not isinstance(self.model.injection, CrossAttentionInjection):
            return 1.0
        losses = self._valid_losses()[0]
        most, taken = losses.mean() + losses.std() / len(losses) ** 0.5, 1.0
        for share in SHARES:
            self.model.injection.scale(share / taken)
            taken = share
            if self._valid_losses()[0].mean() <= most:
                break
        return taken

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step (1-based) on tasks drawn for it; its losses and learning rate."""
        config, generator = self.config, np.random.default_rng((self.config.seed, step))
        rate = config.learning_rate * lora.warmup_cosine(
            step, config.steps, max(1, round(config.warmup_share * config.steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = np.searchsorted(self.read, self._drawn(generator))
        self.model.train()
        contrast, size = self._losses(rows, generator)
        loss = contrast + config.size_penalty * size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), config.clip_norm)
        self.optimizer.step()
        return {"loss": float(loss.detach()), "contrast": float(contrast.detach()), "learning_rate": rate}

    def _drawn(self, generator: np.random.Generator) -> np.ndarray:
        """Rows of one step's tasks: `contribution_share` of them about what SUBJECT writes, the others of any kind."""
        rows = generator.integers(0, self.tasks.height, self.config.batch_tasks)
        if len(self.contributions):
            chosen = generator.random(len(rows)) < self.config.contribution_share
            rows[chosen] = generator.choice(self.contributions, int(chosen.sum()))
        return rows

    def _losses(self, rows: np.ndarray, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Contrast (nats) of the tasks `rows`, and mean square of what is added, relative to the stream."""
        options = self.train.options[rows]  # [B, k]
        n, k = options.shape
        moments = [self._later(moment, generator) for row in rows for moment in self.train.owners[row]]
        tokens = self.tokens(moments).unflatten(0, (n, 1, k))
        users = tokens.expand(n, k, *tokens.shape[2:]).flatten(0, 1)  # [n · k texts, k users, tokens, width]
        if self.train.texts.slopes is None:
            gains = self.train.texts.gains(self.model, users.flatten(0, 1), options.flatten().repeat_interleave(k))
            size = users.new_zeros(1)
        else:
            gains, size = self.train.texts.linear_gains(self.model, users, options.flatten())
        gains = self.config.scale * gains.view(n, k, k)  # [task, text, user]
        own = torch.arange(k, device=gains.device).repeat(n)
        contrast = F.cross_entropy(gains.flatten(0, 1), own) + F.cross_entropy(gains.mT.flatten(0, 1), own)
        return contrast / 2, size.mean()

    def tokens(self, moments: list[Moment]) -> torch.Tensor:
        """User tokens [B, n, width]."""
        return tokens_of(self.model, self.states, moments, self.inputs.device)

    def _later(self, moment: Moment, generator: np.random.Generator) -> Moment:
        """The moment before a chunk; in `recall_share` of all cases one soon after it."""
        return moment if generator.random() >= self.config.recall_share else self._soon_after(moment, generator)

    def _soon_after(self, moment: Moment, generator: np.random.Generator) -> Moment:
        user, position = moment
        return user, min(self.states.length(user), position + 1 + int(generator.integers(self.config.recall_chunks)))

    def validate(self) -> dict[str, float]:
        """Cross-entropy (nats) and accuracy of the choice on validation users; nothing without any."""
        if not len(self.valid):
            return {}
        losses, right = self._valid_losses()
        return {"valid_loss": float(losses.mean()), "valid_accuracy": float(right.mean())}

    @torch.no_grad()
    def _valid_losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy [n] of each validation task, and whether it is answered right [n]."""
        self.model.eval()
        found = []
        for picked in batches(len(self.valid), 16):
            moments = [self.valid.asked[row] for row in picked]
            found.append(self.valid.gains(self.model, self.states, moments, picked))
        gains = torch.cat(found)
        losses = F.cross_entropy(self.config.scale * gains, self.valid.answers, reduction="none")
        return losses, (gains.argmax(1) == self.valid.answers).float()
