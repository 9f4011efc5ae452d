"""Personalising DataDAOs whose training users are too few to be asked anything (C42)."""

import dagster as dg
import polars as pl
from served_assets import served
from small_platform import materialise

from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.schema import INSIGHT_TASKS


def test_that_nobody_has_a_choice_is_said_once(tmp_path):
    """Sample contributors whose splits were drawn unluckily made the training job fail, three times."""
    store, answers = Store(data=str(materialise(tmp_path).root)), pl.lit("answer_as_subject")
    for name in store.lake.partitions(INSIGHT_TASKS.name):
        tasks, train = store.lake.read(INSIGHT_TASKS.name, name), pl.col("split") == "train"
        free = tasks.with_columns(
            kind=pl.when(train).then(answers).otherwise("kind"), answer=pl.when(train).then(-1).otherwise("answer")
        )
        store.lake.commit(INSIGHT_TASKS, free, name)
    resources = {"store": store, "training_jobs": TrainingJobs()}
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [served("supervised_decoder")], resources=resources, instance=instance, raise_on_error=False
        )
    assert not run.filter_events(lambda event: event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY)
    (failed,) = run.filter_events(lambda event: event.is_step_failure)
    told = failed.step_failure_data.user_failure_data
    assert told and "no training user has a task with options" in (told.description or "")
