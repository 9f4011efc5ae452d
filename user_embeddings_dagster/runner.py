"""Runs the whole lineage in one process against a Dagster instance, so that the UI shows what was done."""

import importlib.resources
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from assets.live_runs import killed_runs
from assets.partitions import DATADAO
from assets.raw_exports import PASSED_OVER, registration
from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.event_log import PooledEventLog
from user_embeddings_dagster.exports.landing import scan
from user_embeddings_dagster.settings import Layout

# What the UI lists a job's runs by, the timeline's too; a run that no webserver or daemon launched has none of its own.
SHOWN = {".dagster/repository": "__repository__@user_embeddings"}  # of the location that workspace.yaml names


@dataclass(frozen=True)
class StageRun:
    """One run of a job: for which partition, whether it succeeded, how long it took."""

    job: str
    partition: str | None
    success: bool
    seconds: float


def open_instance(home: Path) -> dg.DagsterInstance:
    """The persistent instance at `home` (DAGSTER_HOME), with this project's settings on first use."""
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(importlib.resources.files("user_embeddings_dagster").joinpath("dagster.yaml").read_text())
    os.environ["DAGSTER_HOME"] = str(home)
    instance = dg.DagsterInstance.from_ref(_reference(str(home.absolute())))
    _end_killed_runs(instance)
    return instance


def _reference(home: str) -> InstanceRef:
    """With our event log, unless dagster.yaml names a storage."""
    named = InstanceRef.from_dir(home)
    if named.storage_data != InstanceRef.config_defaults(home)["storage"]:
        return named
    log = {"module": PooledEventLog.__module__, "class": PooledEventLog.__name__}
    config = {"base_dir": str(Path(home) / "history" / "runs")}
    return InstanceRef.from_dir(home, overrides={"event_log_storage": {**log, "config": config}})


def _end_killed_runs(instance: dg.DagsterInstance) -> None:
    """Fail runs that a killed process left as under way, a daemon's too, and free what ended runs hold of the pools, or
    wait for in them: it would be waited for forever. A daemon ends such runs of its own only while it lives itself.
    """
    for run in killed_runs(instance):
        instance.report_run_failed(run, "the process that executed this run was killed")
    storage = instance.event_log_storage
    pools = [storage.get_concurrency_info(name) for name in storage.get_concurrency_keys()]
    for run_id in {entry.run_id for pool in pools for entry in (*pool.claimed_slots, *pool.pending_steps)}:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


def register_drops(
    instance: dg.DagsterInstance, layout: Layout, announce: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Register every DataDAO of the landing folder, as the sensor would; returns their names."""
    drops, unnamed, unread = scan(layout.landing)
    if unnamed:
        announce(f"{PASSED_OVER}: {unnamed}")
    names = sorted([*(drop.datadao for drop in drops), *unread])  # reading what may not be read fails, and says so
    instance.add_dynamic_partitions(DATADAO, names)
    for drop in drops:
        instance.report_runless_asset_event(registration(drop))
    return names


def run_lineage(
    instance: dg.DagsterInstance,
    layout: Layout,
    dimensions: Sequence[str],
    ops: Mapping[str, Mapping[str, object]],
    announce: Callable[[str], None],
) -> list[StageRun]:
    """Everything, in order: mask, the summary program, summarise, train, embed items, dimensions, users, the
    personalised decoder, evaluate.

    `ops` is Dagster run config by asset name, or by "asset:partition" for what differs in one. A DataDAO whose
    preparation fails is left out and reported; a failed training or evaluation stops the run there.
    """
    runs: list[StageRun] = []

    def execute(job: str, partition: str | None = None) -> bool:
        announce(f"{job} {partition or ''}".strip())
        started = time.monotonic()
        definition = defs.resolve_job_def(job)
        nodes = {node.name for node in definition.all_node_defs}
        config = {
            "ops": {
                name: {"config": {**ops.get(name, {}), **ops.get(f"{name}:{partition}", {})}}
                for name in {asset.partition(":")[0] for asset in ops} & nodes
            },
            "loggers": {"console": {"config": {"log_level": "INFO"}}},
        }
        result = definition.execute_in_process(
            run_config=config, instance=instance, partition_key=partition, raise_on_error=False, tags=SHOWN
        )
        runs.append(StageRun(job, partition, result.success, time.monotonic() - started))
        return result.success

    names = register_drops(instance, layout, announce)
    if unused := sorted(name for name in ops if ":" in name and name.partition(":")[2] not in {*names, *dimensions}):
        announce(f"settings of partitions that are not here, not used: {', '.join(unused)}")
    masked = [name for name in names if execute("mask_datadao", name)]
    if not masked or not execute("refine_summary_program"):
        return runs
    ready = [name for name in masked if execute("summarise_datadao", name)]
    if not ready or not execute("train"):
        return runs
    ready = [name for name in ready if execute("embed_items", name)]
    if not all([execute("train_sequence_encoder", dimension) for dimension in dimensions]):
        return runs
    for name in ready:
        execute("embed_users", name)
    if all([execute("ask_datadao", name) for name in ready]) and execute("personalise"):
        execute("evaluate_personalised")
    execute("evaluate")
    return runs
