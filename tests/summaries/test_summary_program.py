"""The `summary_program` asset: what it holds with and without a model, and what it is refined on."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from granting import grant

import assets.summary_program as asset_module
from assets.summary_program import summary_program
from benchmarks.scripted_model import _PLANTS, START, Script, ScriptedModel, _chunk
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.protocol import LanguageModel
from user_embeddings_dagster.schema import MASKED_CHUNKS, MESSAGES
from user_embeddings_dagster.storage.manifest import verify
from user_embeddings_dagster.summaries import refined_program, refinement
from user_embeddings_dagster.summaries.refined_program import not_worse_than_shipped, refinement_data
from user_embeddings_dagster.summaries.refinement import ARTIFACT, current_program
from user_embeddings_dagster.summaries.subject import summarise_subject

AT = datetime(2024, 1, 1, tzinfo=UTC)
BARE = summarise_subject().with_instructions(START)
BUDGET = {"examples": 45, "chunks_per_user": 3, "max_calls": 500, "max_usd": 1.0}
PASSED = {"not_worse_than_shipped": True, "may_be_read": True}


class ScriptedResource(LanguageModelResource):
    """A language model resource whose model is scripted; the process counts what it was asked."""

    kind: str = "openai_compatible"
    name: str = "scripted"
    base_url: str = "http://127.0.0.1:9"
    max_attempts: int = 1

    @contextmanager
    def open(self, context: Any, store: Any, jobs: Any) -> Iterator[LanguageModel]:
        MODELS.append(model := ScriptedModel())
        yield Budgeted(model)


MODELS: list[ScriptedModel] = []


@pytest.fixture(autouse=True)
def bare_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped program asks for all constraints already: start from one that leaves something to find."""
    MODELS.clear()
    for module in (asset_module, refined_program, refinement):
        monkeypatch.setattr(module, "summarise_subject", lambda: BARE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A data root with a key of its own, so that every run splits the users alike."""
    store = Store(data=str(tmp_path))
    store.layout.key.parent.mkdir()
    store.layout.key.write_text(bytes(range(32)).hex())
    return store


def fill(store: Store, n_users: int = 60, datadao: str = "telegram", chunks_each: int = 4) -> None:
    """Chunks of `n_users`; every third chunk of every user holds a message by the next user."""
    rng, chunks, messages = random.Random(7), [], []
    users = [f"{number:032x}" for number in range(n_users)]
    for place, user in enumerate(users):
        for number in range(chunks_each):
            speakers, turns = _chunk(rng)
            other = users[(place + 1) % n_users] if number % 3 == 0 else None
            ids = [f"{datadao}-{place}-{number}-{turn}" for turn in range(len(turns))]
            authors = [user if speaker == "SUBJECT" else other for speaker in speakers]
            messages += [
                {"message_id": i, "author_id": author, "text": t}
                for i, author, t in zip(ids, authors, turns, strict=True)
            ]
            chunks.append(
                {
                    "chunk_id": f"{datadao}-{place:04}-{number}", "datadao": datadao, "user_id": user, "thread_id": "t",
                    "window_id": ids[0], "started_at": AT, "ended_at": AT + timedelta(seconds=number),
                    "speakers": speakers, "turns": turns, "text": "\n".join(turns), "message_ids": ids,
                    "n_subject_turns": 1, "n_tokens": 10, "n_masked": 0, "context_free": False, "community": None,
                }
            )  # fmt: skip
    store.lake.commit(MASKED_CHUNKS, pl.DataFrame(chunks, MASKED_CHUNKS.schema), datadao)
    defaults = {name: None if column.nullable else "" for name, column in ((c.name, c) for c in MESSAGES.columns)}
    filled = {"is_subject": True, "raw_location": 0, "created_at": AT, "datadao": datadao}
    rows = [{**defaults, **filled, **message} for message in messages]
    store.lake.commit(MESSAGES, pl.DataFrame(rows, MESSAGES.schema), datadao)
    grant(store.lake, datadao, users)


def materialise(store: Store, model: LanguageModelResource, **config: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [summary_program],
        resources={"store": store, "language_model": model, "training_jobs": TrainingJobs()},
        run_config={"ops": {"summary_program": {"config": config}}},
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_without_a_model_nothing_pretends_to_be_refined(store: Store) -> None:
    """C24: the artifact holds the extractive summariser and says so; no chunk is needed, nothing is asked."""
    result = materialise(store, LanguageModelResource())
    shown = metadata(result)
    assert (shown["refined"], shown["reason"]) == (False, "no language model is configured")
    assert (shown["program"], shown["version"]) == ("extractive", "extractive-mmr-1")
    assert not {"score_before", "score_after", "usd"} & shown.keys()
    folder = store.models.current(ARTIFACT)
    assert json.loads((folder.output / "program.json").read_text()) == {
        "name": "extractive", "version": "extractive-mmr-1",
    }  # fmt: skip
    assert current_program(store.models) == BARE
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == PASSED
    assert metadata(materialise(store, LanguageModelResource()))["reused"]


def test_refined_on_training_users_promoted_and_reused(store: Store) -> None:
    """C24: before any training snapshot exists: refined, scored, promoted; the same again asks nothing."""
    fill(store)
    result = materialise(store, ScriptedResource(), **BUDGET)
    shown = metadata(result)
    assert (shown["refined"], shown["adopted"], shown["reused"]) == (True, True, False)
    assert shown["score_before"] < shown["score_after"] <= 1.0
    assert 0 < shown["difference_low"] <= shown["difference"] <= shown["difference_high"]
    assert (shown["stopped_by"], shown["model"], shown["shipped_version"]) == ("perfect", "scripted", BARE.version)
    assert shown["calls"] == shown["calls_this_run"] == MODELS[0].summaries + MODELS[0].reflections <= 500
    assert shown["usd"] == pytest.approx(0.001 * shown["calls"])
    assert shown["violations_before"]["S1"] == shown["development_chunks"] == 15
    assert shown["violations_after"]["S1"] == 0
    assert shown["violations"].startswith("![plot](data:image/png;base64,")
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == PASSED
    folder = store.models.current(ARTIFACT)
    verify(folder.output)
    program = current_program(store.models)
    assert Script(program.instructions).best
    assert program.version == shown["version"] != BARE.version
    assert not any(plant in (folder.output / "program.json").read_text() for plant in _PLANTS)

    again = metadata(materialise(store, ScriptedResource(), **BUDGET))
    assert (again["reused"], again["calls_this_run"], again["version"], len(MODELS)) == (True, 0, shown["version"], 1)
    other = metadata(materialise(store, ScriptedResource(), **{**BUDGET, "max_calls": 20}))
    assert (other["reused"], other["cut_short"], len(MODELS)) == (False, True, 2)


def test_settings_shape_the_answers_and_not_the_artifact(store: Store) -> None:
    """Other settings are another refinement; money is capped where there are prices, and else that is said."""
    fill(store)
    plain = metadata(materialise(store, ScriptedResource(), **BUDGET))
    assert plain["usd_cap"] == "none: no prices are set"
    priced = metadata(materialise(store, ScriptedResource(usd_prompt=1.0), **{**BUDGET, "max_usd": 0.003}))
    assert (priced["usd_cap"], priced["stopped_by"]) == (0.003, "max_usd")
    other = ScriptedResource(extra='{"top_p": 0.1}')
    shown = metadata(materialise(store, other, **BUDGET))
    assert (shown["reused"], shown["version"]) == (False, plain["version"])
    assert "settings" not in json.loads((store.models.current(ARTIFACT).output / "program.json").read_text())
    assert "usd_cap" not in metadata(materialise(store, LanguageModelResource()))


def test_a_damaged_artifact_is_made_again_and_never_read(store: Store) -> None:
    fill(store)
    materialise(store, ScriptedResource(), **BUDGET)
    path = store.models.current(ARTIFACT).output / "program.json"
    whole = path.read_text()
    path.write_text(whole.replace("Summarise", "Translate"))
    with pytest.raises(ValueError, match=r"summary_program: .*written as version .*; materialise it again"):
        current_program(store.models)
    assert not metadata(materialise(store, ScriptedResource(), **BUDGET))["reused"]
    assert path.read_text() == whole


def test_a_budget_too_small_is_said(store: Store) -> None:
    fill(store)
    shown = metadata(materialise(store, ScriptedResource(), **{**BUDGET, "max_calls": 3}))
    assert (shown["refined"], shown["stopped_by"], shown["cut_short"], shown["calls"]) == (False, "max_calls", True, 3)
    assert "score_before" not in shown
    assert current_program(store.models) == BARE


def test_why_nothing_was_refined(store: Store) -> None:
    assert "no masked chunks of training users" in metadata(materialise(store, ScriptedResource()))["reason"]
    fill(store, n_users=6)
    assert "at least 7 are needed" in metadata(materialise(store, ScriptedResource()))["reason"]
    fill(store)
    batch = LanguageModelResource(kind="vllm_batch", name="Qwen3-32B")
    shown = metadata(materialise(store, batch))
    assert "refine with openai_compatible" in shown["reason"]
    assert (shown["refined"], shown["model"], shown["version"]) == (False, "Qwen3-32B", BARE.version)
    assert current_program(store.models) == BARE
    assert MODELS == []


def test_examples_are_of_training_users_without_a_word_of_test_users(store: Store) -> None:
    """Law 7: by user; a chunk in which a test user speaks is left out; the two sets share nobody."""
    fill(store)
    fill(store, datadao="reddit", chunks_each=2)
    data = refinement_data(store.lake, store.key, 90, 3)
    sides = [{example.owner for example in part} for part in (data.train, data.development)]
    assert not sides[0] & sides[1]
    assert {split_of(user, store.key) for user in sides[0] | sides[1]} == {"train"}
    assert (len(sides[0]), len(sides[1])) == (20, 10)
    assert len(data.chunk_ids) == len(data.train) + len(data.development) <= 90
    for chunk_id in data.chunk_ids:
        _, place, number = chunk_id.split("-")
        assert int(number) % 3 or split_of(f"{(int(place) + 1) % 60:032x}", store.key) != "test"
    assert refinement_data(store.lake, store.key, 90, 3).chunk_ids == data.chunk_ids
    assert any(chunk_id.startswith("reddit") for chunk_id in data.chunk_ids)


def test_the_check_fails_on_a_worse_program() -> None:
    """What `refine` never adopts the check would still find."""
    figures = {"score_before": 0.8, "score_after": 0.7, "difference": -0.1, "difference_low": -0.2}
    assert not not_worse_than_shipped({"refined": True, **figures}).passed
    assert not not_worse_than_shipped({"refined": True}).passed
    assert not_worse_than_shipped({"refined": False, **figures}).passed
