"""KOAIs: the Knowledge, Opinions, Attributes and Intents that SUBJECT shows in each chunk."""

import dagster as dg
from pydantic import Field

from assets.config import AssetConfig
from assets.partitions import datadaos
from assets.policies import EAGER, LLM, ML, RETRY
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
from user_embeddings_dagster.quality.domain import evidence_is_subjects, extractions_account_for_chunks
from user_embeddings_dagster.schema import KOAI_EXTRACTIONS, KOAIS
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries import cues
from user_embeddings_dagster.summaries.asking import MAX_FAILED_SHARE
from user_embeddings_dagster.summaries.extraction import extract_by_cues, extract_with
from user_embeddings_dagster.summaries.koai import extract_koai

VERSION = "1"
TABLES = KOAIS, KOAI_EXTRACTIONS
CHECKS = (evidence_is_subjects, extractions_account_for_chunks)
LINEAGE = column_lineage(
    statement=("masked_chunks", ["turns", "speakers"]),
    chunk_id=("masked_chunks", ["chunk_id"]),
    user_id=("masked_chunks", ["user_id"]),
)


class KoaisConfig(AssetConfig):
    """`max_failed_share`: if the model gives no valid answer about more chunks than that, nothing is written."""

    max_failed_share: float = Field(default=MAX_FAILED_SHARE, ge=0, le=1)


@dg.asset(
    partitions_def=datadaos,
    deps=["masked_chunks", "consent_ledger"],
    group_name="conversations",
    owners=ML,
    kinds={"polars", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(KOAIS),
    check_specs=[
        *expectation_specs("koais", partitions=datadaos),
        *domain_specs("koais", *CHECKS, blocking=[extractions_account_for_chunks], partitions=datadaos),
    ],
    automation_condition=EAGER,
    retry_policy=RETRY,
    pool=LLM,
)
def koais(
    context: dg.AssetExecutionContext,
    config: KoaisConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per Knowledge, Opinion, Attribute or Intent that SUBJECT shows in a chunk.

    Without a language model these are SUBJECT's own sentences with a cue phrase (`extractor="cues"`), verbatim and
    so in violation of the constraint against quotes; with one, ExtractKOAI asks it. Each row lists the numbers of the
    constraints that it violates, and the metadata counts them. The table `koai_extractions` has every chunk once, with
    how many KOAIs it has or why none, and what it cost.
    """
    lake, partition = store.lake, context.partition_key
    program = extract_koai().with_settings(language_model.answer_settings) if language_model.configured else None
    made_by = [language_model.name, program.version] if program else [cues.PROGRAM_VERSION]
    chunks = (gated := Consent.of(lake, partition).chunks(lake, partition)).rows
    chunks = chunks.filter(~store.horizons.past("summaries", "ended_at"))
    wanted = fingerprint(VERSION, made_by, gated.version, *store.horizons.version("summaries"))
    commits = [commit for table in TABLES if (commit := lake.up_to_date(table.name, partition, wanted))]
    if not (reused := len(commits) == len(TABLES) and not commits[0].stats["to_ask_again"]):
        progress = progress_to(context, "extracting KOAIs")
        if program is None:
            result = extract_by_cues(chunks, progress)
        else:
            previous = lake.intact(TABLES, partition)
            with language_model.open(context, store, training_jobs) as model:
                result = extract_with(model, program, chunks, previous, progress, config.max_failed_share)
        commits = [lake.commit(table, result.frame(table), partition, wanted, result.stats) for table in TABLES]
    rows, extractions = (lake.read(table.name, partition) for table in TABLES)
    outcomes = [evidence_is_subjects(rows, chunks), extractions_account_for_chunks(chunks, rows, extractions)]
    checks = [*expectation_results("koais", rows), *(check_result(outcome, "koais") for outcome in outcomes)]
    return table_result(KOAIS, commits[0], reused=reused, lineage=LINEAGE, checks=checks)
