"""Automation: a drop flows on by itself, and a failed blocking check holds back its own DataDAO alone."""

import dagster as dg
from automated import evaluated, promoted, ran, requested
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from assets.partitions import SERVED_DIMENSION
from assets.readable_models import tell_automation
from resources.store import Store
from user_embeddings_dagster.definitions import defs


def materialised(instance: dg.DagsterInstance, asset: str, datadao: str, failed: bool = False) -> None:
    """Record a materialisation and every check of it; `failed` fails the blocking ones."""
    graph = defs.resolve_asset_graph()
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=datadao))
    only = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[datadao])
    record = instance.fetch_materializations(only, limit=1).records[0]
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
    )
    for key in graph.asset_check_keys:
        if key.asset_key.to_user_string() == asset:
            spec = graph.get_check_spec(key)
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=key.asset_key,
                    check_name=key.name,
                    passed=not (failed and spec.blocking),
                    blocking=spec.blocking,
                    target_materialization_data=target,
                    partition=datadao if spec.partitions_def else None,
                )
            )


def test_a_new_drop_flows_down_to_base_embeddings_in_one_go():
    """C67."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        before = evaluated(instance)
        materialised(instance, "raw_exports", "reddit")
        after = evaluated(instance, before.cursor)
    assert before.total_requested == 0
    flows = "messages", "rejected_records", "consent_ledger", "masked_chunks", "chunk_summaries", "chunk_embeddings"
    for asset in flows:
        assert requested(after, asset) == {"reddit"}, asset
    assert requested(after, "item_embeddings") == set(), "there is no item encoder yet"


def test_a_change_of_consent_flows_down_without_reading_the_exports_again():
    """C14: what the consent sensor asks for is the ledger of one DataDAO."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        for asset in ("raw_exports", "messages", "masked_chunks"):
            for datadao in ("reddit", "telegram"):
                materialised(instance, asset, datadao)
        instance.report_runless_asset_event(dg.AssetMaterialization("consent_ledger", partition="telegram"))
        before = evaluated(instance)
        materialised(instance, "consent_ledger", "reddit")
        after = evaluated(instance, before.cursor)
    assert "reddit" not in requested(after, "messages")
    for asset in ("masked_chunks", "chunk_summaries", "koais", "chunk_embeddings"):
        assert "reddit" in requested(after, asset), asset
    assert requested(after, "masked_chunks") == {"reddit"}


def test_a_failed_blocking_check_holds_back_its_own_datadao_alone():
    """Although the check of another DataDAO passed later."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        for datadao in ("reddit", "telegram"):
            materialised(instance, "raw_exports", datadao)
            materialised(instance, "consent_ledger", datadao)
        before = evaluated(instance)
        materialised(instance, "messages", "reddit", failed=True)
        materialised(instance, "messages", "telegram")
        held = evaluated(instance, before.cursor)
    assert requested(held, "masked_chunks") == {"telegram"}


def test_user_embeddings_wait_until_the_sequence_encoder_fits_the_item_encoder():
    """C67, C62: after a training of the item encoder alone, item vectors are made anew and user embeddings are not."""
    names = ("reddit", "telegram")
    above = ("messages", "consent_ledger", "masked_chunks", "chunk_embeddings")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", list(names))
        for asset in above:
            for name in names:
                ran(instance, asset, name)
        ran(instance, "item_encoder")
        for name in names:
            ran(instance, "item_embeddings", name)
        ran(instance, "sequence_encoder", SERVED_DIMENSION)
        for name in names:
            ran(instance, "user_embeddings", name)
        tick = evaluated(instance)

        def after(asset: str, *partitions: str | None) -> dict[str, set[str | None]]:
            nonlocal tick
            for partition in partitions:
                ran(instance, asset, partition)
            tick = evaluated(instance, tick.cursor)
            return {which: requested(tick, which) for which in ("item_embeddings", "user_embeddings")}

        assert after("item_embeddings", "reddit")["user_embeddings"] == {"reddit"}
        after("user_embeddings", "reddit")
        assert after("item_encoder", None) == {"item_embeddings": set(names), "user_embeddings": set()}
        assert after("item_embeddings", *names)["user_embeddings"] == set()
        assert after("sequence_encoder", "64")["user_embeddings"] == set(), "not the dimension that is served"
        assert after("sequence_encoder", SERVED_DIMENSION)["user_embeddings"] == set(names)


def test_what_reads_the_encoders_waits_while_the_item_encoder_is_marked(tmp_path):
    """C14: after a revocation or an erasure, every run would fail there until somebody trains."""
    store, may_be_read = Store(data=str(tmp_path)), dg.AssetCheckKey(dg.AssetKey("item_encoder"), "may_be_read")
    names, reading = ("reddit", "telegram"), ("item_embeddings", "user_embeddings")
    above = ("raw_exports", "messages", "consent_ledger", "masked_chunks", "chunk_summaries", "chunk_embeddings")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", list(names))

        def ran_all(*assets: str, of: tuple[str, ...] = names) -> None:
            for asset in assets:
                for name in of:
                    ran(instance, asset, name)

        tell_automation(instance, store)  # before the first training there is nothing to tell
        ran_all(*above)
        promoted(store, "item_encoder")
        ran(instance, "item_encoder")
        ran_all("item_embeddings")
        ran(instance, "sequence_encoder", SERVED_DIMENSION)
        ran_all("user_embeddings")
        tick = evaluated(instance)

        def next_tick() -> dict[str, set[str | None]]:
            nonlocal tick
            tick = evaluated(instance, tick.cursor)
            return {asset: requested(tick, asset) for asset in reading}

        def both(wanted: set[str]) -> dict[str, set[str]]:
            return {asset: wanted for asset in reading}

        materialised(instance, "raw_exports", "reddit")
        assert next_tick() == both(set()), "the ledger may mark it"
        assert requested(tick, "masked_chunks") == {"reddit"}
        ran_all(*above[1:], of=("reddit",))
        tell_automation(instance, store)
        assert next_tick() == both({"reddit"})
        ran_all(*reading, of=("reddit",))
        next_tick()

        store.models.current("item_encoder").mark_withdrawn(["somebody"])
        ran_all("consent_ledger", "masked_chunks")
        tell_automation(instance, store)
        assert next_tick() == both(set())
        told = instance.event_log_storage.get_latest_asset_check_execution_by_key([may_be_read])[may_be_read]
        assert told.evaluation is not None
        assert "run the jobs train, then embed_items" in (told.evaluation.description or ""), "what the UI shows of it"
        assert told.evaluation.metadata["marked"].value == 1

        store.models.folder("item_encoder", "a").mark_withdrawn([])  # they consent again
        ran_all("consent_ledger", of=("telegram",))
        tell_automation(instance, store)
        assert next_tick() == both(set(names))
        ran_all(*reading)
        next_tick()

        store.models.folder("item_encoder", "a").taint(["somebody"])
        ran_all("consent_ledger")
        tell_automation(instance, store)
        assert next_tick() == both(set())
        while_it_trains = []
        ran(instance, "item_encoder", during=lambda: while_it_trains.append(next_tick()))
        assert while_it_trains == [both(set())], "the marked version is the one that is read until then"
        assert next_tick()["item_embeddings"] == set(names), "another version"
        ran_all("item_embeddings")
        assert next_tick()["user_embeddings"] == set(), "the sequence encoder is still marked"
        ran(instance, "sequence_encoder", SERVED_DIMENSION)
        assert next_tick()["user_embeddings"] == set(names)


def test_user_embeddings_wait_while_the_sequence_encoder_alone_is_marked(tmp_path):
    """C14: it may be trained on a later snapshot than the item encoder, with people who are not in that."""
    store, names = Store(data=str(tmp_path)), ("reddit", "telegram")
    above = ("raw_exports", "messages", "consent_ledger", "masked_chunks", "chunk_summaries", "chunk_embeddings")
    served = f"sequence_encoder/{SERVED_DIMENSION}"
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", list(names))

        def ran_all(*assets: str) -> None:
            for asset in assets:
                for name in names:
                    ran(instance, asset, name)

        ran_all(*above)
        for model in ("item_encoder", "sequence_encoder/64", served):
            promoted(store, model)
            asset, _, dimension = model.partition("/")
            ran(instance, asset, dimension or None)
        ran_all("item_embeddings", "user_embeddings")
        tick = evaluated(instance)

        def after_the_ledgers() -> dict[str, set[str | None]]:
            nonlocal tick
            tick = evaluated(instance, tick.cursor)
            ran_all("consent_ledger", "masked_chunks", "chunk_embeddings")
            tell_automation(instance, store)
            tick = evaluated(instance, tick.cursor)
            return {asset: requested(tick, asset) for asset in ("item_embeddings", "user_embeddings")}

        both = {"item_embeddings": set(names), "user_embeddings": set(names)}
        store.models.folder("sequence_encoder/64", "a").taint(["somebody"])
        assert after_the_ledgers() == both, "not the dimension that is served"
        ran_all("item_embeddings", "user_embeddings")
        store.models.folder(served, "a").mark_withdrawn(["somebody"])
        assert after_the_ledgers() == both | {"user_embeddings": set()}
        ran_all("item_embeddings")
        store.models.folder(served, "a").mark_withdrawn([])  # they consent again
        assert after_the_ledgers() == both
        ran_all("item_embeddings", "user_embeddings")
        store.models.folder(served, "a").taint(["somebody"])
        assert after_the_ledgers() == both | {"user_embeddings": set()}
        ran_all("item_embeddings")
        ran(instance, "sequence_encoder", SERVED_DIMENSION)
        tick = evaluated(instance, tick.cursor)
        assert requested(tick, "user_embeddings") == set(names), "another version"


def test_summaries_wait_while_their_program_is_marked(tmp_path):
    """C14: with a program that was refined on people, they come in a run after the ledger, which may mark it."""
    store, above = Store(data=str(tmp_path)), ("raw_exports", "messages", "consent_ledger", "masked_chunks")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit"])

        def ran_all(*assets: str) -> None:
            for asset in assets:
                ran(instance, asset, "reddit")

        ran_all(*above, "chunk_summaries", "unsummarised_chunks")
        promoted(store, "summary_program")
        ran(instance, "summary_program")
        tick = evaluated(instance)

        def summarised() -> bool:
            nonlocal tick
            tick = evaluated(instance, tick.cursor)
            assert requested(tick, "chunk_summaries") == requested(tick, "unsummarised_chunks")
            return requested(tick, "chunk_summaries") == {"reddit"}

        materialised(instance, "raw_exports", "reddit")
        assert not summarised() and requested(tick, "masked_chunks") == {"reddit"}, "the ledger may mark it"
        ran_all("messages", "consent_ledger", "masked_chunks")
        tell_automation(instance, store)
        assert summarised()
        ran_all("chunk_summaries", "unsummarised_chunks")
        assert not summarised()
        store.models.folder("summary_program", "a").mark_withdrawn(["somebody"])
        ran_all("consent_ledger", "masked_chunks")
        tell_automation(instance, store)
        assert not summarised()
        while_refined = []
        ran(instance, "summary_program", during=lambda: while_refined.append(summarised()))
        assert while_refined == [False] and summarised(), "another version"
