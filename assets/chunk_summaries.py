"""Summaries: what SUBJECT contributed in each chunk."""

import dagster as dg

from assets.partitions import datadaos
from assets.policies import EAGER, LLM, ML, RETRY
from assets.progress import progress_to
from assets.reporting import (
    column_lineage,
    expectation_results,
    expectation_specs,
    table_metadata,
    table_result,
)
from resources.store import Store
from user_embeddings_dagster.schema import CHUNK_SUMMARIES
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION, summarise

LINEAGE = column_lineage(
    text=("masked_chunks", ["turns", "speakers"]),
    chunk_id=("masked_chunks", ["chunk_id"]),
    user_id=("masked_chunks", ["user_id"]),
)


@dg.asset(
    partitions_def=datadaos,
    deps=["masked_chunks"],
    group_name="conversations",
    owners=ML,
    kinds={"polars", "parquet"},
    code_version=PROGRAM_VERSION,
    metadata=table_metadata(CHUNK_SUMMARIES),
    check_specs=expectation_specs("chunk_summaries", partitions=datadaos),
    automation_condition=EAGER,
    retry_policy=RETRY,
    pool=LLM,
)
def chunk_summaries(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult:
    """One row per masked chunk: what SUBJECT contributed in it, in one SUBJECT-centric text.

    The extractive summariser quotes SUBJECT's own sentences, chosen by maximal marginal relevance; it writes
    nothing of its own, and every row says `summarizer="extractive"`.
    """
    lake, partition = store.lake, context.partition_key
    chunks = lake.current("masked_chunks", partition)
    wanted = fingerprint(PROGRAM_VERSION, chunks and chunks.content_hash)
    commit = lake.up_to_date("chunk_summaries", partition, wanted)
    if not (reused := commit is not None):
        progress = progress_to(context, "summarising chunks")
        summaries = summarise(lake.read("masked_chunks", partition), progress=progress)
        commit = lake.commit(CHUNK_SUMMARIES, summaries, partition, wanted, {"summarizer": "extractive"})
    checks = expectation_results("chunk_summaries", lake.scan("chunk_summaries", partition))
    return table_result(CHUNK_SUMMARIES, commit, reused=reused, lineage=LINEAGE, checks=checks)
