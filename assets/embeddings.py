"""Vectors of chunks and summaries in LanceDB: from the frozen base encoder, and from the item encoder."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from assets.partitions import datadaos
from assets.policies import EAGER, EAGER_AFTER_LEDGER, LANCE_WRITE, ML, RETRY
from assets.progress import progress_to
from assets.reporting import check_result, column_lineage, domain_specs, vector_columns
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.embedding.batch import embed_table
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.privacy.consent.withdrawal import withdraw_vectors
from user_embeddings_dagster.quality.domain import finite_vectors, not_collapsed, unit_norm

# Few vectors may well look collapsed: a warning, which holds nothing back.
BLOCKING = (finite_vectors, unit_norm)
VECTOR_CHECKS = (*BLOCKING, not_collapsed)
COLUMNS = vector_columns(
    id="chunk_id of the embedded text",
    user_id="SUBJECT of the chunk",
    ended_at="time of the chunk's last message",
    content="hash of the embedded text",
    version="of the encoder",
    vector="of the text, L2-normalised",
)


def vector_asset(
    name: str, source: str, group: str, description: str, deps: list[str], automation: dg.AutomationCondition = EAGER
):
    """Decorator arguments shared by the three vector tables."""
    return dg.asset(
        name=name,
        partitions_def=datadaos,
        deps=[source, "consent_ledger", *deps],
        group_name=group,
        owners=ML,
        kinds={"lancedb", "torch"},
        metadata=COLUMNS,
        code_version="1",
        description=description,
        check_specs=domain_specs(name, *VECTOR_CHECKS, blocking=BLOCKING, partitions=datadaos),
        automation_condition=automation,
        retry_policy=RETRY,
        pool=LANCE_WRITE,
    )


def embed(
    context: dg.AssetExecutionContext, store: Store, encoder: TextEncoder, source: str, table: str, users: pl.Series
) -> dg.MaterializeResult:
    """Make one vector table equal to the texts of `source` by consenting `users`, encoding only what is new."""
    columns = ["chunk_id", "user_id", "ended_at", "text"]
    texts = store.lake.scan(source, context.partition_key).select(columns)
    rows = texts.filter(pl.col("user_id").is_in(users.implode())).collect().rename({"chunk_id": "id"})
    withdrawn = withdraw_vectors(store.lance, context.partition_key, table, users)
    result = embed_table(
        rows,
        encoder,
        store.lance,
        context.partition_key,
        table,
        progress=progress_to(context, "encoding texts"),
    )
    vectors = store.lance.stored_vectors(context.partition_key, table)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.content_hash[:32]),
        metadata={
            "dagster/row_count": result.rows,
            "embedded": result.embedded,
            "reused_rows": result.reused,
            "deleted": result.deleted,
            "withdrawn": withdrawn,
            "encoder_version": encoder.version,
            "dimension": encoder.dimension,
            "seconds": result.seconds,
            "vector_index": result.vector_index,
            "dagster/column_lineage": column_lineage(vector=(source, ["text"]), id=(source, ["chunk_id"])),
        },
        check_results=[check_result(check(vectors), table) for check in VECTOR_CHECKS],
    )


@vector_asset(
    "chunk_embeddings",
    "masked_chunks",
    "embeddings",
    "One row per masked chunk: its vector from the frozen base encoder. Keyed on content: a text that was "
    "embedded before is not embedded again.",
    [],
)
def chunk_embeddings(context: dg.AssetExecutionContext, store: Store, text_encoder: TextEncoderResource):
    """Base vectors of chunks."""
    users = Consent.of(store.lake, context.partition_key).users(context.partition_key)
    return embed(context, store, text_encoder.load(), "masked_chunks", "chunk_embeddings", users)


@vector_asset(
    "summary_embeddings",
    "chunk_summaries",
    "embeddings",
    "One row per chunk summary: its vector from the frozen base encoder, the item encoder's training target.",
    [],
)
def summary_embeddings(context: dg.AssetExecutionContext, store: Store, text_encoder: TextEncoderResource):
    """Base vectors of summaries."""
    users = Consent.of(store.lake, context.partition_key).users(context.partition_key)
    return embed(context, store, text_encoder.load(), "chunk_summaries", "summary_embeddings", users)


@vector_asset(
    "item_embeddings",
    "masked_chunks",
    "users",
    "One row per masked chunk: its vector from the tuned item encoder (frozen base and LoRA). Of people who consented "
    "to be served, or to what item vectors of their split are for: train, or evaluate.",
    ["item_encoder"],
    EAGER_AFTER_LEDGER,
)
def item_embeddings(context: dg.AssetExecutionContext, store: Store, text_encoder: TextEncoderResource):
    """Item vectors of chunks."""
    users = Consent.of(store.lake, context.partition_key).item_users(context.partition_key, store.key)
    encoder = text_encoder.load(store.models.current("item_encoder").output)
    return embed(context, store, encoder, "masked_chunks", "item_embeddings", users)


def refuse_stale_vectors(store: Store, text_encoder: TextEncoderResource, datadaos: Iterable[str]) -> None:
    """Raises StaleVectors if a DataDAO's item vectors are not by the promoted item encoder, or its chunk vectors not by
    the base encoder: vectors of two encoders mean nothing beside each other (C60)."""
    base = text_encoder.load().version
    tuned = text_encoder.load(store.models.current("item_encoder").output).version
    for datadao in datadaos:
        store.lance.require_version(datadao, "item_embeddings", tuned)
        store.lance.require_version(datadao, "chunk_embeddings", base)
