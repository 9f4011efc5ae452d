"""The Perceiver: a fixed number of user tokens from any number of states."""

import torch

from training.perceiver import Perceiver, recency_codes


def padded(states: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(max(map(len, states)))[None] < torch.tensor([len(s) for s in states])[:, None]
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), mask


def test_the_number_of_tokens_does_not_depend_on_the_length_of_the_history() -> None:
    """C42: constant from no chunk (the state before the first one) to 5,000 chunks."""
    for tokens in (16, 32, 64):
        model = Perceiver(48, width=32, tokens=tokens)
        for chunks in (0, 1, 2, 50, 1000, 5000):
            states, mask = torch.randn(2, chunks + 1, 48), torch.ones(2, chunks + 1, dtype=torch.bool)
            assert model(states, mask).shape == (2, tokens, 32)


def test_padding_and_the_rest_of_the_batch_change_nothing() -> None:
    torch.manual_seed(0)
    model = Perceiver(24, width=32).eval()
    users = [torch.randn(n, 24) for n in (1, 7, 40)]
    together = model(*padded(users))
    noisy, mask = padded(users)
    noisy = torch.where(mask[..., None], noisy, torch.full_like(noisy, 1e3))
    for row, states in enumerate(users):
        alone = model(states[None], torch.ones(1, len(states), dtype=torch.bool))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(noisy, mask)[row], alone, atol=1e-5, rtol=1e-4)


def test_recency_is_counted_from_the_users_last_state() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    assert recency_codes(mask)[0, :3].tolist() == [3, 2, 0]
    assert recency_codes(mask)[1, 0] == 0


def test_older_and_newer_states_are_told_apart() -> None:
    torch.manual_seed(0)
    model = Perceiver(24, width=32).eval()
    states, mask = torch.randn(1, 6, 24), torch.ones(1, 6, dtype=torch.bool)
    assert (model(states, mask) - model(states.flip(1), mask)).abs().max() > 1e-3


def test_mean_and_one_scale_for_all_axes_are_taken_out() -> None:
    """Axes that vary more predict more: what one has over another stays."""
    torch.manual_seed(0)
    model = Perceiver(4, width=32)
    seen = torch.randn(500, 4) * torch.tensor([1.0, 100.0, 0.01, 0.0]) + 3
    model.fit_scale(seen)
    scaled = (seen - model.get_buffer("mean")) / model.get_buffer("deviation")
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.square().mean().sqrt(), torch.tensor(1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0) / scaled.std(0)[1], seen.std(0) / seen.std(0)[1], atol=1e-6, rtol=1e-3)


def test_users_who_are_all_the_same_have_a_scale() -> None:
    model = Perceiver(4, width=32)
    model.fit_scale(torch.ones(5, 4))
    assert model(torch.ones(1, 2, 4), torch.ones(1, 2, dtype=torch.bool)).isfinite().all()
