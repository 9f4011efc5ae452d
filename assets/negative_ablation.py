"""The ablation of positives and negatives: not part of `evaluate`, because it trains twelve item encoders."""

from collections.abc import Iterator
from typing import Literal

import dagster as dg
import numpy as np
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.encoders import ItemEncoderConfig, item_training
from assets.measured import Measured
from assets.policies import GPU, ML, RETRY
from assets.reporting import expectation_specs, table_metadata
from assets.scoring import record
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.negatives import KINDS, UNTUNED, measure_negatives, sampled_histories
from user_embeddings_dagster.mining.pairs import training_pairs
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.lance_tables import stacked
from user_embeddings_dagster.storage.models import ModelFolder

ASSET = "negative_ablation_scores"


class NegativeAblationConfig(AssetConfig):
    """`seeds` trainings of each kind, of `steps`; measured on the latest `chunks_per_user` chunks of `split` users.

    `split`: "test" for the record, "valid" to choose anything. `top_layers`, `batch_size` as of item_encoder; `seed` is
    the bootstrap's.
    """

    seeds: int = Field(default=3, ge=1)
    steps: int = Field(default=40, ge=1)
    batch_size: int = Field(default=64, ge=2)
    top_layers: int | None = Field(default=None, ge=1)
    chunks_per_user: int = Field(default=6, ge=1)
    split: Literal["test", "valid"] = "test"
    seed: int = Field(default=0, ge=0)


def trained(
    context: dg.AssetExecutionContext,
    config: NegativeAblationConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    jobs: TrainingJobs,
) -> Iterator[tuple[str, ModelFolder]]:
    """Kind and result of every training, one after another; those that are there already are not trained again."""
    shared = {"steps": config.steps, "batch_size": config.batch_size, "top_layers": config.top_layers}
    for seed in range(config.seeds):
        for kind, settings in KINDS.items():
            of_kind = ItemEncoderConfig.model_validate({**shared, **settings, "seed": seed})
            folder, write_inputs = item_training(store, text_encoder, of_kind, "item_encoder_ablation")
            if not folder.complete:
                context.log.info(f"training {kind}, seed {seed}")
                write_inputs(folder)
                jobs.run(context, "item_encoder", folder.inputs, folder.output)
            folder.remove_leftovers()
            yield kind, folder


@dg.asset(
    name=ASSET,
    deps=[
        "hard_negatives",
        "relabelled_pairs",
        "consent_ledger",
        "masked_chunks",
        "chunk_embeddings",
        "summary_embeddings",
    ],
    group_name="ablation",
    owners=ML,
    kinds={"torch", "duckdb"},
    code_version="1",
    metadata=table_metadata(SCORES),
    check_specs=expectation_specs("scores", ASSET),
    retry_policy=RETRY,
    pool=GPU,
)
def negative_ablation_scores(
    context: dg.AssetExecutionContext,
    config: NegativeAblationConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    training_jobs: TrainingJobs,
):
    """One row per metric of the item encoder with own or relabelled positives, with and without hard negatives (C29).

    Several seeds each, on held-out users; seeds are in the intervals. The next chunk is beside the own summary
    because the latter is what trainings on own positives practise.
    """
    inputs = EvaluationInputs.load(store.lake, store.lance, "chunk_embeddings", config.seed)
    pairs = training_pairs(inputs.snapshot, store.lake, store.lance)
    sample = sampled_histories(inputs.snapshot, config.split, config.chunks_per_user)
    asked = sample.select("chunk_id").join(pairs, on="chunk_id", how="left", maintain_order="left")
    models: dict[str, list[np.ndarray]] = {UNTUNED: [stacked(asked["chunk_vector"])]}
    versions: dict[str, list[str]] = {UNTUNED: ["base"]}
    for kind, folder in trained(context, config, store, text_encoder, training_jobs):
        encoder = text_encoder.load(folder.output)
        context.log.info(f"encoding {asked.height} chunks: {kind}, training {len(models.get(kind, []))}")
        models.setdefault(kind, []).append(encoder.encode(asked["text"].to_list()))
        versions.setdefault(kind, []).append(encoder.version)
    summaries = pairs.select("chunk_id", "summary_vector")
    scores = measure_negatives(inputs, summaries, sample, models, versions, config.split)
    shown = scores.filter(pl.col("datadao") == "all", pl.col("model").is_in([*KINDS, UNTUNED]))
    picture = plots.score_bars(shown, title="Chunk finds its own summary", highlighted=list(KINDS))
    next_chunk = plots.score_bars(shown, slice_="next_chunk", title="Next chunk, decayed mean", highlighted=list(KINDS))
    return record(store, ASSET, Measured(scores), picture, pictures={"plot_next_chunk": next_chunk})
