"""Low-rank adapters on a frozen encoder (Hu et al. 2021, arXiv:2106.09685): attach, hash what is frozen,
save."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

MARK = "lora_"


def attach(model: Any, rank: int, alpha: int, target_modules: list[str], top_layers: int | None) -> Any:
    """`model` with adapters on the named linear layers (of the top layers only, if given); all else frozen.

    No dropout: the targets are frozen and a run must repeat bit for bit.
    """
    from peft import LoraConfig, get_peft_model  # two seconds that most jobs do without

    depth = model.config.num_hidden_layers
    if top_layers is not None and not 0 < top_layers <= depth:
        raise ValueError(f"top_layers {top_layers}: the encoder has {depth} layers")
    layers = None if top_layers is None else list(range(depth - top_layers, depth))
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=sorted(target_modules),
        layers_to_transform=layers,
    )
    return get_peft_model(model, settings).eval()


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    """The adapters' parameters by name, sorted. Raises ValueError if anything else would be trained."""
    found = {name: weight for name, weight in sorted(model.named_parameters()) if weight.requires_grad}
    if others := [name for name in found if MARK not in name]:
        raise ValueError(f"weights that must be frozen are not: {others[:3]}")
    return found


def frozen_hash(model: Any) -> str:
    """SHA-256 over the names and bytes of every weight and buffer that is not the adapters'."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if MARK not in name:
            digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(model: Any, folder: Path, base: str) -> None:
    """adapter_model.safetensors and adapter_config.json as PEFT reads them, with the same bytes every
    time."""
    from peft import get_peft_model_state_dict

    tensors = {name: weight.detach().cpu().contiguous() for name, weight in get_peft_model_state_dict(model).items()}
    save_file(dict(sorted(tensors.items())), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = model.peft_config["default"].to_dict()
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    # PEFT writes the base's path on this machine, which would change the adapter's hash from one to the next.
    settings |= {"base_model_name_or_path": base, "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True))


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at 1-based `step`: linear to 1 over `warmup` steps, then a cosine to 0."""
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
