"""Automation: a drop flows on by itself, and a failed blocking check holds back its own DataDAO alone."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

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


def requested(result: dg.EvaluateAutomationConditionsResult, asset: str) -> set[str | None]:
    """Partitions of an asset that automation would run now."""
    return set(result.get_requested_partitions(dg.AssetKey(asset)))


def test_a_new_drop_flows_down_to_base_embeddings_in_one_go():
    """C67."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        before = dg.evaluate_automation_conditions(defs, instance)
        materialised(instance, "raw_exports", "reddit")
        after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
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
        before = dg.evaluate_automation_conditions(defs, instance)
        materialised(instance, "consent_ledger", "reddit")
        after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
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
        before = dg.evaluate_automation_conditions(defs, instance)
        materialised(instance, "messages", "reddit", failed=True)
        materialised(instance, "messages", "telegram")
        held = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    assert requested(held, "masked_chunks") == {"telegram"}
