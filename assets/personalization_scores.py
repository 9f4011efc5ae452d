"""What knowing the user is worth to the decoder: every insight task under every condition (C45)."""

from typing import Literal

import dagster as dg
import polars as pl
from pydantic import Field

from assets.efficiency import note_nobody, personalised_folders, with_job
from assets.job_judge import JobJudge
from assets.measured import Measured
from assets.personalised_decoder import HISTORIES, PERSONALISED, SUPERVISED, history_hashes, said
from assets.personalised_decoder import tasks_version as version_of_tasks
from assets.policies import GPU
from assets.reporting import domain_specs
from assets.scoring import EvaluationConfig, record, score_asset, shown
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.personalisation.scores import embedding_helps, personalization, reward_rose
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.storage.lake import fingerprint

ASSET = "personalization_scores"
UPSTREAM = (PERSONALISED, SUPERVISED, "base_decoder", "insight_tasks", "sequence_encoder", "masked_chunks", *HISTORIES)


class PersonalizationConfig(EvaluationConfig):
    """`max_tasks` choices of each kind and DataDAO are asked, of free-form tasks `max_questions` (by their ids, which
    are hashes; None: all). Of the choices `text_tasks` are asked with `recent_tokens` recent words too, `stuffed_tasks`
    with the user's history, `stuffed_tokens` of it at most; a free-form task is answered `samples` times, and judged as
    in personalised_decoder.
    """

    judge: Literal["similarity", "word_overlap", "language_model"] = "similarity"
    max_tasks: int | None = Field(default=100, ge=1)
    max_questions: int | None = Field(default=20, ge=0)
    recent_tokens: int = Field(default=64, ge=1)
    stuffed_tokens: int = Field(default=1024, ge=1)
    text_tasks: int = Field(default=100, ge=0)
    stuffed_tasks: int = Field(default=12, ge=0)
    samples: int = Field(default=1, ge=1)


@score_asset(
    ASSET, UPSTREAM, domain_specs(ASSET, embedding_helps, reward_rose), group="personalised_llm", pool=GPU
)  # fmt: skip
def personalization_scores(
    context: dg.AssetExecutionContext,
    config: PersonalizationConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
):
    """One row per metric of a kind of insight task under a condition, on held-out users: accuracy, or judge score.

    Nobody, the user's embedding, another's, the items' mean, recent words, both, the whole history; by history length
    and DataDAO, for all tasks and for those that the validators kept; and paired differences.
    """
    snapshot = consented_snapshot(store.lake).filter(split="test")
    judge = JobJudge(config.judge, language_model)
    tasks = consented_tasks(store.lake, snapshot, "test").sort("task_id")
    most = pl.when(pl.col("answer") >= 0).then(config.max_tasks).otherwise(config.max_questions).fill_null(tasks.height)
    tasks = tasks.filter(pl.int_range(pl.len()).over("datadao", "kind") < most)
    if tasks.is_empty():
        raise dg.Failure("no held-out user who has consented to `evaluate` has a task", allow_retries=False)
    folders, used = personalised_folders(store, supervised=SUPERVISED)
    settings = config.model_dump(exclude={"max_tasks", "max_questions"})
    names = snapshot["datadao"].unique().sort().to_list()
    inputs = [snapshot_version(snapshot), history_hashes(store, names), version_of_tasks(tasks), used, *judge.made_by]
    folder = store.models.folder(ASSET, fingerprint(ASSET, versions.PERSONALISED_ANSWERS, inputs, settings))
    if not (reused := folder.complete):
        note_nobody(folder, used["personalised"])
        histories = sequences(snapshot, store.lance, ("test",))
        folder.write_inputs({**settings, **folders}, tasks=tasks, sequences=histories, texts=said(store, snapshot))
        with judge.serving(context, store, training_jobs) as variables:
            training_jobs.run(context, "personalised_answers", folder.inputs, folder.output, variables)
    folder.remove_leftovers()
    answers = pl.concat([pl.read_parquet(folder.output / f"{name}.parquet") for name in ("choices", "answers")])
    scope = Scope(ASSET, "all", config.seed, split_hash(snapshot))
    scores = personalization(tasks, answers, scope, used["personalised"], judge.name)
    picture = plots.grouped_bars(
        shown(scores).filter(datadao="all"),
        metric="accuracy",
        by="slice",
        title="Insight tasks: what the decoder is told",
    )
    checks = [embedding_helps(scores), reward_rose(scores)]
    return with_job(record(store, ASSET, Measured(scores, reused=reused), picture, checks), folder)
