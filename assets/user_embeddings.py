"""User embeddings: the sequence encoder's state after each user's chunks."""

import dagster as dg

from assets.embeddings import refuse_stale_vectors
from assets.partitions import SERVED_DIMENSION, datadaos
from assets.policies import EAGER_WITH_BOTH_ENCODERS, LANCE_WRITE, ML, RETRY
from assets.reporting import check_result, column_lineage, domain_specs, vector_columns
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.embedding.users import update_users
from user_embeddings_dagster.privacy.access.serving import not_removed, rows_locked
from user_embeddings_dagster.privacy.consent.grants import SERVE
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.privacy.consent.withdrawal import withdraw_memories, withdraw_vectors
from user_embeddings_dagster.quality.domain import finite_vectors, not_collapsed

CHECKS = (finite_vectors, not_collapsed)
COLUMNS = vector_columns(
    id="user_id of the contributor",
    n_chunks="chunks that the state has read",
    last_chunk_at="time of the last of them",
    version="of the sequence encoder",
    vector="state after the last chunk",
    projected="the state in the item space: a prediction of the next chunk",
)


@dg.asset(
    partitions_def=datadaos,
    deps=[
        "masked_chunks",
        "consent_ledger",
        "item_embeddings",
        "chunk_embeddings",
        dg.AssetDep("sequence_encoder", partition_mapping=dg.SpecificPartitionsPartitionMapping([SERVED_DIMENSION])),
    ],
    group_name="users",
    owners=ML,
    kinds={"lancedb", "torch"},
    metadata=COLUMNS,
    code_version="1",
    check_specs=domain_specs("user_embeddings", *CHECKS, partitions=datadaos),
    automation_condition=EAGER_WITH_BOTH_ENCODERS,
    retry_policy=RETRY,
    pool=LANCE_WRITE,
)
def user_embeddings(
    context: dg.AssetExecutionContext, store: Store, text_encoder: TextEncoderResource
) -> dg.MaterializeResult:
    """One row per contributor who consented to be served: vector, projected vector, chunks, last time, encoder version.

    The sequence encoder reads every chunk of the user in time order; every user with at least one chunk has a
    row, also those too sparse to be trained on. `projected` lives in the item space. A user with new chunks only is
    advanced from the stored memory, a step a chunk, equal to a full encoding within 1e-4 (C39). A user who had the
    embedding removed (`user-embeddings access remove`) has no row.
    """
    from training.sequence_inference import SequenceEncoder  # torch: never at module level of a code location

    encoder = SequenceEncoder.load(
        store.models.current_on(f"sequence_encoder/{SERVED_DIMENSION}", "item_encoder").output
    )
    refuse_stale_vectors(store, text_encoder, [context.partition_key])
    consenting = Consent.of(store.lake, context.partition_key).users(context.partition_key, SERVE)
    with rows_locked(store.layout, context.partition_key), store.user_memories(context.partition_key) as memories:
        users = not_removed(store.layout, context.partition_key, consenting)
        withdrawn = withdraw_vectors(store.lance, context.partition_key, "user_embeddings", users)
        withdraw_memories(memories, users)
        result = update_users(store.lake, store.lance, memories, context.partition_key, encoder, users)
    vectors = store.lance.stored_vectors(context.partition_key, "user_embeddings")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(result.content_hash[:32]),
        metadata={
            "dagster/row_count": result.rows,
            "dimension": int(SERVED_DIMENSION),
            "encoder_version": encoder.version,
            "unchanged": result.unchanged,
            "advanced": result.advanced,
            "encoded": result.encoded,
            "deleted": result.deleted,
            "withdrawn": withdrawn,
            "removed_by_owner": len(consenting) - len(users),
            "dagster/column_lineage": column_lineage(
                vector=("item_embeddings", ["vector"]), n_chunks=("item_embeddings", ["id"])
            ),
        },
        check_results=[check_result(check(vectors), "user_embeddings") for check in CHECKS],
    )
