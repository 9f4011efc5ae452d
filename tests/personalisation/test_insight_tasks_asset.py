"""C43, C44: the assets of insight tasks and of the judges, by similarity and with a scripted model."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from granting import grant
from insight_platform import platform

from assets.containment import WITHHELD, metadata_value
from assets.insight_tasks import insight_tasks
from assets.judge_agreement import judge_agreement_scores
from assets.partitions import datadaos
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.language_models.protocol import Answer, Completion, LanguageModel, Request, Usage
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.runner import open_instance
from user_embeddings_dagster.schema import INSIGHT_TASKS, KOAIS, MASKED_CHUNKS, TRAINING_SNAPSHOT

SECRET = "long enough to be told"


class Letters:
    """In the place of the text encoder, which takes seconds to load: how often each character is there."""

    version = "letters"

    @staticmethod
    def encode(texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(chr(code)) + 0.1 for code in range(45, 123)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class LettersResource(TextEncoderResource):
    """Loads `Letters`."""

    def load(self, adapter: Path | None = None) -> Any:
        return Letters()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Everything that the assets read, of one DataDAO."""
    store = Store(data=str(tmp_path_factory.mktemp("data")))
    snapshot, chunks, koais, _ = platform()
    whole = snapshot.drop("split", "position").join(chunks, on="chunk_id").with_columns(
        n_subject_turns=2, n_tokens=20, n_masked=0, context_free=False, community=None,
    )  # fmt: skip
    about = koais.join(snapshot.select("chunk_id", "datadao", "user_id", "ended_at"), on="chunk_id")
    none = pl.lit([], pl.List(pl.Int64))
    lake = store.lake
    lake.commit(MASKED_CHUNKS, whole, "zig")
    lake.commit(KOAIS, about.with_columns(violations=none, extractor=pl.lit("c"), program_version=pl.lit("1")), "zig")
    lake.commit(TRAINING_SNAPSHOT, snapshot)
    grant(lake, "zig", snapshot["user_id"])
    vectors = pl.Series(Letters.encode(chunks["text"].to_list()))
    rows = chunks.select(id="chunk_id", version=pl.lit(Letters.version)).with_columns(vector=vectors)
    store.lance.upsert("zig", "chunk_embeddings", rows)
    return store


class Chooser:
    """Chooses the first option, after one search; says the same to everybody."""

    name = "chooser"

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            yield Completion(request.id, self._value(request), Usage(1, 10, 0, 5, 0.0))

    def _value(self, request: Request) -> Any:
        fields = request.schema.get("properties")
        if fields is None:
            done = "observation_0" in request.messages[-1].content
            tool, arguments = ("finish", {}) if done else ("search", {"query": "SUBJECT"})
            return {"next_thought": "so", "next_tool_name": tool, "next_tool_args": arguments}
        known = {"option": 0, "answer": "as everybody", "reasoning": "so", "better": "first", "score": 5}
        return {name: known[name] for name in fields}


class ChooserModel(LanguageModelResource):
    """`Chooser` in the place of the server's model."""

    def _asked(self, *arguments: Any) -> LanguageModel:
        return Chooser()


MODEL = ChooserModel(kind="openai_compatible", name="chooser", base_url="http://127.0.0.1:9/v1")


def materialise(
    store: Store, asset: dg.AssetsDefinition, model: LanguageModelResource, home: Path | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    with open_instance(home) if home else dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(datadaos.name, ["zig"])
        return dg.materialize(
            [asset],
            partition_key="zig" if asset is insight_tasks else None,
            instance=instance,
            resources={
                "store": store, "language_model": model, "training_jobs": TrainingJobs(),
                "text_encoder": LettersResource(),
            },
            run_config={"ops": {asset.key.to_user_string(): {"config": config}}},
            raise_on_error=False,
        )  # fmt: skip


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata is not None
    return {name: value.value for name, value in event.materialization.metadata.items()}


def data_version(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_asset_materialization_events()
    return (event.materialization.tags or {})["dagster/data_version"]


def test_tasks_are_made_validated_checked_and_reused(filled: Store) -> None:
    """C43: the default asks no model, says so on every row, and reports who agreed how often."""
    result = materialise(filled, insight_tasks, LanguageModelResource(), per_user=3)
    assert result.success
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "answers_balanced": True, "no_peeking": True, "options_distinct": True, "questions_tell_nothing": True,
        "some_tasks_kept": True,
    }  # fmt: skip
    told = metadata(result)
    rows = filled.lake.read("insight_tasks", "zig")
    assert rows["validator"].unique().to_list() == ["similarity"] and told["validator"] == "similarity"
    assert told["tasks_by_kind"] == dict.fromkeys(
        ("answer_as_subject", "knowledge", "next_contribution", "next_thread", "stance"), 24
    )
    assert 0 <= told["dropped"]["stance.similarity"] <= 1
    stored = {name: metadata_value(name, value) for name, value in told.items()}
    assert not any(getattr(value, "value", None) == WITHHELD for value in stored.values())
    assert SECRET not in repr(told)
    assert metadata(materialise(filled, insight_tasks, LanguageModelResource(), per_user=3))["reused"]
    assert not metadata(materialise(filled, insight_tasks, LanguageModelResource(), per_user=2))["reused"]


def test_a_model_validates_test_users_once(filled: Store) -> None:
    """C43: rows say who validated; what was answered is not asked again."""
    result = materialise(filled, insight_tasks, MODEL, per_user=2, validator="language_model")
    assert result.success
    told = metadata(result)
    rows = filled.lake.read("insight_tasks", "zig")
    by_split = dict(rows.group_by("split").agg(pl.col("validator").unique()).iter_rows())
    assert by_split == {"test": ["chooser"], "train": ["similarity"]}
    choices = rows.filter(pl.col("answer") >= 0, split="test")
    right = choices.filter(pl.col("answer") == 0)
    assert right["status"].unique().to_list() == ["kept"]
    assert choices.filter(pl.col("answer") > 0)["status"].unique().to_list() == ["both_disagree"]
    assert told["calls_this_run"] > 4 * choices.height and told["validator"] == "chooser"
    filled.lake.replace(INSIGHT_TASKS, "zig", rows)  # forgets what it was made of
    again = metadata(materialise(filled, insight_tasks, MODEL, per_user=2, validator="language_model"))
    assert not again["reused"] and again["calls_this_run"] == 0 and again["cache_hit_rate"] == 1.0


def test_judges_are_measured_on_all_test_tasks(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """C44: two judges by default, a third with a model; order swaps are measured; nothing is judged twice."""
    assert materialise(filled, insight_tasks, LanguageModelResource(), per_user=3).success
    result = materialise(filled, judge_agreement_scores, LanguageModelResource(), max_pairs=20)
    assert result.success
    rows = filled.scores.read().filter(asset="judge_agreement_scores")
    assert set(rows["model"]) == {"similarity", "word_overlap", "similarity ~ word_overlap"}
    assert rows.filter(slice="all", metric="pair_accuracy")["n"].to_list() == [20, 20]
    assert not metadata(result)["reused"]
    with monkeypatch.context() as patched:
        patched.setattr(Letters, "encode", lambda texts: pytest.fail("judged again"))
        again = materialise(filled, judge_agreement_scores, LanguageModelResource(), max_pairs=20)
    assert metadata(again)["reused"] and data_version(again) == data_version(result)
    assert rows.equals(filled.scores.read().filter(asset="judge_agreement_scores"))
    assert not metadata(materialise(filled, judge_agreement_scores, LanguageModelResource(), max_pairs=19))["reused"]
    assert materialise(filled, judge_agreement_scores, MODEL, max_pairs=6, judge="language_model").success
    rows = filled.scores.read().filter(asset="judge_agreement_scores", model="chooser", slice="all")
    assert dict(rows.select("metric", "value").iter_rows()) == {"pair_accuracy": 0.5, "order_consistency": 0.0}


@pytest.mark.parametrize(
    ("asset", "setting"), [(insight_tasks, "validator"), (judge_agreement_scores, "judge")], ids=lambda x: str(x)[:20]
)
def test_settings_that_cannot_be_met_fail_and_say_which(
    filled: Store, asset: dg.AssetsDefinition, setting: str
) -> None:
    result = materialise(filled, asset, LanguageModelResource(), **{setting: "language_model"})
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert f"{setting}: no language model is configured" in str(failure.step_failure_data.error)


def test_nothing_of_the_text_is_beside_the_tables(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in Dagster's events nor in caches or scores, with a model and without: files are decoded. The control: it
    is found in the tables."""
    root = Path(filled.data)
    home = root / "dagster_home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))  # open_instance sets it
    for model, setting in ((LanguageModelResource(), "similarity"), (MODEL, "language_model")):
        made = materialise(filled, insight_tasks, model, home, per_user=1, validator=setting)
        judged = materialise(filled, judge_agreement_scores, model, home, max_pairs=5, judge=setting)
        assert made.success and judged.success and not metadata(made)["reused"]
    found = scan(root, [SECRET, "questions_tell_nothing"])
    assert not found.undecoded
    assert {hit.file.split("/")[0] for hit in found.hits if hit.canary == SECRET} == {"tables"}, (
        "and the control: there"
    )
    events = {hit.file.split("/")[0] for hit in found.hits if hit.canary == "questions_tell_nothing"}
    assert "dagster_home" in events, "the control: the check's name is read in the events"
    assert filled.layout.language_model_cache.exists() and filled.layout.scores.exists()
