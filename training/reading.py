"""A decoder that reads for given users: a prompt once, then what follows it, with its key-value cache.

The same code for the bare decoder, for cross-attention and for a soft prompt, so that costs and answers compare.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from training.injection import SoftPrompt
from training.personalised_model import PersonalisedDecoder


class Reader:
    """`prefix` [B, n, hidden]: input embeddings before every prompt (a soft prompt), or None."""

    def __init__(self, decoder: Any, prefix: torch.Tensor | None = None) -> None:
        self.decoder, self._prefix = decoder, prefix

    def prompt(self, ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Logits [B, vocabulary] of what follows the prompts `ids` [B, L], and the cache (transformers' own)."""
        inputs: dict[str, torch.Tensor] = {"input_ids": ids}
        if self._prefix is not None:
            embedded = self.decoder.get_input_embeddings()(ids)
            inputs = {"inputs_embeds": torch.cat([self._prefix.to(embedded.dtype), embedded], dim=1)}
        output = self.decoder(**inputs, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].float(), output.past_key_values

    def following(self, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits [B, n, vocabulary] after each of `ids` [B, n], which follow what the cache holds and join it."""
        return self.decoder(input_ids=ids, past_key_values=cache, use_cache=True).logits.float()


@contextmanager
def reading(model: PersonalisedDecoder, users: torch.Tensor | None, speaking: bool = False) -> Iterator[Reader]:
    """A reader for the user tokens `users` [B, n, width], one batch row each, in their voice if `speaking`; None: the
    bare decoder."""
    injection = model.speaking if speaking else model.injection
    if users is None:
        with model.bare() as decoder:
            yield Reader(decoder)
    elif isinstance(injection, SoftPrompt):
        yield Reader(model.decoder, injection.tokens(users))
    else:
        with model.written_for(users, speaking) as decoder:
            yield Reader(decoder)


def cache_bytes(cache: Any) -> int:
    """Bytes of every key and value in a cache."""
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
