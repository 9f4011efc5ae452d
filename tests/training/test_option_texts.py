"""Texts that a decoder scores, read once: the scores are those of the decoder itself."""

import copy

import numpy as np
import pytest
import torch
from exported_root import decoder

from training.decoder import load_decoder
from training.option_texts import OptionTexts
from training.personalised_model import PersonalisedDecoder, Shape

PROMPTS = ["balan dorvis?\nSUBJECT:", "who\nSUBJECT:", "mopek tunam rigol solan\n"]
TEXTS = ["balan pek nam gol and more of it", "kedor", "a <|endoftext|> b"]
WIDTH, TOKENS = 16, 3


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    model, tokenizer = load_decoder(decoder(tmp_path_factory.mktemp("decoder")))
    for weight in model.parameters():  # logits of the size of a trained decoder's
        if weight.ndim >= 2:
            weight.data.mul_(8)
    return model, tokenizer


def personalised(bare, injection: str = "cross_attention", layers: int = 1) -> PersonalisedDecoder:
    torch.manual_seed(1)
    shape = Shape(6, width=WIDTH, tokens=TOKENS, heads=2, injected_layers=layers, injection=injection)
    model = PersonalisedDecoder(bare, shape).eval()
    for name, weight in model.injection.named_parameters():
        if name.endswith("gates"):
            torch.nn.init.normal_(weight, std=2)
        if name.endswith("output.weight"):
            weight.data.mul_(4)
    return model


def one_by_one(model, tokenizer, users, row: int) -> torch.Tensor:
    """Mean log-likelihood of a text for one user, without padding or anything kept."""
    prompt, text = (tokenizer(said, split_special_tokens=True)["input_ids"] for said in (PROMPTS[row], TEXTS[row]))
    ids = torch.tensor([[tokenizer.bos_token_id, *prompt, *text]])
    return model.log_likelihoods(users, ids)[0, -len(text) :].mean()


@pytest.mark.parametrize(
    ("injection", "layers", "kept"),
    [("cross_attention", 1, True), ("cross_attention", 2, False), ("soft_prompt", 1, False)],
)
@torch.no_grad()
def test_scores_are_those_of_the_decoder(loaded, injection: str, layers: int, kept: bool) -> None:
    """C42: what is kept of the frozen decoder gives the same scores (to half precision), whatever the injection."""
    bare, tokenizer = loaded
    model = personalised(bare, injection, layers)
    texts = OptionTexts(model, tokenizer, PROMPTS, TEXTS, longest=40, cache_mb=1)
    assert (texts.hidden is not None) is kept
    users, rows = torch.randn(4, TOKENS, WIDTH), [0, 2, 2, 1]
    scores = texts.scores(model, users, torch.tensor(rows))
    expected = torch.stack([one_by_one(model, tokenizer, users[i : i + 1], row) for i, row in enumerate(rows)])
    torch.testing.assert_close(scores, expected, atol=2e-2 if kept else 1e-4, rtol=0)
    nobody = torch.stack([one_by_one(model, tokenizer, None, row) for row in rows])
    torch.testing.assert_close(texts.bare[rows], nobody, atol=2e-2 if kept else 1e-4, rtol=0)
    torch.testing.assert_close(
        texts.gains(model, users, torch.tensor(rows)), scores - texts.bare[rows], atol=1e-4, rtol=0
    )
    assert (expected - nobody).abs().max() > 0.1, "the users change the scores by more than the tolerance"


@torch.no_grad()
def test_kept_states_give_the_gradients_of_the_whole(loaded) -> None:
    """C42: a training on what is kept is the training on the decoder."""
    bare, tokenizer = loaded
    model, found = personalised(bare), []
    for cache_mb in (0, 1):
        texts = OptionTexts(model, tokenizer, PROMPTS, TEXTS, longest=40, cache_mb=cache_mb)
        users = torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(2))
        with torch.enable_grad():
            score = texts.scores(model, users.requires_grad_(), torch.arange(3)).sum()
            found.append(torch.autograd.grad(score, users)[0])
    assert found[0].abs().max() > 1e-3
    assert torch.cosine_similarity(found[0].flatten(), found[1].flatten(), dim=0) > 0.999


@torch.no_grad()
def test_gains_to_first_order_hold_while_little_is_added(loaded) -> None:
    """C42: half of what is added leaves a quarter of the error; the size is relative to the stream."""
    bare, tokenizer = loaded
    model, users, rows = personalised(bare), torch.randn(3, TOKENS, WIDTH), torch.arange(3)
    texts = OptionTexts(model, tokenizer, PROMPTS, TEXTS, longest=40, cache_mb=1)
    errors, sizes = [], []
    for share in (0.02, 0.2):
        model.injection.blocks[0].gates.copy_(torch.full_like(model.injection.blocks[0].gates, share))
        linear, size = texts.linear_gains(model, users.expand(3, 3, TOKENS, WIDTH), rows)  # [text, user]
        exact = texts.gains(model, users.repeat(3, 1, 1), rows.repeat_interleave(3)).view(3, 3)
        errors.append(float((linear - exact).abs().max()))
        sizes.append(float(size.mean()))
        assert float((linear - exact).abs().max()) < 0.5 * float(exact.abs().max())
    assert sizes[1] == pytest.approx(100 * sizes[0], rel=0.1)
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match="not kept"):
        OptionTexts(model, tokenizer, PROMPTS, TEXTS, longest=40).linear_gains(model, users[None], rows)


@torch.no_grad()
def test_the_model_adds_just_what_the_discriminant_says(loaded) -> None:
    """Whatever is attended to, whatever the rank: gains to first order are the inner products of x · W with slopes."""
    bare, tokenizer = loaded
    model = personalised(bare)
    model.injection.open()
    texts = OptionTexts(model, tokenizer, PROMPTS, TEXTS, longest=40, cache_mb=1)
    d, hidden = model.shape.state_dimension, bare.config.hidden_size
    weights = 0.01 * torch.from_numpy(np.random.default_rng(0).normal(size=(d, hidden))).float()
    torch.nn.init.normal_(model.perceiver.get_buffer("mean"))
    model.begin_with(weights)
    states, mask = torch.randn(2, 5, d), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    gains, _ = texts.linear_gains(model, model.user_tokens(states, mask).expand(3, -1, -1, -1), torch.arange(3))
    expected = texts.mean_slopes(model, torch.arange(3)) @ (model.mean_state(states, mask) @ weights).T
    torch.testing.assert_close(gains, expected, rtol=1e-3, atol=1e-6)
    assert expected.abs().max() > 1e-4


def test_a_text_alone_is_counted_up_to_its_longest(loaded) -> None:
    bare, tokenizer = loaded
    texts = OptionTexts(personalised(bare), tokenizer, PROMPTS, TEXTS, longest=3)
    for row, text in enumerate(TEXTS):
        said = tokenizer(text, split_special_tokens=True)["input_ids"][:3]
        assert texts.ids[row, 1:][texts.counted[row]].tolist() == said
    assert texts.ids[:, 0].tolist() == [tokenizer.bos_token_id] * 3


def test_a_special_token_in_a_text_is_text(loaded) -> None:
    """C24: somebody's "<|endoftext|>" neither ends nor hides what follows."""
    bare, tokenizer = loaded
    texts = OptionTexts(personalised(bare), tokenizer, PROMPTS, TEXTS, longest=40)
    counted = texts.ids[2, 1:][texts.counted[2]]
    assert tokenizer.eos_token_id not in counted.tolist()
    assert tokenizer.decode(counted) == TEXTS[2]


def test_an_empty_text_is_refused_and_no_texts_are_none(loaded) -> None:
    bare, tokenizer = loaded
    with pytest.raises(ValueError, match="empty"):
        OptionTexts(personalised(bare), tokenizer, ["who?\n"] * 2, ["me", ""], longest=40)
    assert len(OptionTexts(personalised(bare), tokenizer, [], [], longest=40, cache_mb=1).bare) == 0


@pytest.mark.parametrize("cache_mb", [0, 1])
@torch.no_grad()
def test_padding_and_the_other_texts_change_nothing(loaded, cache_mb: int) -> None:
    bare, tokenizer = loaded
    model, users = personalised(bare), torch.randn(1, TOKENS, WIDTH)
    options = {"longest": 40, "cache_mb": cache_mb}
    alone = OptionTexts(model, tokenizer, PROMPTS[1:2], TEXTS[1:2], **options)
    together = OptionTexts(model, tokenizer, PROMPTS, TEXTS, **options)
    assert alone.ids.shape[1] < together.ids.shape[1]
    own = alone.scores(model, users, torch.tensor([0]))
    both = together.scores(model, users.expand(2, -1, -1), torch.tensor([0, 1]))
    torch.testing.assert_close(own[0], both[1], atol=2e-2 if cache_mb else 1e-4, rtol=0)


@torch.no_grad()
def test_a_decoder_in_half_precision_is_read_as_well(loaded) -> None:
    """C42: a production decoder is kept in bfloat16, the adapters in float32."""
    bare, tokenizer = loaded
    model, half = personalised(bare), personalised(copy.deepcopy(bare).to(torch.bfloat16))
    users, rows = torch.randn(3, TOKENS, WIDTH), torch.arange(3)
    exact, near = (
        OptionTexts(each, tokenizer, PROMPTS, TEXTS, longest=40, cache_mb=1).scores(each, users, rows)
        for each in (model, half)
    )
    torch.testing.assert_close(near, exact, atol=0.15, rtol=0)
