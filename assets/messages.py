"""Messages: every export format read into one table, with what was rejected and what was dropped."""

import dagster as dg

from assets.partitions import datadaos
from assets.policies import DATA, EAGER, RETRY
from assets.reporting import column_lineage, expectation_results, expectation_specs, table_metadata, table_result
from assets.progress import progress_to
from resources.store import Store
from user_embeddings_dagster.exports.build import VERSION, build_messages
from user_embeddings_dagster.schema import MESSAGES, REJECTED_RECORDS

RAW = ("raw_exports", [])


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
            metadata=table_metadata(MESSAGES),
            kinds={"polars", "duckdb", "parquet"},
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
        ),
    ],
    partitions_def=datadaos,
    group_name="ingestion",
    check_specs=expectation_specs("messages"),
)
def messages(context: dg.AssetExecutionContext, store: Store):
    """Read a DataDAO's landing folder."""
    yield
