"""Trained models as folders for `standalone_encoder` and `standalone_llm`: safetensors, configuration, tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.checkpoint import load_tensors
from training.decoder import weights_hash
from training.personalised_inference import TrainedLLM
from training.sequence_inference import FORMAT
from training.standalone_encoder import USER_ENCODER_FORMAT
from training.standalone_llm import PERSONALISED_FORMAT
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import verified_adapter_hash
from user_embeddings_dagster.storage.durability import write_json
from user_embeddings_dagster.storage.manifest import refuse_code, verify

# Of a Hugging Face folder: weights, tokenizer, and what says where they are from and on which terms.
BASE_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.txt", "README.md", "LICENSE", "LICENSE.txt", "NOTICE",
)  # fmt: skip
SEQUENCE_SETTINGS = ("settings", "decay", "mean_weight", "version")


def write_user_encoder(to: Path, base: Path, adapter: Path, sequence: Path) -> dict[str, Any]:
    """Text encoder, item encoder and sequence encoder, from the base's folder and two jobs' outputs; the config.

    The item encoder is written as the weights that its adapters change, adapters added: whoever loads it needs no
    peft. Raises CorruptArtifact unless all is as the manifests say, ValueError if they do not belong together.
    """
    verified_adapter_hash(adapter, base_model.folder_hash(base_model.verified(base)))
    verify(sequence)
    refuse_code(sequence)
    described = json.loads((sequence / "encoder.json").read_bytes())
    if described["format"] != FORMAT:
        raise ValueError(f"{sequence}/encoder.json: format {described['format']!r} is not {FORMAT!r}")
    (to / "text_encoder").mkdir(parents=True)
    for name in BASE_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, to / "text_encoder" / name)
    save_file(merged_weights(base, adapter), to / "item_encoder.safetensors")
    shutil.copyfile(sequence / "model.safetensors", to / "sequence_encoder.safetensors")
    item = json.loads((adapter / "encoder.json").read_bytes())
    config = {
        "format": USER_ENCODER_FORMAT,
        "max_tokens": item["config"]["max_tokens"],
        "item_encoder": item["version"],
        "sequence_encoder": {name: described[name] for name in SEQUENCE_SETTINGS},
    }
    write_json(to / "config.json", config)
    return config


def merged_weights(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The base's weights that the adapters change, with them added, by the base's own names."""
    from peft import PeftModel

    plain = base_model.load_model(base)
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    merged = PeftModel.from_pretrained(plain, str(adapter), local_files_only=True).merge_and_unload()
    after = merged.state_dict()
    return {name: after[name].contiguous() for name in sorted(before) if not torch.equal(before[name], after[name])}


def write_personalised(to: Path, personalised: Path, decoder: Path) -> dict[str, Any]:
    """Decoder and tokenizer, Perceiver and injection, from the job's output and the decoder's folder; the config.

    Adapters on the decoder are added to its weights. Raises CorruptArtifact or ValueError as TrainedLLM.load.
    """
    llm = TrainedLLM.load(personalised, decoder)
    written = llm.model.decoder
    if hasattr(written, "merge_and_unload"):
        written = written.merge_and_unload()
    to.mkdir(parents=True)
    written.save_pretrained(to / "decoder")
    llm.tokenizer.save_pretrained(to / "decoder")
    for name in ("README.md", "LICENSE", "LICENSE.txt", "NOTICE"):
        if (decoder / name).is_file():
            shutil.copyfile(decoder / name, to / "decoder" / name)
    own = {name: weight.contiguous() for name, weight in llm.model.state_dict().items()}
    save_file(dict(sorted(own.items())), to / "personalised.safetensors")
    tensors = load_tensors(personalised / "model.safetensors")
    sequence = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    if sequence:
        save_file(sequence, to / "sequence_encoder.safetensors")
    config = {
        "format": PERSONALISED_FORMAT,
        "shape": llm.described["shape"],
        "preset": llm.described["preset"],
        "sequence_encoder": llm.described["sequence_encoder"],
        "own_sequence_weights": bool(sequence),
        "decoder_hash": weights_hash(written),
    }
    write_json(to / "config.json", config)
    return config
