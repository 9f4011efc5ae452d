"""F21: torch runs out of memory while texts are encoded. Training jobs: tests/training/test_out_of_memory.py."""

import numpy as np
import pytest
import torch

from benchmarks.damaged_models import encoders
from user_embeddings_dagster.embedding.text_encoder import TextEncoder

TEXTS = [" ".join(f"w{(i * j) % 40}" for j in range(1, 3 + i % 7)) for i in range(40)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return str(encoders(tmp_path_factory.mktemp("models"))[0].folder)


def encoder(base: str) -> TextEncoder:
    return TextEncoder(base, max_tokens=16, tokens_per_batch=256, threads=1, precision="float32")


ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_text_batch_that_does_not_fit_is_halved_until_it_does(base, error, monkeypatch):
    """C68: every text has its vector, the one that it has without the fault."""
    whole = encoder(base).encode(TEXTS)
    model = encoder(base)._model
    forward, refused = type(model).forward, []

    def scarce(self, input_ids, **options):
        if len(input_ids) > 3:
            refused.append(len(input_ids))
            raise error
        return forward(self, input_ids, **options)

    monkeypatch.setattr(type(model), "forward", scarce)
    assert np.abs(encoder(base).encode(TEXTS) - whole).max() < 1e-6
    assert max(refused) > 6, "halved more than once"


def test_one_text_that_does_not_fit_is_an_error(base, monkeypatch):
    def none(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(type(encoder(base)._model), "forward", none)
    with pytest.raises(torch.OutOfMemoryError):
        encoder(base).encode(TEXTS)


def test_another_error_is_not_taken_for_a_lack_of_memory(base, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(encoder(base)._model), "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder(base).encode(TEXTS)
