"""The training snapshot: which chunks may be used, and on which side of the split each user is."""

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.policies import ML, RETRY
from assets.reporting import check_result, column_lineage, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.evaluation.splits import VERSION, build_snapshot, without_summary
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.quality.domain import caps_enforced, split_leakage_none
from user_embeddings_dagster.schema import TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import UNPARTITIONED, fingerprint

VECTORS = ("chunk_embeddings", "summary_embeddings")
LINEAGE = column_lineage(
    chunk_id=("masked_chunks", ["chunk_id"]),
    split=("masked_chunks", ["user_id", "window_id"]),
    position=("masked_chunks", ["ended_at"]),
)


class TrainingSnapshotConfig(AssetConfig):
    """Who is in: users with at least `min_chunks_per_user` chunks in a DataDAO."""

    min_chunks_per_user: int = Field(default=4, ge=0)
    max_chunks_per_user: int | None = Field(default=None, ge=1)


def not_materialised(store: Store, datadao: str) -> list[str]:
    """The tables that a training reads of a DataDAO's chunks and that were never made; none where there are no chunks.

    Of one whose preparation failed, which must not keep the others from being trained on.
    """
    lake, lance = store.lake, store.lance
    if not (chunks := lake.current("masked_chunks", datadao)) or not chunks.rows:
        return []
    summaries = [] if lake.current("chunk_summaries", datadao) else ["chunk_summaries"]
    return summaries + [table for table in VECTORS if not lance.exists(datadao, table)]


@dg.asset(
    deps=["masked_chunks", "consent_ledger", "chunk_summaries", *VECTORS],
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
    test split to `evaluate`; others are left out, and counted. So are chunks without a summary. DataDAOs that were not
    summarised or embedded yet are left out, and named.
    """
    lake = store.lake
    names = lake.partitions("masked_chunks")
    if not names:
        raise dg.Failure("no DataDAO has masked chunks: nobody's exports have been read yet", allow_retries=False)
    unready = {name: ", ".join(missing) for name in names if (missing := not_materialised(store, name))}
    told = [f"{datadao}: no {what}" for datadao, what in unready.items()]
    if len(unready) == len(names):
        raise dg.Failure(f"no DataDAO is summarised and embedded yet ({'; '.join(told)})", allow_retries=False)
    for datadao, what in unready.items():
        context.log.warning(f"{datadao} is left out: no {what}")
    hashes = [[lake.path(table, name).stem for table in ("masked_chunks", "messages")] for name in names]
    unsummarised = without_summary(lake)
    gated = Consent.of_all(lake).chunks_of_splits(lake, store.key)
    ready = [rows for name, rows in zip(names, gated.chunks, strict=True) if name not in unready]
    authors = pl.concat([lake.scan("messages", name).select("message_id", "author_id") for name in names])
    left_out = [unready, unsummarised.sort("datadao", "chunk_id").rows()]
    wanted = fingerprint(VERSION, names, hashes, left_out, gated.version, config.model_dump())
    commit = lake.up_to_date("training_snapshot", UNPARTITIONED, wanted)
    if not (reused := commit is not None):
        how = config.model_dump()
        result = build_snapshot(ready, key=store.key, authors=authors, unsummarised=unsummarised, **how)
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
    named = {"datadaos_left_out": told} if told else {}
    return table_result(TRAINING_SNAPSHOT, commit, reused=reused, lineage=LINEAGE, metadata=named, checks=results)
