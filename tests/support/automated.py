"""What automation goes by, made for tests: runs that materialise an asset, models of nothing, what it asks for."""

import functools
from collections.abc import Callable
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor

from resources.store import Store
from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.storage.manifest import finalise


def ran(
    instance: dg.DagsterInstance, asset: str, partition: str | None = None, during: Callable[[], object] = lambda: None
) -> None:
    """A run in which this asset was materialised and passed its checks; may be repeated. `during` is called in it."""
    graph = defs.resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys if key.asset_key.path == [asset]]

    @dg.asset(name=asset, partitions_def=graph.get(dg.AssetKey(asset)).partitions_def, check_specs=specs)
    def again() -> dg.MaterializeResult:
        during()
        return dg.MaterializeResult(
            check_results=[dg.AssetCheckResult(check_name=spec.name, passed=True) for spec in specs]
        )

    assert dg.materialize([again], instance=instance, partition_key=partition).success


def evaluated(
    instance: dg.DagsterInstance, cursor: AssetDaemonCursor | None = None
) -> dg.EvaluateAutomationConditionsResult:
    """What automation asks for now; Dagster's function for tests would look the DataDAOs up thousands of times."""
    with patch.object(instance, "get_dynamic_partitions", functools.cache(instance.get_dynamic_partitions)):
        return dg.evaluate_automation_conditions(defs, instance, cursor=cursor)


def requested(result: dg.EvaluateAutomationConditionsResult, asset: str) -> set[str | None]:
    """Partitions of an asset that automation would run now."""
    return set(result.get_requested_partitions(dg.AssetKey(asset)))


def promoted(store: Store, model: str) -> None:
    """A model, of nothing."""
    output = store.models.folder(model, "a").output
    output.mkdir(parents=True)
    (output / "weights").write_text("")
    finalise(output)
    store.models.promote(model, "a")
