"""A data root with tiny trained models, ready to be exported: made at random, of the real shapes."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from granting import grant

from training import lora
from training.personalised_inference import save
from training.personalised_model import PersonalisedDecoder, Shape, trained_parameters
from training.sequence_features import ItemSpace
from training.sequence_model import SequenceModel, SequenceSettings
from training.sequence_training import save_encoder
from training.tokenizer import train_tokenizer
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import adapter_hash, encoder_version
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.schema import SCORES, TRAINING_SNAPSHOT
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import ModelFolder, Models
from user_embeddings_dagster.storage.score_table import ScoreTable

WORDS = [f"{a}{b}" for a in ("ba", "ke", "mo", "tu", "ri", "so") for b in ("lan", "dor", "vis", "pek", "nam", "gol")]
WIDTH, DIMENSION, MAX_TOKENS = 16, 24, 32
PEOPLE = {"train": 30, "valid": 4, "test": 12}


@dataclass(frozen=True)
class Root:
    """The layout and the folders that were trained."""

    layout: Layout
    base: Path
    item: ModelFolder
    sequence: ModelFolder
    decoder: Path
    personalised: ModelFolder


def text_encoder(folder: Path) -> Path:
    """A random two-layer BERT with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "SUBJECT", ":", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=64, **shape)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    finalise(folder)
    return folder


def finished(models: Models, name: str, folder: ModelFolder, version: str, **metadata: Any) -> ModelFolder:
    """Report as a job does, and promote."""
    record = {"data_version": version, "metadata": metadata}
    (folder.output / "job.json").write_text(json.dumps(record))
    finalise(folder.output)
    models.promote(name, folder.root.name)
    return folder


def made(models: Models, name: str) -> ModelFolder:
    """An empty folder of a version."""
    folder = models.folder(name, "f" * 32)
    folder.output.mkdir(parents=True)
    return folder


def item_encoder(models: Models, base: Path) -> ModelFolder:
    """Adapters that change what the base says."""
    folder = made(models, "item_encoder")
    model = lora.attach(base_model.load_model(base), 2, 4, ["query", "value"], None)
    for name, weight in lora.trainable(model).items():
        torch.nn.init.normal_(weight, std=0.3 if "lora_B" in name else 0.5)
    lora.save(model, folder.output, str(base))
    base_hash = base_model.folder_hash(base)
    version = encoder_version(base_hash, adapter_hash(folder.output), MAX_TOKENS)
    described = {"version": version, "base": str(base), "base_hash": base_hash, "config": {"max_tokens": MAX_TOKENS}}
    (folder.output / "encoder.json").write_text(json.dumps(described))
    return finished(models, "item_encoder", folder, version)


def sequence_encoder(models: Models, item: ModelFolder, **metadata: Any) -> ModelFolder:
    """One whose residual says something, over items and contexts."""
    name, rng = f"sequence_encoder/{DIMENSION}", np.random.default_rng(1)
    folder, wide = made(models, name), 2 * WIDTH

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    axes = np.linalg.qr(drawn(wide, wide))[0].astype(np.float32)
    space = ItemSpace(drawn(WIDTH), drawn(WIDTH, WIDTH), drawn(WIDTH), drawn(WIDTH, WIDTH), axes, drawn(wide), 0.4, 0.5)
    settings = SequenceSettings.of({"dimension": DIMENSION, "seed": 0, "heads": 2, "layers": 2})
    model = SequenceModel(settings, wide, WIDTH)
    for weight in (model.output.weight, model.output.bias, model.projector.weight):
        torch.nn.init.normal_(weight, std=0.3)
    version = save_encoder(folder.output, model, settings, space, {})
    folder.note_basis(item.record()["data_version"])
    return finished(models, name, folder, version, **metadata)


def decoder(folder: Path) -> Path:
    """A random Qwen3 with a tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    chunks = pl.DataFrame({"user_id": ["a", "b"], "own": [" ".join(WORDS)] * 2})
    tokenizer = train_tokenizer(chunks, vocabulary=300, min_users=2)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 0, "pad_token_id": 0}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(folder)
    return folder


def personalised(
    models: Models, base: Path, sequence: ModelFolder, preset: str = "perceiver", injection: str = "cross_attention"
) -> ModelFolder:
    """Perceiver and injection with open gates, as a job saves them, of any preset."""
    from training.decoder import load_decoder
    from training.sequence_inference import SequenceEncoder

    folder = made(models, "personalised_decoder")
    frozen, _ = load_decoder(base)
    torch.manual_seed(3)
    model = PersonalisedDecoder(frozen, Shape(DIMENSION, width=16, tokens=4, heads=2, injection=injection))
    if preset == "lora":
        model.adapt_decoder(2)
    encoder = SequenceEncoder.load(sequence.output).model
    trained = trained_parameters(model, preset, encoder)
    for name, weight in trained.items():
        if name.endswith("gates") or "lora_B" in name or name.startswith("encoder.output"):
            torch.nn.init.constant_(weight.data, 0.4)
    version = sequence.record()["data_version"]
    save(folder.output, model, trained, preset=preset, rank=2, decoder=base, sequence_encoder=version)
    return finished(models, "personalised_decoder", folder, "e" * 32, train_tasks=1234)


def snapshot() -> pl.DataFrame:
    """Two chunks of each person of one DataDAO."""
    start, rows = datetime(2024, 1, 1, tzinfo=UTC), []
    for split, n in PEOPLE.items():
        for user in range(n):
            for position in range(2):
                chunk = f"{split}{user}.{position}"
                at = start + timedelta(days=position)
                rows.append((chunk, "zig", f"{split}{user}", split, position, at, at, f"w{chunk}", f"t{chunk}"))
    return TRAINING_SNAPSHOT.conform(pl.DataFrame(rows, schema=TRAINING_SNAPSHOT.schema, orient="row"))


def score(version: str, split: str, **changes: Any) -> dict[str, Any]:
    """A row of SCORES."""
    return {
        "asset": "sequence_encoder_scores", "datadao": "all", "model": "sequence_encoder_24", "metric": "mrr",
        "slice": "all", "value": 0.25, "ci_low": 0.2, "ci_high": 0.3, "n": 24, "n_users": 12, "seed": 0,
        "split_hash": split, "candidate_set": "all", "version": version, **changes,
    }  # fmt: skip


def make_root(folder: Path, preset: str = "perceiver", injection: str = "cross_attention", **metadata: Any) -> Root:
    """Everything that an export reads."""
    layout = Layout(folder / "data")
    models, lake, key = Models(layout.models), Lake(layout.root), load_or_create_key(layout.key)
    base = text_encoder(folder / "tiny")
    item = item_encoder(models, base)
    sequence = sequence_encoder(models, item, **metadata)
    decoder_folder = decoder(folder / "decoder")
    llm = personalised(models, decoder_folder, sequence, preset, injection)
    rows = snapshot()
    lake.commit(TRAINING_SNAPSHOT, rows)
    grant(lake, "zig", rows["user_id"].unique())
    for model in (item, sequence, llm):
        model.note_subjects(subjects_of(key, rows.filter(pl.col("split") != "test")))
        model.note_contributors([])
    version = sequence.record()["data_version"]
    rows = [score(version, split_hash(rows)), score(version, "", metric="recall@1", n_users=3, value=0.123456)]
    rows.append(score("another", "", model="another", value=0.654321))
    ScoreTable(layout.scores).replace("sequence_encoder_scores", pl.DataFrame(rows, schema=SCORES.schema))
    return Root(layout, base, item, sequence, decoder_folder, llm)
