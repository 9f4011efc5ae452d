import pytest
import torch
import torch.nn.functional as F

from training.sequence_mixers import GatedRecurrence, WindowAttention, linear_scan

LENGTHS = (1, 9, 30, 2, 17)
WIDTH = 8


@pytest.fixture
def stream():
    torch.manual_seed(0)
    return torch.randn(sum(LENGTHS), WIDTH), torch.cat([torch.arange(n) for n in LENGTHS])


def _mixers():
    torch.manual_seed(1)
    return [WindowAttention(WIDTH, 2, 64, 0.0), WindowAttention(WIDTH, 2, 4, 0.0), GatedRecurrence(WIDTH)]


def _alone(mixer, part):
    return mixer(part, torch.arange(len(part)))[0]


@pytest.mark.parametrize("index", range(3))
def test_packed_histories_are_mixed_as_if_each_were_alone(stream, index):
    mixer = _mixers()[index]
    together, _ = mixer(*stream)
    alone = torch.cat([_alone(mixer, part) for part in stream[0].split(LENGTHS)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("index", range(3))
def test_a_stream_without_beginnings_is_caught(stream, index):
    """Broken twin: with one `since` over all, histories leak into each other."""
    mixer = _mixers()[index]
    leaking, _ = mixer(stream[0], torch.arange(len(stream[0])))
    assert (leaking - mixer(*stream)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("index", range(3))
def test_stepping_equals_the_parallel_form(stream, index):
    """C39: one position at a time, from nothing and from the memory of the parallel pass."""
    mixer = _mixers()[index]
    part = stream[0][10:40]
    expected, memory = mixer(part, torch.arange(30), torch.tensor([19]))
    fresh, outputs = mixer.fresh(1), []
    for row in part:
        output, fresh = mixer.step(fresh, row[None])
        outputs.append(output)
        if len(outputs) == 20:
            torch.testing.assert_close(fresh, memory, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(outputs), expected, atol=1e-5, rtol=0)


def test_a_window_as_long_as_the_history_is_full_attention(stream):
    mixer = _mixers()[0]
    part = stream[0][10:40]
    q, k, v = (x.view(1, 30, 2, 4).transpose(1, 2) for x in mixer.qkv(part).split(WIDTH, dim=-1))
    full = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(30, WIDTH)
    torch.testing.assert_close(_alone(mixer, part), mixer.out(full), atol=1e-6, rtol=0)


def test_a_short_window_forgets_what_lies_before_it(stream):
    mixer = _mixers()[1]
    part = stream[0][10:40]
    changed = part.clone()
    changed[5] += 1
    differs = (_alone(mixer, part) - _alone(mixer, changed)).abs().amax(dim=1) > 1e-6
    assert differs.nonzero().flatten().tolist() == [5, 6, 7, 8]


def test_the_scan_is_the_loop():
    torch.manual_seed(2)
    keep, values = torch.rand(70, 3), torch.randn(70, 3)
    keep[[0, 1, 33]] = 0
    hidden, expected = torch.zeros(3), []
    for a, b in zip(keep, values, strict=True):
        hidden = a * hidden + b
        expected.append(hidden)
    torch.testing.assert_close(linear_scan(keep, values, 37), torch.stack(expected))
    assert not torch.allclose(linear_scan(keep, values, 16), torch.stack(expected)), "too few rounds are caught"
