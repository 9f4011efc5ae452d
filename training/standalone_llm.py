"""The exported personalised LLM: a decoder that writes for a user, given the states of the user encoder.

Needs torch, transformers, numpy and safetensors alone. `user_embeddings_dagster.model_export` writes this, and all that
it needs of ours, as one file beside the weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from training.decoder import load_decoder
from training.injection import SoftPrompt
from training.personalised_model import VOICE, PersonalisedDecoder, Shape
from user_embeddings_dagster.storage.manifest import verify

PERSONALISED_FORMAT = "personalised-llm/1"


class PersonalisedLLM:
    """Decoder, Perceiver and injection, frozen. `config` says whose states it reads (`sequence_encoder`: version)."""

    def __init__(self, model: PersonalisedDecoder, tokenizer: Any, config: dict[str, Any]) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", dtype: torch.dtype | None = None) -> Self:
        """From the exported folder; `dtype`: of the decoder (None: as it was exported).

        Raises CorruptArtifact unless every file is as manifest.json says, ValueError for another format.
        """
        folder = Path(folder)
        verify(folder, others=True)
        config = json.loads((folder / "config.json").read_bytes())
        if config["format"] != PERSONALISED_FORMAT:
            raise ValueError(f"{folder}/config.json: format {config['format']!r} is not {PERSONALISED_FORMAT!r}")
        decoder, tokenizer = load_decoder(folder / "decoder", device, dtype)
        model = PersonalisedDecoder(decoder, Shape(**config["shape"]))
        weights = load_file(folder / "personalised.safetensors")
        if any(name.startswith(VOICE) for name in weights):
            model.add_voice()
        model.load_state_dict(weights)
        return cls(model.to(device).eval().requires_grad_(False), tokenizer, config)

    @torch.inference_mode()
    def user_tokens(self, states: Sequence[np.ndarray]) -> torch.Tensor:
        """User tokens [B, tokens, width] of B users, from the projected states [n, D] of each in time order.

        As `UserEncoder.projected` gives them: n ≥ 1, of somebody without chunks the one before any. The last
        `shape.max_states` of each are read.
        """
        if any(len(rows) == 0 for rows in states):
            raise ValueError("a user without a state: UserEncoder.projected gives one to everybody")
        device = next(self.model.parameters()).device
        rows = [torch.as_tensor(row[-self.model.shape.max_states :], dtype=torch.float32) for row in states]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(padded.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
        return self.model.user_tokens(padded.to(device), mask.to(device))

    @torch.inference_mode()
    def logits(self, ids: torch.Tensor, users: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [B, L, vocabulary] of tokens `ids` [B, L], row b for user b (None: of the decoder for nobody)."""
        injection = self.model.injection
        if users is None:
            return self.model.decoder(input_ids=ids).logits
        if isinstance(injection, SoftPrompt):
            inputs, _ = self._with_prompt(injection, ids, users)
            return self.model.decoder(inputs_embeds=inputs).logits[:, users.shape[1] :]
        with self.model.written_for(users) as decoder:
            return decoder(input_ids=ids).logits

    @torch.inference_mode()
    def generate(self, prompt: str, states: np.ndarray | None = None, **options: Any) -> str:
        """What the decoder writes after a prompt, in the voice of the user with these projected states [n, D] (None:
        nobody's).

        `options` of transformers' generate, such as max_new_tokens and do_sample.
        """
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids.to(next(self.model.parameters()).device)
        if states is None:
            return self._text(self.model.decoder.generate(input_ids=ids, **options)[0, ids.shape[1] :])
        users = self.user_tokens([states])
        if isinstance(self.model.speaking, SoftPrompt):
            inputs, mask = self._with_prompt(self.model.speaking, ids, users)
            return self._text(self.model.decoder.generate(inputs_embeds=inputs, attention_mask=mask, **options)[0])
        with self.model.written_for(users, speaking=True) as decoder:
            return self._text(decoder.generate(input_ids=ids, **options)[0, ids.shape[1] :])

    def _with_prompt(
        self, injection: SoftPrompt, ids: torch.Tensor, users: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        embedded = self.model.decoder.get_input_embeddings()(ids)
        inputs = torch.cat([injection.tokens(users).to(embedded.dtype), embedded], dim=1)
        return inputs, torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)

    def _text(self, ids: torch.Tensor) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
