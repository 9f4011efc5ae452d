"""Texts to unit vectors: a frozen base encoder, optionally with a trained LoRA adapter merged into it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.settings import torch_threads
from user_embeddings_dagster.storage.manifest import refuse_code, verify

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
ENCODER = "encoder.json"
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # of a GPU, of the CPU's allocator
PRECISIONS = ("auto", "float32", "bfloat16")


def adapter_hash(folder: Path) -> str:
    """SHA-256 over the adapter's configuration and weights."""
    lines = [f"{name}:{file_sha256(folder / name)}\n" for name in ADAPTER_FILES]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verified_adapter_hash(folder: Path, base_hash: str) -> str:
    """`adapter_hash` of a finished folder.

    Raises storage.manifest.CorruptArtifact if any file is missing or altered (safetensors loads flipped bits
    silently), ValueError if the adapter was trained on another base than the one with hash `base_hash`.
    """
    verify(folder)
    refuse_code(folder)
    trained_on = json.loads((folder / ENCODER).read_bytes())["base_hash"]
    if trained_on != base_hash:
        raise ValueError(f"{folder}: trained on base {trained_on[:12]}, this base is {base_hash[:12]}")
    return adapter_hash(folder)


def encoder_version(base_hash: str, adapter_hash: str | None, max_tokens: int, precision: str = "float32") -> str:
    """Hash (32 hex) of base weights, adapter, truncation, pooling and the precision that vectors are computed in."""
    parts = {
        "base": base_hash,
        "adapter": adapter_hash,
        "max_tokens": max_tokens,
        "pooling": base_model.POOLING,
        "truncation": base_model.TRUNCATION_SIDE,
    }
    if precision != "float32":
        parts["precision"] = precision
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class TextEncoder:
    """Text encoder with mean pooling and unit-length float32 vectors.

    `base` is "minilm" or the folder of a Hugging Face encoder; `adapter` is the folder of a trained item
    encoder. `max_tokens` counts special tokens and cuts the beginning of longer texts; `tokens_per_batch`
    bounds the padded tokens of one forward pass; `threads` is torch's thread count
    (settings.torch_threads() by default). Building one reads only hashes and the configuration; the
    weights load at the first `encode`.

    `precision` is that of the linear layers' products: "float32", "bfloat16" (twice as fast where the processor
    has it; a text's two vectors are at cosine 0.9999 or more), or "auto", which takes bfloat16 on such a
    processor and float32 elsewhere. The version holds what it came to: on machines of different precisions, "auto"
    gives different versions.
    """

    def __init__(
        self,
        base: str = "minilm",
        adapter: Path | None = None,
        max_tokens: int = 256,
        tokens_per_batch: int = 1024,
        threads: int | None = None,
        precision: str = "auto",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is none of {PRECISIONS}")
        self.precision = precision
        self.base = base
        self.adapter = Path(adapter) if adapter is not None else None
        self.max_tokens = max_tokens
        self.tokens_per_batch = tokens_per_batch
        self.threads = threads
        self._folder = base_model.model_folder(base)

    @cached_property
    def version(self) -> str:
        """Hash (32 hex) of all that decides a vector, the precision that this machine gives it included.

        Equal versions, equal vectors: to 1e-6 per component in float32, to 1e-3 in bfloat16, whatever the batch.
        """
        base_hash = base_model.folder_hash(self._folder)
        adapter = verified_adapter_hash(self.adapter, base_hash) if self.adapter else None
        return encoder_version(base_hash, adapter, self.max_tokens, self._precision)

    @cached_property
    def _precision(self) -> str:
        """What "auto" means on this machine."""
        if self.precision != "auto":
            return self.precision
        import torch

        return "bfloat16" if base_model.native_bfloat16() and not torch.cuda.is_available() else "float32"

    @cached_property
    def dimension(self) -> int:
        """Length of the vectors."""
        return base_model.hidden_size(self._folder)

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Unit vectors [len(texts), dimension] float32, in the texts' order; identical texts are encoded
        once.

        `progress` is called with (distinct texts done, distinct texts) after each batch.
        """
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = self._encode_distinct(list(place), progress)
        return vectors[[place[text] for text in texts]]

    def _encode_distinct(self, texts: list[str], progress: Callable[[int, int], None] | None) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return vectors
        import torch

        torch.set_num_threads(self.threads or torch_threads())
        tokenizer, model = self._tokenizer, self._model
        tokens = base_model.tokenize(tokenizer, texts, self.max_tokens)
        lengths = np.array([len(row) for row in tokens])
        done = 0
        with torch.inference_mode(), base_model.mixed_precision(model):
            for rows in base_model.token_budget_batches(lengths, self.tokens_per_batch):
                vectors[rows] = self._forward([tokens[row] for row in rows])
                done += len(rows)
                if progress:
                    progress(done, len(texts))
        return vectors

    def _forward(self, tokens: list[list[int]]) -> np.ndarray:
        """Vectors [len(tokens), dimension] of one batch; in halves if the memory does not suffice for all at once.

        Raises torch's error if it does not suffice for one text.
        """
        device = next(self._model.parameters()).device
        ids, mask = base_model.padded(tokens, self._tokenizer.pad_token_id)
        try:
            hidden = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            return base_model.mean_pool(hidden.float(), mask.to(device)).cpu().numpy()
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises it plain
            if len(tokens) == 1 or not any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise
        half = len(tokens) // 2
        return np.concatenate([self._forward(tokens[:half]), self._forward(tokens[half:])])

    @cached_property
    def _tokenizer(self) -> Any:
        return base_model.load_tokenizer(self._folder)

    @cached_property
    def _model(self) -> Any:
        import torch

        model = base_model.load_model(self._folder)
        if self.adapter:
            from peft import PeftModel

            verified_adapter_hash(self.adapter, base_model.folder_hash(self._folder))
            model = PeftModel.from_pretrained(model, str(self.adapter), local_files_only=True).merge_and_unload().eval()
        if torch.cuda.is_available():
            return model.to("cuda")
        return base_model.to_bfloat16_linears(model) if self._precision == "bfloat16" else model
