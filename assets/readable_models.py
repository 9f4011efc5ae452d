"""Whether the promoted models may be read, told to automation as a blocking check of each: conditions see nothing but
Dagster's record, and what marks a model (a ledger, an erasure) is no training of it."""

import dagster as dg

from assets.partitions import SERVED_DIMENSION
from assets.reporting import check_result
from resources.store import Store
from user_embeddings_dagster.quality.domain import may_be_read
from user_embeddings_dagster.storage.models import TaintedModel

# What assets with an automation condition read, by asset; the decoders are read by runs alone that somebody starts. The
# sequence encoder's check has no partitions, and is of the dimension that is served: of a partition, Dagster takes a
# check outside of runs once and no second time.
READ_BY_AUTOMATION = {
    "item_encoder": "item_encoder",
    "sequence_encoder": f"sequence_encoder/{SERVED_DIMENSION}",
    "summary_program": "summary_program",
}
CHECK = may_be_read.__name__


def readable(store: Store, asset: str) -> dg.AssetCheckResult:
    """The check's result for what is promoted now; passed while nothing is (before the first at the served dimension).

    Raises CorruptArtifact if the pointer to it is damaged.
    """
    try:
        store.models.current(READ_BY_AUTOMATION[asset])
    except TaintedModel as error:  # it says why, and which jobs to run
        return check_result(may_be_read(marked=1), asset)._replace(description=str(error))
    except FileNotFoundError:
        pass
    return check_result(may_be_read(marked=0), asset)


def tell_automation(instance: dg.DagsterInstance, store: Store) -> None:
    """Record the checks anew, of the models that this instance knows a training of. Raises CorruptArtifact."""
    for asset, model in READ_BY_AUTOMATION.items():
        key = dg.AssetKey(asset)
        if instance.get_latest_materialization_event(key) is None or model not in store.models.promoted(asset):
            continue  # the instance may be of another data root
        result = readable(store, asset)
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key, CHECK, result.passed, result.metadata, description=result.description, blocking=True
            )
        )
