"""Raw exports: external to this code location, registered by the landing sensor."""

import json
import time

import dagster as dg

from assets.containment import containing
from assets.partitions import DATADAO, datadaos
from assets.policies import DATA, DROPS_FRESH
from resources.store import Store
from user_embeddings_dagster.exports import minimisation
from user_embeddings_dagster.exports.landing import Drop, scan

# A file still being copied changes within seconds; it is registered once it has been left alone this long.
SETTLE_SECONDS = 5.0
PASSED_OVER = (  # their names may be anything, and are not told
    "folders below landing/ passed over (a DataDAO's name is [a-z0-9_-], at most 63 characters, neither _ nor - first, "
    "not 'all')"
)

raw_exports = dg.AssetSpec(
    "raw_exports",
    description=(
        "One row per export that contributors dropped into the landing folder `landing/<datadao>/`. External: "
        "the landing sensor registers DataDAOs and drops; files are read where they lie."
    ),
    metadata={"never_read": dg.MetadataValue.md(minimisation.as_markdown())},
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


def registered_signature(instance: dg.DagsterInstance, datadao: str) -> str | None:
    """Signature of the DataDAO's last registered drop, None if it has none."""
    only = dg.AssetRecordsFilter(raw_exports.key, asset_partitions=[datadao])
    records = instance.fetch_materializations(only, limit=1).records
    event = records[0].asset_materialization if records else None
    return (event.tags or {}).get("dagster/data_version") if event else None


@dg.sensor(
    name="landing",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers each folder below landing/ as a DataDAO, and each changed drop as an event.",
)
@containing
def landing_sensor(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    """One event per DataDAO whose landing folder changed, once it has settled; a partition for each without one.

    The cursor spares a look into the event log per DataDAO and tick. The log decides, because drops are also
    registered from the command line: telling of them again would make automation run them all again.
    """
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    drops, unnamed, unread = scan(store.layout.landing)
    if unnamed:
        context.log.warning(f"{PASSED_OVER}: {unnamed}")
    for datadao in unread:
        context.log.warning(f"{datadao}: passed over, something in it may not be read; see owners and modes")
    settled = [drop for drop in drops if abs(time.time() - drop.newest) >= SETTLE_SECONDS]
    changed = [drop for drop in settled if seen.get(drop.datadao) != drop.signature]
    known = set(context.instance.get_dynamic_partitions(DATADAO))
    new = [drop.datadao for drop in settled if drop.datadao not in known]  # told of or not: it may have been deleted
    if not changed and not new:
        return dg.SkipReason(f"{len(drops)} DataDAOs, none changed")
    cursor = json.dumps(seen | {drop.datadao: drop.signature for drop in changed}, sort_keys=True)
    untold = [drop for drop in changed if registered_signature(context.instance, drop.datadao) != drop.signature]
    return dg.SensorResult(
        asset_events=[registration(drop) for drop in untold],
        dynamic_partitions_requests=[datadaos.build_add_request(new)] if new else [],
        skip_reason=f"registered: {', '.join(sorted({*new, *(drop.datadao for drop in untold)})) or 'none'}; "
        "runs are automation's",
        cursor=cursor,
    )
