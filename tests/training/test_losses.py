"""InfoNCE against numbers worked out by hand."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from training.losses import info_nce


def everything(n: int, m: int) -> torch.Tensor:
    return torch.ones(n, m, dtype=torch.bool)


def test_closed_form_by_hand() -> None:
    """C28: similarities 1, 0.6, 0 at temperature 0.5: -ln(e^2 / (e^2 + e^1.2 + e^0)) = 0.460373."""
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    loss = info_nce(queries, candidates, torch.tensor([0]), everything(1, 3), 0.5)
    expected = -2 + math.log(math.exp(2) + math.exp(1.2) + 1)
    assert expected == pytest.approx(0.460373, abs=1e-6)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_masked_candidate_does_not_compete() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    allowed = torch.tensor([[True, False, True]])
    loss = info_nce(queries, candidates, torch.tensor([0]), allowed, 0.5)
    assert loss.item() == pytest.approx(-2 + math.log(math.exp(2) + 1), abs=1e-6)


@pytest.mark.parametrize("candidates", [2, 16, 300])
def test_uninformative_similarities_cost_ln_k(candidates: int) -> None:
    """C28: with K candidates and nothing to tell them apart the loss is ln K; over random vectors about ln K."""
    equal = torch.ones(1, 8) / math.sqrt(8)
    loss = info_nce(equal, equal.expand(candidates, 8), torch.tensor([0]), everything(1, candidates), 0.05)
    assert loss.item() == pytest.approx(math.log(candidates), abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    queries, targets = (normalize(torch.randn(candidates, 384, generator=generator), dim=1) for _ in range(2))
    rows = torch.arange(candidates)
    random = info_nce(queries, targets, rows, everything(candidates, candidates), 1.0)
    assert random.mean().item() == pytest.approx(math.log(candidates), abs=0.03)


def test_gradient_reaches_the_queries_alone() -> None:
    queries = torch.randn(3, 4, requires_grad=True)
    candidates = torch.randn(5, 4)
    info_nce(queries, candidates, torch.tensor([0, 1, 2]), everything(3, 5), 0.1).sum().backward()
    assert queries.grad is not None and queries.grad.abs().min() > 0
    assert candidates.grad is None


def test_masking_the_positive_raises() -> None:
    allowed = torch.tensor([[False, True]])
    with pytest.raises(ValueError, match="positive is masked"):
        info_nce(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([0]), allowed, 0.1)
