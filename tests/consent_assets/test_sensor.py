"""The sensor that asks for a ledger when a grant ends by the clock or an erasure took rows from it (C14)."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl
import pytest
from consent_chat import EVERYTHING, materialise, say

from assets import consent_ledger as module
from assets.consent_ledger import consent_ledger, consent_sensor
from assets.partitions import DATADAO
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.containment import ContainedError
from user_embeddings_dagster.schema import TABLES
from user_embeddings_dagster.storage.lake import Lake


def test_the_sensor_asks_for_the_ledger_when_a_grant_ends_by_the_clock(store, monkeypatch):
    """C14: once for each change, and only for the DataDAO concerned."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")

    def tick(year: int) -> Any:
        monkeypatch.setattr(module, "now", lambda: datetime(year, 1, 1, tzinfo=UTC))
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(DATADAO, ["dao", "other"])
            return consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))

    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store, [consent_ledger])
    assert isinstance(tick(2029), dg.SkipReason)
    (request,) = tick(2030).run_requests
    assert request.partition_key == "dao"
    materialise(store, [consent_ledger])
    assert isinstance(tick(2030), dg.SkipReason)


def test_the_sensor_asks_for_a_ledger_that_an_erasure_took_rows_from(store):
    """It does not say any more what held; the others are looked at as before."""
    say(store, ann=EVERYTHING, bob=EVERYTHING)
    materialise(store, [consent_ledger])
    commit, table = store.lake.current("consent_ledger", "dao"), TABLES["consent_ledger"]
    assert commit is not None
    store.lake.commit(table, store.lake.read("consent_ledger", "dao"), "other", stats=commit.stats)
    assert store.lake.purge(table, "dao", pl.col("user_id") == user_id(store.key, "reddit", "bob"))

    def tick() -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(DATADAO, ["dao", "other"])
            return consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))

    assert [request.partition_key for request in tick().run_requests] == ["dao"]
    materialise(store, [consent_ledger])
    assert isinstance(tick(), dg.SkipReason)


def test_a_ledger_whose_partition_was_deleted_holds_up_no_other(store, capsys):
    """Dagster refuses every request of a tick if one is for a partition that it does not know."""
    say(store, ann=EVERYTHING, bob=EVERYTHING)
    materialise(store, [consent_ledger])
    ledger, table = store.lake.read("consent_ledger", "dao"), TABLES["consent_ledger"]
    for datadao in ("dao", "gone"):
        store.lake.commit(table, ledger, datadao, "changed", stats={"holds": "something else"})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        found = consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))
    assert isinstance(found, dg.SensorResult)
    assert [request.partition_key for request in found.run_requests or []] == ["dao"]
    assert "gone: no partition any more" in capsys.readouterr().err


def test_what_the_sensor_cannot_read_is_not_quoted(store, monkeypatch):
    def unreadable(*_: object) -> None:
        raise KeyError("Ann from number 7")

    monkeypatch.setattr(Lake, "partitions", unreadable)
    context = dg.build_sensor_context(resources={"store": store})
    with pytest.raises(ContainedError, match="KeyError") as raised:
        consent_sensor(context)
    assert "Ann" not in str(raised.value)
