"""C42: the closed form that the supervised stage begins with."""

import pytest
import torch

from training.discriminant import discriminant


def test_it_finds_the_direction_that_tells_texts_apart_and_not_the_one_that_varies_most() -> None:
    """Users with x > 0 write texts whose slopes lean along axis 0; axis 1 varies ten times as much, for anybody."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(400, 4, 3, generator=generator)
    slopes = torch.randn(400, 4, 5, generator=generator)
    slopes[..., 1] *= 10
    slopes[..., 0] += states[..., 2]
    weights = discriminant(states, slopes)
    assert weights.shape == (3, 5)
    assert int(weights.abs().argmax()) == 2 * 5 + 0 and weights[2, 0] > 0
    assert weights[2, 0].abs() > 10 * weights[:, 1].abs().max()
    added = (states - states.mean(1, keepdim=True)).flatten(0, 1) @ weights
    assert float(added.square().mean().sqrt()) == pytest.approx(1, rel=1e-4)


def test_nothing_to_tell_is_no_error() -> None:
    assert discriminant(torch.zeros(3, 4, 2), torch.randn(3, 4, 5)).abs().max() == 0
