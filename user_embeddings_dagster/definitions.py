"""The composition root: every asset, job, schedule, sensor and resource of the code location."""

import dagster as dg

from assets import (
    access_log,
    chunk_summaries,
    consent_ledger,
    data_funnel,
    efficiency,
    embeddings,
    encoders,
    erasures,
    hard_negatives,
    insight_tasks,
    jobs,
    judge_agreement,
    koais,
    leakage,
    masked_chunks,
    masking_scores,
    messages,
    negative_ablation,
    personalised_decoder,
    personalization_scores,
    raw_exports,
    readable_models,
    reasoning_bias,
    relabelled_pairs,
    retention,
    scores,
    summary_program,
    training_snapshot,
    user_embeddings,
)
from assets.console import console
from assets.containment import NoValues, contain
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.settings import prepare_environment

prepare_environment()

MODULES = [
    access_log,
    chunk_summaries,
    consent_ledger,
    data_funnel,
    efficiency,
    embeddings,
    encoders,
    erasures,
    hard_negatives,
    insight_tasks,
    judge_agreement,
    koais,
    leakage,
    masked_chunks,
    masking_scores,
    messages,
    negative_ablation,
    personalised_decoder,
    personalization_scores,
    reasoning_bias,
    relabelled_pairs,
    retention,
    scores,
    summary_program,
    training_snapshot,
    user_embeddings,
]

defs = dg.Definitions(
    assets=[raw_exports.raw_exports, *contain(dg.load_assets_from_modules(MODULES))],
    jobs=jobs.JOBS,
    schedules=jobs.SCHEDULES,
    sensors=[
        raw_exports.landing_sensor,
        consent_ledger.consent_sensor,
        readable_models.models_sensor,
        dg.AutomationConditionSensorDefinition(
            "automation",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=30,
            description="Brings what depends on a new drop up to date, one DataDAO per run. It never trains.",
        ),
    ],
    resources={
        "io_manager": NoValues(),
        "store": Store(),
        "text_encoder": TextEncoderResource(),
        "language_model": LanguageModelResource.from_environment(),
        "training_jobs": TrainingJobs(),
    },
    loggers={"console": console},
)
