"""The frozen layers' cache, and LoRA on encoders of several architectures: cut equals whole, resume is exact."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.unmined_pairs import unmined_pairs
from training import lora
from training.frozen_layers import ActivationCache, FrozenLayers
from training.item_data import Pairs
from training.item_encoder import Config, ItemTraining
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.storage.manifest import finalise

WIDTH, VOCABULARY = 32, 60
LINEARS = {
    "bert": ["query", "key", "value", "dense"],
    "roberta": ["query", "key", "value", "dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin"],
    "mpnet": ["q", "k", "v", "o"],
}


def folder_of(architecture: str, folder: Path) -> Path:
    """A random four-layer encoder of width 32 with a word-level tokenizer, as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    names = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i + 2 for i in range(VOCABULARY - 2)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "max_position_embeddings": 80, "pad_token_id": 0, "initializer_range": 0.3}
    if architecture == "distilbert":
        shape |= {"dim": WIDTH, "n_layers": 4, "n_heads": 2, "hidden_dim": 64}
    else:
        shape |= {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    model = AutoModel.from_config(AutoConfig.for_model(architecture, **shape))
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": WIDTH}))
    finalise(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folder_of("bert", tmp_path_factory.mktemp("bert")))


def made_pairs(n: int, longest: int = 40) -> Pairs:
    generator = np.random.default_rng(0)
    tokens = [generator.integers(2, VOCABULARY, size=generator.integers(3, longest)).tolist() for _ in range(n)]
    targets = torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)
    return unmined_pairs(tokens, targets, 0.99)


def training_on(base: str, **settings) -> ItemTraining:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    defaults = {"seed": 0, "base": base, "batch_size": 16, "steps": 12, "top_layers": 2, "negatives": 0}
    return ItemTraining(Config.of({**defaults, **settings}), "cpu")


def losses(training: ItemTraining, pairs: Pairs) -> list[float]:
    return [training.step(pairs, step)["loss"] for step in range(1, training.config.steps + 1)]


def test_cached_training_follows_the_uncached_and_touches_nothing(bert: str, tmp_path: Path) -> None:
    """C28: half-precision activations move the loss by under 0.5%, the frozen hash not at all."""
    pairs = made_pairs(48)
    plain, cached = training_on(bert, cache_layers=False), training_on(bert)
    frozen = lora.frozen_hash(cached.model)
    cached.build_cache(pairs, tmp_path / "a.f16")
    assert (tmp_path / "a.f16").stat().st_size == ActivationCache.bytes(pairs.lengths, WIDTH)
    np.testing.assert_allclose(losses(cached, pairs), losses(plain, pairs), rtol=5e-3)
    assert lora.frozen_hash(cached.model) == frozen
    rows = np.arange(8)
    whole, kept = (cached.encode(pairs, rows, split=which).detach() for which in (False, True))
    assert 0 < (whole - kept).abs().max() < 2e-2


def test_activations_of_another_text_are_caught(bert: str, tmp_path: Path) -> None:
    """Broken twin: a cache read at the wrong rows gives other vectors than encoding the texts."""
    pairs = made_pairs(12)
    training = training_on(bert)
    training.build_cache(pairs, tmp_path / "a.f16")
    assert training.cache is not None
    training.cache.ends = training.cache.ends + 1 - training.cache.lengths  # every text one token off
    training.cache.ends = np.maximum(training.cache.ends, training.cache.lengths)
    rows = np.arange(8)
    whole, kept = (training.encode(pairs, rows, split=which).detach() for which in (False, True))
    assert (whole - kept).abs().max() > 0.05


def test_the_file_is_remade_to_the_byte_and_a_partial_one_is_not_read(bert: str, tmp_path: Path) -> None:
    pairs, training = made_pairs(30), training_on(bert)
    training.build_cache(pairs, tmp_path / "a.f16")
    (tmp_path / ".b.f16.partial").write_bytes(b"cut short by a kill")
    training.build_cache(pairs, tmp_path / "b.f16")
    assert (tmp_path / "a.f16").read_bytes() == (tmp_path / "b.f16").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.f16", "a.f16.json", "b.f16", "b.f16.json"]
    flipped = bytearray((tmp_path / "a.f16").read_bytes())
    flipped[7] ^= 4
    (tmp_path / "a.f16").write_bytes(flipped)
    training.build_cache(pairs, tmp_path / "a.f16")
    assert (tmp_path / "a.f16").read_bytes() == (tmp_path / "b.f16").read_bytes(), "a flipped bit is not trained on"


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, True),
        ({"cache_layers": False}, False),
        ({"top_layers": None}, False),
        ({"top_layers": 4}, False),
        ({"steps": 2}, False),  # 32 pairs of 48: none is seen twice
        ({"cache_mb": 0}, False),
    ],
)
def test_cached_only_when_it_pays_and_fits(bert: str, settings: dict, kept: bool) -> None:
    assert training_on(bert, **settings).caches(made_pairs(48)) is kept


@pytest.mark.parametrize("architecture", LINEARS)
def test_lora_trains_on_any_encoder(architecture: str, tmp_path: Path) -> None:
    """C33: adapters on four architectures: the loss falls, the base stays, the saved adapter is read back."""
    folder = folder_of(architecture, tmp_path / "base")
    settings = {"target_modules": LINEARS[architecture], "learning_rate": 0.02, "warmup_share": 0.0}
    training = training_on(str(folder), **settings)
    pairs = made_pairs(24)
    frozen = lora.frozen_hash(training.model)
    training.build_cache(pairs, tmp_path / "a.f16")
    curve = losses(training, pairs)
    assert np.mean(curve[-3:]) < 0.9 * curve[0]
    assert lora.frozen_hash(training.model) == frozen
    (tmp_path / "adapter").mkdir()
    lora.save(training.model, tmp_path / "adapter", str(folder))
    from peft import PeftModel

    again = PeftModel.from_pretrained(base_model.load_model(folder), str(tmp_path / "adapter")).merge_and_unload()
    ids, mask = base_model.padded(pairs.tokens[:4], 0)
    with torch.no_grad():
        vectors = base_model.mean_pool(again.eval()(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    torch.testing.assert_close(vectors, training.encode(pairs, np.arange(4)).detach(), atol=1e-5, rtol=1e-4)
    untrained = TextEncoder(str(folder), threads=1, precision="float32")
    assert untrained.encode(["w1 w2 w3"]).shape == (1, WIDTH)


def test_layers_that_need_more_than_their_input_are_refused(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = base_model.load_model(Path(bert))
    embed = model.embeddings.forward

    def counted(*arguments, **named):  # a model whose output depends on what the layers below did beside their output
        counted.calls += 1
        return embed(*arguments, **named)

    counted.calls = 0
    monkeypatch.setattr(model.embeddings, "forward", counted)
    layer = model.encoder.layer[3]
    last = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *a, **k: last(*a, **k) + counted.calls)
    with pytest.raises(ValueError, match="set cache_layers to false"):
        FrozenLayers(model, 2)
    with pytest.raises(ValueError, match="no one list of 4 layers"):
        FrozenLayers(torch_module(model.config), 2)


def torch_module(config) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    module.config = config
    return module


def gradients(base: str, pairs: Pairs, tokens_per_batch: int, broken: bool = False) -> list[torch.Tensor]:
    training = training_on(
        base, batch_size=64, tokens_per_batch=tokens_per_batch, clip_norm=1e9, steps=1, cache_layers=False
    )
    if broken:
        pieces = training.loss

        def own(vectors, over, piece):  # each piece contrasts with its own positives alone
            allowed = torch.zeros_like(over.allowed)
            allowed[:, over.positives[piece]] = over.allowed[:, over.positives[piece]]
            return pieces(vectors, type(over)(over.vectors, over.positives, allowed), piece)

        training.loss = own
    training.step(pairs, 1)
    return [weight.grad for weight in training.weights.values() if weight.grad is not None]


def test_a_batch_of_64_in_pieces_has_the_gradient_of_one_pass(bert: str) -> None:
    """C33: gradient caching: pieces of 128 tokens and one pass over 64 rows give the same gradient.

    The broken twin is a plain accumulation of small batches, each with its own negatives.
    """
    pairs = made_pairs(64)
    small, whole = gradients(bert, pairs, 128), gradients(bert, pairs, 10**6)
    assert len(small) == len(whole) > 0
    for a, b in zip(small, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
    twin = gradients(bert, pairs, 128, broken=True)
    assert max(float((a - b).abs().max()) for a, b in zip(twin, whole, strict=True)) > 1e-3


def test_peak_memory_does_not_grow_with_the_batch(bert: str) -> None:
    """C33: the largest tensors kept for the backward pass are of one piece, at a batch of 32 as at one of 256.

    The broken twin encodes the batch in one piece.
    """

    def saved(batch: int, tokens_per_batch: int) -> int:
        """Peak bytes of tensors that autograd holds between a forward and its backward pass."""
        training = training_on(bert, batch_size=batch, tokens_per_batch=tokens_per_batch, steps=1)
        held = {"now": 0, "peak": 0}
        loss = training.loss

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held["now"] += tensor.numel() * tensor.element_size()
            held["peak"] = max(held["peak"], held["now"])
            return tensor

        def fresh(*arguments):
            value = loss(*arguments)
            held["now"] = 0
            return value

        training.loss = fresh
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            training.step(made_pairs(256), 1)
        return held["peak"]

    small, large = saved(32, 256), saved(256, 256)
    assert large < 1.3 * small
    assert saved(256, 10**6) > 4 * small
