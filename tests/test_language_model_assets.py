"""Summaries and KOAIs through a real HTTP endpoint: the assets, the cache, the key, the budget (C22, C23, C27)."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import fakeredis
import polars as pl
import pytest
import redis
from granting import grant

from assets.chunk_summaries import chunk_summaries
from assets.koais import koais
from assets.partitions import datadaos
from benchmarks.fault_server import MODEL, FaultServer
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.schema import MASKED_CHUNKS

N = 40


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


def masked_chunks(n: int) -> pl.DataFrame:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": content_id("chunk", str(i)), "datadao": "sample", "user_id": content_id("user", str(i % 5)),
            "thread_id": "t", "window_id": "w", "started_at": now, "ended_at": now,
            "speakers": ["<P1>", "SUBJECT"], "turns": ["And you?", f"I think number {i} is my favourite."],
            "text": f"<P1>: And you?\nSUBJECT: I think number {i} is my favourite.", "message_ids": ["m", "n"],
            "n_subject_turns": 1, "n_tokens": 12, "n_masked": 0, "context_free": False, "community": None,
        }
        for i in range(n)
    ]  # fmt: skip
    return MASKED_CHUNKS.conform(pl.DataFrame(rows))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(data=str(tmp_path))
    store.lake.commit(MASKED_CHUNKS, masked_chunks(N), "sample")
    grant(store.lake, "sample", masked_chunks(N)["user_id"])
    return store


def materialise(
    store: Store, asset, model: LanguageModelResource, selection: list[str] | None = None
) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(datadaos.name, ["sample"])
        resources = {"store": store, "language_model": model, "training_jobs": TrainingJobs()}
        return dg.materialize(
            [asset],
            selection=selection,
            partition_key="sample",
            resources=resources,
            instance=instance,
            raise_on_error=False,
        )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict:
    events = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    return {name: value.value for name, value in events[asset].materialization.metadata.items()}


def of(server: FaultServer, **fields) -> LanguageModelResource:
    return LanguageModelResource(
        kind="openai_compatible", name=MODEL, base_url=server.url, patience_seconds=10.0, **fields
    )


def test_without_a_model_nobody_is_asked(store):
    """C22: the default is extractive, and says so on every row."""
    result = materialise(store, chunk_summaries, LanguageModelResource())
    assert result.success
    assert store.lake.read("chunk_summaries", "sample")["summarizer"].unique().to_list() == ["extractive"]
    assert not store.layout.language_model_cache.exists()


def test_summaries_through_an_endpoint(store, server):
    """C22, C24, C27: every chunk is accounted for; a second run asks nothing, nor does one without its tables."""
    server.behave()
    first = materialise(store, chunk_summaries, of(server))
    assert first.success
    summaries, rest = (store.lake.read(table, "sample") for table in ("chunk_summaries", "unsummarised_chunks"))
    assert summaries.height + rest.height == N
    assert summaries["summarizer"].unique().to_list() == [MODEL]
    assert sum(server.stats().asked.values()) == N
    assert metadata(first, "chunk_summaries")["calls_this_run"] == N

    second = materialise(store, chunk_summaries, of(server))
    assert metadata(second, "chunk_summaries")["reused"]

    for commit in store.layout.root.glob("tables/*/sample/current.json"):
        if commit.parent.parent.name not in ("masked_chunks", "consent_ledger"):
            commit.unlink()
    third = metadata(materialise(store, chunk_summaries, of(server)), "chunk_summaries")
    assert (third["calls_this_run"], third["cache_hit_rate"]) == (0, 1.0)
    assert sum(server.stats().asked.values()) == N
    assert store.lake.read("chunk_summaries", "sample").equals(summaries)


def test_koais_through_an_endpoint(store, server):
    """C25: statements fit the schema, and violations are counted by number."""
    server.behave()
    result = materialise(store, koais, of(server))
    assert result.success
    found = metadata(result, "koais")
    rows = store.lake.read("koais", "sample")
    assert found["dagster/row_count"] == rows.height > 0
    assert rows["extractor"].unique().to_list() == [MODEL]
    assert sum(found[f"violations_K{number}"] for number in range(1, 9)) == rows["violations"].list.len().sum()


def test_one_of_the_two_tables_may_be_asked_for(store):
    """A backfill of one table writes both and reports the one."""
    result = materialise(store, chunk_summaries, LanguageModelResource(), selection=["unsummarised_chunks"])
    assert result.success
    assert [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()] == [
        "unsummarised_chunks"
    ]
    assert store.lake.current("chunk_summaries", "sample") is not None


def test_koais_by_default_are_cues(store):
    assert materialise(store, koais, LanguageModelResource()).success
    assert store.lake.read("koais", "sample")["extractor"].unique().to_list() == ["cues"]


def test_failures_are_listed_and_asked_again(store, server):
    """C23: a chunk that gets no valid answer is listed with its reason, and asked about again by the next run."""
    server.behave()
    assert materialise(store, chunk_summaries, of(server)).success
    store.lake.commit(MASKED_CHUNKS, masked_chunks(N + 2), "sample")
    server.behave(faults={"malformed_json": 1.0})
    result = materialise(store, chunk_summaries, of(server))
    assert result.success
    listed = store.lake.read("unsummarised_chunks", "sample").filter(pl.col("reason") == "malformed_json")
    assert listed.height == 2
    assert (listed["prompt_tokens"] > 0).all()
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks["summaries_account_for_chunks"]
    assert not checks["few_model_failures"]
    server.behave()
    found = metadata(materialise(store, chunk_summaries, of(server)), "chunk_summaries")
    assert (found["calls_this_run"], found["to_ask_again"], found["reused"]) == (2, 0, False)
    found = metadata(materialise(store, chunk_summaries, of(server)), "chunk_summaries")
    assert (found["calls_this_run"], found["reused"]) == (0, True)


@pytest.mark.parametrize(("asset", "table"), [(chunk_summaries, "chunk_summaries"), (koais, "koais")])
def test_a_dead_endpoint_replaces_nothing(store, server, asset, table):
    """C23: with another model whose endpoint is down the step fails, and the good table stays."""
    server.behave()
    assert materialise(store, asset, of(server)).success
    before = store.lake.read(table, "sample")
    server.behave(faults={"http_500": 1.0}, models=("another",))
    dead = LanguageModelResource(
        kind="openai_compatible", name="another", base_url=server.url, patience_seconds=0.2, max_attempts=2
    )
    result = materialise(store, asset, dead)
    assert not result.success
    event = next(event for event in result.all_events if event.is_step_failure)
    assert "got no valid answer (server_error 40)" in str(event.step_failure_data)
    assert store.lake.read(table, "sample").equals(before)


def test_answers_on_a_redis_server_expire_by_default(store, server, monkeypatch):
    """C16: after the window of the retention, because no purge reaches them there."""
    memory = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=memory.serve_forever, daemon=True).start()
    url = f"redis://127.0.0.1:{memory.server_address[1]}/0"
    monkeypatch.setenv("USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE", url)
    monkeypatch.setenv("USER_EMBEDDINGS_RETENTION", '{"language_model_cache": 3}')
    server.behave()
    assert materialise(store, chunk_summaries, of(server)).success
    with redis.Redis.from_url(url) as client:  # the server's thread ends with the connection
        ages = [3 * 86_400 - client.ttl(key) for key in client.scan_iter()]
    memory.shutdown()
    assert len(ages) == N and min(ages) >= 0 and max(ages) < 600


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_damaged_table_is_made_again(store, damage):
    assert materialise(store, chunk_summaries, LanguageModelResource()).success
    path = store.lake.path("chunk_summaries", "sample")
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:100])
    assert materialise(store, chunk_summaries, LanguageModelResource()).success
    assert store.lake.read("chunk_summaries", "sample").height == N


def test_other_settings_of_the_model_ask_again(store, server):
    """What shapes answers is part of the program's version."""
    server.behave()
    assert materialise(store, chunk_summaries, of(server)).success
    warm = of(server, extra='{"temperature": 1.0}')
    assert metadata(materialise(store, chunk_summaries, warm), "chunk_summaries")["calls_this_run"] == N


def test_koais_of_unchanged_chunks_are_kept(store, server):
    """C25: new chunks alone are asked about, even when the cache is gone; every chunk is accounted for."""
    server.behave()
    assert materialise(store, koais, of(server)).success
    store.layout.language_model_cache.unlink()
    store.lake.commit(MASKED_CHUNKS, masked_chunks(N + 5), "sample")
    result = materialise(store, koais, of(server, max_calls=30))
    assert metadata(result, "koais")["calls_this_run"] == 5
    extractions = store.lake.read("koai_extractions", "sample")
    assert extractions.height == N + 5
    assert extractions["n_koais"].sum() == store.lake.read("koais", "sample").height


def test_a_refused_key_fails_at_once(store, server, monkeypatch):
    """C23: no retry, no row, an error that names the endpoint and not the key."""
    monkeypatch.setenv("USER_EMBEDDINGS_LANGUAGE_MODEL_KEY", "sk-not-the-right-one")
    server.behave(api_key="sk-right")
    result = materialise(store, chunk_summaries, of(server))
    assert not result.success
    assert store.lake.current("chunk_summaries", "sample") is None
    event = next(event for event in result.all_events if event.is_step_failure)
    assert "401" in str(event.step_failure_data.error)
    assert "sk-not" not in str(event.step_failure_data)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_spent_budget_stops_and_keeps_what_was_paid(store, server):
    """A cap on calls: the run fails with the figures; a higher cap goes on from there."""
    server.behave()
    result = materialise(store, chunk_summaries, of(server, max_calls=20, max_attempts=1, concurrency=4))
    assert not result.success
    paid = sum(server.stats().asked.values())
    assert 0 < paid <= 20
    result = materialise(store, chunk_summaries, of(server))
    assert metadata(result, "chunk_summaries")["calls_this_run"] == N - paid
