"""The reward stage's steps (training.personalised_decoder): answers drawn and judged, losses, validation, the voice."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from training import lora
from training.free_form import ANSWERS, JUDGES, FreeForm
from training.injection import CrossAttentionInjection
from training.job_config import JobConfig
from training.llm_inputs import Choices, LLMInputs, batches, tokens_of
from training.personalised_inference import TrainedLLM
from training.personalised_model import VOICE, PersonalisedDecoder, trained_parameters
from training.sampling import answer_log_likelihoods, answer_states, written
from training.user_states import StateHistories
from user_embeddings_dagster.personalisation.guards import Guards
from user_embeddings_dagster.personalisation.judges import Guarded


@dataclass(frozen=True)
class Config(JobConfig):
    """Hyperparameters; a step reads `batch_tasks` choices, and draws `samples` answers to `batch_questions` others."""

    seed: int
    judge: str = "similarity"
    guards: bool = True
    steps: int = 40
    samples: int = 4
    batch_tasks: int = 16
    batch_questions: int = 8
    learning_rate: float = 2e-4
    voice_rate: float = 2e-3
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    kl: float = 0.05
    choice_kl: float = 20.0
    scale: float = 20.0
    new_tokens: int = 24
    longest_question: int = 48
    longest: int = 40
    temperature: float = 0.8
    cache_mb: int = 2048
    valid_questions: int = 64
    voice_answers: int = 256

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise ValueError(f"config.json: judge {self.judge!r} is none of {sorted(JUDGES)}")


STRENGTHS = (1.0, 4.0, 16.0, 32.0)
"""Of the voice, that are tried; the least first. More of it earns more and is a list of the user's words."""


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards [B, K] less their group's mean, by its deviation."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True, unbiased=False) + 1e-4)


class RewardTraining:
    """The policy, the supervised policy that it is held to, and their optimizer."""

    def __init__(self, config: Config, inputs: LLMInputs, start: Path, threads: int) -> None:
        self.config, self.inputs = config, inputs
        llm = TrainedLLM.load(start, inputs.decoder_folder, inputs.device)
        reference = TrainedLLM.load(start, inputs.decoder_folder, inputs.device)
        self.described, self.encoder_weights = llm.described, llm.encoder_weights
        self.model, self.reference = llm.model, reference.model.requires_grad_(False)
        if self.described["preset"] == "full":
            raise ValueError("the reward stage moves adapters alone: train the supervised stage with another preset")
        self.states: StateHistories = llm.user_states(inputs.encoder, inputs.sequences)
        self.model.add_voice()
        preset = "perceiver" if self.described["preset"] == "enc" else self.described["preset"]
        self.trained = trained_parameters(self.model, preset, torch.nn.Identity())
        self.judge = JUDGES[config.judge](threads)
        self.guarded = Guarded(self.judge, Guards(max_tokens=config.new_tokens)) if config.guards else self.judge
        cached = {"longest": config.longest, "cache_mb": config.cache_mb}
        tasks = inputs.choices("train")
        tasks = tasks.sample(min(tasks.height, config.steps * config.batch_tasks), seed=config.seed)
        self.choices = Choices(inputs, self.model, tasks, **cached)
        asked = {name: getattr(config, name) for name in ("new_tokens", "temperature", "longest_question")}
        self.questions = FreeForm(inputs, inputs.free("train"), self.guarded, **asked)
        valid = inputs.free("valid").sample(fraction=1, shuffle=True, seed=0)
        self.valid = FreeForm(inputs, valid, self.guarded, **asked)
        self.validated = min(config.valid_questions, len(self.valid))
        voice = [weight for name, weight in self.trained.items() if name.startswith(f"model.{VOICE}")]
        others = [weight for name, weight in self.trained.items() if not name.startswith(f"model.{VOICE}")]
        self.rates = (config.learning_rate, config.voice_rate)
        self.optimizer = torch.optim.AdamW([{"params": others}, {"params": voice}], weight_decay=0.0)
        self.strength = 1.0

    def state(self) -> dict[str, Any]:
        """Trained weights and optimizer; the generators are the checkpoint's own."""
        weights = {name: weight.detach() for name, weight in self.trained.items()}
        state = {"weights": weights, "optimizer": self.optimizer.state_dict(), "strength": self.strength}
        return state | {"objections": dict(self.objections)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.strength = state["strength"]
        self.objections.clear()
        self.objections.update(state["objections"])

    @property
    def objections(self) -> Counter[str]:
        """What the guards objected to, and how often, in all answers drawn, those of validation among them."""
        return self.guarded.objections if isinstance(self.guarded, Guarded) else Counter()

    @torch.no_grad()
    def find_voice(self) -> dict[str, float]:
        """Speak as strongly as validation users' questions reward, `voice_answers` of them at each strength: the least
        whose mean reward is within one standard error of the best (Hastie et al. 2009, section 7.10). The rewards, by
        strength; nothing with a soft prompt, which has no strength, or where nobody is asked.
        """
        late = isinstance(self.model.voice, CrossAttentionInjection)
        if not late or not len(self.valid) or not self.config.voice_answers:
            return {}
        self.model.eval()
        rows = torch.arange(self.config.voice_answers).remainder(len(self.valid)).tolist()
        rewards = np.array([self._spoken(strength, rows) for strength in STRENGTHS])  # [strengths, answers]
        apart = rewards[rewards.mean(1).argmax()] - rewards
        enough = apart.mean(1) <= apart.std(1) / len(rows) ** 0.5
        self._speak(STRENGTHS[int(enough.argmax())])
        return {f"reward_at_{strength:g}": float(of.mean()) for strength, of in zip(STRENGTHS, rewards, strict=True)}

    def _speak(self, strength: float) -> None:
        """Add so many times what the supervised policy adds where the decoder speaks as a user."""
        if isinstance(self.model.voice, CrossAttentionInjection):
            self.model.voice.scale(strength / self.strength)
            self.strength = strength

    def _spoken(self, strength: float, rows: list[int]) -> np.ndarray:
        """Rewards of answers to the validation questions `rows`, by the same draws at every strength."""
        self._speak(strength)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            parts = (rows[part[0] : part[-1] + 1] for part in batches(len(rows), ANSWERS))
            drawn = [
                self.valid.draw(self.model, self._tokens(self.model, [self.valid.asked[row] for row in part]), part)
                for part in parts
            ]
        return np.concatenate([each.rewards for each in drawn])

    def step(self, step: int) -> dict[str, float]:
        """One update (1-based) on answers drawn now; rewards, KL (nats) and learning rate."""
        config = self.config
        share = lora.warmup_cosine(step, config.steps, max(1, round(config.warmup_share * config.steps)))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        values: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        parts = (("choice", self._choices, config.choice_kl), ("answer", self._answers, config.kl))
        for name, part, weight in parts:
            generator = np.random.default_rng((config.seed, step, len(name)))
            found = part(generator)
            if found is not None:
                policy, kl, reward = found
                (policy + weight * kl).backward()
                values |= {f"{name}_reward": reward, f"{name}_kl": float(kl.detach())}
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], config.clip_norm)
        self.optimizer.step()
        rewards = [value for name, value in values.items() if name.endswith("_reward")]
        return {**values, "loss": -sum(rewards) / len(rewards), "learning_rate": config.learning_rate * share}

    def _tokens(self, model: PersonalisedDecoder, moments: list[Any]) -> torch.Tensor:
        return tokens_of(model, self.states, moments, self.inputs.device)

    def _choices(self, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Policy loss, KL and mean reward of choices."""
        if not len(self.choices):
            return None
        rows = generator.integers(0, len(self.choices), self.config.batch_tasks)
        options = self.choices.options[rows]
        moments = [self.choices.asked[row] for row in rows]

        def log_policy(model: PersonalisedDecoder) -> torch.Tensor:
            users = self._tokens(model, moments).repeat_interleave(options.shape[1], 0)
            gains = self.choices.texts.gains(model, users, options.flatten()).view(options.shape)
            return (self.config.scale * gains).log_softmax(1)

        policy = log_policy(self.model)  # [B, options]
        with torch.no_grad():
            supervised = log_policy(self.reference)
        right = self.choices.answers[rows].to(policy.device)[:, None]
        expected = policy.exp().gather(1, right).mean()
        kl = F.kl_div(supervised, policy, log_target=True, reduction="batchmean")
        return -expected, kl, float(expected.detach())

    def _answers(self, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Policy loss, KL and mean reward of free-form answers."""
        if not len(self.questions):
            return None
        rows = generator.integers(0, len(self.questions), self.config.batch_questions).repeat(self.config.samples)
        moments = [self.questions.asked[row] for row in rows]
        with torch.no_grad():
            users = self._tokens(self.model, moments)
            drawn = self.questions.draw(self.model, users, rows.tolist())
            states = answer_states(self.model, drawn.ids, drawn.mask, drawn.answers)
            read = (drawn.ids, drawn.mask, drawn.answers, self.config.temperature, states)
            supervised = answer_log_likelihoods(self.reference, self._tokens(self.reference, moments), *read)
        policy = answer_log_likelihoods(self.model, users, *read)
        counted = written(drawn.answers, self.questions.ends).float()
        rewards = torch.from_numpy(drawn.rewards).float().to(policy.device)
        advantage = advantages(rewards.view(-1, self.config.samples)).flatten()
        lengths = counted.sum(1).clamp(min=1)
        loss = -(advantage * (policy * counted).sum(1) / lengths).mean()
        apart = supervised - policy
        kl = (((apart.exp() - apart - 1) * counted).sum(1) / lengths).mean()
        return loss, kl, float(rewards.mean())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean judge score of an answer to each of some validation questions, by the same draws every time; and as a
        loss with the other sign."""
        if not len(self.valid):
            return {}
        self.model.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            rows = list(range(self.validated))
            drawn = self.valid.draw(self.model, self._tokens(self.model, self.valid.asked[: self.validated]), rows)
        reward = float(drawn.rewards.mean())
        return {"valid_reward": reward, "valid_loss": -reward}
