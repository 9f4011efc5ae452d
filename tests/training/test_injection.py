"""User tokens in a frozen decoder: gated cross-attention and soft prompt."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from training.injection import CrossAttentionInjection, GatedCrossAttention, SoftPrompt, layers_of, spread

WIDTH, TOKENS = 24, 5


def qwen(dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": None, "pad_token_id": 0}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)).to(dtype).eval().requires_grad_(False)


def llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).eval().requires_grad_(False)


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=4, n_head=4)).eval().requires_grad_(False)


def opened(injection: CrossAttentionInjection, gate: float = 0.5) -> CrossAttentionInjection:
    for block in injection.blocks:
        torch.nn.init.constant_(block.gates, gate)
    return injection


@pytest.mark.parametrize("decoder_of", [qwen, llama, gpt2])
def test_with_gates_at_zero_the_logits_are_the_bare_decoders(decoder_of) -> None:
    """C42: max |Δ logit| is exactly 0 on 1,000 prompts; with open gates it is not."""
    decoder = decoder_of()
    injection = CrossAttentionInjection(decoder, WIDTH, spread(4, 2))
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        prompts = torch.randint(0, 97, (100, 12), generator=generator)
        bare = decoder(input_ids=prompts).logits
        with injection.bound(decoder, torch.randn(100, TOKENS, WIDTH, generator=generator)):
            assert (decoder(input_ids=prompts).logits - bare).abs().max().item() == 0.0
    with opened(injection).bound(decoder, torch.randn(100, TOKENS, WIDTH, generator=generator)):
        assert (decoder(input_ids=prompts).logits - bare).abs().max().item() > 1e-3


def test_gates_at_zero_change_nothing_in_half_precision() -> None:
    """C42: a production decoder runs in bfloat16, the adapters in float32."""
    decoder = qwen(torch.bfloat16)
    injection = CrossAttentionInjection(decoder, WIDTH, [1, 2])
    prompts = torch.randint(0, 97, (4, 9))
    bare = decoder(input_ids=prompts).logits
    with injection.bound(decoder, torch.randn(4, TOKENS, WIDTH)):
        logits = decoder(input_ids=prompts).logits
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, bare)


def test_the_decoder_is_bare_again_afterwards_also_after_an_error() -> None:
    decoder = qwen()
    injection = opened(CrossAttentionInjection(decoder, WIDTH, [1]))
    prompts = torch.randint(0, 97, (2, 5))
    bare = decoder(input_ids=prompts).logits
    with pytest.raises(KeyError), injection.bound(decoder, torch.randn(2, TOKENS, WIDTH)):
        raise KeyError
    assert torch.equal(decoder(input_ids=prompts).logits, bare)


def test_each_row_is_written_for_its_own_user() -> None:
    decoder = qwen()
    injection = opened(CrossAttentionInjection(decoder, WIDTH, [1, 2]))
    prompt, users = torch.randint(0, 97, (1, 8)), torch.randn(3, TOKENS, WIDTH)
    with injection.bound(decoder, users):
        together = decoder(input_ids=prompt.expand(3, -1)).logits
    for row in range(3):
        with injection.bound(decoder, users[row : row + 1]):
            torch.testing.assert_close(decoder(input_ids=prompt).logits[0], together[row], atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("decoder_of", [qwen, gpt2])
def test_generation_with_the_key_value_cache_is_that_without(decoder_of) -> None:
    """C42: the user tokens are outside of the decoder's own cache."""
    decoder = decoder_of()
    injection = opened(CrossAttentionInjection(decoder, WIDTH, [1, 2]), 1.5)
    prompt, users = torch.randint(1, 97, (3, 6)), torch.randn(3, TOKENS, WIDTH)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    with injection.bound(decoder, users):
        cached = decoder.generate(prompt, use_cache=True, **options)
        without = decoder.generate(prompt, use_cache=False, **options)
    assert torch.equal(cached, without)
    assert not torch.equal(cached, decoder.generate(prompt, use_cache=True, **options))


def test_only_the_adapters_get_gradients_and_the_gates_first() -> None:
    decoder = qwen()
    injection = CrossAttentionInjection(decoder, WIDTH, [1, 2])
    with injection.bound(decoder, torch.randn(2, TOKENS, WIDTH)):
        decoder(input_ids=torch.randint(0, 97, (2, 5))).logits.logsumexp(-1).sum().backward()
    assert all(weight.grad is None for weight in decoder.parameters())
    assert all(float(block.gates.grad.abs().min()) > 0 for block in injection.blocks)


def test_layers_are_spread_and_the_last_is_among_them() -> None:
    assert spread(4, 1) == [3]
    assert spread(4, 2) == [1, 3]
    assert spread(64, 4) == [15, 31, 47, 63]
    assert spread(2, 8) == [0, 1]


@pytest.mark.parametrize("count", [0, -1])
def test_an_injection_into_no_layer_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread(4, count)


def test_a_stream_of_zeros_has_a_gradient() -> None:
    """The root of its size would have an infinite one."""
    block = GatedCrossAttention(8, WIDTH, 2)
    torch.nn.init.ones_(block.gates)
    hidden = torch.zeros(1, 2, 8, requires_grad=True)
    block(hidden, torch.randn(1, TOKENS, WIDTH)).sum().backward()
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert block.gates.grad is not None and block.gates.grad.isfinite().all()


def test_a_decoder_of_unknown_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear"):
        layers_of(torch.nn.Linear(2, 2))


def test_soft_prompt_starts_at_the_size_of_the_decoders_embeddings() -> None:
    """C42: input embeddings [B, n, hidden] that a frozen decoder can read."""
    decoder = qwen()
    tokens = SoftPrompt(decoder, WIDTH).tokens(torch.randn(64, TOKENS, WIDTH))
    assert tokens.shape == (64, TOKENS, 32)
    ratio = tokens.std() / decoder.get_input_embeddings().weight.std()
    assert 0.3 < float(ratio) < 3
