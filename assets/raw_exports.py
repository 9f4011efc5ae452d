"""Raw exports: external to this code location, registered by the landing sensor."""

import json
import time

import dagster as dg

from assets.partitions import datadaos
from assets.policies import DATA, DROPS_FRESH
from resources.store import Store
from user_embeddings_dagster.exports.landing import Drop, scan

# A file still being copied changes within seconds; it is registered once it has been left alone this long.
SETTLE_SECONDS = 5.0

raw_exports = dg.AssetSpec(
    "raw_exports",
    description=(
        "One row per export that contributors dropped into the landing folder `landing/<datadao>/`. External: "
        "the landing sensor registers DataDAOs and drops; files are read where they lie."
    ),
    partitions_def=datadaos,
    group_name="ingestion",
    owners=DATA,
    kinds={"file"},
    freshness_policy=DROPS_FRESH,
)


def registration(drop: Drop) -> dg.AssetMaterialization:
    """The event that tells Dagster of a drop."""
    return dg.AssetMaterialization(
        "raw_exports",
        partition=drop.datadao,
        metadata={"files": drop.n_files, "bytes": drop.n_bytes, "signature": drop.signature},
        tags={"dagster/data_version": drop.signature},
    )


@dg.sensor(
    name="landing",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers each folder below landing/ as a DataDAO, and each changed drop as an event.",
)
def landing_sensor(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    """One event per DataDAO whose landing folder changed since the last tick, once it has settled."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    drops, unnamed = scan(store.layout.landing)
    if unnamed:
        context.log.warning(
            f"{unnamed} folders below landing/ are passed over: a DataDAO's name is [a-z0-9_-]"
        )
    changed = [
        drop
        for drop in drops
        if seen.get(drop.datadao) != drop.signature and time.time() - drop.newest >= SETTLE_SECONDS
    ]
    if not changed:
        return dg.SkipReason(f"{len(drops)} DataDAOs, none changed")
    known = set(context.instance.get_dynamic_partitions("datadao"))
    new = [drop.datadao for drop in changed if drop.datadao not in known]
    return dg.SensorResult(
        asset_events=[registration(drop) for drop in changed],
        dynamic_partitions_requests=[datadaos.build_add_request(new)] if new else [],
        cursor=json.dumps(seen | {drop.datadao: drop.signature for drop in changed}, sort_keys=True),
    )
