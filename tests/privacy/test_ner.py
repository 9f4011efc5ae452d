"""C10: names of people by a model, from a local folder: a tiny one that knows a single name."""

from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.privacy.masking import mask_messages
from user_embeddings_dagster.privacy.ner import PersonModel, model_version, person_model
from user_embeddings_dagster.privacy.pii import render_kinds
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise

NAMES = pl.DataFrame({"thread_id": ["t"], "author_id": ["a"], "name": ["Sarah"], "name_kind": ["display_name"]})
VOCABULARY = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "zor",
    "##blax",
    "met",
    "and",
    "sarah",
    ".",
    *"abcdefghijklmnopqrstuvwxyz",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed model without a transformer layer that calls the token "zor" a person."""
    path = tmp_path_factory.mktemp("ner")
    save(path, ["O", "B-PER"])
    return path


def save(path: Path, labels: list[str]) -> None:
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32
    )
    wrapped.save_pretrained(str(path))
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=8, num_hidden_layers=0, num_attention_heads=1,
                        intermediate_size=8, max_position_embeddings=32, id2label=dict(enumerate(labels)),
                        label2id={label: place for place, label in enumerate(labels)})  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.bert.embeddings.word_embeddings.weight[VOCABULARY.index("zor"), 0] = 1
        model.classifier.weight[1, 0] = 1
        model.classifier.bias[0] = 0.1
    model.save_pretrained(str(path))
    finalise(path)


def masked(text: str, model: PersonModel | None) -> str:
    messages = pl.DataFrame({"thread_id": ["t"], "text": [text]})
    found = mask_messages(messages, NAMES, model=model)
    (mark,) = found.people["t"] or {"": frozenset()}
    return render_kinds(found.texts)[0].replace(mark, "{A}") if mark else render_kinds(found.texts)[0]


def test_the_model_adds_names(folder):
    """C10: whole words, neighbours as one, in any case; participants stay who they are; off without a folder."""
    model = person_model(str(folder))
    assert masked("Sarah met zorblax. and ZORBLAX zor", model) == "{A} met <PERSON>. and <PERSON>"
    assert masked("Sarah met zorblax", None) == "{A} met zorblax"
    assert person_model(None) is None and ChunkConfig().person_model is None


def test_long_texts_are_read_to_the_end(folder):
    """A name after the model's window is found."""
    text = "a " * 100 + "zorblax"
    assert PersonModel(folder).spans(pl.Series([text, "b"])) == [[(200, 207)], []]


def test_version_is_of_the_content(folder, tmp_path):
    """Another model gives other chunks: its files are in the version, its path is not."""
    save(tmp_path, ["O", "B-PERSON"])
    assert model_version(None) is None and model_version(str(folder)) == model_version(str(folder))
    assert model_version(str(tmp_path)) != model_version(str(folder))


def test_refused(tmp_path):
    """Nothing there, no label of persons, weights that are not what was sealed."""
    with pytest.raises(FileNotFoundError):
        PersonModel(tmp_path / "none")
    save(tmp_path, ["O", "B-ORG"])
    with pytest.raises(ValueError, match="PERSON"):
        PersonModel(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CorruptArtifact):
        PersonModel(tmp_path)
