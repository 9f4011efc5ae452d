"""Summaries: what SUBJECT contributed in each chunk, by SUBJECT's own sentences or by a language model."""

import dagster as dg
from pydantic import Field

from assets.config import AssetConfig
from assets.partitions import datadaos
from assets.policies import EAGER_WITH_PROGRAM, LLM, ML, RETRY
from assets.progress import progress_to
from assets.reporting import (
    check_result,
    column_lineage,
    domain_specs,
    expectation_results,
    expectation_specs,
    table_metadata,
    table_result,
)
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.quality.domain import few_model_failures, summaries_account_for_chunks
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries.asking import MAX_FAILED_SHARE
from user_embeddings_dagster.summaries.build import extractive_summaries, summarise_with
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION
from user_embeddings_dagster.summaries.refinement import current_program

VERSION = "2"
TABLES = CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS
LINEAGE = column_lineage(
    text=("masked_chunks", ["turns", "speakers"]),
    chunk_id=("masked_chunks", ["chunk_id"]),
    user_id=("masked_chunks", ["user_id"]),
)
CHECKS = (summaries_account_for_chunks, few_model_failures)


class ChunkSummariesConfig(AssetConfig):
    """`max_failed_share`: if the model gives no valid answer about more chunks than that, nothing is written."""

    max_failed_share: float = Field(default=MAX_FAILED_SHARE, ge=0, le=1)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "chunk_summaries",
            skippable=True,
            deps=["masked_chunks", "consent_ledger", "summary_program"],
            description=(
                "One row per masked chunk: what SUBJECT contributed in it, in one SUBJECT-centric text. Without a "
                "language model the extractive summariser quotes SUBJECT's own sentences, chosen by maximal marginal "
                'relevance, and every row says `summarizer="extractive"`; with one, the current `summary_program` '
                "asks it, and every row says which model and which version of the program."
            ),
            metadata=table_metadata(CHUNK_SUMMARIES),
            kinds={"polars", "parquet"},
            owners=ML,
            group_name="conversations",
            code_version=VERSION,
            automation_condition=EAGER_WITH_PROGRAM,
        ),
        dg.AssetSpec(
            "unsummarised_chunks",
            skippable=True,
            deps=["masked_chunks", "consent_ledger", "summary_program"],
            description=(
                "One row per masked chunk that has no summary, with the reason: SUBJECT contributed nothing, or why "
                "the language model gave no valid answer. What failed is asked again by the next run."
            ),
            metadata=table_metadata(UNSUMMARISED_CHUNKS),
            kinds={"parquet"},
            owners=ML,
            group_name="conversations",
            code_version=VERSION,
            automation_condition=EAGER_WITH_PROGRAM,
        ),
    ],
    partitions_def=datadaos,
    check_specs=[
        *expectation_specs("chunk_summaries", partitions=datadaos),
        *domain_specs("chunk_summaries", *CHECKS, blocking=[summaries_account_for_chunks], partitions=datadaos),
    ],
    can_subset=True,
    retry_policy=RETRY,
    pool=LLM,
)
def chunk_summaries(
    context: dg.AssetExecutionContext,
    config: ChunkSummariesConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
):
    """Summarise a DataDAO's chunks: both tables are written, whichever is asked for."""
    lake, partition = store.lake, context.partition_key
    chunks = (gated := Consent.of(lake, partition).chunks(lake, partition)).rows
    chunks = chunks.filter(~store.horizons.past("summaries", "ended_at"))
    program = None
    if language_model.configured:
        program = current_program(store.models).with_settings(language_model.answer_settings)
    made_by = [language_model.name, program.version] if program else [PROGRAM_VERSION]
    wanted = fingerprint(VERSION, made_by, gated.version, *store.horizons.version("summaries"))
    commits = [commit for table in TABLES if (commit := lake.up_to_date(table.name, partition, wanted))]
    if not (reused := len(commits) == len(TABLES) and not commits[0].stats["to_ask_again"]):
        progress = progress_to(context, "summarising chunks")
        if program is None:
            result = extractive_summaries(chunks, progress)
        else:
            previous = lake.intact(TABLES, partition)
            with language_model.open(context, store, training_jobs) as model:
                result = summarise_with(model, program, chunks, previous, progress, config.max_failed_share)
        commits = [lake.commit(table, result.frame(table), partition, wanted, result.stats) for table in TABLES]
    summaries, unsummarised = (lake.read(table.name, partition) for table in TABLES)
    account = summaries_account_for_chunks(chunks, summaries, unsummarised)
    outcomes = [
        check_result(found, "chunk_summaries") for found in (account, few_model_failures(summaries, unsummarised))
    ]
    checks = [*expectation_results("chunk_summaries", summaries), *outcomes]
    asked_for = context.op_execution_context.selected_output_names
    if CHUNK_SUMMARIES.name in asked_for:
        yield table_result(CHUNK_SUMMARIES, commits[0], reused=reused, lineage=LINEAGE, checks=checks)
    if UNSUMMARISED_CHUNKS.name in asked_for:
        yield table_result(UNSUMMARISED_CHUNKS, commits[1], reused=reused)
