"""What automation is told of models whose training was cancelled or failed, on an instance with databases (C14)."""

import dagster as dg
import pytest
from automated import evaluated, promoted, ran, requested
from consent_chat import EVERYTHING, NAMES, StubEncoder, chat, materialise, say
from served_assets import served

from assets.consent_ledger import consent_ledger
from assets.masked_chunks import masked_chunks
from assets.readable_models import CHECK, READ_BY_AUTOMATION, models_sensor
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.definitions import defs

KEYS = {asset: dg.AssetCheckKey(dg.AssetKey(asset), CHECK) for asset in READ_BY_AUTOMATION}


def trained(instance: dg.DagsterInstance, store: Store) -> None:
    """Every model, once."""
    for asset, model in READ_BY_AUTOMATION.items():
        promoted(store, model)
        ran(instance, asset, model.partition("/")[2] or None)


def said(instance: dg.DagsterInstance, asset: str) -> str:
    """What the latest record of the check says."""
    record = instance.get_latest_asset_check_evaluation_record(KEYS[asset])
    assert record is not None
    return record.status.value


def tick(instance: dg.DagsterInstance, store: Store) -> str:
    """What the sensor says."""
    found = models_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))
    assert isinstance(found, dg.SkipReason) and found.skip_message
    return found.skip_message


def asked_for(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> dg.DagsterRun:
    """A run of it that has not begun."""
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(asset)})
    tags = {"dagster/partition": partition} if partition else {}
    return instance.create_run_for_job(job, asset_selection=frozenset({dg.AssetKey(asset)}), tags=tags)


@pytest.mark.parametrize("asset", sorted(READ_BY_AUTOMATION))
def test_a_training_that_ended_without_its_check_leaves_nothing_open(tmp_path, asset):
    """Cancelled or failed; while it is under way or in the queue, its own record is waited for."""
    store, partition = Store(data=str(tmp_path)), READ_BY_AUTOMATION[asset].partition("/")[2] or None
    with dg.instance_for_test() as instance:
        trained(instance, store)
        assert "the record says" in tick(instance, store)
        for ended in (instance.report_run_canceled, instance.report_run_failed):
            run = asked_for(instance, asset, partition)
            assert "the record says" in tick(instance, store) and said(instance, asset) == "PLANNED"
            ended(run)
            assert tick(instance, store) == f"recorded anew: {asset}" and said(instance, asset) == "SUCCEEDED"
            assert "the record says" in tick(instance, store)
        store.models.folder(READ_BY_AUTOMATION[asset], "a").taint(["somebody"])
        instance.report_run_canceled(asked_for(instance, asset, partition))
        assert tick(instance, store) == f"recorded anew: {asset}" and said(instance, asset) == "FAILED"


def test_what_was_told_before_a_training_ended_is_told_again(tmp_path):
    """Dagster takes no notice of it: a second run, cancelled in the queue, hides the check of the first."""
    store = Store(data=str(tmp_path))
    with dg.instance_for_test() as instance:
        trained(instance, store)

        def meanwhile() -> None:
            instance.report_run_canceled(asked_for(instance, "item_encoder"))
            assert tick(instance, store) == "recorded anew: item_encoder"

        ran(instance, "item_encoder", during=meanwhile)
        assert tick(instance, store) == "recorded anew: item_encoder"
        assert "the record says" in tick(instance, store)


def test_automation_goes_on_after_a_cancelled_training(tmp_path):
    """C14: item vectors of every DataDAO waited for the next ledger, of a model that is not marked."""
    store = Store(data=str(tmp_path))
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("datadao", ["reddit"])
        for asset in ("messages", "consent_ledger", "masked_chunks"):
            ran(instance, asset, "reddit")
        trained(instance, store)
        ran(instance, "item_embeddings", "reddit")
        before = evaluated(instance)
        ran(instance, "masked_chunks", "reddit")
        instance.report_run_canceled(asked_for(instance, "item_encoder"))
        held = evaluated(instance, before.cursor)
        assert requested(held, "item_embeddings") == set()
        tick(instance, store)
        after = evaluated(instance, held.cursor)
        assert requested(after, "item_embeddings") == {"reddit"}


def test_a_damaged_pointer_fails_the_sensor_and_is_named(tmp_path):
    store = Store(data=str(tmp_path))
    with dg.instance_for_test() as instance:
        trained(instance, store)
        pointer = store.layout.models / "item_encoder" / "current.json"
        pointer.write_text("Ann from number 7")
        with pytest.raises(dg.Failure, match=r"item_encoder/current\.json: not a pointer") as raised:
            tick(instance, store)
        assert "Ann" not in str(raised.value) and not raised.value.allow_retries


@pytest.mark.parametrize(
    ("reader", "model"), [("item_embeddings", "item_encoder"), ("user_embeddings", "sequence_encoder")]
)
def test_a_run_that_waited_since_before_the_model_was_marked_fails_once(tmp_path, reader, model):
    """C14: a retry would find the same; the failure names the jobs."""
    store = chat(tmp_path)
    say(store, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(store, [consent_ledger, masked_chunks])
    promoted(store, READ_BY_AUTOMATION[model])
    store.models.folder(READ_BY_AUTOMATION[model], "a").taint(["somebody"])
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("datadao", ["dao"])
        resources = {
            "store": store, "text_encoder": StubEncoder(), "language_model": LanguageModelResource(),
            "training_jobs": TrainingJobs(),
        }  # fmt: skip
        run = dg.materialize(
            [served(reader)], partition_key="dao", resources=resources, instance=instance, raise_on_error=False
        )
        (failed,) = run.filter_events(lambda event: event.is_step_failure)
        assert not run.filter_events(lambda event: event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert "trained on an erased contributor: run the job" in str(failed.step_failure_data.error)
