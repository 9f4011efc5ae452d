"""The settings of the language model: what is wrong is said once, by name, where a model would be asked."""

import shutil
from importlib.util import find_spec
from typing import Any

import dagster as dg
import pytest
from granting import grant
from sample_chunks import chunks_about_pears

import resources.language_model as module
from assets.chunk_summaries import chunk_summaries
from assets.koais import koais
from assets.partitions import DATADAO
from benchmarks.fault_server import MODEL, FaultServer
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.language_models.batch_files import BatchModel
from user_embeddings_dagster.language_models.protocol import Message, Request
from user_embeddings_dagster.schema import MASKED_CHUNKS

PREFIX = "USER_EMBEDDINGS_LANGUAGE_MODEL_"
SERVER: dict[str, Any] = {"kind": "openai_compatible", "name": "m", "base_url": "http://127.0.0.1:9/v1"}


@pytest.fixture
def store(tmp_path):
    store = Store(data=str(tmp_path / "data"))
    store.lake.commit(MASKED_CHUNKS, chunks_about_pears(12), "sample")
    grant(store.lake, "sample", chunks_about_pears(12)["user_id"])
    return store


def materialise(store, asset, model, selection=None):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["sample"])
        resources = {"store": store, "language_model": model, "training_jobs": TrainingJobs()}
        return dg.materialize(
            [asset], selection=selection, partition_key="sample", resources=resources, instance=instance,
            raise_on_error=False,
        )  # fmt: skip


def failure(result):
    """What the step failed with, at the first attempt."""
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    return str(next(event for event in result.all_events if event.is_step_failure).step_failure_data.error)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "oracle"}, "oracle"),
        ({"kind": "openai_compatible", "name": "m"}, "base_url"),
        ({"kind": "vllm_batch"}, "name"),
        ({**SERVER, "max_usd": 1.0}, "prices"),
        ({"kind": "vllm_batch", "name": "m", "max_usd": 1.0}, "max_calls"),
        ({"kind": "vllm_batch", "name": "m", "batch": '{"max_model_length": 4}'}, "max_model_length"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(fields, says):
    with pytest.raises(ValueError, match=says) as caught:
        _ = LanguageModelResource(**fields).configured
    assert isinstance(caught.value, dg.Failure) and not caught.value.allow_retries


@pytest.mark.parametrize(
    "field",
    [
        {"usd_prompt": -1.0}, {"usd_completion": -1.0}, {"usd_cached_prompt": -1.0}, {"max_usd": -1.0},
        {"max_usd": float("nan")}, {"max_calls": -1}, {"cache_days": -1.0}, {"patience_seconds": -1.0},
        {"timeout_seconds": 0.0}, {"concurrency": 0}, {"max_attempts": 0},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        LanguageModelResource(**SERVER, **field)


def test_fields_come_from_the_environment(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}KIND", "openai_compatible")
    monkeypatch.setenv(f"{PREFIX}CONCURRENCY", "7")
    monkeypatch.setenv(f"{PREFIX}KEY", "sk-secret")
    monkeypatch.setenv(f"{PREFIX}CACHE", "redis://127.0.0.1:1/0")
    resource = LanguageModelResource.from_environment()
    assert (resource.kind, resource.concurrency, resource.cache_days) == ("openai_compatible", 7, 0.0)
    assert resource.problem == ""


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CONCURRENCY", "lots", "integer"),
        ("CONCURRENCY", "0", "greater than or equal to 1"),
        ("USD_PROMPT", "-1", "greater than or equal to 0"),
        ("EXTRA", '{"sk-secret', "JSON"),
        ("EXTRA", '["sk-secret"]', "JSON object"),
        ("BATCH", "sk-secret", "JSON"),
        ("BASE_URL", "localhost:8000/v1", r"http\(s\)://host"),
        ("BASE_URL", "http://host:port/v1", r"http\(s\)://host"),
        ("CONCURENCY", "8", "no such setting"),
        ("PROBLEM", "8", "no such setting"),
    ],
)
def test_a_wrong_variable_fails_the_step_once_and_not_the_code_location(monkeypatch, store, variable, value, expected):
    monkeypatch.setenv(f"{PREFIX}{variable}", value)
    resource = LanguageModelResource.from_environment()
    with pytest.raises(dg.Failure, match=f"{PREFIX}{variable}: .*{expected}"):
        _ = resource.configured
    assert "sk-secret" not in resource.problem
    if variable == "CONCURRENCY":
        assert f"{PREFIX}{variable}" in failure(materialise(store, chunk_summaries, resource))


def test_settings_that_shape_answers():
    extra = '{"top_p": 0.9, "chat_template_kwargs": {"enable_thinking": false}}'
    assert LanguageModelResource(**SERVER, extra=extra).answer_settings == (
        '{"chat_template_kwargs":{"enable_thinking":false},"top_p":0.9}'
    )
    batch: dict[str, Any] = {"kind": "vllm_batch", "name": "m"}
    settings = '{"gpu_memory_utilization": 0.5, "dtype": "float32", "model": "/models/m", "chat_template_kwargs": {}}'
    assert LanguageModelResource(**batch, batch=settings).answer_settings == '{"dtype":"float32","model":"/models/m"}'
    assert LanguageModelResource().answer_settings == LanguageModelResource(**SERVER).answer_settings == ""


def test_the_cap_counts_what_this_step_pays(store):
    """Answers from the cache are free: with 4 of 12 paid for before, a cap of 8 calls is enough for the rest."""
    with FaultServer() as server:
        fields: dict[str, Any] = {"kind": "openai_compatible", "name": MODEL, "base_url": server.url, "max_attempts": 1}
        store.lake.commit(MASKED_CHUNKS, chunks_about_pears(4), "sample")
        assert materialise(store, chunk_summaries, LanguageModelResource(**fields)).success
        shutil.rmtree(store.layout.root / "tables" / "chunk_summaries")
        shutil.rmtree(store.layout.root / "tables" / "unsummarised_chunks")
        store.lake.commit(MASKED_CHUNKS, chunks_about_pears(12), "sample")
        assert materialise(store, chunk_summaries, LanguageModelResource(**fields, max_calls=8)).success
        assert sum(server.stats().asked.values()) == 12


def test_a_cap_below_one_request_says_so(store):
    fields: dict[str, Any] = {**SERVER, "max_calls": 3, "max_attempts": 5}
    said = failure(materialise(store, chunk_summaries, LanguageModelResource(**fields)))
    assert "cannot start: 0 calls spent, max_calls is 3, one request may take 5 calls" in said
    assert "US dollars" not in said


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_batch_without_vllm_fails_at_once_and_names_the_extra(store):
    result = materialise(store, koais, LanguageModelResource(kind="vllm_batch", name="m"))
    assert "pip install -e '.[vllm]'" in failure(result)
    assert not store.layout.batches.exists()


def test_the_batch_folder_is_the_steps_whatever_was_asked_for(store, monkeypatch):
    """A batch that was begun for both tables goes on when one of them is asked for."""
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    folders = []

    def spied(self, requests):
        folders.append(self.folder.relative_to(store.layout.batches).as_posix())
        raise dg.Failure("no GPU here", allow_retries=False)

    monkeypatch.setattr(BatchModel, "complete", spied)
    for selection in (None, ["chunk_summaries"], ["unsummarised_chunks"]):
        model = LanguageModelResource(kind="vllm_batch", name="m", max_calls=5)
        assert not materialise(store, chunk_summaries, model, selection).success
    assert folders == ["chunk_summaries/sample"] * 3


def test_a_cap_on_a_batch_counts_all_its_attempts():
    """C24: with 3 attempts a request, 10 calls are enough for 3 requests, all in the first batch."""
    batches = []

    class Batch:
        name = "m"

        def complete(self, requests):
            batches.append(len(list(requests)))
            return iter(())

    resource = LanguageModelResource(kind="vllm_batch", name="m", batch='{"max_attempts": 3}', max_calls=10)
    capped = resource._capped(Batch())
    list(capped.complete(Request((Message("user", str(i)),), {}, "u", "p/1") for i in range(4)))
    assert batches[0] == 3
