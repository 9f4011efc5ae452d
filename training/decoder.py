"""The decoder that is personalised: any Hugging Face causal LM in a local folder, frozen."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from training.injection import layers_of
from training.lora import MARK
from user_embeddings_dagster.storage.manifest import refuse_code


def load_decoder(folder: Path | str, device: str = "cpu", dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Decoder and tokenizer of a folder, frozen, in evaluation mode; safetensors only, no remote code, no network.

    `dtype` None: the folder's own. Raises CorruptArtifact for a folder with a pickle or code, listed or not; OSError
    or ValueError for one without the configuration, tokenizer or weights of a causal LM of transformers' own.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    refuse_code(Path(folder))
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    decoder: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), use_safetensors=True, dtype=dtype or "auto", **options
    )
    return decoder.to(device).eval().requires_grad_(False), tokenizer


def head_of(decoder: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes logits [..., vocabulary] of the last layer's states [..., D]: final norm and output embeddings.

    Raises ValueError for an architecture that keeps its final norm elsewhere.
    """
    inner = decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder
    for path in ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm", "model.decoder.final_layer_norm"):
        try:
            norm = inner.get_submodule(path)
        except AttributeError:
            continue
        return lambda states: inner.get_output_embeddings()(norm(states))
    raise ValueError(f"{type(inner).__name__}: its final norm is at none of the known places")


def last_states(decoder: Any, ids: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
    """What the last layer says [B, L, D] to `ids` [B, L], before the final norm; `options` of the decoder's forward."""
    found: list[torch.Tensor] = []

    def keep(_layer: Any, _inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = layers_of(decoder)[-1].register_forward_hook(keep)
    try:
        decoder(input_ids=ids, logits_to_keep=1, **options)
    finally:
        handle.remove()
    return found[0]


def weights_hash(decoder: Any) -> str:
    """SHA-256 over names and bytes of every weight that is not a low-rank adapter's."""
    digest = hashlib.sha256()
    for name, weight in sorted(decoder.state_dict().items()):
        if MARK not in name:
            digest.update(
                name.encode() + weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()


def token_log_likelihoods(decoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """log p [B, L - 1] of each token of `ids` [B, L] after the first, given those before it; nats."""
    logits = decoder(input_ids=ids[:, :-1]).logits.float()
    return -F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def mean_log_likelihoods(log_likelihoods: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean [B] over the `counted` [B, L - 1] tokens. Raises ValueError for a row without one, which nothing ranks."""
    if not counted.any(1).all():
        raise ValueError("a text without a token to score")
    return (log_likelihoods * counted).sum(1) / counted.sum(1)
