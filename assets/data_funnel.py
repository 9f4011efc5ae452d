"""The data funnel: what is left of the raw records at each stage, and what it costs."""

from contextlib import suppress
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.policies import DATA, RETRY
from assets.reporting import check_result, domain_specs, plot, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.evaluation.funnel import MODEL_STAGES, FunnelTables, Prices, model_stages
from user_embeddings_dagster.evaluation.funnel import data_funnel as build_funnel
from user_embeddings_dagster.evaluation.plots import funnel_bars
from user_embeddings_dagster.privacy.consent.live import Consent, consented_snapshot
from user_embeddings_dagster.quality.domain import monotone_funnel
from user_embeddings_dagster.schema import DATA_FUNNEL
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import Models, TaintedModel


class DataFunnelConfig(AssetConfig):
    """US dollars per million tokens; the embedded defaults cost nothing."""

    summary_input: float = Field(default=0.0, ge=0)
    summary_output: float = Field(default=0.0, ge=0)
    embedding: float = Field(default=0.0, ge=0)
    training: float = Field(default=0.0, ge=0)


def tables(lake: Lake, lance: LanceTables, datadao: str) -> FunnelTables:
    """The tables of one DataDAO."""
    commits = {name: lake.current(name, datadao) for name in ("masked_chunks", "insight_tasks")}
    commits["training_snapshot"] = lake.current("training_snapshot")
    embedded = pl.DataFrame({"chunk_id": lance.ids(datadao, "chunk_embeddings")}, {"chunk_id": pl.String})
    return FunnelTables(
        **{
            name: lake.scan(name, datadao) for name in ("raw_files", "rejected_records", "dropped_messages", "messages")
        },
        consenting=Consent.of_all(lake).users(datadao).alias("user_id").to_frame(),
        masked_chunks=lake.scan("masked_chunks", datadao),
        chunk_summaries=lake.scan("chunk_summaries", datadao),
        embedded=embedded,
        snapshot=consented_snapshot(lake),
        hard_negatives=lake.scan("hard_negatives"),
        insight_tasks=lake.scan("insight_tasks", datadao) if commits["insight_tasks"] else None,
        stats={name: commit.stats for name, commit in commits.items() if commit},
    )


def trained_on(models: Models) -> dict[str, dict[str, Any]]:
    """What the jobs reported of the decoders that are there, and may be used."""
    found = {}
    for name in MODEL_STAGES:
        with suppress(FileNotFoundError, TaintedModel):  # not yet, or not any more: no row
            found[name] = models.current(name).record()["metadata"]
    return found


@dg.asset(
    deps=[
        "messages",
        "consent_ledger",
        "rejected_records",
        "masked_chunks",
        "chunk_summaries",
        "chunk_embeddings",
        "training_snapshot",
        "hard_negatives",
        "insight_tasks",
        "supervised_decoder",
        "personalised_decoder",
    ],
    group_name="evaluation",
    owners=DATA,
    kinds={"polars", "parquet"},
    code_version="2",
    metadata=table_metadata(DATA_FUNNEL),
    check_specs=domain_specs("data_funnel", monotone_funnel),
    retry_policy=RETRY,
)
def data_funnel(context: dg.AssetExecutionContext, config: DataFunnelConfig, store: Store) -> dg.MaterializeResult:
    """One row per stage of the pipeline and DataDAO: samples, tokens, users, cost, caps and reasons (C8, C50).

    From raw records to the tasks that the personalised LLM was trained on, which are counted for all DataDAOs together.
    """
    lake, prices = store.lake, Prices(**config.model_dump())
    names = lake.partitions("chunk_summaries")
    frames = [build_funnel(name, tables(lake, store.lance, name), prices) for name in names]
    tasks = [lake.scan("insight_tasks", name) for name in lake.partitions("insight_tasks")]
    frame = pl.concat([*frames, model_stages(tasks, trained_on(store.models), prices)])
    before = lake.current("data_funnel")
    commit = lake.commit(DATA_FUNNEL, frame)
    return table_result(
        DATA_FUNNEL,
        commit,
        reused=commit == before,
        metadata={"plot": plot(funnel_bars(frame))},
        checks=[check_result(monotone_funnel(frame), "data_funnel")],
    )
