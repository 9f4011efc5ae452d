"""The training snapshot: which chunks may be used, and on which side of the split each user is."""

import dagster as dg
import polars as pl

from assets.policies import ML, RETRY
from assets.reporting import check_result, column_lineage, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.evaluation.splits import VERSION, build_snapshot
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.quality.domain import caps_enforced, split_leakage_none
from user_embeddings_dagster.schema import TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import UNPARTITIONED, fingerprint

LINEAGE = column_lineage(
    chunk_id=("masked_chunks", ["chunk_id"]),
    split=("masked_chunks", ["user_id", "window_id"]),
    position=("masked_chunks", ["ended_at"]),
)


class TrainingSnapshotConfig(dg.Config):
    """Who is in: users with at least `min_chunks_per_user` chunks in a DataDAO."""

    min_chunks_per_user: int = 4
    max_chunks_per_user: int | None = None


@dg.asset(
    deps=["masked_chunks", "consent_ledger"],
    group_name="training",
    owners=ML,
    kinds={"polars", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(TRAINING_SNAPSHOT),
    check_specs=domain_specs("training_snapshot", split_leakage_none, caps_enforced, blocking=[split_leakage_none]),
    retry_policy=RETRY,
)
def training_snapshot(
    context: dg.AssetExecutionContext, config: TrainingSnapshotConfig, store: Store
) -> dg.MaterializeResult:
    """One row per chunk that training and evaluation may use, with its user's split.

    Splits are by user, from a keyed hash: a person in two DataDAOs is on one side. A training window that holds
    a test user's words is left out. Users of the training and validation splits have consented to `train`, those of the
    test split to `evaluate`; others are left out, and counted.
    """
    lake = store.lake
    names = lake.partitions("masked_chunks")
    if not names:
        raise dg.Failure("no DataDAO has masked chunks: nobody's exports have been read yet", allow_retries=False)
    hashes = [[lake.path(table, name).stem for table in ("masked_chunks", "messages")] for name in names]
    gated = Consent.of_all(lake).chunks_of_splits(lake, store.key)
    authors = pl.concat([lake.scan("messages", name).select("message_id", "author_id") for name in names])
    wanted = fingerprint(VERSION, names, hashes, gated.version, config.model_dump())
    commit = lake.up_to_date("training_snapshot", UNPARTITIONED, wanted)
    if not (reused := commit is not None):
        result = build_snapshot(gated.chunks, key=store.key, authors=authors, **config.model_dump())
        stats = {**result.counts, **gated.left_out, "split_hash": result.split_hash}
        if config.max_chunks_per_user is not None:
            stats["cap_max_chunks_per_user"] = config.max_chunks_per_user
        commit = lake.commit(TRAINING_SNAPSHOT, result.snapshot, fingerprint=wanted, stats=stats)
    snapshot = lake.read("training_snapshot")
    outcomes = [
        split_leakage_none(snapshot, gated.chunks, authors),
        caps_enforced(snapshot, config.max_chunks_per_user),
    ]
    results = [check_result(outcome, "training_snapshot") for outcome in outcomes]
    return table_result(TRAINING_SNAPSHOT, commit, reused=reused, lineage=LINEAGE, checks=results)
