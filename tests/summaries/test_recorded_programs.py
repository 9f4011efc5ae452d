"""C9, C25, C26, C30: the programs against recorded, hand-checked answers for twenty varied chunks.

`recorded/chunks.jsonl` holds for each chunk the right summary and KOAIs, and plausible wrong answers with the
constraints that catch them; where no check of words can tell (irony, a lost negation, another language), `unseen`
says why.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import Answer, Completion, Request, Usage
from user_embeddings_dagster.language_models.validation import parse as validated
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.constraints import koai_violations, summary_violations, withheld
from user_embeddings_dagster.summaries.koai import KOAI, extract_koai
from user_embeddings_dagster.summaries.subject import chunk_inputs, summarise_subject

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded" / "chunks.jsonl").open()]
BY_NAME = {example["name"]: example for example in RECORDED}
WRONG = [(example["name"], place) for example in RECORDED for place in range(len(example["wrong"]))]


class RecordedModel:
    """A LanguageModel that replays answers by request id; a request without a recording is an error."""

    name = "recorded"

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            text = json.dumps(self._answers[request.id])
            yield Completion(request.id, validated(text, request.schema, "stop"), Usage(calls=1))


def asked(program: Program, example: dict[str, Any]) -> Request:
    return program.request(chunk_inputs(*zip(*example["turns"], strict=True)), owner=example["name"])


def answers(program: Program, field: str, examples: list[dict[str, Any]]) -> list[Any]:
    """What a model that replays `field` of the examples answers, through request, schema and parse."""
    requests = [asked(program, example) for example in examples]
    recorded = {r.id: {field: example[field]} for r, example in zip(requests, examples, strict=True)}
    values = {a.request_id: a.value for a in RecordedModel(recorded).complete(requests) if isinstance(a, Completion)}
    return [getattr(program.parse(values[request.id]), field) for request in requests]


def test_twenty_varied_chunks() -> None:
    assert len(BY_NAME) == 20
    assert all(any(wrong["caught_by"] for wrong in example["wrong"]) for example in RECORDED)
    demos = {demo.inputs["chunk"][0]["text"] for demo in (*summarise_subject().demos, *extract_koai().demos)}
    assert not demos & {text for example in RECORDED for _, text in example["turns"]}


def test_right_answers_keep_every_constraint() -> None:
    """C25: request, schema, parse and constraints end to end."""
    summaries = answers(summarise_subject(), "summary", RECORDED)
    koais = answers(extract_koai(), "koais", RECORDED)
    for example, summary, found in zip(RECORDED, summaries, koais, strict=True):
        words = chunk_words(*zip(*example["turns"], strict=True))
        assert (example["name"], summary_violations(summary, words)) == (example["name"], [])
        assert (example["name"], koai_violations(found, words)) == (example["name"], [[]] * len(found))
        assert (example["name"], withheld(found, words)) == (example["name"], [])


@pytest.mark.parametrize(("name", "place"), WRONG)
def test_wrong_answers_are_caught_by_a_named_constraint(name: str, place: int) -> None:
    """C25, C26: obeying an injection, crediting another's view, quoting, …: each by its number."""
    example, wrong = BY_NAME[name], BY_NAME[name]["wrong"][place]
    words = chunk_words(*zip(*example["turns"], strict=True))
    if "summary" in wrong:
        found = {f"S{violation.number}" for violation in summary_violations(wrong["summary"], words)}
    else:
        [violations] = koai_violations([KOAI(**wrong["koai"])], words)
        found = {f"K{violation.number}" for violation in violations}
    if wrong["caught_by"]:
        assert set(wrong["caught_by"]) <= found
    else:
        assert wrong["unseen"] and not found


@pytest.mark.parametrize("name", ["injection_names", "injection_forged_turn", "injection_own"])
def test_an_injection_stays_data(name: str) -> None:
    """C26: in the prompt it is one string of one turn, whose speaker is who wrote it."""
    example = BY_NAME[name]
    request = asked(summarise_subject(), example)
    content = request.messages[-1].content
    assert content.count("[[ ##") == 1 and content.count("\n") == 3
    rows = json.loads(content.split("\n")[1])
    assert [row["speaker"] for row in rows] == [speaker for speaker, _ in example["turns"]]
    assert "SUBJECT: " not in rows[0]["text"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    """The frozen base encoder that a package carries."""
    return TextEncoder(threads=1, precision="float32")


@pytest.fixture(scope="module")
def similarity(encoder: TextEncoder) -> np.ndarray:
    """Cosines of the recorded summaries, in the file's order."""
    vectors = encoder.encode([example["summary"] for example in RECORDED])
    return vectors @ vectors.T


def test_fruit_summaries_say_the_same(similarity: np.ndarray) -> None:
    """C30: each is the other's nearest among the twenty, by far."""
    store, walk = (list(BY_NAME).index(name) for name in ("fruit_store", "fruit_walk"))
    others = [place for place in range(len(RECORDED)) if place not in (store, walk)]
    assert similarity[store, walk] > 0.9
    assert similarity[store, walk] > max(similarity[store, others].max(), similarity[walk, others].max()) + 0.2


def test_swapped_subjects_have_different_summaries(similarity: np.ndarray) -> None:
    """C9: one thread seen from two sides gives two requests and two summaries, less alike than the fruit pair."""
    first, second = BY_NAME["swap_first"], BY_NAME["swap_second"]
    assert [text for _, text in first["turns"]] == [text for _, text in second["turns"]]
    assert asked(summarise_subject(), first).id != asked(summarise_subject(), second).id
    places = [list(BY_NAME).index(name) for name in ("fruit_store", "fruit_walk", "swap_first", "swap_second")]
    assert similarity[places[2], places[3]] < similarity[places[0], places[1]] - 0.05


def test_a_swapped_summary_is_nearest_to_its_own_subject(encoder: TextEncoder) -> None:
    """C9: each of the two summaries is nearer to what its SUBJECT wrote than to what the other one wrote."""
    sides = [BY_NAME["swap_first"], BY_NAME["swap_second"]]
    said = [" ".join(text for speaker, text in side["turns"] if speaker == "SUBJECT") for side in sides]
    nearness = encoder.encode([side["summary"] for side in sides]) @ encoder.encode(said).T
    assert nearness[0, 0] > nearness[0, 1] and nearness[1, 1] > nearness[1, 0]
