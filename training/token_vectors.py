"""Where the base decoder's embeddings begin: vectors of its tokens' strings by the frozen text encoder.

As Model2Vec (Tulkens and van Dongen 2024) makes static vectors: each token is encoded alone, and the vectors are
reduced by their principal components. Input and output embeddings are tied: which words go together is there before
the first step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def token_vectors(tokenizer: Any, encode: Callable[[Sequence[str]], np.ndarray], hidden: int) -> torch.Tensor:
    """Embeddings [len(tokenizer), hidden] of variance 1 / hidden; no axis is a principal one.

    Tokens that are no text alone (part of a character, a blank) are drawn at random.
    """
    texts = [tokenizer.decode([token]).strip() for token in range(len(tokenizer))]
    told = [token for token, text in enumerate(texts) if text and "\ufffd" not in text]
    found = torch.randn(len(texts), hidden)
    if told:
        vectors = torch.from_numpy(np.asarray(encode([texts[token] for token in told]), dtype=np.float32))
        vectors = vectors - vectors.mean(0)
        axes = torch.linalg.svd(vectors, full_matrices=False).Vh[:hidden]
        rotation = torch.linalg.qr(torch.randn(hidden, hidden)).Q[: len(axes)]
        reduced = vectors @ axes.T @ rotation
        found[told] = reduced / reduced.square().mean().sqrt().clamp(min=1e-6)
    return found / hidden**0.5
