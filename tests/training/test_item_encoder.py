"""The item encoder's job on a tiny encoder: only the adapter moves, resume is bit-exact, the result loads."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from training import item_data, item_encoder, job, lora, versions
from training.checkpoint import Checkpoints
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise

WORDS = [f"{a}{b}" for a in ("ba", "ke", "mo", "tu", "ri", "so") for b in ("lan", "dor", "vis", "pek", "nam", "gol")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer BERT of width 32 with a word-level tokenizer, saved as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "SUBJECT", ":", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=64, **shape)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    finalise(folder)
    return str(folder)


def pairs(base: str, n: int = 60) -> pl.DataFrame:
    """Chunks of random words whose summary is the vector of their last words."""
    generator = np.random.default_rng(0)
    words = [generator.choice(WORDS, size=generator.integers(4, 24)).tolist() for _ in range(n)]
    texts = ["SUBJECT: " + " ".join(row) for row in words]
    encoder = TextEncoder(base, max_tokens=32, threads=1, precision="float32")
    summaries = encoder.encode([" ".join(row[-4:]) for row in words])
    centred = summaries - summaries.mean(0)  # of a random network the vectors lie close together
    summaries = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    ids = [content_id(text) for text in texts]
    split = ["valid" if i % 5 == 0 else "train" for i in range(n)]
    train = [id_ for id_, part in zip(ids, split, strict=True) if part == "train"]
    return pl.DataFrame(
        {
            "chunk_id": ids,
            "user_id": [f"user{i % 10}" for i in range(n)],
            "split": split,
            "window_id": [f"w{i}" for i in range(n)],
            "text": texts,
            "negatives": [train[i : i + 3] if part == "train" else [] for i, part in enumerate(split)],
        },
        schema_overrides={"negatives": pl.List(pl.String)},
    ).with_columns(
        positive_similarity=pl.lit(0.9),
        summary_vector=pl.Series(summaries).cast(pl.List(pl.Float32)),
    )


@pytest.fixture
def inputs(base: str, tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    pairs(base).write_parquet(folder / "pairs.parquet")
    settings = {"seed": 3, "base": base, "max_tokens": 32, "steps": 24, "batch_size": 16, "validations": 3}
    settings |= {"learning_rate": 0.01, "threads": 1, "patience": 9, "checkpoint_seconds": 0}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def run(inputs: Path, output: Path) -> None:
    arguments = ["--inputs", str(inputs), "--output", str(output)]
    assert job.run("item_encoder", item_encoder.train, versions.ITEM_ENCODER, arguments) == 0


def result(output: Path) -> tuple[bytes, list[dict], str]:
    """Adapter bytes, metrics lines and encoder version of a result."""
    encoder = json.loads((output / "encoder.json").read_text())
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return (output / "adapter_model.safetensors").read_bytes(), lines, encoder["version"]


def test_only_the_adapter_moves_and_the_result_is_the_encoder(base: str, inputs: Path, tmp_path: Path) -> None:
    """C28: the frozen weights' hash is that of the untouched base; the loss falls; the saved adapter is the model."""
    untouched = base_model.folder_hash(Path(base))
    run(inputs, tmp_path / "out")
    _, lines, version = result(tmp_path / "out")
    encoder = json.loads((tmp_path / "out" / "encoder.json").read_text())
    measured = encoder["metrics"]
    fresh = lora.attach(base_model.load_model(Path(base)), 8, 16, ["dense", "key", "query", "value"], None)
    assert measured["frozen_hash"] == lora.frozen_hash(fresh)
    assert base_model.folder_hash(Path(base)) == encoder["base_hash"] == untouched
    assert len(lines) == 24
    assert np.mean([line["loss"] for line in lines[-4:]]) < 0.8 * lines[0]["loss"]
    assert measured["valid_loss"] < lines[0]["start_valid_loss"]
    assert measured["ln_candidates_start"] == pytest.approx(lines[0]["ln_candidates"])
    tuned = TextEncoder(base, tmp_path / "out", max_tokens=32, threads=1, precision="float32")
    assert tuned.version == version != TextEncoder(base, max_tokens=32).version
    assert valid_recall(tuned, base) == pytest.approx(measured["valid_recall@1"])


def valid_recall(encoder: TextEncoder, base: str) -> float:
    valid = pairs(base).filter(pl.col("split") == "valid").sort("chunk_id")
    targets = np.stack(valid["summary_vector"].to_list())
    nearest = (encoder.encode(valid["text"].to_list()) @ targets.T).argmax(1)
    return float((nearest == np.arange(len(targets))).mean())


def test_a_leaked_frozen_weight_is_caught(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C28, broken twin: one bias of the base that an optimizer step nudges fails the job, with no result."""
    step = item_encoder.ItemTraining.step

    def leaking(self, *arguments):
        with torch.no_grad():
            next(p for n, p in self.model.named_parameters() if n.endswith("bias")).add_(1e-6)
        return step(self, *arguments)

    monkeypatch.setattr(item_encoder.ItemTraining, "step", leaking)
    with pytest.raises(RuntimeError, match="frozen weight moved"):
        run(inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_not_frozen_is_refused(base: str) -> None:
    model = lora.attach(base_model.load_model(Path(base)), 4, 8, ["query"], 1)
    assert all("layer.1." in name for name in lora.trainable(model))
    next(model.parameters()).requires_grad_(True)
    with pytest.raises(ValueError, match="must be frozen"):
        lora.trainable(model)


def killed(inputs: Path, output: Path, after_steps: int) -> None:
    """Run the job in a process of its own and kill it (SIGKILL) once it has written that many metrics lines."""
    command = [sys.executable, "-P", "-m", "training.item_encoder", "--inputs", str(inputs), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = output.with_name(f"{output.name}.work") / "result" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < after_steps:
        assert process.poll() is None, "the job ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()


def test_resume_after_kill_is_bit_exact(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C70: killed with SIGKILL and run again, the job writes the bytes and metrics of an undisturbed run.

    The frozen layers' activations are kept in a file. The broken twin resumes without the optimizer's moments and
    ends elsewhere.
    """
    settings = json.loads((inputs / "config.json").read_text()) | {"top_layers": 1}
    (inputs / "config.json").write_text(json.dumps(settings))
    run(inputs, tmp_path / "whole")
    killed(inputs, tmp_path / "cut", after_steps=9)
    saved = Checkpoints(tmp_path / "cut.work" / "checkpoints").paths()
    assert saved and (tmp_path / "cut.work" / "activations.f16").is_file()
    shutil.copytree(tmp_path / "cut.work", tmp_path / "twin.work")
    run(inputs, tmp_path / "cut")
    assert result(tmp_path / "cut") == result(tmp_path / "whole")

    def forgetful(self, state):
        self.load_weights(state["weights"])

    monkeypatch.setattr(item_encoder.ItemTraining, "restore", forgetful)
    run(inputs, tmp_path / "twin")
    assert result(tmp_path / "twin")[0] != result(tmp_path / "whole")[0]


def test_an_altered_adapter_is_refused(base: str, inputs: Path, tmp_path: Path) -> None:
    settings = json.loads((inputs / "config.json").read_text()) | {"steps": 2}
    (inputs / "config.json").write_text(json.dumps(settings))
    run(inputs, tmp_path / "out")
    path = tmp_path / "out" / "adapter_model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptArtifact, match="adapter_model"):
        TextEncoder(base, tmp_path / "out", max_tokens=32).encode(["SUBJECT: balan"])


def test_a_test_users_text_is_refused(base: str, inputs: Path) -> None:
    pairs(base).with_columns(split=pl.lit("test")).write_parquet(inputs / "pairs.parquet")
    with pytest.raises(ValueError, match="splits \\['test'\\] must not be trained on"):
        item_data.load(inputs / "pairs.parquet", base_model.load_tokenizer(Path(base)), 32, 0.95)


def test_batches_depend_on_seed_and_step_alone() -> None:
    epoch = [item_data.batch_rows(203, 16, 7, step) for step in range(12)]
    rows = np.concatenate(epoch)
    assert len(set(rows.tolist())) == len(rows) == 192
    assert np.array_equal(epoch[5], item_data.batch_rows(203, 16, 7, 5))
    assert not np.array_equal(epoch[5], item_data.batch_rows(203, 16, 8, 5))
    assert not np.array_equal(epoch[0], item_data.batch_rows(203, 16, 7, 12))
    assert set(item_data.batch_rows(10, 16, 7, 3).tolist()) == set(range(10))


def test_a_batch_in_pieces_has_little_padding() -> None:
    lengths = np.random.default_rng(1).integers(5, 256, size=64)
    pieces = list(base_model.token_budget_batches(lengths, item_encoder.Config(seed=0).tokens_per_batch))
    padded = sum(len(piece) * lengths[piece].max() for piece in pieces)
    assert padded < 1.15 * lengths.sum()


def test_pieces_have_the_gradient_of_the_whole_batch(base: str, inputs: Path) -> None:
    """The targets are frozen, so a batch of 16 in pieces of a few rows has the gradient of the batch at once."""
    settings = json.loads((inputs / "config.json").read_text())

    def gradients(tokens_per_batch: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        config = item_encoder.Config.of({**settings, "tokens_per_batch": tokens_per_batch, "clip_norm": 1e9})
        training = item_encoder.ItemTraining(config, "cpu")
        data = item_data.load(inputs / "pairs.parquet", training.tokenizer, 32, 0.95)["train"]
        training.step(data, 1)
        return [weight.grad for weight in training.weights.values() if weight.grad is not None]

    small, whole = gradients(64), gradients(100_000)
    assert len(small) == len(whole) > 0
    for a, b in zip(small, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_false_negatives_do_not_compete(base: str, inputs: Path) -> None:
    """C30: in a batch too, a summary more similar to the own than the limit is no negative."""
    data = item_data.load(inputs / "pairs.parquet", base_model.load_tokenizer(Path(base)), 32, 0.95)["train"]
    data.summaries[1] = data.summaries[0]
    over = item_data.candidates(data, np.array([0, 1, 2]), 2, 0, 0)
    assert not over.allowed[0, over.positives[1]] and not over.allowed[1, over.positives[0]]
    assert over.allowed[torch.arange(3), over.positives].all()
    assert over.allowed[2, over.positives[0]] or data.summaries[2] @ data.summaries[0] > data.limit[2]


def test_relabelled_pairs_compete_with_what_is_near_neither_positive_nor_own(base: str, inputs: Path) -> None:
    """C30: row 0's positive is summary 1; its own and one like it never compete, nor does one like the positive."""
    frame = pl.read_parquet(inputs / "pairs.parquet").sort("chunk_id")
    ids = frame.filter(split="train")["chunk_id"].to_list()
    renamed = frame.with_columns(
        positive=pl.when(chunk_id=ids[0]).then(pl.lit(ids[1]))
        .when(chunk_id=ids[5]).then(None).otherwise("chunk_id"),
        own_similarity=pl.lit(0.9),
        positive_similarity=pl.lit(0.95),
        negatives=pl.when(chunk_id=ids[0]).then(pl.lit(ids[2:5])).otherwise(pl.lit([], dtype=pl.List(pl.String))),
    )  # fmt: skip
    renamed.write_parquet(inputs / "pairs.parquet")
    data = item_data.load(inputs / "pairs.parquet", base_model.load_tokenizer(Path(base)), 32, 0.95)["train"]
    assert 5 not in data.queries and len(data.queries) == len(data) - 1
    assert data.positives[:3].tolist() == [1, 1, 2]
    data.summaries[:5] = torch.eye(data.summaries.shape[1])[:5]
    data.summaries[2], data.summaries[3] = data.summaries[0], data.summaries[1]  # like the own, like the positive
    over = item_data.candidates(data, np.array([0, 4]), 3, 0, 0)
    assert torch.equal(over.vectors[over.positives[0]], data.summaries[1])
    assert over.vectors.shape[0] == 4  # 1 (positive of 0), 2, 3 and 4; not 0, which is nobody's target here
    assert over.allowed[0].tolist() == [True, False, False, True]
    own = item_data.candidates(dataclasses.replace(data, positives=np.arange(len(data))), np.array([0, 1]), 0, 0, 0)
    assert over.allowed[1, over.positives[1]] and own.allowed.all()
    renamed.with_columns(positive=pl.lit("elsewhere")).write_parquet(inputs / "pairs.parquet")
    with pytest.raises(ValueError, match="a positive is not among"):
        item_data.load(inputs / "pairs.parquet", base_model.load_tokenizer(Path(base)), 32, 0.95)


def test_training_on_relabelled_pairs(base: str, inputs: Path, tmp_path: Path) -> None:
    """Chunks that were left out ask nothing, and their number shows."""
    frame = pl.read_parquet(inputs / "pairs.parquet")
    left_out = frame.filter(split="train")["chunk_id"][:4].to_list()
    positive = pl.when(pl.col("chunk_id").is_in(left_out)).then(None).otherwise("chunk_id")
    frame.with_columns(positive=positive, own_similarity="positive_similarity").write_parquet(inputs / "pairs.parquet")
    settings = json.loads((inputs / "config.json").read_text()) | {"steps": 2}
    (inputs / "config.json").write_text(json.dumps(settings))
    run(inputs, tmp_path / "out")
    metadata = json.loads((tmp_path / "out" / "job.json").read_text())["metadata"]
    assert metadata["train_pairs"] == frame.filter(split="train").height - 4


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rte"):
        item_encoder.Config.of({"seed": 0, "learning_rte": 1.0})


def test_a_configuration_without_a_seed_is_refused() -> None:
    """As every job's; control: with one, lists become what they are hashed as."""
    with pytest.raises(ValueError, match="no seed"):
        item_encoder.Config.of({"steps": 2})
    assert item_encoder.Config.of({"seed": 0, "target_modules": ["key"]}).target_modules == ("key",)
