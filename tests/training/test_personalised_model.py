"""The personalised decoder: presets of what is trained, scores of options."""

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, Qwen3Config, Qwen3ForCausalLM

from training.decoder import load_decoder, weights_hash
from training.personalised_model import PRESETS, PersonalisedDecoder, Shape, attention_layers, trained_parameters
from training.tokenizer import train_tokenizer
from user_embeddings_dagster.storage.manifest import CorruptArtifact


def qwen():
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": None, "pad_token_id": 0}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)).eval().requires_grad_(False)


def personalised(injection: str = "cross_attention") -> PersonalisedDecoder:
    return PersonalisedDecoder(qwen(), Shape(state_dimension=12, width=24, heads=2, injection=injection))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_its_parts_and_nothing_else(preset: str) -> None:
    """C42: Full, LoRA, Enc, Proj."""
    model, encoder = personalised(), torch.nn.Linear(3, 3)
    if preset == "lora":
        model.adapt_decoder(2)
    chosen = trained_parameters(model, preset, encoder)
    parts = {name.partition(".")[0] for name in chosen}
    expected = {"enc": {"model", "encoder"}, "lora": {"model", "decoder"}, "full": {"model", "encoder", "decoder"}}
    assert parts == expected.get(preset, {"model"})
    assert all(weight.requires_grad for weight in chosen.values())
    assert any(".perceiver." in f".{name}" for name in chosen) == (preset != "proj")
    if preset == "lora":
        assert all("lora_" in name for name in chosen if name.startswith("decoder."))
    every = {id(w) for part in (model, encoder, model.decoder) for w in part.parameters() if w.requires_grad}
    assert every == {id(weight) for weight in chosen.values()}


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="preset"):
        trained_parameters(personalised(), "everything", torch.nn.Linear(1, 1))


def test_adapters_must_be_there_before_they_are_trained() -> None:
    with pytest.raises(ValueError, match="adapt_decoder"):
        trained_parameters(personalised(), "lora", torch.nn.Linear(1, 1))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        Shape(state_dimension=12, width=16, heads=3)
    with pytest.raises(ValueError, match="injection"):
        Shape(state_dimension=12, injection="magic")


OTHER_DECODERS = {
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4)), {"c_attn", "c_proj"}),
    "opt": (
        lambda: OPTForCausalLM(
            OPTConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4)
        ),
        {"q_proj", "k_proj", "v_proj", "out_proj"},
    ),
}


@pytest.mark.parametrize("name", OTHER_DECODERS)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_go_to_the_attention_by_whatever_name_and_nowhere_else(name: str) -> None:
    make, expected = OTHER_DECODERS[name]
    model = PersonalisedDecoder(make().eval(), Shape(state_dimension=12, width=24, heads=2))
    model.adapt_decoder(2)
    chosen = [name for name in trained_parameters(model, "lora", torch.nn.Linear(1, 1)) if "lora_" in name]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in chosen} == expected
    assert all("attn" in name for name in chosen)


def test_a_decoder_without_attention_by_name_has_no_adapters() -> None:
    decoder = qwen()
    for layer in decoder.model.layers:
        layer.mixer = layer.self_attn
        del layer.self_attn
    with pytest.raises(ValueError, match="attention"):
        attention_layers(decoder)


def test_before_training_options_score_as_the_bare_decoder_scores_them() -> None:
    """C42: nobody's tokens or anybody's, the gates are shut."""
    model, ids = personalised(), torch.randint(1, 61, (8, 7))
    counted = torch.ones(8, 6)
    users = model.user_tokens(torch.randn(2, 5, 12), torch.ones(2, 5, dtype=torch.bool))
    scores = model.option_scores(users, ids, counted, options=4)
    assert scores.shape == (2, 4)
    assert torch.equal(scores, model.option_scores(None, ids, counted, options=4))
    bare = model.decoder(input_ids=ids[:, :-1]).logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(scores.flatten(), bare.mean(1), atol=1e-5, rtol=1e-5)


def test_options_are_scored_for_their_own_tasks_user_with_either_injection() -> None:
    for injection in ("cross_attention", "soft_prompt"):
        model, ids = personalised(injection), torch.randint(1, 61, (8, 7))
        for name, weight in model.injection.named_parameters():
            if name.endswith("gates"):
                torch.nn.init.constant_(weight, 0.7)
        users, counted = torch.randn(2, 16, 24), torch.ones(8, 6)
        both = model.option_scores(users, ids, counted, options=4)
        alone = model.option_scores(users[1:], ids[4:], counted[4:], options=4)
        torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)
        swapped = model.option_scores(users.flip(0), ids, counted, options=4)
        assert (both - swapped).abs().max() > 1e-6


def test_a_decoder_loads_frozen_from_its_folder(tmp_path) -> None:
    decoder = qwen()
    decoder.save_pretrained(tmp_path)
    chunks = pl.DataFrame({"user_id": ["a", "b"], "own": ["some words", "some words"]})
    train_tokenizer(chunks, vocabulary=300, min_users=2).save_pretrained(tmp_path)
    loaded, _ = load_decoder(tmp_path)
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert weights_hash(loaded) == weights_hash(decoder)
    next(loaded.parameters()).data[0, 0] += 1
    assert weights_hash(loaded) != weights_hash(decoder)


def test_a_folder_with_a_pickle_or_code_is_refused(tmp_path) -> None:
    """C68: a decoder from elsewhere is weights and JSON alone."""
    qwen().save_pretrained(tmp_path)
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('executed')")
    with pytest.raises(CorruptArtifact, match="modeling_own"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "everything"])
def test_a_folder_that_holds_no_decoder_is_an_error(tmp_path, missing: str) -> None:
    folder = tmp_path / "decoder"
    if missing != "everything":
        qwen().save_pretrained(folder)
        (folder / missing).unlink()
    with pytest.raises((OSError, ValueError)):
        load_decoder(folder)
