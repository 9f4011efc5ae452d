"""Whether the promoted models may be read, told to automation as a blocking check of each: conditions see nothing but
Dagster's record, and what marks a model (a ledger, an erasure) is no training of it."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,  # Dagster has no public place for it
)

from assets.containment import containing
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


def tell_automation(instance: dg.DagsterInstance, store: Store) -> list[str]:
    """Record the check anew of each model of which the latest record does not say what is so; their assets.

    Left alone: a model that this instance knows no training of (it may be of another data root), and one that a run is
    to train, which records the check when it ends. Raises CorruptArtifact.
    """
    told = []
    for asset, model in READ_BY_AUTOMATION.items():
        key = dg.AssetKey(asset)
        trainings = instance.fetch_materializations(key, limit=1).records
        if not trainings or model not in store.models.promoted(asset):
            continue
        latest = Target(
            storage_id=trainings[0].storage_id, run_id=trainings[0].run_id, timestamp=trainings[0].timestamp
        )
        record = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(key, CHECK))
        # A run has a record from when it is asked for, without a result until its check: for good if it is cancelled.
        said = record.evaluation if record and isinstance(record.evaluation, dg.AssetCheckEvaluation) else None
        if record and not said and (run := instance.get_run_by_id(record.run_id)) and not run.is_finished:
            continue
        result = readable(store, asset)
        if record and said and (said.passed, said.description) == (result.passed, result.description):
            # Dagster takes no notice of one of an earlier training, such as what a ledger told while this one ran.
            of = said.target_materialization_data
            if record.run_id == latest.run_id or (of and of.storage_id == latest.storage_id):
                continue
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key,
                CHECK,
                result.passed,
                result.metadata,
                target_materialization_data=latest,
                description=result.description,
                blocking=True,
            )
        )
        told.append(asset)
    return told


@dg.sensor(
    name="models",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records anew whether models may be read, where a cancelled or failed training has left it open.",
)
@containing
def models_sensor(context: dg.SensorEvaluationContext, store: Store) -> dg.SkipReason:
    """It starts nothing: automation goes on with what waits for the check. A sensor of its own, so that a damaged
    pointer to a model, which fails it, keeps no ledger from being asked for."""
    told = tell_automation(context.instance, store)
    return dg.SkipReason(f"recorded anew: {', '.join(told)}" if told else "the record says what may be read")
