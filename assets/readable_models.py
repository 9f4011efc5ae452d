"""Whether the promoted item encoder may be read, told to automation as a blocking check of it: conditions see nothing
but Dagster's record, and what marks a model (a ledger, an erasure) is no training of it."""

import dagster as dg

from assets.reporting import check_result
from resources.store import Store
from user_embeddings_dagster.quality.domain import may_be_read
from user_embeddings_dagster.storage.models import TaintedModel

ITEM_ENCODER = "item_encoder"
CHECK = may_be_read.__name__


def readable(store: Store) -> dg.AssetCheckResult:
    """The check's result for the version that is promoted now. Raises FileNotFoundError before the first."""
    try:
        store.models.current(ITEM_ENCODER)
    except TaintedModel as error:  # it says why, and which jobs to run
        return check_result(may_be_read(marked=1), ITEM_ENCODER)._replace(description=str(error))
    return check_result(may_be_read(marked=0), ITEM_ENCODER)


def tell_automation(instance: dg.DagsterInstance, store: Store) -> None:
    """Record the check anew, if this instance knows of a training."""
    key = dg.AssetKey(ITEM_ENCODER)
    if instance.get_latest_materialization_event(key) is None:
        return
    try:
        result = readable(store)
    except FileNotFoundError:  # the instance is of another data root, or models/ was removed
        return
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            key, CHECK, result.passed, result.metadata, description=result.description, blocking=True
        )
    )
