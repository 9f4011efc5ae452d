"""Revoking, expiring, granting again change what they concern and nothing else (C14, F6)."""

import dagster as dg
import polars as pl
import pytest
from consent_chat import EVERYTHING, NAMES, OF_DATADAO, STATEMENT, materialise, people, say
from served_assets import served

from assets.consent_ledger import consent_ledger
from assets.partitions import DATADAO
from assets.readable_models import READ_BY_AUTOMATION
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.consent.report import about_models
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.manifest import finalise


def state(lake: Lake, without: str | None = None) -> dict[str, pl.DataFrame]:
    return {t: lake.read(t, "dao").filter(pl.col("user_id") != (without or "")) for t in OF_DATADAO}


def test_revoking_takes_one_person_out_of_everything_and_changes_nobody_else(store):
    """C14, F6: then back, by granting again, to exactly what was."""
    say(store, ann=EVERYTHING, bob=EVERYTHING, cat="serve")
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "bob", "cat"})}
    bob = user_id(store.key, "reddit", "bob")
    before, whole = state(store.lake, bob), state(store.lake)

    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},,2021-01-01", cat="serve")
    first = materialise(store, [consent_ledger])
    assert first["consent_ledger"]["train_revoked"] == 1
    assert first["consent_ledger"]["removed_chunk_embeddings"] > 0
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "cat"})}, "by the ledger alone"
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "cat"})}
    assert all(table.equals(before[name]) for name, table in state(store.lake).items())
    assert "bob" not in "".join(store.lake.read("masked_chunks", "dao")["text"])

    say(store, ann=EVERYTHING, bob=EVERYTHING, cat="serve")
    materialise(store)
    assert all(table.equals(whole[name]) for name, table in state(store.lake).items())


@pytest.mark.parametrize("how", ["revoked", "row deleted", "unreadable date", "statement withdrawn"])
def test_answers_about_a_person_are_forgotten_however_consent_ends(store, how):
    """C14: also where the ledger has no row of theirs any more; nobody else's."""
    stated = how == "statement withdrawn"
    folder, gone = store.layout.landing / "dao", set(NAMES) if stated else {"bob", "cat", "dan"}
    if stated:
        (folder / "datadao.json").write_text(STATEMENT)
    else:
        say(store, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(store, [consent_ledger])
    asked = {}
    with store.language_model_cache() as cache:
        for name in NAMES:
            asked[name] = Request((Message("user", name),), {"type": "object"}, user_id(store.key, "reddit", name), "p")
            cache.put("m", asked[name], Completion(asked[name].id, {}, Usage(1, 1, 1, 1, 0.0), 1, 0.1))
    if stated:
        (folder / "datadao.json").write_text("{}")
    else:
        ends = {"revoked": f"{EVERYTHING},,2021-01-01", "unreadable date": f"{EVERYTHING},,01.02.2021"}
        say(store, ann=EVERYTHING, **dict.fromkeys(gone, ends[how]) if how in ends else {})
    assert materialise(store, [consent_ledger])["consent_ledger"]["removed_cached_answers"] == len(gone)
    with store.language_model_cache() as cache:
        assert {name for name in NAMES if cache.get("m", [asked[name]])[0] is None} == gone


def test_what_a_change_does_not_concern_is_not_computed_again(store):
    """Ann withdraws one purpose of several: no chunk, summary, KOAI or vector is made anew; control: her last one."""
    say(store, ann="serve compare", bob=EVERYTHING)
    materialise(store)
    say(store, ann="serve", bob=EVERYTHING)
    again = materialise(store)
    assert not again["consent_ledger"]["reused"]
    assert all(again[name]["reused"] for name in ("masked_chunks", "chunk_summaries", "koais"))
    assert again["chunk_embeddings"]["embedded"] == again["chunk_embeddings"]["withdrawn"] == 0
    assert materialise(store)["consent_ledger"]["reused"]
    say(store, bob=EVERYTHING)
    gone = materialise(store)
    assert not any(gone[name]["reused"] for name in ("masked_chunks", "chunk_summaries", "koais"))
    assert gone["chunk_embeddings"]["embedded"] == 0


def test_the_ledger_warns_of_promoted_models_alone(store):
    """C14: until they are trained anew; versions that nothing reads any more hold the person still, and are named."""

    def trained(version: str, *names: str) -> None:
        folder = store.models.folder("item_encoder", version)
        folder.output.mkdir(parents=True)
        (folder.output / "job.json").write_text(f'{{"metadata": {{}}, "data_version": "{version}"}}')
        finalise(folder.output)
        users = [user_id(store.key, "reddit", name) for name in names]
        folder.note_subjects(subjects_of(store.key, pl.DataFrame({"datadao": "dao", "user_id": users})))
        store.models.promote("item_encoder", version)

    def found() -> tuple[bool, list[str], list[str]]:
        told = materialise(store, [consent_ledger])
        ledger = told["consent_ledger"]
        return told["checks"]["models_consented"], ledger["models_marked"], ledger["models_marked_unused"]

    say(store, ann="train", bob="train")
    trained("a", "ann", "bob")
    trained("b", "ann", "bob")
    assert found() == (True, [], [])
    say(store, ann="train,,2021-01-01", bob="train")
    assert found() == (False, ["item_encoder/b"], ["item_encoder/a"])
    trained("c", "bob")
    assert found() == (True, [], ["item_encoder/a", "item_encoder/b"])


def test_what_to_do_about_marked_models_is_said():
    assert about_models([], []) is None
    told = about_models(["item_encoder/b", "sequence_encoder/64/b", "summary_program/b"], ["item_encoder/a"])
    assert told is not None and told.count("run the jobs train") == told.count("refine_summary_program") == 1
    assert "3 promoted" in told and "1 that nothing reads: user-embeddings purge" in told
    assert "purge" not in (about_models(["item_encoder/b"], []) or "")


@pytest.mark.parametrize("asset", sorted(READ_BY_AUTOMATION))
def test_the_ledger_tells_automation_when_a_model_may_not_be_read(store, asset):
    """Also one that fails for want of its files, with what the clock ended."""
    model = READ_BY_AUTOMATION[asset]
    folder = store.models.folder(model, "a")
    folder.output.mkdir(parents=True)
    (folder.output / "job.json").write_text('{"metadata": {}, "data_version": "a"}')
    finalise(folder.output)
    ann = pl.DataFrame({"datadao": ["dao"], "user_id": [user_id(store.key, "reddit", "ann")]})
    folder.note_subjects(subjects_of(store.key, ann))
    store.models.promote(model, "a")
    check = dg.AssetCheckKey(dg.AssetKey(asset), "may_be_read")

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        instance.report_runless_asset_event(dg.AssetMaterialization(asset))

        def told() -> str:
            given = {"instance": instance, "resources": {"store": store}, "partition_key": "dao"}
            dg.materialize([served("consent_ledger")], raise_on_error=False, **given)
            return instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check].status.value

        say(store, ann="train", bob="train")
        assert told() == "SUCCEEDED"
        say(store, ann="train,,2021-01-01", bob="train")
        assert told() == "FAILED"
        say(store, ann="train", bob="train")
        assert told() == "SUCCEEDED"
        folder.taint(["somebody"])
        (store.layout.landing / "dao" / "consent.csv").unlink()
        (store.layout.landing / "dao" / "consent.csv").mkdir()
        assert told() == "FAILED"
