"""Efficiency: what answering about a user costs with their history in the prompt, and with their user embedding.

    python -P -m training.efficiency --inputs DIR --output DIR

Inputs: `items.parquet` (datadao, user_id, position, ended_at, vector, context, text: real chunks with their summaries;
read as one history in time order, and round again where more items are asked for), `config.json` (decoder,
personalised, sequence_encoder: folders; and see Config). Output: `costs.parquet` (decoder, way, items, metric, value,
repeats).

Both ways ask the same question of the same decoder with the same attention. FLOPs and bytes are counted on the real
forward; seconds are measured in turns, so that what else the machine does falls on both, and compared within a turn.
Beyond the decoder's max_position_embeddings its rotary positions go on: what it then says is not looked at.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import torch

from training import versions
from training.cost import operations
from training.cost_formula import bare_flops, embedding_flops
from training.job import Job, run
from training.job_config import JobConfig
from training.personalised_inference import TrainedLLM
from training.personalised_model import PersonalisedDecoder, Shape
from training.reading import reading
from training.sequence_inference import SequenceEncoder
from training.ways_of_asking import ADVANCED, EMBEDDED, STUFFED, History, Ways
from user_embeddings_dagster.keys import file_sha256

COSTS = "costs.parquet"
FIRST, NEXT = "seconds_to_first_token", "seconds_per_token"
OWN = "decoder"
WHOLE = "context_stuffing_whole_items"
QUESTION = "Which of these conversations does SUBJECT join next, and what is the first thing that SUBJECT writes in it?"
WITHIN = 3  # measurements of the embedding in each turn: it is too short for one


@dataclass(frozen=True)
class Config(JobConfig):
    """Of each item the first `item_tokens` are stuffed; `repeats` turns; `new_tokens` are written in each.

    `larger`: decoders of other sizes, by name, with settings of transformers' Qwen3Config; what they would cost is
    counted at the most items without computing it.
    """

    seed: int
    items: tuple[int, ...] = (50, 100, 200, 1000)
    item_tokens: int = 8
    repeats: int = 3
    new_tokens: int = 8
    larger: dict[str, dict[str, int | bool]] = field(default_factory=dict)


class Costs:
    """Rows of `costs.parquet`."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, int, str, float, int]] = []

    def add(self, decoder: str, way: str, items: int, values: Mapping[str, float], repeats: int = 1) -> None:
        """One row per value, by metric."""
        self._rows += [(decoder, way, items, metric, float(value), repeats) for metric, value in values.items()]

    def against_stuffing(self, decoder: str, items: int) -> None:
        """How many times as much stuffing costs, for each way and metric that both have."""
        found = {(way, metric): value for d, way, n, metric, value, _ in self._rows if (d, n) == (decoder, items)}
        for (way, metric), value in found.items():
            if way in (EMBEDDED, ADVANCED) and (STUFFED, metric) in found and not metric.startswith("seconds"):
                self.add(decoder, way, items, {f"{metric}_ratio": found[STUFFED, metric] / value})

    def frame(self) -> pl.DataFrame:
        """All rows, sorted."""
        columns = ("decoder", "way", "items", "metric", "value", "repeats")
        return pl.DataFrame(self._rows, columns, orient="row").sort(columns[:4])


def _measured(costs: Costs, ways: Ways, items: int, config: Config, model: PersonalisedDecoder, device: str) -> None:
    decoder, question = model.decoder, ways.tokens[EMBEDDED] - model.shape.tokens
    formula = {STUFFED: bare_flops(decoder, ways.tokens[STUFFED])}
    formula[EMBEDDED] = embedding_flops(model, ways.states, question)
    for way in ways.ways:
        cost, kept = ways.counted(way)
        found = {"tokens": ways.tokens[way], "flops": cost.flops, "peak_bytes": cost.peak_bytes, "kv_bytes": kept}
        costs.add(OWN, way, items, found)
    costs.against_stuffing(OWN, items)
    for way, flops in formula.items():
        costs.add(OWN, way, items, {"flops_formula": flops})
    turns = [_turn(ways, config, turn, device) for turn in range(config.repeats)]
    for way in ways.ways:
        # Once the first token is there, both ways to the embedding are the same.
        for place, metric in enumerate((FIRST, NEXT) if way != ADVANCED else (FIRST,)):
            costs.add(OWN, way, items, {metric: median(turn[way][place] for turn in turns)}, len(turns))
            if way != STUFFED:
                ratios = [turn[STUFFED][place] / turn[way][place] for turn in turns]
                named = {"ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
                costs.add(OWN, way, items, {f"{metric}_{name}": v for name, v in named.items()}, len(turns))


def _turn(ways: Ways, config: Config, turn: int, device: str) -> dict[str, tuple[float, float]]:
    """Both seconds of each way, measured one right after the other; every second turn in the other order."""
    order = list(ways.ways) if turn % 2 else list(reversed(ways.ways))
    found = {}
    for way in order:
        times = [ways.timed(way, config.new_tokens, device) for _ in range(1 if way == STUFFED else WITHIN)]
        found[way] = (median(first for first, _ in times), median(after for _, after in times))
    return found


def _counted(costs: Costs, name: str, decoder: Any, shape: Shape, items: int, tokens: dict[str, int]) -> None:
    """FLOPs of prompts of so many `tokens` by a decoder that was made of fake tensors, in the same mode."""
    model = PersonalisedDecoder(decoder.eval(), shape).eval().requires_grad_(False)
    with torch.no_grad():
        for way, length in tokens.items():
            with operations() as flops:
                users = None
                if way == EMBEDDED:
                    states = torch.zeros(1, min(items, shape.max_states), shape.state_dimension)
                    users = model.user_tokens(states, torch.ones(1, states.shape[1], dtype=torch.bool))
                with reading(model, users) as reader:
                    reader.prompt(torch.zeros(1, length, dtype=torch.long))
            read = length + (shape.tokens if way == EMBEDDED else 0)
            costs.add(name, way, items, {"tokens": read, "flops": flops.get_total_flops()})


def measure(job: Job) -> None:
    """Count and measure every way at every number of items, count larger decoders, report."""
    config, device = Config.of(job.config), job.seed()
    folders = {name: Path(job.config[name]) for name in ("decoder", "personalised", "sequence_encoder")}
    llm = TrainedLLM.load(folders["personalised"], folders["decoder"], device)
    encoder = SequenceEncoder.load(folders["sequence_encoder"], device)
    history = History(pl.read_parquet(job.inputs / "items.parquet"), max(config.items), llm, encoder)
    question = llm.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    costs, model = Costs(), llm.model.requires_grad_(False)  # nothing is trained, and the counters need it so
    for items in config.items:
        ways = Ways(model, history, items, config.item_tokens, question)
        _measured(costs, ways, items, config, model, device)
        job.log(
            f"{items} items: {ways.tokens[STUFFED]} tokens in the prompt, {ways.tokens[EMBEDDED]} with the embedding"
        )
    _larger(costs, model, config, history, question)
    costs.frame().write_parquet(job.result / COSTS)
    positions = getattr(model.decoder.config, "max_position_embeddings", 0)
    metadata = {
        "different_items": history.different,
        "tokens_per_item": sum(map(len, history.tokens)) / history.different,
        "tokens_per_stuffed_item": sum(min(len(t), config.item_tokens) for t in history.tokens) / history.different,
        "question_tokens": len(question),
        "positions_of_the_decoder": int(positions or 0),
        "attention": str(model.decoder.config._attn_implementation),
    }
    job.finish(metadata, data_version=file_sha256(job.result / COSTS)[:32], device=device)


def _larger(costs: Costs, model: PersonalisedDecoder, config: Config, history: History, question: list[int]) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM, Qwen3Config

    own = model.decoder.config
    with FakeTensorMode(allow_non_fake_inputs=True):
        same = AutoModelForCausalLM.from_config(own)
        for items in config.items:
            whole = len(history.prompt(items, None)) + len(question)
            _counted(costs, OWN, same, model.shape, items, {WHOLE: whole})
        for name, sizes in config.larger.items():
            settings: dict[str, Any] = dict(sizes)
            larger = AutoModelForCausalLM.from_config(Qwen3Config(**settings))
            most = max(config.items)
            stuffed = len(history.prompt(most, config.item_tokens)) + len(question)
            _counted(costs, name, larger, model.shape, most, {STUFFED: stuffed, EMBEDDED: len(question)})
            costs.against_stuffing(name, most)


if __name__ == "__main__":
    sys.exit(run("efficiency", measure, versions.EFFICIENCY))
