"""The base decoder: its tokenizer gives no single person's words away, it learns, it resumes bit-exactly."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.base_decoder import Config, packed
from training.base_decoder import train as train_decoder
from training.job import Job
from training.tokenizer import shared_words, train_tokenizer

SMALL = {"seed": 0, "vocabulary": 320, "hidden": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate": 48,
         "length": 24, "batch_size": 4, "steps": 30, "threads": 1, "min_users_per_word": 3,
         "learning_rate": 1e-2}  # fmt: skip


def chunks(users: int = 12) -> pl.DataFrame:
    text = "SUBJECT: the cat sat on the mat and looked at the door\n<P1>: why does it look at the door every day"
    rows = [(f"u{i}", "valid" if i % 4 == 3 else "train", f"{text} {word}") for i in range(users) for word in "ab"]
    return pl.DataFrame(rows, schema=["user_id", "split", "text"], orient="row").with_columns(own="text")


def inputs(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True)
    chunks().write_parquet(folder / "chunks.parquet")
    (folder / "config.json").write_text(json.dumps({**SMALL, **settings}))
    return folder


def trained(inputs: Path, output: Path) -> Job:
    job = Job("base_decoder", inputs, output, "test")
    assert job.prepare() is None
    train_decoder(job)
    return job


def test_it_learns_and_loads_with_transformers_alone(tmp_path: Path) -> None:
    job = trained(inputs(tmp_path / "in"), tmp_path / "out")
    record = json.loads((job.output / "job.json").read_text())["metadata"]
    losses = [json.loads(line)["loss"] for line in (job.output / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]
    assert 1 < record["perplexity"] < record["vocabulary"] / 10
    tokenizer = AutoTokenizer.from_pretrained(job.output, local_files_only=True)
    decoder = AutoModelForCausalLM.from_pretrained(job.output, local_files_only=True).eval()
    text = "SUBJECT: the cat — 猫"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert decoder(**tokenizer("the cat", return_tensors="pt")).logits.shape[-1] == len(tokenizer)


def test_bits_per_byte_count_tokens_that_fill_no_row_too(tmp_path: Path) -> None:
    """Of little text most of it may be the rest: 3 bytes a token stay 3, in rows of 16 tokens and of 100."""
    found = []
    for length in (16, 100):
        job = trained(inputs(tmp_path / f"in-{length}", steps=1, length=length), tmp_path / f"out-{length}")
        record = json.loads((job.output / "job.json").read_text())["metadata"]
        tokenizer = AutoTokenizer.from_pretrained(job.output, local_files_only=True)
        texts = chunks().filter(split="valid")["text"].to_list()
        tokens = sum(len(ids) + 1 for ids in tokenizer(texts)["input_ids"])
        a_token = sum(len(text) + 1 for text in texts) / tokens
        found.append(math.log2(record["perplexity"]) / record["bits_per_byte"] / a_token)
    assert found == pytest.approx([1.0, 1.0])


def test_without_validation_users_it_trains_and_claims_no_perplexity(tmp_path: Path) -> None:
    """Of two dozen people a split may leave none to validate with."""
    folder = inputs(tmp_path / "in", steps=2)
    chunks().filter(split="train").write_parquet(folder / "chunks.parquet")
    record = json.loads((trained(folder, tmp_path / "out").output / "job.json").read_text())["metadata"]
    assert record["valid_chunks"] == 0 and "perplexity" not in record


def test_stopped_half_way_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = trained(inputs(tmp_path / "in"), tmp_path / "whole")
    job = Job("base_decoder", tmp_path / "in", tmp_path / "halves", "test")
    job.prepare()
    step, calls = job.step, []

    def stopping(number: int, *arguments: object, **values: float) -> None:
        step(number, *arguments, **values)
        calls.append(number)
        if number == 13:
            job.save(number, arguments[1]())
            raise KeyboardInterrupt

    job.step = stopping
    with pytest.raises(KeyboardInterrupt):
        train_decoder(job)
    again = Job("base_decoder", tmp_path / "in", tmp_path / "halves", "test")
    assert again.prepare() is None
    train_decoder(again)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (again.output / name).read_bytes() == (whole.output / name).read_bytes()


def test_the_tokenizer_is_trained_on_words_that_several_people_wrote() -> None:
    """C12: its vocabulary spells out what it was trained on."""
    some = pl.DataFrame({"user_id": ["a", "b", "c", "a"], "own": ["hello zanzibar"] + ["hello there"] * 3})
    assert set(shared_words(some, 3)) == {"hello", " there"}
    rare = pl.DataFrame({"user_id": ["a"] * 50 + ["b", "c", "d"], "own": ["qwxyzzq qwxyzzq"] * 50 + ["abc"] * 3})
    assert not any("xyzz" in token for token in train_tokenizer(rare, 400, 3).get_vocab())
    control = train_tokenizer(rare, 400, 1).get_vocab()
    assert any("xyzz" in token for token in control)
    heard = some.with_columns(text=pl.lit("<P1>: zanzibar"))  # what another says in everybody's chunk
    assert shared_words(heard, 3) == shared_words(some, 3)


def test_rows_are_packed_without_loss_but_for_the_rest() -> None:
    tokenizer = train_tokenizer(chunks(), 320, 1)
    texts = chunks()["text"].to_list()
    rows = packed(tokenizer, texts, 24)
    stream = [t for text in texts for t in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]
    assert rows[:, :-1].flatten().tolist() == stream[: rows[:, :-1].numel()]
    assert (rows[1:, 0] == rows[:-1, -1]).all()
    assert len(stream) - rows[:, 1:].numel() <= 24
    assert packed(tokenizer, ["short"], 24).shape == (0, 25)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="stepz"):
        Config.of({"seed": 0, "stepz": 3})
