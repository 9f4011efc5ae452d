"""KOAIs: the Knowledge, Opinions, Attributes and Intents that SUBJECT shows in each chunk."""

import inspect

import dagster as dg

from assets.partitions import datadaos
from assets.policies import EAGER, LLM, ML, RETRY
from assets.progress import progress_to
from assets.reporting import (
    check_result,
    column_lineage,
    expectation_results,
    expectation_specs,
    table_metadata,
    table_result,
)
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.quality.domain import evidence_is_subjects
from user_embeddings_dagster.schema import KOAIS
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries import cues
from user_embeddings_dagster.summaries.extraction import extract_by_cues, extract_with
from user_embeddings_dagster.summaries.koai import extract_koai

VERSION = "1"
LINEAGE = column_lineage(
    statement=("masked_chunks", ["turns", "speakers"]),
    chunk_id=("masked_chunks", ["chunk_id"]),
    user_id=("masked_chunks", ["user_id"]),
)


@dg.asset(
    partitions_def=datadaos,
    deps=["masked_chunks"],
    group_name="conversations",
    owners=ML,
    kinds={"dspy", "vllm", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(KOAIS),
    check_specs=[
        *expectation_specs("koais", partitions=datadaos),
        dg.AssetCheckSpec(
            "evidence_is_subjects",
            asset="koais",
            description=inspect.getdoc(evidence_is_subjects),
            partitions_def=datadaos,
        ),
    ],
    automation_condition=EAGER,
    retry_policy=RETRY,
    pool=LLM,
)
def koais(
    context: dg.AssetExecutionContext,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per Knowledge, Opinion, Attribute or Intent that SUBJECT shows in a chunk.

    Without a language model these are SUBJECT's own sentences with a cue phrase (`extractor="cues"`), verbatim and
    so in violation of the constraint against quotes; with one, ExtractKOAI asks it. Each row lists the numbers of the
    constraints that it violates, and the metadata counts them.
    """
    lake, partition = store.lake, context.partition_key
    program = extract_koai() if language_model.configured else None
    made_by = [language_model.name, program.version] if program else [cues.PROGRAM_VERSION]
    wanted = fingerprint(VERSION, made_by, lake.path("masked_chunks", partition).stem)
    commit = lake.up_to_date("koais", partition, wanted)
    chunks = lake.read("masked_chunks", partition)
    reused = commit is not None and not commit.stats["to_ask_again"]
    if commit is None or not reused:
        progress = progress_to(context, "extracting KOAIs")
        if program is None:
            result = extract_by_cues(chunks, progress)
        else:
            with language_model.open(context, store, training_jobs) as model:
                result = extract_with(model, program, chunks, progress)
        commit = lake.commit(KOAIS, result.koais, partition, wanted, result.stats)
    rows = lake.read("koais", partition)
    checks = [*expectation_results("koais", rows), check_result(evidence_is_subjects(rows, chunks), "koais")]
    return table_result(KOAIS, commit, reused=reused, lineage=LINEAGE, checks=checks)
