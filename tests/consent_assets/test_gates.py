"""Assets make nothing of who has not consented, or not any more, whatever lies there already (C14)."""

from datetime import UTC, datetime
from typing import Any

from consent_chat import EVERYTHING, materialise, people, say

from assets import consent_ledger as module
from assets.chunk_summaries import chunk_summaries
from assets.data_funnel import tables
from assets.embeddings import chunk_embeddings
from assets.koais import koais
from assets.masked_chunks import masked_chunks
from resources.store import Store
from user_embeddings_dagster.evaluation.funnel import data_funnel
from user_embeddings_dagster.schema import (
    DROPPED_MESSAGES,
    HARD_NEGATIVES,
    RAW_FILES,
    REJECTED_RECORDS,
    TRAINING_SNAPSHOT,
)


def test_without_any_word_nothing_goes_further_and_it_is_said(store):
    """A failed check, a warning in the log, and a stage of the funnel without messages."""
    found = materialise(store)
    assert not found["checks"]["somebody_consented"]
    assert found["masked_chunks"]["subjects_without_consent"] == 4
    assert not any(people(store).values())
    rows = {row["stage"]: row["n"] for row in data_funnel("dao", _funnel(store)).iter_rows(named=True)}
    assert (rows["subject_messages"], rows["consented_messages"], rows["chunks"]) == (96, 0, 0)
    say(store, ann="serve")
    assert materialise(store)["checks"]["somebody_consented"]


def _funnel(store: Store) -> Any:
    for table in (RAW_FILES, REJECTED_RECORDS, DROPPED_MESSAGES):
        store.lake.commit(table, table.empty(), "dao")
    for table in (TRAINING_SNAPSHOT, HARD_NEGATIVES):
        store.lake.commit(table, table.empty())
    return tables(store.lake, store.lance, "dao")


def test_an_asset_that_runs_before_the_ledger_is_brought_up_to_date_is_gated_too(store, monkeypatch):
    """A grant ends by the clock while chunks of it lie there: nothing more is made of them."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    monkeypatch.setattr("user_embeddings_dagster.privacy.consent.live.now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    monkeypatch.setattr("user_embeddings_dagster.privacy.consent.live.now", lambda: datetime(2031, 1, 1, tzinfo=UTC))
    late = materialise(store, [chunk_summaries, koais, chunk_embeddings])
    held = people(store)
    assert held.pop("masked_chunks") == {"ann", "bob"}, "the control: they are there"
    assert set(map(frozenset, held.values())) == {frozenset({"ann"})}
    assert late["chunk_embeddings"]["withdrawn"] > 0
    again = materialise(store, [masked_chunks, chunk_summaries, koais])
    assert not again["masked_chunks"]["reused"]
    assert again["chunk_summaries"]["reused"] and again["koais"]["reused"], "they were right already"
