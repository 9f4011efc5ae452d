"""Item encoder: LoRA on the chunk path of a frozen text encoder, so that a masked chunk lands on its summary.

    python -P -m training.item_encoder --inputs DIR --output DIR

`<inputs>/pairs.parquet` (see item_data.load) and `<inputs>/config.json` (see Config). Targets are the frozen
summary vectors: the loss of a chunk depends on no other chunk's encoding, so a batch runs in small
token-budget pieces with the exact gradient, however many candidates it has. The result holds the adapter
as PEFT reads it, `encoder.json`, `metrics.jsonl`; TextEncoder(base, adapter=<output>) is the trained encoder.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import item_data, lora, versions
from training.frozen_layers import ActivationCache, FrozenLayers
from training.item_data import Candidates, Pairs
from training.job import Job, run
from training.job_config import JobConfig
from training.losses import info_nce
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import ENCODER, adapter_hash, encoder_version


@dataclass(frozen=True)
class Config(JobConfig):
    """Hyperparameters. Steps are optimizer steps; `margin` as in mining; `patience` counts validations.

    `cache_layers`: run the layers below the adapters (`top_layers` given) apart, in half precision, and keep what
    they compute if the training sees a pair more than once and the file stays within `cache_mb` (10^6 bytes; a pair
    of 145 tokens takes 0.11 in MiniLM). Validation is in float32 through all layers either way.
    """

    seed: int
    base: str = "minilm"
    max_tokens: int = 256
    steps: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 0.05
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] = ("dense", "key", "query", "value")
    top_layers: int | None = None
    cache_layers: bool = True
    cache_mb: int = 4096
    margin: float = 0.95
    negatives: int = 2
    validations: int = 4
    valid_pairs: int = 128
    patience: int = 2
    tokens_per_batch: int = 1024

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Config":
        """As JobConfig.of. Raises ValueError on settings of a private training too, which the item encoder has not."""
        if private := sorted(key for key in values if key.startswith("dp_")):
            raise ValueError(
                f"config.json: {private}: the item encoder has no private training; its negatives are other users' "
                f"summaries, so that clipping would bound nobody's influence and ε would be false"
            )
        if "target_modules" in values:
            values = {**values, "target_modules": tuple(values["target_modules"])}
        return super().of(values)


class ItemTraining:
    """Model, optimizer and the best adapter so far; everything that a resumed run needs is in `state`."""

    def __init__(self, config: Config, device: str) -> None:
        self.config = config
        self.device = device
        self.folder = base_model.model_folder(config.base)
        self.tokenizer = base_model.load_tokenizer(self.folder)
        self.model = lora.attach(
            base_model.load_model(self.folder),
            config.rank,
            config.alpha,
            list(config.target_modules),
            config.top_layers,
        ).to(device)
        self.weights = lora.trainable(self.model)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.best: dict[str, Any] = {"loss": None, "step": 0, "weights": {}}
        self.stale = 0
        depth = self.model.config.num_hidden_layers
        below = depth - (config.top_layers or depth)
        self.frozen = FrozenLayers(self.model, below) if config.cache_layers and below else None
        self.cache: ActivationCache | None = None

    def caches(self, pairs: Pairs) -> bool:
        """Whether a training on these pairs keeps the frozen layers' activations."""
        config = self.config
        size = ActivationCache.bytes(pairs.lengths, self.model.config.hidden_size)
        seen_again = config.steps * config.batch_size > len(pairs.queries)
        return self.frozen is not None and seen_again and size <= config.cache_mb * 10**6

    def build_cache(self, pairs: Pairs, path: Path) -> None:
        """Keep the activations of these pairs' chunks in the file, for `step`; found there, they are read."""
        assert self.frozen is not None
        budget, pad = self.config.tokens_per_batch, self.tokenizer.pad_token_id
        self.cache = ActivationCache.build(path, pairs.tokens, self.frozen, pad, budget)

    def state(self) -> dict[str, Any]:
        """Adapter, optimizer, best adapter. Batches, negatives and learning rate follow from the step
        alone."""
        return {
            "weights": {name: weight.data for name, weight in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "stale": self.stale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.stale = state["best"], state["stale"]

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Set the adapter."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(weights[name])

    def encode(self, pairs: Pairs, rows: np.ndarray, split: bool = False) -> torch.Tensor:
        """Unit vectors [len(rows), d] of the rows' chunks; `split`: the frozen layers apart, or from the cache."""
        ids, mask = base_model.padded([pairs.tokens[row] for row in rows], self.tokenizer.pad_token_id)
        ids, mask = ids.to(self.device), mask.to(self.device)
        replay: Any = nullcontext()
        if split and self.frozen:
            states = self.cache.padded(rows) if self.cache else self.frozen.states(ids, mask)
            replay = self.frozen.replay(states)
        with replay:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return base_model.mean_pool(hidden, mask)

    def pieces(self, pairs: Pairs, rows: np.ndarray) -> Iterable[np.ndarray]:
        """Positions in `rows`, in pieces that fit the token budget."""
        return base_model.token_budget_batches(pairs.lengths[rows], self.config.tokens_per_batch)

    def loss(self, vectors: torch.Tensor, over: Candidates, piece: np.ndarray) -> torch.Tensor:
        """InfoNCE of each row of a piece over the step's candidates [len(piece)]."""
        return info_nce(
            vectors,
            over.vectors.to(self.device),
            over.positives[piece].to(self.device),
            over.allowed[piece].to(self.device),
            self.config.temperature,
        )

    def step(self, pairs: Pairs, step: int) -> dict[str, float]:
        """One optimizer step (1-based); its mean loss, gradient norm, learning rate and candidates per
        query."""
        config = self.config
        rows = pairs.queries[item_data.batch_rows(len(pairs.queries), config.batch_size, config.seed, step - 1)]
        over = item_data.candidates(pairs, rows, config.negatives, config.seed, step - 1)
        rate = config.learning_rate * lora.warmup_cosine(
            step, config.steps, max(1, round(config.warmup_share * config.steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for piece in self.pieces(pairs, rows):
            loss = self.loss(self.encode(pairs, rows[piece], split=True), over, piece).sum() / len(rows)
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), config.clip_norm)
        self.optimizer.step()
        competing = over.allowed.sum(1).double()
        return {
            "loss": total,
            "gradient_norm": float(norm),
            "learning_rate": rate,
            "candidates": float(competing.mean()),
            "ln_candidates": float(competing.log().mean()),
        }

    @torch.no_grad()
    def validate(self, pairs: Pairs) -> dict[str, float]:
        """Loss, recall@1 and MRR of validation chunks among all validation summaries (full ranking).

        Encoded in full float32, as the finished encoder will, also when training runs the frozen layers apart.
        """
        rows = np.linspace(0, len(pairs) - 1, min(len(pairs), self.config.valid_pairs)).round().astype(np.int64)
        over = item_data.all_candidates(pairs, rows)
        losses, ranks = [], []
        for piece in self.pieces(pairs, rows):
            vectors = self.encode(pairs, rows[piece])
            losses.append(self.loss(vectors, over, piece))
            scores = vectors.cpu() @ over.vectors.T
            own = scores.gather(1, over.positives[piece].unsqueeze(1))
            ranks.append((scores > own).sum(1) + 1)
        rank = torch.cat(ranks).double()
        return {
            "valid_loss": float(torch.cat(losses).mean()),
            "valid_recall@1": float((rank == 1).double().mean()),
            "valid_mrr": float((1 / rank).mean()),
        }

    def keep_best(self, step: int, metrics: dict[str, float]) -> None:
        """Remember the adapter if its validation loss is the lowest."""
        if self.best["loss"] is not None and metrics["valid_loss"] >= self.best["loss"]:
            self.stale += 1
            return
        weights = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.best = {"loss": metrics["valid_loss"], "step": step, "weights": weights, "metrics": metrics}
        self.stale = 0


def train(job: Job) -> None:
    """Train, keep the adapter with the lowest validation loss, write it, report."""
    config = Config.of(job.config)
    device = job.seed()
    training = ItemTraining(config, device)
    pairs = item_data.load(job.inputs / "pairs.parquet", training.tokenizer, config.max_tokens, config.margin)
    asked = len(pairs["train"].queries)
    if asked < 2:
        raise ValueError(f"{asked} training pairs: at least 2 are needed")
    frozen = lora.frozen_hash(training.model)
    job.log(f"{asked} training and {len(pairs['valid'])} validation pairs on {device}")
    if training.caches(pairs["train"]):
        training.build_cache(pairs["train"], job.work / "activations.f16")
        job.log("the frozen layers' activations are kept")
    checkpoint = job.resume()
    if checkpoint is not None:
        training.restore(checkpoint.state)
    every = max(1, config.steps // max(1, config.validations))
    for step in range((checkpoint.step if checkpoint else 0) + 1, config.steps + 1):
        if training.stale > config.patience:
            job.log(f"stopped early: no lower validation loss since step {training.best['step']}")
            break
        values: dict[str, float] = {}
        if step == 1 and len(pairs["valid"]):
            values = {f"start_{name}": value for name, value in training.validate(pairs["valid"]).items()}
        values |= training.step(pairs["train"], step)
        if len(pairs["valid"]) and (step % every == 0 or step == config.steps):
            metrics = training.validate(pairs["valid"])
            training.keep_best(step, metrics)
            values |= metrics
        job.step(step, config.steps, training.state, **values)
    if lora.frozen_hash(training.model) != frozen:
        raise RuntimeError("a frozen weight moved during training")
    finish(job, training, pairs, frozen)


def finish(job: Job, training: ItemTraining, pairs: dict[str, Pairs], frozen: str) -> None:
    """Write the adapter with encoder.json and report what was measured."""
    from training.record import METRICS, read

    config = training.config
    lines = read(job.result / METRICS)
    if training.best["weights"]:
        training.load_weights(training.best["weights"])
    lora.save(training.model, job.result, config.base)
    base_hash = base_model.folder_hash(training.folder)
    version = encoder_version(base_hash, adapter_hash(job.result), config.max_tokens)
    measured = {
        "loss_start": lines[0]["loss"],
        "ln_candidates_start": lines[0]["ln_candidates"],
        "loss_end": lines[-1]["loss"],
        **{name: value for name, value in lines[0].items() if name.startswith("start_")},
        **training.best.get("metrics", {}),
        "best_step": training.best["step"] or config.steps,
        "train_pairs": len(pairs["train"].queries),
        "valid_pairs": len(pairs["valid"]),
        "train_users": pairs["train"].users,
        "trainable_parameters": sum(weight.numel() for weight in training.weights.values()),
        "frozen_hash": frozen,
        "cache_mb": round(training.cache.values.nbytes / 1e6, 1) if training.cache else 0.0,
    }
    encoder = {"version": version, "base": config.base, "base_hash": base_hash, "metrics": measured}
    encoder["config"] = asdict(config)
    (job.result / ENCODER).write_text(json.dumps(encoder, indent=1, sort_keys=True))
    job.finish({**measured, "encoder_version": version}, version, training.device)


if __name__ == "__main__":
    sys.exit(run("item_encoder", train, versions.ITEM_ENCODER))
