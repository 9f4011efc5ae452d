"""Insight tasks: what the personalised LLM is asked about the chunks of a user's future, and who agrees on the gold."""

from typing import Literal

import dagster as dg
from pydantic import Field

from assets.config import AssetConfig
from assets.partitions import datadaos
from assets.policies import LLM, ML, RETRY
from assets.progress import progress_to
from assets.reporting import check_result, column_lineage, domain_specs, table_metadata, table_result
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.mining.pairs import vector_frame
from user_embeddings_dagster.personalisation.build import build_tasks
from user_embeddings_dagster.personalisation.model_validation import ModelValidator, programs_version
from user_embeddings_dagster.personalisation.past import Past
from user_embeddings_dagster.personalisation.tasks import VERSION
from user_embeddings_dagster.personalisation.validation import SimilarityValidator, Validation, Validator, validate
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.quality.insight_tasks import (
    answers_balanced,
    no_peeking,
    options_distinct,
    questions_tell_nothing,
    some_tasks_kept,
)
from user_embeddings_dagster.schema import INSIGHT_TASKS
from user_embeddings_dagster.storage.lake import fingerprint

ASSET = INSIGHT_TASKS.name
SIMILARITY = "similarity"
CHECKS = (answers_balanced, no_peeking, options_distinct, questions_tell_nothing, some_tasks_kept)
LINEAGE = column_lineage(
    chunk_id=("training_snapshot", ["chunk_id"]),
    n_history=("training_snapshot", ["position"]),
    options=("masked_chunks", ["turns", "speakers"]),
    reference=("masked_chunks", ["turns", "speakers"]),
)


class InsightTasksConfig(AssetConfig):
    """`per_user` tasks of each kind at most, about a user's last chunks; `seed` places the right options.

    `validator`: "similarity" (the frozen text encoder), or "language_model": tasks of validation and test users are
    answered by the configured model, from the history (`history_tokens` of it) and by searching it. Its prompts hold
    the options, three of them other contributors' (masked; for choices its answer is a number).
    """

    per_user: int = Field(default=12, ge=1)
    seed: int = Field(default=0, ge=0)
    validator: Literal["similarity", "language_model"] = SIMILARITY
    history_tokens: int = Field(default=6_000, ge=1)


@dg.asset(
    partitions_def=datadaos,
    deps=["training_snapshot", "consent_ledger", "masked_chunks", "chunk_embeddings", "koais"],
    group_name="personalised_llm",
    owners=ML,
    kinds={"polars", "parquet", "dspy"},
    code_version=VERSION,
    metadata=table_metadata(INSIGHT_TASKS),
    check_specs=domain_specs(ASSET, *CHECKS, blocking=CHECKS[:4], partitions=datadaos),
    retry_policy=RETRY,
    pool=LLM,
)
def insight_tasks(
    context: dg.AssetExecutionContext,
    config: InsightTasksConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per question about a chunk of a user's future, with the answer that the chunk gives (C43).

    Five kinds: what SUBJECT writes next, which thread SUBJECT joins, SUBJECT's stance, what SUBJECT knows or is
    (KOAIs), and a free-form answer as SUBJECT. Two answerers that see the chunks before alone must agree with the
    gold; otherwise `status` says who did not. By default both are similarities of the frozen text encoder, and
    `validator` says so.
    """
    lake, partition = store.lake, context.partition_key
    by_model, encoder = language_model.is_chosen("validator", config.validator), text_encoder.load()
    settings = language_model.answer_settings if by_model else ""
    made_by = [language_model.name, programs_version(settings)] if by_model else []
    snapshot = consented_snapshot(lake).filter(datadao=partition)
    inputs = [lake.path("masked_chunks", partition).stem, lake.path("koais", partition).stem]
    vectors = store.lance.content_hash(partition, "chunk_embeddings")
    wanted = fingerprint(
        VERSION, made_by, snapshot_version(snapshot), inputs, vectors, encoder.version, config.model_dump()
    )
    chunks = lake.read("masked_chunks", partition).join(snapshot.select("chunk_id"), on="chunk_id", how="semi")
    commit = lake.up_to_date(ASSET, partition, wanted)
    reused = commit is not None and not commit.stats.get("to_ask_again")
    if commit is None or not reused:
        topics = vector_frame(store.lance, "chunk_embeddings", snapshot)
        sizes = {"per_user": config.per_user, "seed": config.seed}
        tasks = build_tasks(snapshot, chunks, lake.read("koais", partition), topics, **sizes)
        past = Past.of(snapshot, chunks, topics)
        default = SimilarityValidator(encoder.encode, past)

        def validated(model: Validator | None = None) -> Validation:
            return validate(tasks, default, model)

        if by_model:
            with language_model.open(context, store, training_jobs) as model:
                progress = progress_to(context, "validating tasks")
                asked = ModelValidator(model, encoder.encode, past, config.history_tokens, settings, progress)
                result = validated(asked)
            stats = {"validator": language_model.name, **result.stats, **asked.stats}
        else:
            result = validated()
            stats = {"validator": SIMILARITY, **result.stats}
        commit = lake.commit(INSIGHT_TASKS, result.tasks, partition, wanted, stats)
    rows = lake.read(ASSET, partition)
    outcomes = [
        answers_balanced(rows),
        no_peeking(rows, snapshot, chunks),
        options_distinct(rows),
        questions_tell_nothing(rows),
        some_tasks_kept(rows),
    ]
    checks = [check_result(outcome, ASSET) for outcome in outcomes]
    return table_result(INSIGHT_TASKS, commit, reused=reused, lineage=LINEAGE, checks=checks)
