"""The decoder that is personalised: any Hugging Face causal LM in a local folder, frozen."""

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from training.lora import MARK


def load_decoder(folder: Path | str, device: str = "cpu", dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Decoder and tokenizer of a folder, frozen, in evaluation mode; safetensors only, no remote code, no network.

    `dtype` None: the folder's own. Raises OSError for a folder that holds no such model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    decoder: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), use_safetensors=True, dtype=dtype or "auto", **options
    )
    return decoder.to(device).eval().requires_grad_(False), tokenizer


def weights_hash(decoder: Any) -> str:
    """SHA-256 over names and bytes of every weight that is not a low-rank adapter's."""
    digest = hashlib.sha256()
    for name, weight in sorted(decoder.state_dict().items()):
        if MARK not in name:
            digest.update(name.encode() + weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def token_log_likelihoods(decoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """log p [B, L - 1] of each token of `ids` [B, L] after the first, given those before it; nats."""
    logits = decoder(input_ids=ids[:, :-1]).logits.float()
    return -F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def mean_log_likelihoods(log_likelihoods: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean [B] over the `counted` [B, L - 1] tokens; 0 for a row without one."""
    return (log_likelihoods * counted).sum(1) / counted.sum(1).clamp(min=1)
