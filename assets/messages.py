"""Messages: every export format read into one table, with what was rejected and what was dropped."""

import dagster as dg

from assets.partitions import datadaos
from assets.policies import DATA, EAGER, RETRY
from assets.progress import progress_to
from assets.reporting import (
    column_lineage,
    expectation_results,
    expectation_specs,
    table_metadata,
    table_result,
)
from resources.store import Store
from user_embeddings_dagster.exports import minimisation
from user_embeddings_dagster.exports.build import VERSION, build_messages
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import MESSAGES, REJECTED_RECORDS
from user_embeddings_dagster.settings import sealing

STAGES = ("hash", "read", "seal")  # of reading exports, as the log names them
LINEAGE = column_lineage(text=("raw_exports", []), raw_sha256=("raw_exports", []))


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "messages",
            deps=["raw_exports"],
            description=(
                "One row per distinct message of a DataDAO, whatever platform it came from. Reddit data requests "
                "are hydrated from public dumps; exact and near duplicates, bots and empty messages are dropped "
                "with a counted reason. Participants' names go to a table of their own, for masking only."
            ),
            metadata={**table_metadata(MESSAGES), "never_read": dg.MetadataValue.md(minimisation.as_markdown())},
            kinds={"polars", "duckdb", "parquet"},
            owners=DATA,
            group_name="ingestion",
            code_version=VERSION,
            automation_condition=EAGER,
        ),
        dg.AssetSpec(
            "rejected_records",
            deps=["raw_exports"],
            description=(
                "One row per record (or rest of a file) that could not be read: file, member, line or index, "
                "reason. Good rows beside it are kept."
            ),
            metadata=table_metadata(REJECTED_RECORDS),
            kinds={"parquet"},
            owners=DATA,
            group_name="ingestion",
            code_version=VERSION,
            automation_condition=EAGER,
        ),
    ],
    partitions_def=datadaos,
    check_specs=expectation_specs("messages", partitions=datadaos),
    retry_policy=RETRY,
)
def messages(context: dg.AssetExecutionContext, store: Store):
    """Read a DataDAO's landing folder."""
    lake, partition = store.lake, context.partition_key
    report = progress_to(context, "reading exports")
    stages: list[str] = []

    def progress(stage: str, figures: dict) -> None:
        if stage == "merge":  # again, with more memory, where that was too little
            context.log.info(f"exports: merge of {figures['rows']:,} messages with {figures['memory_mb']:,} MB")
        elif stage in STAGES and stage not in stages:
            stages.append(stage)
            context.log.info(f"exports: {stage}")
        report(figures.get("bytes", 0), figures.get("bytes_total", 0))

    with store.contributor_keys as keys:
        result = build_messages(
            partition,
            store.layout.landing,
            lake,
            store.key,
            keys=keys,
            seal=sealing(),
            erased=Tombstones.load(store.layout.erased, store.key),
            erased_names=ErasedNames.load(store.layout.erased_names, store.key),
            horizons=store.horizons,
            progress=progress,
        )
    raw = {"sealing": sealing(), "shredded_files": result.shredded}
    if result.sealing:
        raw |= {"sealed_files_this_run": result.sealing.sealed}
        raw |= {f"files_in_clear_{reason}": n for reason, n in result.sealing.left.items()}
    context.log.info(f"raw files: {raw}")
    checks = expectation_results("messages", lake.scan("messages", partition))
    commits, reused = result.commits, result.reused
    yield table_result(MESSAGES, commits["messages"], reused=reused, lineage=LINEAGE, metadata=raw, checks=checks)
    yield table_result(REJECTED_RECORDS, commits["rejected_records"], reused=reused)
