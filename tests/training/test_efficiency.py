"""What it costs to ask about a user: counted as the formula says, measured side by side."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from made_up_population import histories
from transformers import Qwen3Config, Qwen3ForCausalLM
from untrained_llm import untrained_llm

from training import cost
from training.cost import counted
from training.cost_formula import bare_flops, embedding_flops
from training.efficiency import EMBEDDED, STUFFED, measure
from training.job import Job
from training.personalised_inference import TrainedLLM
from training.personalised_model import PersonalisedDecoder, Shape
from training.reading import cache_bytes, reading
from training.sequence_inference import SequenceEncoder
from training.ways_of_asking import ADVANCED, History, Ways
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.personalisation.efficiency import (
    efficiency_scores,
    embedding_saves,
    longest_histories,
    ratios,
)

LARGER = {
    "larger": {
        "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """An untrained decoder, sequence encoder, and personalised decoder with open gates; the items."""
    root = tmp_path_factory.mktemp("efficiency")
    frame, texts = histories()
    read = untrained_llm(root, texts, gate=1.0)
    inputs = root / "inputs"
    inputs.mkdir()
    test = frame.filter(split="test").join(texts, on="chunk_id")
    test.write_parquet(inputs / "items.parquet")
    settings = {"items": [5, 20, 100], "repeats": 2, "new_tokens": 2, "item_tokens": 4, "larger": LARGER}
    (inputs / "config.json").write_text(json.dumps({"seed": 0, "threads": 1, **read, **settings}))
    return {**{name: Path(path) for name, path in read.items()}, "inputs": inputs}


def loaded(folders) -> tuple[TrainedLLM, History]:
    llm = TrainedLLM.load(folders["personalised"], folders["decoder"])
    llm.model.requires_grad_(False)
    items = pl.read_parquet(folders["inputs"] / "items.parquet")
    return llm, History(items, 100, llm, SequenceEncoder.load(folders["sequence_encoder"]))


@pytest.fixture(scope="module")
def costs(folders) -> pl.DataFrame:
    job = Job("efficiency", folders["inputs"], folders["inputs"].with_name("output"), "test")
    assert job.prepare() is None
    measure(job)
    return pl.read_parquet(job.output / "costs.parquet")


def value(costs: pl.DataFrame, way: str, items: int, metric: str, decoder: str = "decoder") -> float:
    return costs.filter(decoder=decoder, way=way, items=items, metric=metric)["value"].item()


def test_what_is_counted_is_what_the_formula_says(costs):
    """C46: FLOPs of the real forward, beside a formula."""
    for items in (5, 20, 100):
        for way in (STUFFED, EMBEDDED):
            counts = value(costs, way, items, "flops")
            assert counts == pytest.approx(value(costs, way, items, "flops_formula"), rel=0.02)


def test_without_our_own_count_of_attention_the_formula_does_not_fit(folders, monkeypatch):
    """The broken twin: torch's counter passes over the attention of a processor."""
    llm, history = loaded(folders)
    ways = Ways(llm.model, history, 100, 4, [1, 2, 3])
    whole = ways.counted(STUFFED)[0].flops
    assert whole == pytest.approx(bare_flops(llm.model.decoder, ways.tokens[STUFFED]), rel=0.02)
    monkeypatch.setattr(cost, "ATTENTION", {})
    assert ways.counted(STUFFED)[0].flops < 0.9 * whole


def test_stuffing_grows_with_the_history_and_the_embedding_does_not(costs):
    for metric in ("tokens", "flops", "kv_bytes", "peak_bytes"):
        stuffed = [value(costs, STUFFED, items, metric) for items in (5, 20, 100)]
        assert stuffed == sorted(stuffed)
        assert stuffed[-1] > 2 * stuffed[0]
        assert value(costs, EMBEDDED, 20, metric) == value(costs, EMBEDDED, 100, metric)
        saved = value(costs, EMBEDDED, 100, f"{metric}_ratio")
        assert saved == pytest.approx(stuffed[-1] / value(costs, EMBEDDED, 100, metric))
    assert value(costs, ADVANCED, 100, "flops") > value(costs, EMBEDDED, 100, "flops")


def test_seconds_are_compared_within_a_turn(costs):
    for way in (EMBEDDED, ADVANCED):
        low, middle, high = (
            value(costs, way, 100, f"seconds_to_first_token_ratio{part}") for part in ("_min", "", "_max")
        )
        assert 0 < low <= middle <= high
    assert costs.filter(metric="seconds_to_first_token")["repeats"].unique().to_list() == [2]


def test_larger_decoders_are_counted_without_being_computed(costs, folders):
    """On fake tensors the count is that of the real forward."""
    real = Qwen3ForCausalLM(Qwen3Config(**LARGER["larger"])).eval().requires_grad_(False)
    tokens = int(value(costs, STUFFED, 100, "tokens", "larger"))
    with torch.no_grad(), counted() as found:
        real(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=True, logits_to_keep=1)
    assert value(costs, STUFFED, 100, "flops", "larger") == found.flops
    assert value(costs, "context_stuffing_whole_items", 100, "tokens") > value(costs, STUFFED, 100, "tokens")


def test_the_advanced_state_is_the_one_that_a_whole_history_gives(folders):
    llm, history = loaded(folders)
    ways, logits = Ways(llm.model, history, 20, 4, [1, 2, 3]), {}
    for way in (EMBEDDED, ADVANCED, STUFFED):
        with torch.no_grad(), ways.ways[way]() as (reader, ids):
            logits[way] = reader.prompt(ids)[0]
    torch.testing.assert_close(logits[EMBEDDED], logits[ADVANCED], atol=1e-4, rtol=1e-3)
    assert (logits[EMBEDDED] - logits[STUFFED]).abs().max() > 1e-3


def test_a_cache_continues_a_prompt_with_either_injection(folders):
    """A token read after a prompt is read as in the prompt: for nobody, cross-attention, a soft prompt."""
    decoder = loaded(folders)[0].model.decoder
    ids, shape = torch.tensor([[5, 6, 7, 8, 9]]), Shape(state_dimension=3, width=24, heads=2, tokens=4)
    for injection, users in (("cross_attention", 1), ("cross_attention", 0), ("soft_prompt", 1)):
        model = PersonalisedDecoder(decoder, replace(shape, injection=injection))
        with torch.no_grad(), reading(model, torch.randn(1, 4, 24) if users else None) as reader:
            whole, _ = reader.prompt(ids)
            _, cache = reader.prompt(ids[:, :3])
            kept = cache_bytes(cache)
            torch.testing.assert_close(reader.following(ids[:, 3:], cache)[:, -1], whole, atol=1e-4, rtol=1e-3)
        positions = 3 + (4 if injection == "soft_prompt" else 0)
        assert kept == 4 * 2 * 2 * 8 * positions * 4  # layers, key and value, heads, width, bytes


def test_embedding_formula_of_a_soft_prompt(folders):
    llm, history = loaded(folders)
    model = PersonalisedDecoder(llm.model.decoder, replace(llm.model.shape, injection="soft_prompt"))
    ways = Ways(model.requires_grad_(False), history, 20, 4, [1, 2, 3])
    assert ways.counted(EMBEDDED)[0].flops == pytest.approx(embedding_flops(model, ways.states, 3), rel=0.02)


def test_scores_are_of_no_users_and_the_check_reads_them(costs):
    """C46: the bar is 78 times the FLOPs and 20 times the seconds; a small one fails it."""
    scores = efficiency_scores(costs, Scope("efficiency_scores", "all", 0, "hash"), "v")
    assert scores["n_users"].unique().to_list() == [0]
    assert scores.height == costs.height
    assert not embedding_saves(scores).passed
    enough = pl.col("metric").is_in(["flops_ratio", "seconds_to_first_token_ratio"])
    raised = scores.with_columns(value=pl.when(enough).then(1_000.0).otherwise("value"))
    assert embedding_saves(raised).passed
    assert {"flops", "tokens", "seconds to first token"} <= set(ratios(costs)["model"])


def test_items_are_of_the_longest_histories_and_of_no_more_people_than_it_takes():
    lengths = {"a": 2, "b": 6, "c": 4, "d": 6}
    rows = [("dao", user, f"{user}{n}") for user, chunks in lengths.items() for n in range(chunks)]
    snapshot = pl.DataFrame(rows, ["datadao", "user_id", "chunk_id"], orient="row")
    assert set(longest_histories(snapshot, 6)["user_id"]) == {"b"}
    assert set(longest_histories(snapshot, 7)["user_id"]) == {"b", "d"}
    assert longest_histories(snapshot, 100).height == snapshot.height
