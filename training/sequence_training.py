"""Training of the sequence encoder: CPC over every position, early stopping on validation users."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from training.cpc import cpc_losses, cpc_objective, generalised, negatives_of, time_matched
from training.differential_privacy import PrivacySettings
from training.job import Job
from training.job_config import RUNTIME
from training.sequence_batches import Corpus, Sampler, assemble, corpus_of, segments
from training.sequence_features import Histories, ItemSpace, fit_item_space, histories_from, states_of
from training.sequence_inference import FORMAT
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.baselines import next_chunk_queries, own_past
from user_embeddings_dagster.evaluation.ranking import full_ranks
from user_embeddings_dagster.storage.lake import write_json

DAY = 86_400.0
WARMUP_SHARE = 0.1
CLIP_NORM = 1.0
VALID_BATCH = 4096
SPACE = ("mean", "whitening", "context_mean", "context_whitening", "axes", "prior")  # arrays of `ItemSpace`


def train(job: Job) -> None:
    """Train on `<inputs>/sequences.parquet` and deliver model.safetensors, encoder.json and metrics.jsonl."""
    settings, privacy = settings_of(job.config)
    device = job.seed()
    splits = Splits.read(job.inputs / "sequences.parquet", privacy)
    space = fit_item_space(splits.fitted_on, splits.valid, settings.ridge)
    parts = {"train": splits.train, "valid": splits.valid}
    corpora = {
        name: corpus_of(histories, states_of(histories, space), *splits.windows_datadaos[name], device)
        for name, histories in parts.items()
    }
    model = SequenceModel(settings, len(space.prior), len(space.mean)).to(device)
    trainer = _trainer(privacy)(job, settings, privacy, model, space, corpora, splits)
    metadata = trainer.run()
    version = save_encoder(job.result, model, settings, space, metadata, privacy)
    job.finish({**metadata, "version": version}, data_version=version, device=device)


def settings_of(config: dict[str, Any]) -> tuple[SequenceSettings, PrivacySettings]:
    """What config.json says of model and training. Raises ValueError, also on an unknown key."""
    known = {field.name for part in (SequenceSettings, PrivacySettings) for field in fields(part)}
    settings = SequenceSettings.of(config), PrivacySettings.of(config)
    if unknown := sorted(config.keys() - known - RUNTIME):
        raise ValueError(f"config.json: unknown settings {unknown}")
    return settings


def _trainer(privacy: PrivacySettings) -> "type[Trainer]":
    if not privacy.per_user:
        return Trainer
    from training.private_training import PrivateTrainer

    return PrivateTrainer


class Trainer:
    """The loop: its model, its optimizer, the best weights so far."""

    def __init__(
        self, job: Job, settings: SequenceSettings, privacy: PrivacySettings, model: SequenceModel, space: ItemSpace,
        corpora: dict[str, Corpus], splits: "Splits",
    ) -> None:  # fmt: skip
        self.job, self.settings, self.privacy, self.model, self.space = job, settings, privacy, model, space
        self.corpora, self.splits, self.valid = corpora, splits, splits.valid
        self.sampler = Sampler(
            corpora["train"], settings.max_length, settings.batch_chunks, settings.extra_keys, settings.seed
        )
        trained = [p for p in model.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim >= 2]
        plain = [p for p in trained if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            foreach=False,
        )
        self.best: dict[str, Any] = {}
        self.progress: dict[str, Any] = {"losses": [], "loss_at_chance": [], "stale": 0}

    def run(self) -> dict[str, Any]:
        """Train to the last step or the early stop; the best weights stay in the model. The metadata."""
        checkpoint = self.job.resume()
        if checkpoint is None:
            self._keep_best(0)
            self.progress["valid_start"] = self.best["scores"]
        else:
            self._load(checkpoint.state)
        step = checkpoint.step if checkpoint else 0
        while step < self.settings.steps and self.progress["stale"] < self.settings.patience:
            start = self.progress["valid_start"] if step == 0 else {}
            values = {f"start_{name}": value for name, value in start.items()}
            values |= {**self._step(step), "learning_rate": self._learning_rate(step)}
            step += 1
            if self._evaluates(step):
                values |= self._keep_best(step)
            self.job.step(step, self.settings.steps, self._state, **values)
        self.model.load_state_dict(self.best["weights"])
        return self._metadata(step)

    def _evaluates(self, step: int) -> bool:
        return step % self.settings.evaluate_every == 0 or step == self.settings.steps

    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step (0-based); what metrics.jsonl says of it."""
        settings, corpus = self.settings, self.corpora["train"]
        batch = self.sampler.batch(step)
        keys = corpus.keys.take(batch.key_rows)
        negatives = negatives_of(
            batch.positives, keys, settings.same_user_negatives, settings.negatives_across_datadaos
        )
        matched = time_matched(batch.positives, keys, settings.matched_days * DAY)
        self.model.train()
        queries = self._queries(batch)
        loss = cpc_objective(
            queries, corpus.items[batch.key_rows], batch.positives, negatives, matched,
            settings.temperature, settings.matched_share, settings.truncation,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        value = float(loss.detach())
        self.progress["losses"].append(value)
        chance = torch.log(negatives.sum(dim=1) + 1.0)  # ln K, InfoNCE of a model that knows nothing
        self.progress["loss_at_chance"].append(float(generalised(chance, settings.truncation).mean()))
        return {"loss": value}

    def _queries(self, batch) -> torch.Tensor:
        states, _ = self.model(batch.inputs)
        return self.model.project(states[batch.queries])

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        warmup = max(1, round(WARMUP_SHARE * self.settings.steps))
        if step < warmup:
            return self.settings.learning_rate * (step + 1) / warmup
        share = (step - warmup) / max(1, self.settings.steps - warmup)
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    def _keep_best(self, step: int) -> dict[str, float]:
        scores = self.validate()
        if not scores or not self.best or scores["valid_mrr"] > self.best["scores"]["valid_mrr"]:
            weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {"step": step, "scores": scores, "weights": weights}
            self.progress["stale"] = 0
        else:
            self.progress["stale"] += 1
        return scores

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Loss against all validation chunks, MRR by full ranking without own past; {} without users."""
        gold = next_chunk_queries(self.valid)
        if len(gold) == 0:
            return {}
        self.model.eval()
        corpus = self.corpora["valid"]
        queries = np.empty((corpus.n_chunks, corpus.items.shape[1]), dtype=np.float32)
        losses = []
        pieces = segments(corpus.states, self.settings.max_length)
        for part in np.array_split(pieces, -(-int(pieces[:, 1].sum()) // VALID_BATCH)):
            if len(part) == 0:
                continue
            batch = assemble(corpus, part, 0, None)
            if len(batch.queries) == 0:
                continue
            projected = self._queries(batch)
            positives = batch.key_rows[batch.positives]
            allowed = negatives_of(
                positives, corpus.keys, self.settings.same_user_negatives, self.settings.negatives_across_datadaos
            )
            losses.append(cpc_losses(projected, corpus.items, positives, allowed, self.settings.temperature).cpu())
            queries[positives.cpu().numpy()] = projected.cpu().numpy()
        items = corpus.items.cpu().numpy()
        ranks = full_ranks(queries[gold], items, gold, excluded=own_past(self.valid, gold))
        return {"valid_loss": float(torch.cat(losses).mean()), "valid_mrr": float(np.mean(1 / ranks.rank))}

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "progress": self.progress,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.progress = state["best"], state["progress"]

    def _metadata(self, steps: int) -> dict[str, Any]:
        losses, start, best = self.progress["losses"], self.progress["valid_start"], self.best["scores"]
        last = losses[-10:]
        metadata: dict[str, Any] = {
            "dimension": self.settings.dimension,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "train_users": len(self.corpora["train"].states.lengths),
            "train_chunks": self.corpora["train"].n_chunks,
            "valid_users": len(self.corpora["valid"].states.lengths),
            "valid_chunks": self.corpora["valid"].n_chunks,
            "decay": self.space.decay,
            "mean_weight": self.space.mean_weight,
            "best_step": self.best["step"],
            "seed": self.settings.seed,
        }
        if losses:
            metadata |= {
                "start_loss": losses[0],
                "end_loss": float(np.mean(last)),
                "loss_at_chance": float(np.mean(self.progress["loss_at_chance"])),
            }
        for name in best:
            metadata |= {f"{name}_start": start[name], f"{name}_best": best[name]}
        return metadata | {"trained_steps": steps, **self.privacy.accounting(self.settings.steps)}


@dataclass(frozen=True)
class Splits:
    """Histories of train and valid, with window ids and DataDAOs of their chunks.

    `fitted_on`: what the item space is fitted on. Without public DataDAOs these are the training users; with them, all
    training users' histories are in `train`, marked public or not, and only public ones in `fitted_on` and `valid`.
    """

    train: Histories
    valid: Histories
    fitted_on: Histories
    windows_datadaos: dict[str, tuple[np.ndarray, np.ndarray]]
    public_histories: np.ndarray
    public_chunks: np.ndarray

    @classmethod
    def read(cls, path: Path, privacy: PrivacySettings) -> "Splits":
        """From sequences.parquet. Raises ValueError on other splits, or where users are missing."""
        frame = pl.read_parquet(path)
        if unknown := sorted(set(frame["split"].unique()) - {"train", "valid"}):
            raise ValueError(f"{path.name}: rows of split {unknown}; only train and valid may enter training")
        public = pl.col("datadao").is_in(privacy.public_datadaos)
        of_valid = public if privacy.per_user else pl.lit(True)
        train, *train_keys = _histories(frame.filter(pl.col("split") == "train"))
        valid, *valid_keys = _histories(frame.filter(of_valid & (pl.col("split") == "valid")))
        if train.n_histories == 0:
            raise ValueError(f"{path.name}: no training users")
        chunks = np.isin(train_keys[1], privacy.public_datadaos)
        histories = chunks[train.offsets[:-1]]
        if privacy.per_user and (not histories.any() or valid.n_histories == 0):
            raise ValueError(
                f"{path.name}: no public users of train and valid in public_datadaos {list(privacy.public_datadaos)}"
            )
        if privacy.per_user and histories.all():
            raise ValueError(f"{path.name}: no training users but public ones")
        if valid.n_histories == 0:
            valid = train.ranges(*np.zeros((3, 0), dtype=np.int64))
        chosen = np.flatnonzero(histories) if privacy.per_user else np.arange(train.n_histories)
        fitted_on = train.ranges(train.offsets[chosen], train.offsets[chosen + 1], chosen)
        keys = {"train": (train_keys[0], train_keys[1]), "valid": (valid_keys[0], valid_keys[1])}
        return cls(train, valid, fitted_on, keys, histories, chunks)


def _histories(frame: pl.DataFrame) -> tuple[Histories, np.ndarray, np.ndarray]:
    """Histories, window ids and DataDAOs of their chunks."""
    histories, rows = histories_from(frame)
    return histories, frame["window_id"].to_numpy()[rows], frame["datadao"].to_numpy()[rows]


def save_encoder(
    folder: Path, model: SequenceModel, settings: SequenceSettings, space: ItemSpace, metrics: dict[str, Any],
    privacy: PrivacySettings | None = None,
) -> str:  # fmt: skip
    """Write model.safetensors and encoder.json; returns the version: a hash of weights and settings."""
    tensors = {f"model.{name}": tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {f"space.{name}": torch.from_numpy(getattr(space, name)) for name in SPACE}
    tensors = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    save_file(tensors, folder / "model.safetensors")
    described = {
        "format": FORMAT,
        "settings": asdict(settings),
        "item_dimension": len(space.prior),
        "person_dimension": len(space.mean),
        "context_dimension": len(space.context_mean),
        "decay": space.decay,
        "mean_weight": space.mean_weight,
    }
    if privacy is not None and privacy.per_user:
        described["privacy"] = asdict(privacy)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update((folder / "model.safetensors").read_bytes())
    version = digest.hexdigest()[:32]
    write_json(folder / "encoder.json", {**described, "version": version, "metrics": metrics})
    return version
