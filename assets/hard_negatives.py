"""Hard negatives: other people's summaries that look right for a chunk and are not."""

import dagster as dg
from pydantic import Field

from assets.config import AssetConfig
from assets.policies import ML, RETRY
from assets.reporting import column_lineage, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.mining.hard_negatives import VERSION, mine
from user_embeddings_dagster.mining.pairs import training_pairs
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.schema import HARD_NEGATIVES
from user_embeddings_dagster.storage.lake import UNPARTITIONED, fingerprint

LINEAGE = column_lineage(
    chunk_id=("training_snapshot", ["chunk_id"]),
    negative_chunk_id=("summary_embeddings", ["id"]),
    similarity=("summary_embeddings", ["vector"]),
)


class HardNegativesConfig(AssetConfig):
    """`margin`: a candidate closer to the query's own summary than margin × positive is a false negative."""

    negatives_per_chunk: int = Field(default=4, ge=1)
    margin: float = Field(default=0.95, gt=0, le=1)


@dg.asset(
    deps=["training_snapshot", "consent_ledger", "masked_chunks", "chunk_embeddings", "summary_embeddings"],
    group_name="training",
    owners=ML,
    kinds={"lancedb", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(HARD_NEGATIVES),
    retry_policy=RETRY,
)
def hard_negatives(
    context: dg.AssetExecutionContext, config: HardNegativesConfig, store: Store
) -> dg.MaterializeResult:
    """One row per training chunk and mined negative.

    Nearest summaries of other chunks (exactly where they are few, otherwise by LanceDB's index), other SUBJECTs of the
    same window among them, without those too close to the chunk's own summary
    (positive-aware relative margin: NV-Retriever, Moreira et al. 2024, section 3). Training users only.
    """
    lake = store.lake
    snapshot = consented_snapshot(lake)
    names = snapshot["datadao"].unique().sort().to_list()
    vectors = {
        f"{name}/{table}": store.lance.content_hash(name, table)
        for name in names
        for table in ("chunk_embeddings", "summary_embeddings")
    }
    wanted = fingerprint(VERSION, snapshot_version(snapshot), vectors, config.model_dump())
    commit = lake.up_to_date("hard_negatives", UNPARTITIONED, wanted)
    if not (reused := commit is not None):
        pairs = training_pairs(snapshot, lake, store.lance)
        result = mine(pairs, store.lance, k=config.negatives_per_chunk, margin=config.margin)
        commit = lake.commit(HARD_NEGATIVES, result.negatives, fingerprint=wanted, stats=result.stats)
    return table_result(HARD_NEGATIVES, commit, reused=reused, lineage=LINEAGE)
