"""The exported user encoder: a person's texts to item vectors and user states.

Needs torch, transformers, numpy and safetensors alone. `user_embeddings_dagster.model_export` writes this, and all that
it needs of ours, as one file beside the weights.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from training.sequence_features import Histories
from training.sequence_inference import HistoryEncoder
from user_embeddings_dagster.embedding.base_model import (
    mean_pool,
    padded,
    plain_model,
    plain_tokenizer,
    token_budget_batches,
    tokenize,
)
from user_embeddings_dagster.storage.manifest import verify

USER_ENCODER_FORMAT = "user-encoder/1"
TOKENS_PER_BATCH = 4096  # padded tokens of one forward pass


class UserEncoder:
    """Frozen text encoder, item encoder and sequence encoder. All in float32, as published."""

    def __init__(self, tokenizer: Any, base: Any, item: Any, sequence: HistoryEncoder, max_tokens: int) -> None:
        self.tokenizer, self.base, self.item, self.sequence = tokenizer, base, item, sequence
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", sequence_weights: Path | str | None = None) -> Self:
        """From the exported folder; `sequence_weights`: safetensors that take the place of the sequence encoder's own
        (of a personalised LLM that trained them along: its sequence_encoder.safetensors).

        Raises CorruptArtifact unless every file is as manifest.json says, ValueError for another format.
        """
        folder = Path(folder)
        verify(folder, others=True)
        config = json.loads((folder / "config.json").read_bytes())
        if config["format"] != USER_ENCODER_FORMAT:
            raise ValueError(f"{folder}/config.json: format {config['format']!r} is not {USER_ENCODER_FORMAT!r}")
        base = plain_model(folder / "text_encoder")
        item = copy.deepcopy(base)
        _replace(item, folder / "item_encoder.safetensors")
        tensors = load_file(folder / "sequence_encoder.safetensors")
        sequence = HistoryEncoder.of(config["sequence_encoder"], tensors, device)
        if sequence_weights is not None:
            _replace(sequence.model, Path(sequence_weights))
        tokenizer = plain_tokenizer(folder / "text_encoder")
        return cls(tokenizer, base.to(device), item.to(device), sequence, config["max_tokens"])

    def contexts(self, texts: Sequence[str]) -> np.ndarray:
        """What each chunk is about: unit vectors [n, C] by the frozen text encoder."""
        return self._encode(self.base, texts)

    def item_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """What SUBJECT of each chunk is like: unit vectors [n, D] by the item encoder."""
        return self._encode(self.item, texts)

    def states(self, texts: Sequence[str], ended: Sequence[int]) -> np.ndarray:
        """The user state [n, dimension] after each chunk of one person, in time order; the last is the user embedding.

        `texts`: masked chunks as the model card says; `ended`: end of each, seconds since 1970. Of nobody's chunks: the
        state [1, dimension] before any, the population's. Raises ValueError unless there is one ascending time a text.
        """
        return self._encoded(texts, ended)[0]

    def projected(self, texts: Sequence[str], ended: Sequence[int]) -> np.ndarray:
        """The same states projected to the item space [n, D]: what the next chunk is expected to be. Read by a
        personalised LLM."""
        return self._encoded(texts, ended)[1]

    def states_of(self, vectors: np.ndarray, contexts: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States and projected states of item vectors [n, D], contexts [n, C] and end times [n]."""
        n, ended = len(vectors), np.asarray(ended, dtype=np.int64)
        if not (len(contexts) == len(ended) == n) or (np.diff(ended) < 0).any():
            raise ValueError("one end time for each chunk, in ascending order, is needed")
        history = Histories(
            vectors, np.array([0, n]), np.array([""]), ended, ended, np.arange(n),
            contexts if len(self.sequence.space.context_mean) else None,
        )  # fmt: skip
        return self.sequence.encode_histories(history)

    def _encoded(self, texts: Sequence[str], ended: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        if len(texts) == 0:
            state, query = self.sequence.prior()
            return state[None], query[None]
        return self.states_of(self.item_vectors(texts), self.contexts(texts), np.asarray(ended))

    @torch.inference_mode()
    def _encode(self, model: Any, texts: Sequence[str]) -> np.ndarray:
        vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
        if len(texts) == 0:
            return vectors
        tokens = tokenize(self.tokenizer, texts, self.max_tokens)
        device = next(model.parameters()).device
        for rows in token_budget_batches(np.array([len(row) for row in tokens]), TOKENS_PER_BATCH):
            ids, mask = padded([tokens[row] for row in rows], self.tokenizer.pad_token_id)
            hidden = model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            vectors[rows] = mean_pool(hidden, mask.to(device)).cpu().numpy()
        return vectors


def _replace(model: torch.nn.Module, weights: Path) -> None:
    """Load some of a model's weights. Raises ValueError if any is not the model's."""
    if unknown := model.load_state_dict(load_file(weights), strict=False).unexpected_keys:
        raise ValueError(f"{weights}: {len(unknown)} weights that the model does not have")
