"""TextEncoder: equal to what its folder describes, order kept, batches irrelevant, adapters verified."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import TextEncoder

TEXTS = [
    "SUBJECT: has anybody grown tomatoes on a north-facing balcony?",
    "<P1>: the build fails\nSUBJECT: pin the compiler, it worked for me\n<P2>: thanks",
    "SUBJECT: ok",
    "SUBJECT: " + "the train was late again and I missed the lecture. " * 8,
    "SUBJECT: ask 王小明, он знает 🙂",
    "SUBJECT: ok",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(threads=1, precision="float32")


@pytest.fixture(scope="module")
def vectors(encoder: TextEncoder) -> np.ndarray:
    return encoder.encode(TEXTS)


def test_shape_norm_and_order(encoder: TextEncoder, vectors: np.ndarray) -> None:
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors[2], vectors[5])  # the same text, encoded once
    for row, text in enumerate(TEXTS):
        assert float(encoder.encode([text])[0] @ vectors[row]) > 0.999999


@torch.inference_mode()
def test_equals_the_models_own_recipe(vectors: np.ndarray) -> None:
    """Mean of the last layer's states over a text's own tokens, of unit length, as its modules.json says."""
    from transformers import AutoModel, AutoTokenizer

    folder = base_model.model_folder("minilm")
    assert [part["type"].split(".")[-1] for part in json.loads((folder / "modules.json").read_bytes())] == [
        "Transformer", "Pooling", "Normalize",
    ]  # fmt: skip
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    longest = json.loads((folder / "sentence_bert_config.json").read_bytes())["max_seq_length"]
    for text, vector in zip(TEXTS, vectors, strict=True):
        states = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)).last_hidden_state
        reference = torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy()
        assert vector @ reference >= 0.9999


@pytest.mark.parametrize("budget", [16, 64, 100_000])
def test_batching_does_not_change_vectors(vectors: np.ndarray, budget: int) -> None:
    other = TextEncoder(threads=1, precision="float32", tokens_per_batch=budget).encode(TEXTS)
    np.testing.assert_allclose(other, vectors, atol=2e-6)


@pytest.mark.parametrize("budget", [16, 1024])
def test_bfloat16_products_keep_the_vectors(vectors: np.ndarray, budget: int) -> None:
    """The fast precision is within cosine 0.9999 of float32 for every text, and the same bits every time."""
    fast = TextEncoder(threads=1, precision="bfloat16", tokens_per_batch=budget)
    assert next(m for m in fast._model.modules() if type(m).__name__ == "Linear").weight.dtype == torch.bfloat16
    encoded = fast.encode(TEXTS)
    cosine = (encoded * vectors).sum(1)
    assert 0.9999 <= cosine.min() < 1 - 1e-6  # not float32 under another name
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), 1, atol=1e-6)
    assert np.array_equal(encoded, fast.encode(TEXTS))
    assert (fast.version == TextEncoder().version) == base_model.native_bfloat16()


def test_a_coarser_precision_is_caught(vectors: np.ndarray) -> None:
    """Broken twin: with every weight cut to 8 bits of one scale, the bar of cosine 0.9999 is missed."""
    coarse = TextEncoder(threads=1, precision="float32")
    with torch.no_grad():
        for weight in coarse._model.parameters():
            step = weight.abs().max() / 127
            weight.copy_((weight / step).round() * step)
    assert (coarse.encode(TEXTS) * vectors).sum(1).min() < 0.9999


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="'int8' is none of"):
        TextEncoder(precision="int8")


def test_long_text_keeps_its_end() -> None:
    """SUBJECT's last words decide: texts that differ only before the last 32 tokens have equal vectors."""
    encoder = TextEncoder(threads=1, max_tokens=32)
    end = "SUBJECT: " + "and so the harvest was better than the year before " * 4
    a, b, c = encoder.encode(["apples " * 300 + end, "pears " * 300 + end, end + " quantum " * 300])
    assert float(a @ b) > 0.999999
    assert float(a @ c) < 0.9


def test_no_texts(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_progress_reaches_the_number_of_distinct_texts(encoder: TextEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode(TEXTS, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)


def test_token_budget_holds_and_every_row_comes_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=300)
    batches = list(base_model.token_budget_batches(lengths, 512))
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert all(len(rows) * lengths[rows].max() <= 512 for rows in batches)
    assert len(batches) < 1.25 * lengths.sum() / 512 + 2


def test_version_follows_what_decides_a_vector() -> None:
    assert TextEncoder().version == TextEncoder(tokens_per_batch=7, threads=1).version
    assert TextEncoder().version != TextEncoder(max_tokens=128).version


def test_version_and_dimension_need_no_torch() -> None:
    code = (
        "import sys; from user_embeddings_dagster.embedding.text_encoder import TextEncoder as T; "
        "e = T(precision='float32'); assert len(e.version) == 32 and e.dimension == 384; "
        "heavy = {'torch', 'transformers', 'peft', 'lancedb'} & sys.modules.keys(); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_precision_belongs_to_the_version() -> None:
    """Vectors of another precision are other vectors: a table never mixes them unnoticed."""
    versions = {precision: TextEncoder(precision=precision).version for precision in ("float32", "bfloat16")}
    assert versions["float32"] != versions["bfloat16"]
    assert TextEncoder().version in versions.values()


def test_folder_without_a_model_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"missing \['model.safetensors', 'tokenizer.json'\]"):
        TextEncoder(str(tmp_path))
