"""Base decoder: a small Qwen3 with a byte-level BPE of its own, trained on masked chunks, then frozen.

    python -P -m training.base_decoder --inputs DIR --output DIR

Inputs: `chunks.parquet` (user_id, split "train" or "valid", text, own: SUBJECT's turns) and `config.json` (see
Config). Output: a Hugging Face model folder (config.json, generation_config.json, model.safetensors, tokenizer.json,
tokenizer_config.json), `metrics.jsonl`, `job.json`, `manifest.json`. Embeddings begin as the frozen text encoder's
vectors of the tokens (training.token_vectors). Loss: mean cross-entropy of the next token, in nats (Radford et al.
2019); perplexity is its exponential, bits per byte compare it with decoders of other tokenizers.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F

from training import lora, versions
from training.job import Job, run
from training.job_config import JobConfig
from training.token_vectors import token_vectors
from training.tokenizer import END, train_tokenizer
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.keys import file_sha256


@dataclass(frozen=True)
class Config(JobConfig):
    """Sizes and hyperparameters; a step reads batch_size rows of `length` tokens."""

    seed: int
    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 768
    length: int = 192
    batch_size: int = 8
    steps: int = 300
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    warmup_share: float = 0.05
    validations: int = 2
    valid_rows: int = 64
    min_users_per_word: int = 5


def packed(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    """Tokens of all texts, each ended by END, as rows [n, length + 1]; the rest that fills no row is left out."""
    end = tokenizer.convert_tokens_to_ids(END)
    read = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []
    ids = [token for row in read for token in (*row, end)]
    n = max(0, len(ids) - 1) // length
    stream = torch.tensor(ids, dtype=torch.long)
    return (
        torch.stack([stream[i * length : i * length + length + 1] for i in range(n)])
        if n
        else stream.new_zeros((0, length + 1))
    )


class DecoderTraining:
    """Model and optimizer; what a resumed run needs is in `state`."""

    def __init__(self, config: Config, tokenizer: Any, device: str, threads: int) -> None:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        self.config, self.device = config, device
        end = tokenizer.convert_tokens_to_ids(END)
        self.model: Any = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden,
                intermediate_size=config.intermediate,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.key_value_heads,
                head_dim=config.hidden // config.heads,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
                bos_token_id=end,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        with torch.no_grad():
            vectors = token_vectors(tokenizer, TextEncoder(threads=threads).encode, config.hidden)
            self.model.get_input_embeddings().weight.copy_(vectors)
        self.model.to(device)
        decayed = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        plain = [weight for weight in self.model.parameters() if weight.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Weights and optimizer; batches and learning rate follow from the step alone."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def step(self, rows: torch.Tensor, step: int) -> dict[str, float]:
        """One optimizer step (1-based) on a batch of rows drawn for it; its loss and learning rate."""
        config = self.config
        chosen = np.random.default_rng((config.seed, step)).integers(0, len(rows), config.batch_size)
        rate = config.learning_rate * lora.warmup_cosine(
            step, config.steps, max(1, round(config.warmup_share * config.steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        loss = self._losses(rows[chosen]).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        return {"loss": float(loss.detach()), "learning_rate": rate}

    def _losses(self, rows: torch.Tensor) -> torch.Tensor:
        """Cross-entropy [B, length] of every next token, nats."""
        rows = rows.to(self.device)
        logits = self.model(input_ids=rows[:, :-1]).logits.float()
        return F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")

    @torch.no_grad()
    def validate(self, rows: torch.Tensor) -> float:
        """Mean cross-entropy over rows spread over all of them, nats a token."""
        self.model.eval()
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), self.config.valid_rows)).round().astype(np.int64)]
        return float(torch.cat([self._losses(part) for part in chosen.split(self.config.batch_size)]).mean())


def train(job: Job) -> None:
    """Train tokenizer and decoder, write the model folder, report perplexity on validation users."""
    config = Config.of(job.config)
    device = job.seed()
    chunks = pl.read_parquet(job.inputs / "chunks.parquet")
    texts = {split: chunks.filter(split=split)["text"].to_list() for split in ("train", "valid")}
    tokenizer = train_tokenizer(chunks.filter(split="train"), config.vocabulary, config.min_users_per_word)
    rows = {split: packed(tokenizer, texts[split], config.length) for split in texts}
    if not len(rows["train"]):
        raise ValueError(f"{len(texts['train'])} training chunks do not fill one row of {config.length} tokens")
    training = DecoderTraining(config, tokenizer, device, job.threads)
    job.log(
        f"{rows['train'].numel():,} training tokens, {sum(w.numel() for w in training.model.parameters()):,} weights"
    )
    checkpoint = job.resume()
    if checkpoint is not None:
        training.restore(checkpoint.state)
    every = max(1, config.steps // max(1, config.validations))
    for step in range((checkpoint.step if checkpoint else 0) + 1, config.steps + 1):
        values = {"valid_loss": training.validate(rows["valid"])} if step == 1 and len(rows["valid"]) else {}
        values |= training.step(rows["train"], step)
        if len(rows["valid"]) and (step % every == 0 or step == config.steps):
            values["valid_loss"] = training.validate(rows["valid"])
        job.step(step, config.steps, training.state, **values)
    _finish(job, training, tokenizer, texts, rows, device)


def _finish(job: Job, training: DecoderTraining, tokenizer: Any, texts: dict, rows: dict, device: str) -> None:
    training.model.eval().save_pretrained(job.result)
    tokenizer.save_pretrained(job.result)
    metadata: dict[str, Any] = {
        "weights": sum(weight.numel() for weight in training.model.parameters()),
        "vocabulary": len(tokenizer),
        "train_tokens": int(rows["train"][:, 1:].numel()),
        "seen_tokens": training.config.steps * training.config.batch_size * training.config.length,
        "train_chunks": len(texts["train"]),
        "valid_chunks": len(texts["valid"]),
        "seed": training.config.seed,
    }
    if len(rows["valid"]):
        loss = training.validate(rows["valid"])
        read = tokenizer(texts["valid"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        # Each text ends with END, which stands for a byte: the line's end.
        n_bytes, n_tokens = sum(len(text.encode()) + 1 for text in texts["valid"]), sum(len(ids) + 1 for ids in read)
        metadata |= {"perplexity": math.exp(loss), "bits_per_byte": loss / math.log(2) * n_tokens / n_bytes}
    version = file_sha256(job.result / "model.safetensors")[:32]
    job.finish({**metadata, "version": version}, data_version=version, device=device)


if __name__ == "__main__":
    sys.exit(run("base_decoder", train, versions.BASE_DECODER))
