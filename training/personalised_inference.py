"""A trained personalised LLM, loaded: decoder, Perceiver and injection, and how users' states are read.

What is exported of it is `standalone_llm.PersonalisedLLM`, which needs nothing else of ours.

A result folder holds `personalised.json` (format, shape, preset, version, what it was trained on) and
`model.safetensors` (`model.*`: Perceiver and injection; `decoder.*`: low-rank adapters or weights, if the preset
trains any; `encoder.*`: the sequence encoder's, if the preset trains it).
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save_file

from training import lora
from training.checkpoint import load_tensors
from training.decoder import load_decoder
from training.personalised_model import VOICE, PersonalisedDecoder, Shape
from training.sequence_inference import SequenceEncoder
from training.user_states import StateHistories
from user_embeddings_dagster.personalisation.decoder_identity import decoder_hash
from user_embeddings_dagster.storage.durability import write_json
from user_embeddings_dagster.storage.manifest import refuse_code, verify

FORMAT = "personalised-decoder/2"
DESCRIPTION, WEIGHTS = "personalised.json", "model.safetensors"


def save(
    folder: Path,
    model: PersonalisedDecoder,
    trained: Mapping[str, torch.Tensor],
    *,
    preset: str,
    rank: int,
    decoder: Path,
    sequence_encoder: str,
) -> None:
    """Write a model: all of Perceiver and injection, and whatever else was `trained` (by name, part first).

    `decoder` is the folder of the decoder that it was trained on, `sequence_encoder` the version whose states it reads.
    """
    own = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors = own | {name: weight for name, weight in trained.items() if not name.startswith("model.")}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    described = {
        "format": FORMAT,
        "shape": asdict(model.shape),
        "preset": preset,
        "rank": rank,
        "decoder_hash": decoder_hash(decoder),
        "sequence_encoder": sequence_encoder,
    }
    write_json(folder / DESCRIPTION, described)


class TrainedLLM:
    """Model and tokenizer; `described` is what `personalised.json` says.

    `encoder_weights` are the sequence encoder's by name, if they were trained along with the model.
    """

    def __init__(
        self,
        model: PersonalisedDecoder,
        tokenizer: Any,
        described: dict[str, Any],
        encoder_weights: dict[str, torch.Tensor],
    ) -> None:
        self.model, self.tokenizer, self.described = model, tokenizer, described
        self.encoder_weights = encoder_weights

    @classmethod
    def load(cls, folder: Path, decoder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> "TrainedLLM":
        """From a job's output folder and the decoder's.

        Raises CorruptArtifact unless all is as the manifest says, ValueError for another format or another decoder.
        """
        verify(folder)
        refuse_code(folder)
        described = json.loads((folder / DESCRIPTION).read_bytes())
        if described["format"] != FORMAT:
            raise ValueError(f"{folder}/{DESCRIPTION}: format {described['format']!r} is not {FORMAT!r}")
        if decoder_hash(decoder) != described["decoder_hash"]:
            raise ValueError(f"{folder}: trained on another decoder than {decoder.name}")
        frozen, tokenizer = load_decoder(decoder, device, dtype)
        model = PersonalisedDecoder(frozen, Shape(**described["shape"]))
        if described["preset"] == "lora":
            model.adapt_decoder(described["rank"])
        tensors = load_tensors(folder / WEIGHTS)
        if any(name.startswith(f"model.{VOICE}") for name in tensors):
            model.add_voice()
        parts = {"model": model, "decoder": model.decoder}
        for part, module in parts.items():
            chosen = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{part}.")}
            found = module.load_state_dict(chosen, strict=part == "model")
            unset = [name for name in found.missing_keys if lora.MARK in name]
            if found.unexpected_keys or unset:
                raise ValueError(f"{folder}/{WEIGHTS}: not the weights of this model")
        encoder = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
        return cls(model.to(device).eval(), tokenizer, described, encoder)

    def user_states(self, encoder: SequenceEncoder, sequences: pl.DataFrame) -> StateHistories:
        """States of the histories `sequences` by the sequence encoder, as trained along with the model if it was.

        Raises ValueError if the model was trained on another sequence encoder.
        """
        if encoder.version != self.described["sequence_encoder"]:
            raise ValueError("the personalised decoder was trained on the states of another sequence encoder")
        return StateHistories.of(self.encoder(encoder), sequences, prior=encoder.prior()[1])

    def encoder(self, encoder: SequenceEncoder) -> SequenceEncoder:
        """The sequence encoder as trained along with the model: `encoder` itself, or a copy with other weights."""
        if not self.encoder_weights:
            return encoder
        trained = copy.deepcopy(encoder)
        if trained.model.load_state_dict(self.encoder_weights, strict=False).unexpected_keys:
            raise ValueError("weights of another sequence encoder")
        return trained
