"""Evaluation: tables and plots of what the encoders are worth, on users that no training saw."""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from assets.embeddings import refuse_stale_vectors
from assets.measured import measured, stored_inputs
from assets.partitions import SERVED_DIMENSION
from assets.reporting import domain_specs
from assets.scoring import EvaluationConfig, QueryConfig, loaded, record, score_asset, sequence_outputs, shown
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.comparison import NEXT_CHUNK, differences
from user_embeddings_dagster.evaluation.disclosure import published
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.measure import (
    compare_datadaos,
    measure_item_encoder,
    measure_matching,
    measure_sequence_encoders,
    measure_sparse_users,
)
from user_embeddings_dagster.evaluation.user_probes import measure_probes
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.quality.domain import tuned_not_worse_than_base
from user_embeddings_dagster.settings import report_min_people
from user_embeddings_dagster.storage.models import StaleEncoder, TaintedModel

SWEEP = {
    **{"dimension": pl.Int64, "value": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64},
    **{"bytes": pl.Int64, "seconds": pl.Float64},
}


def sweep_rows(store: Store, scores: pl.DataFrame, dimensions: Sequence[str]) -> pl.DataFrame:
    """One row per scored dimension: next-chunk MRR (null if hidden), bytes of the weights, seconds of the training."""
    rows = []
    of_all = published(scores, report_min_people()).filter(metric="mrr", slice="all", datadao="all")
    for dimension in dimensions:
        folder = store.models.current(f"sequence_encoder/{dimension}")
        for mrr in of_all.filter(model=f"sequence_encoder_{dimension}").iter_rows(named=True):
            rows.append(
                {
                    "dimension": int(dimension),
                    **{name: mrr[name] for name in ("value", "ci_low", "ci_high")},
                    "bytes": (folder.output / "model.safetensors").stat().st_size,
                    "seconds": float(folder.record()["metadata"]["seconds"]),
                }
            )
    return pl.DataFrame(rows, schema=SWEEP)


def scored_dimensions(context: dg.AssetExecutionContext, store: Store) -> tuple[list[str], list[str]]:
    """Dimensions that have a promoted sequence encoder, ascending: those to score, and those whose may not be read.

    The weekly trainings make the item encoder and the served dimension anew: the others wait for the next sweep. The
    served one is never left out: where it may not be read, the evaluation fails.
    """
    scored, left_out = list[str](), list[str]()
    for dimension in sorted((name.rsplit("/", 1)[1] for name in store.models.promoted("sequence_encoder")), key=int):
        try:
            store.models.current_on(f"sequence_encoder/{dimension}", "item_encoder")
        except (StaleEncoder, TaintedModel):
            if dimension == SERVED_DIMENSION:
                raise
            context.log.warning(f"dimension {dimension} is left out: materialise its sequence encoder again")
            left_out.append(dimension)
        else:
            scored.append(dimension)
    return scored, left_out


@score_asset(
    "item_encoder_scores",
    ["item_encoder", "item_embeddings", "chunk_embeddings", "summary_embeddings", "masked_chunks"],
    domain_specs("item_encoder_scores", tuned_not_worse_than_base),
)
def item_encoder_scores(
    context: dg.AssetExecutionContext, config: QueryConfig, store: Store, text_encoder: TextEncoderResource
):
    """One row per metric of the item encoder, tuned and untuned, on held-out users.

    A chunk must find its own summary among all held-out summaries (full ranking), and the right SUBJECT among
    the rivals of its window (C31, C32).
    """
    refuse_stale_vectors(store, text_encoder, consented_snapshot(store.lake)["datadao"].unique())
    version = store.models.current("item_encoder").record()["data_version"]
    result = measured(
        store, "item_encoder_scores", [stored_inputs(context, store), config.model_dump()],
        lambda: measure_item_encoder(store.lake, store.lance, config.seed, version, config.max_queries),
    )  # fmt: skip
    picture = plots.score_bars(
        shown(result.scores).filter(datadao="all"), title="Chunk finds its own summary", highlighted=["item_encoder"]
    )
    return record(store, "item_encoder_scores", result, picture, [tuned_not_worse_than_base(result.scores)])


@score_asset("sequence_encoder_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def sequence_encoder_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of next-chunk prediction by every baseline and every trained dimension (C36).

    Held-out users, full ranking among all their chunks; also by the time since the previous chunk, because the
    next chunk within minutes is mostly the same conversation. Dimensions that were not trained since the item encoder
    was are left out, and named.
    """
    dimensions, left_out = scored_dimensions(context, store)
    outputs = sequence_outputs(store, *dimensions)

    def measure() -> pl.DataFrame:
        inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
        return measure_sequence_encoders(inputs, loaded(outputs), config.max_queries)

    inputs = [stored_inputs(context, store), config.model_dump(), dimensions]
    result = measured(store, "sequence_encoder_scores", inputs, measure)
    scores = shown(result.scores).filter(datadao="all")
    picture = plots.score_bars(scores, title="Next chunk", highlighted=list(outputs))
    sweep = plots.dimension_sweep(sweep_rows(store, result.scores, dimensions), title="Dimension of the user state")
    pictures = {"dimension_sweep": sweep}
    return record(store, "sequence_encoder_scores", result, picture, pictures=pictures, left_out=left_out)


@score_asset("user_matching_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def user_matching_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of finding a user's second half of history from the first, among all users (C41).

    Halves in time, never one conversation in both; also for users of short and of long histories alone. Dimensions are
    left out as of sequence_encoder_scores.
    """
    dimensions, left_out = scored_dimensions(context, store)
    outputs = sequence_outputs(store, *dimensions)

    def measure() -> pl.DataFrame:
        inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
        return measure_matching(inputs, loaded(outputs), config.max_queries)

    inputs = [stored_inputs(context, store), config.model_dump(), dimensions]
    result = measured(store, "user_matching_scores", inputs, measure)
    title = "Half a history finds the other half"
    picture = plots.score_bars(
        shown(result.scores).filter(datadao="all"), metric="recall@1", title=title, highlighted=list(outputs)
    )
    return record(store, "user_matching_scores", result, picture, left_out=left_out)


@score_asset("sparse_user_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def sparse_user_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of next-chunk prediction from 0, 1, 2, 5 and 10 chunks of history (C38).

    Of new users (the chunk after their first k), and of the same later chunks with only the last k known.
    """
    outputs = sequence_outputs(store, SERVED_DIMENSION)

    def measure() -> pl.DataFrame:
        inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
        return measure_sparse_users(inputs, loaded(outputs), config.max_queries)

    inputs = [stored_inputs(context, store), config.model_dump()]
    result = measured(store, "sparse_user_scores", inputs, measure)
    picture = plots.history_lines(
        shown(result.scores).filter(datadao="all"), metric="mrr", title="Next chunk, by length of history"
    )
    return record(store, "sparse_user_scores", result, picture)


@score_asset("user_probe_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings", "masked_chunks"])
def user_probe_scores(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per attribute of a person's future that a linear probe predicts from the user embedding of their past.

    C40, without a language model: active hours, DataDAO, topics, role in the thread, activity, length of chunks;
    beside baselines, random numbers and the same attributes of the past. Poor results stay in.
    """
    outputs = sequence_outputs(store, SERVED_DIMENSION)

    def measure() -> pl.DataFrame:
        inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
        return measure_probes(store.lake, inputs, loaded(outputs))

    inputs = [stored_inputs(context, store), config.model_dump()]
    result = measured(store, "user_probe_scores", inputs, measure)
    pooled = result.scores.filter(datadao="all")
    amounts = plots.grouped_bars(pooled, metric="r2", by="slice", title="Linear probes: amounts")
    classes = plots.grouped_bars(pooled, metric="auc", by="slice", title="Linear probes: classes")
    return record(store, "user_probe_scores", result, amounts, pictures={"plot_classes": classes})


@score_asset("datadao_comparison", ["sequence_encoder", "item_embeddings", "chunk_embeddings", "summary_embeddings"])
def datadao_comparison(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per metric of each DataDAO at an equal budget of users, chunks and queries, and their differences.

    C49: DataDAO against DataDAO and against public data.
    """
    version = store.models.current("item_encoder").record()["data_version"]
    outputs = sequence_outputs(store, SERVED_DIMENSION)
    result = measured(
        store, "datadao_comparison", [stored_inputs(context, store), config.model_dump(), version],
        lambda: compare_datadaos(store.lake, store.lance, config.seed, loaded(outputs), version),
    )  # fmt: skip
    picture = plots.grouped_bars(shown(result.scores), slice_=NEXT_CHUNK, title="Next chunk at an equal budget")
    between = plots.difference_lines(
        differences(shown(result.scores), NEXT_CHUNK), metric="mrr_difference", title="Next chunk: first less second"
    )
    return record(store, "datadao_comparison", result, picture, pictures={"plot_differences": between})
