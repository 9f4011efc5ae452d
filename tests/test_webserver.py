"""What the UI asks the webserver for: lineage, sensors, a backfill and its runs, over GraphQL on a fresh instance."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.runner import run_lineage
from user_embeddings_dagster.settings import Layout

LINEAGE = """{ assetNodes {
    assetKey { path } groupName kinds description isPartitioned pools
    owners { ... on TeamAssetOwner { team } }
    automationCondition { label }
    assetChecksOrError { ... on AssetChecks { checks { name partitionDefinition { name } } } }
} }"""
INSTIGATORS = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on PythonError { message }
    ... on RepositoryLocation { repositories {
        sensors { name description sensorState { status } } schedules { name scheduleState { status } }
    } } } } } } }"""
LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId }
} }"""
RUNS = """query($job: PipelineSelector!) { pipelineOrError(params: $job) { ... on Pipeline { runs { runId } } } }"""
BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
    status partitionNames numPartitions assetSelection { path }
} } }"""


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with two DataDAOs."""
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        yield instance


@pytest.fixture(scope="module")
def ask(instance) -> Iterator[Any]:
    """`ask(query, variables)` → data, on that instance."""
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="user_embeddings_dagster.definitions"), location_name="user_embeddings"
    )
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as process:

        def execute(query: str, variables: dict[str, Any] | None = None) -> Mapping[str, Any]:
            return execute_dagster_graphql(process.create_request_context(), query, variables).data

        yield execute


def test_lineage_shows_every_asset_with_group_kinds_owner_and_checks(ask):
    nodes = {node["assetKey"]["path"][0]: node for node in ask(LINEAGE)["assetNodes"]}
    assert set(nodes) == {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    for name, node in nodes.items():
        assert node["groupName"], name
        assert node["kinds"], name
        assert node["owners"][0]["team"], name
        assert node["description"].startswith("One row per"), name


def test_checks_of_a_partitioned_asset_are_partitioned(ask):
    """A DataDAO's failed check must not be overwritten by the next DataDAO's passed one."""
    shared = [
        (node["assetKey"]["path"][0], check["name"])
        for node in ask(LINEAGE)["assetNodes"]
        for check in node["assetChecksOrError"].get("checks", [])
        if node["isPartitioned"] and check["partitionDefinition"] is None
    ]
    assert shared == [("sequence_encoder", "may_be_read")], "it is of the dimension that is served, in every partition"


def test_sensors_run_and_schedules_wait_for_an_operator(ask):
    entry = ask(INSTIGATORS)["workspaceOrError"]["locationEntries"][0]["locationOrLoadError"]
    repository = entry["repositories"][0]
    sensors = {sensor["name"]: sensor["sensorState"]["status"] for sensor in repository["sensors"]}
    assert sensors == dict.fromkeys(("landing", "consent", "models", "automation"), "RUNNING")
    assert all(sensor["description"] for sensor in repository["sensors"])
    assert {schedule["scheduleState"]["status"] for schedule in repository["schedules"]} == {"STOPPED"}


def test_a_backfill_over_every_datadao_is_accepted(ask):
    selection = [{"path": ["masked_chunks"]}, {"path": ["chunk_summaries"]}]
    params = {"assetSelection": selection, "partitionNames": ["reddit", "telegram"]}
    launched = ask(LAUNCH, {"params": params})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess"
    backfill = ask(BACKFILL, {"id": launched["backfillId"]})["partitionBackfillOrError"]
    assert backfill["status"] == "REQUESTED"
    assert sorted(backfill["partitionNames"]) == ["reddit", "telegram"]
    assert sorted(key["path"][0] for key in backfill["assetSelection"]) == ["chunk_summaries", "masked_chunks"]


def test_what_a_command_ran_is_among_the_runs_of_its_job(ask, instance, tmp_path, monkeypatch):
    """Its page said "You have not materialized any assets with this job yet", and the timeline was empty."""
    monkeypatch.setenv("USER_EMBEDDINGS_DATA", str(tmp_path))
    folder = tmp_path / "landing" / "stops-at-messages"
    (folder / "contributors.csv").mkdir(parents=True)
    (folder / "export.json").write_text("{}")
    (ran,) = run_lineage(instance, Layout(tmp_path), ["1024"], {}, lambda line: None)
    job = {"pipelineName": ran.job, "repositoryName": "__repository__", "repositoryLocationName": "user_embeddings"}
    assert len(ask(RUNS, {"job": job})["pipelineOrError"]["runs"]) == 1
