"""Supervised stage: Perceiver and injection learn to tell what a user says next; the decoder stays frozen.

    python -P -m training.supervised_decoder --inputs DIR --output DIR

Inputs: training.llm_inputs. Output: `personalised.json`, `model.safetensors` (training.personalised_inference),
`metrics.jsonl`, `job.json`, `manifest.json`. Of each task's four texts x_i, whose owners' tokens at that time are u_j,
with g_ij = mean over tokens of log p(x_i | u_j) - log p(x_i), nats:

    loss = ½ [CE_i(s·g_i·) + CE_j(s·g_·j)] - γ · mean_i log p(x_i | u_i)

which user wrote a text and which text a user wrote, both ways round (Radford et al. 2021, CLIP, section 2.3), and the
likelihood of the text itself (User-LLM section 3.3). A user is also asked about chunks just read (`recall_share`):
to say again what was said needs the same map from states to words as to say what comes next.
"""

import sys
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from training import lora, versions
from training.decoder import weights_hash
from training.job import Job, run
from training.llm_inputs import Choices, LLMInputs, Moment, tokens_of
from training.personalised_inference import save
from training.personalised_model import PersonalisedDecoder, Shape, trained_parameters
from training.user_states import StateHistories
from user_embeddings_dagster.keys import file_sha256

RUNTIME = {"threads", "device", "checkpoint_seconds", "decoder", "sequence_encoder", "personalised"}


@dataclass(frozen=True)
class Config:
    """Hyperparameters; `longest` tokens of a text are read, `axes` of the item space."""

    seed: int
    preset: str = "perceiver"
    injection: str = "cross_attention"
    tokens: int = 16
    width: int = 128
    perceiver_layers: int = 1
    heads: int = 4
    injected_layers: int = 1
    max_states: int = 16
    axes: int = 256
    rank: int = 8
    steps: int = 200
    batch_tasks: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    warmup_share: float = 0.1
    scale: float = 10.0
    generative: float = 0.3
    recall_share: float = 0.5
    recall_chunks: int = 4
    longest: int = 40
    cache_mb: int = 2048
    valid_tasks: int = 256
    validations: int = 4

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Config":
        """From config.json; an unknown key raises ValueError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known - RUNTIME):
            raise ValueError(f"config.json: unknown settings {unknown}")
        return cls(**{name: value for name, value in values.items() if name in known})

    def shape(self, dimension: int) -> Shape:
        """Sizes of the model over states of `dimension` axes."""
        names = {field.name for field in fields(Shape)} - {"state_dimension"}
        chosen = {name: value for name, value in asdict(self).items() if name in names}
        return Shape(state_dimension=min(self.axes, dimension), **chosen)


class SupervisedTraining:
    """Model and optimizer; what a resumed run needs is in `state`."""

    def __init__(self, config: Config, inputs: LLMInputs) -> None:
        self.config, self.inputs = config, inputs
        self.states = StateHistories.of(inputs.encoder, inputs.sequences)
        self.model = PersonalisedDecoder(inputs.decoder, config.shape(self.states.dimension)).to(inputs.device)
        self.model.prepare(
            self.states.every(inputs.users("train")).to(inputs.device), self.states.prior.to(inputs.device)
        )
        if config.preset == "lora":
            self.model.adapt_decoder(config.rank)
        self.trained = trained_parameters(self.model, config.preset, inputs.encoder.model)
        cached = {"longest": config.longest, "cache_mb": config.cache_mb if self.keeps_decoder else 0}
        self.train = Choices(inputs, self.model, inputs.choices("train"), **cached)
        valid = inputs.choices("valid")
        self.valid = Choices(inputs, self.model, valid.sample(min(config.valid_tasks, valid.height), seed=0), **cached)
        decayed = [weight for weight in self.trained.values() if weight.ndim >= 2]
        plain = [weight for weight in self.trained.values() if weight.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate, weight_decay=config.weight_decay,
        )  # fmt: skip

    @property
    def keeps_decoder(self) -> bool:
        """The preset trains nothing of the decoder: what it says of a text can be kept."""
        return self.config.preset in ("proj", "perceiver", "enc")

    def state(self) -> dict[str, Any]:
        """Trained weights and optimizer; batches and learning rate follow from the step alone."""
        weights = {name: weight.detach() for name, weight in self.trained.items()}
        return {"weights": weights, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step (1-based) on tasks drawn for it; its losses and learning rate."""
        config, generator = self.config, np.random.default_rng((self.config.seed, step))
        rate = config.learning_rate * lora.warmup_cosine(
            step, config.steps, max(1, round(config.warmup_share * config.steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = generator.integers(0, len(self.train), config.batch_tasks)
        self.model.train()
        contrast, likelihood = self._losses(rows, generator)
        loss = contrast - config.generative * likelihood
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), config.clip_norm)
        self.optimizer.step()
        return {"loss": float(loss.detach()), "contrast": float(contrast.detach()), "learning_rate": rate}

    def _losses(self, rows: np.ndarray, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Contrast, and mean log-likelihood of the owners' texts, of the tasks `rows`; nats."""
        options = self.train.options[rows]  # [B, k]
        n, k = options.shape
        moments = [self._later(moment, generator) for row in rows for moment in self.train.owners[row]]
        tokens = self.tokens(moments).unflatten(0, (n, 1, k))
        users = tokens.expand(n, k, *tokens.shape[2:]).flatten(0, 2)  # [B · k texts · k users, tokens, width]
        texts = options[:, :, None].expand(n, k, k).flatten()
        gains = self.train.texts.gains(self.model, users, texts).view(n, k, k)  # [task, text, user]
        own = torch.arange(k, device=gains.device).repeat(n)
        contrast = F.cross_entropy(self.config.scale * gains.flatten(0, 1), own) + F.cross_entropy(
            self.config.scale * gains.mT.flatten(0, 1), own
        )
        bare = self.train.texts.bare[options].to(gains.device)
        return contrast / 2, (torch.diagonal(gains, dim1=1, dim2=2) + bare).mean()

    def tokens(self, moments: list[Moment]) -> torch.Tensor:
        """User tokens [B, n, width]."""
        return tokens_of(self.model, self.states, moments, self.inputs.device)

    def _later(self, moment: Moment, generator: np.random.Generator) -> Moment:
        """The moment before a chunk; in `recall_share` of all cases one soon after it."""
        user, position = moment
        if generator.random() >= self.config.recall_share:
            return moment
        return user, min(self.states.length(user), position + 1 + int(generator.integers(self.config.recall_chunks)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Cross-entropy (nats) and accuracy of the choice on validation users; nothing without any."""
        self.model.eval()
        found = []
        for rows in torch.arange(len(self.valid)).split(16):
            picked = rows.tolist()
            moments = [self.valid.asked[row] for row in picked]
            found.append(self.valid.gains(self.model, self.states, moments, picked))
        if not found:
            return {}
        gains = torch.cat(found)
        loss = F.cross_entropy(self.config.scale * gains, self.valid.answers)
        right = (gains.argmax(1) == self.valid.answers).float().mean()
        return {"valid_loss": float(loss), "valid_accuracy": float(right)}


def train(job: Job) -> None:
    """Train, write the model, report; the decoder's weights are the same before and after unless the preset trains
    them."""
    config = Config.of(job.config)
    inputs = LLMInputs(job, job.seed())
    training = SupervisedTraining(config, inputs)
    before = weights_hash(training.model.decoder)
    if not len(training.train):
        raise ValueError("no training user has a task with options")
    kept = "kept" if training.train.texts.hidden is not None else "computed at each step"
    job.log(
        f"{len(training.train):,} training tasks, {sum(w.numel() for w in training.trained.values()):,} trained "
        f"weights, the frozen decoder's states {kept}"
    )
    checkpoint = job.resume()
    if checkpoint is not None:
        training.restore(checkpoint.state)
    every = max(1, config.steps // max(1, config.validations))
    for step in range((checkpoint.step if checkpoint else 0) + 1, config.steps + 1):
        values = training.validate() if step == 1 else {}
        values |= training.step(step)
        if step % every == 0 or step == config.steps:
            values |= training.validate()
        job.step(step, config.steps, training.state, **values)
    if config.preset != "full" and weights_hash(training.model.decoder) != before:
        raise ValueError("a frozen weight of the decoder has changed")
    finish(job, training, before)


def finish(job: Job, training: SupervisedTraining, frozen: str, **metadata: Any) -> None:
    """Write and report a trained model."""
    config, inputs = training.config, training.inputs
    save(
        job.result, training.model.eval(), training.trained, preset=config.preset, rank=config.rank,
        decoder=inputs.decoder_folder, sequence_encoder=inputs.encoder.version,
    )  # fmt: skip
    tasks = training.train.tasks
    measured: dict[str, Any] = {
        "preset": config.preset,
        "injection": config.injection,
        "trained_weights": sum(weight.numel() for weight in training.trained.values()),
        "user_tokens": config.tokens,
        "train_tasks": tasks.height,
        "train_users": tasks.select("datadao", "user_id").n_unique(),
        "valid_tasks": len(training.valid),
        "frozen_hash": frozen,
        "seed": config.seed,
        **training.validate(),
    }
    version = file_sha256(job.result / "model.safetensors")[:32]
    job.finish({**measured, **metadata, "version": version}, data_version=version, device=inputs.device)


if __name__ == "__main__":
    sys.exit(run("supervised_decoder", train, versions.SUPERVISED_DECODER))
