"""Where the base decoder's embeddings begin."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import torch

from training.token_vectors import token_vectors
from training.tokenizer import train_tokenizer


def encoded(texts: Sequence[str]) -> np.ndarray:
    """By length alone, in two of 50 axes, and of one length."""
    lengths = np.array([len(text) for text in texts], dtype=np.float32)
    vectors = np.zeros((len(texts), 50), dtype=np.float32)
    vectors[:, 7], vectors[:, 31] = np.cos(lengths / 4), np.sin(lengths / 4)
    return vectors


@pytest.mark.parametrize("hidden", [16, 64])
def test_tokens_that_the_encoder_finds_alike_begin_alike(hidden: int) -> None:
    """Whatever their bytes; also where there are more axes than the encoder has."""
    words = pl.DataFrame({"user_id": list("abc"), "own": ["an ant ate at noon: bananas, cabbages, marmalade"] * 3})
    tokenizer = train_tokenizer(words, 320, 3)
    torch.manual_seed(0)
    found = token_vectors(tokenizer, encoded, hidden)
    assert found.shape == (len(tokenizer), hidden)
    assert float(found.square().mean()) * hidden == pytest.approx(1, rel=0.1)
    texts = [tokenizer.decode([token]).strip() for token in range(len(tokenizer))]
    told = [token for token, text in enumerate(texts) if text and "\ufffd" not in text]
    assert 0 < len(told) < len(texts), "bytes that are no character alone"
    theirs = encoded([texts[token] for token in told])
    expected = np.linalg.norm(theirs[:, None] - theirs[None], axis=2)
    apart = torch.cdist(found[told], found[told]).numpy()
    scale = (apart * expected).sum() / np.square(expected).sum()
    np.testing.assert_allclose(apart, scale * expected, atol=0.01)
    assert len({len(texts[token]) for token in told}) > 3 and expected.max() > 1


def test_the_same_seed_gives_the_same_vectors() -> None:
    words = pl.DataFrame({"user_id": list("abc"), "own": ["the cat sat"] * 3})
    tokenizer = train_tokenizer(words, 280, 3)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(token_vectors(tokenizer, encoded, 16))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
