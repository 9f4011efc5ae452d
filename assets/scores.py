"""Evaluation: tables and plots of what the encoders are worth, on users that no training saw."""

from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl

from assets.embeddings import refuse_stale_vectors
from assets.partitions import SERVED_DIMENSION
from assets.policies import ML, RETRY, SCORES_WRITE
from assets.reporting import check_result, domain_specs, expectation_results, expectation_specs, plot, table_metadata
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.disclosure import published, visible
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.measure import (
    SequenceModel,
    compare_datadaos,
    measure_item_encoder,
    measure_matching,
    measure_sequence_encoders,
    measure_sparse_users,
)
from user_embeddings_dagster.evaluation.scores import OMITTED
from user_embeddings_dagster.evaluation.user_probes import measure_probes
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.quality.domain import tuned_not_worse_than_base
from user_embeddings_dagster.quality.escaping import cell
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.settings import report_min_people
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.storage.models import StaleEncoder, TaintedModel

HEADLINE = (
    "mrr", "recall@1", "r2", "auc", "f2", "benign_changed", "tpr@1%fpr", "f1", "foreign@10", "exposure", "accuracy",
    "accuracy_change", "answer_kl", "gain", "judge_score", "pair_accuracy", "flops_ratio",
    "seconds_to_first_token_ratio",
)  # fmt: skip


class EvaluationConfig(dg.Config):
    """Seed of the bootstrap and of any sampling."""

    seed: int = 0


class QueryConfig(EvaluationConfig):
    """`max_queries` bounds the queries of one DataDAO and task (a seeded sample); the candidates stay all."""

    max_queries: int | None = 5000


def score_asset(
    name: str,
    deps: Sequence[str],
    extra_checks: Sequence[dg.AssetCheckSpec] = (),
    group: str = "evaluation",
    pool: str = SCORES_WRITE,
):
    """Decorator arguments shared by the score assets."""
    return dg.asset(
        name=name,
        deps=[*deps, "consent_ledger"],
        group_name=group,
        owners=ML,
        kinds={"duckdb", "polars"},
        code_version="1",
        metadata=table_metadata(SCORES),
        check_specs=[*expectation_specs("scores", name), *extra_checks],
        retry_policy=RETRY,
        pool=pool,
    )


def record(
    store: Store,
    asset: str,
    scores: pl.DataFrame,
    picture: bytes,
    extra: Sequence[CheckOutcome] = (),
    pictures: Mapping[str, bytes] | None = None,
    left_out: Sequence[str] = (),
) -> dg.MaterializeResult:
    """Write an asset's rows to the scores table and report them; `left_out`: dimensions that were not scored."""
    written = store.scores.replace(asset, scores)
    measured = published(scores.filter(pl.col("value").is_not_null()), report_min_people())
    headline = measured.filter(pl.col("metric").is_in(HEADLINE))
    headline = headline.sort(pl.col("datadao") != "all", pl.col("slice") != "all", maintain_order=True)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(fingerprint(scores.write_csv())),
        metadata={
            "dagster/row_count": scores.height,
            "inserted": written.inserted,
            "updated": written.updated,
            "deleted": written.deleted,
            "unchanged": written.unchanged,
            "scores": dg.MetadataValue.md(_markdown(headline)),
            "hidden_rows": int(measured["hidden"].sum()),
            **omissions(scores),
            **({"dimensions_left_out": list(left_out)} if left_out else {}),
            "plot": plot(picture),
            **{name: plot(png) for name, png in (pictures or {}).items()},
        },
        check_results=[
            *expectation_results("scores", scores, asset),
            *(check_result(outcome, asset) for outcome in extra),
        ],
    )


def omissions(scores: pl.DataFrame) -> dict[str, str]:
    """Why rows could not be measured, as metadata; none, if every one could."""
    said = scores["candidate_set"].unique().sort()
    reasons = said.filter(said.str.starts_with(OMITTED)).str.strip_prefix(OMITTED)
    return {"reason": "; ".join(reasons)} if len(reasons) else {}


def shown(scores: pl.DataFrame) -> pl.DataFrame:
    """The rows that may be published: none about fewer people than the operator allows (evaluation.disclosure)."""
    return visible(scores, report_min_people())


def _markdown(scores: pl.DataFrame, at_most: int = 60) -> str:
    lines = [
        "| DataDAO | model | slice | metric | value | 95% interval | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in scores.head(at_most).iter_rows(named=True):
        interval = "" if row["ci_low"] is None else f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        few = f"<{report_min_people()}" if row["few"] else "hidden"
        value, n = (few, few) if row["hidden"] else (f"{row['value']:.3f}", row["n"])
        cells = (row["datadao"], row["model"], row["slice"], row["metric"], value, interval, n)
        lines.append("| " + " | ".join(cell(str(value)) for value in cells) + " |")
    return "\n".join(lines)


def sequence_models(store: Store, dimensions: Sequence[str]) -> dict[str, SequenceModel]:
    """The promoted sequence encoders as functions of histories, by name."""
    from training.sequence_inference import SequenceEncoder  # torch: never at module level of a code location

    return {
        f"sequence_encoder_{dimension}": SequenceModel(
            SequenceEncoder.load(store.models.current_on(f"sequence_encoder/{dimension}", "item_encoder").output)
        )
        for dimension in dimensions
    }


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
    ["item_encoder", "item_embeddings", "chunk_embeddings", "summary_embeddings"],
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
    scores = measure_item_encoder(store.lake, store.lance, config.seed, version, config.max_queries)
    picture = plots.score_bars(
        shown(scores).filter(datadao="all"), title="Chunk finds its own summary", highlighted=["item_encoder"]
    )
    return record(store, "item_encoder_scores", scores, picture, [tuned_not_worse_than_base(scores)])


@score_asset("sequence_encoder_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def sequence_encoder_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of next-chunk prediction by every baseline and every trained dimension (C36).

    Held-out users, full ranking among all their chunks; also by the time since the previous chunk, because the
    next chunk within minutes is mostly the same conversation. Dimensions that were not trained since the item encoder
    was are left out, and named.
    """
    dimensions, left_out = scored_dimensions(context, store)
    inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
    models = sequence_models(store, dimensions)
    scores = measure_sequence_encoders(inputs, models, config.max_queries)
    picture = plots.score_bars(shown(scores).filter(datadao="all"), title="Next chunk", highlighted=list(models))
    sweep = plots.dimension_sweep(sweep_rows(store, scores, dimensions), title="Dimension of the user state")
    pictures = {"dimension_sweep": sweep}
    return record(store, "sequence_encoder_scores", scores, picture, pictures=pictures, left_out=left_out)


@score_asset("user_matching_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def user_matching_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of finding a user's second half of history from the first, among all users (C41).

    Halves in time, never one conversation in both; also for users of short and of long histories alone. Dimensions are
    left out as of sequence_encoder_scores.
    """
    dimensions, left_out = scored_dimensions(context, store)
    inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
    models = sequence_models(store, dimensions)
    scores = measure_matching(inputs, models, config.max_queries)
    title = "Half a history finds the other half"
    picture = plots.score_bars(
        shown(scores).filter(datadao="all"), metric="recall@1", title=title, highlighted=list(models)
    )
    return record(store, "user_matching_scores", scores, picture, left_out=left_out)


@score_asset("sparse_user_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings"])
def sparse_user_scores(context: dg.AssetExecutionContext, config: QueryConfig, store: Store):
    """One row per metric of next-chunk prediction from 0, 1, 2, 5 and 10 chunks of history (C38).

    Of new users (the chunk after their first k), and of the same later chunks with only the last k known.
    """
    inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
    scores = measure_sparse_users(inputs, sequence_models(store, [SERVED_DIMENSION]), config.max_queries)
    picture = plots.history_lines(
        shown(scores).filter(datadao="all"), metric="mrr", title="Next chunk, by length of history"
    )
    return record(store, "sparse_user_scores", scores, picture)


@score_asset("user_probe_scores", ["sequence_encoder", "item_embeddings", "chunk_embeddings", "masked_chunks"])
def user_probe_scores(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per attribute of a person's future that a linear probe predicts from the user embedding of their past.

    C40, without a language model: active hours, DataDAO, topics, role in the thread, activity, length of chunks;
    beside baselines, random numbers and the same attributes of the past. Poor results stay in.
    """
    inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
    scores = measure_probes(store.lake, inputs, sequence_models(store, [SERVED_DIMENSION]))
    pooled = scores.filter(datadao="all")
    amounts = plots.grouped_bars(pooled, metric="r2", by="slice", title="Linear probes: amounts")
    classes = plots.grouped_bars(pooled, metric="auc", by="slice", title="Linear probes: classes")
    return record(store, "user_probe_scores", scores, amounts, pictures={"plot_classes": classes})


@score_asset("datadao_comparison", ["sequence_encoder", "item_embeddings", "chunk_embeddings", "summary_embeddings"])
def datadao_comparison(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per metric of each DataDAO at an equal budget of users, chunks and queries, and their differences.

    C49: DataDAO against DataDAO and against public data.
    """
    version = store.models.current("item_encoder").record()["data_version"]
    models = sequence_models(store, [SERVED_DIMENSION])
    scores = compare_datadaos(store.lake, store.lance, config.seed, models, version)
    picture = plots.grouped_bars(shown(scores), slice_="next_chunk", title="Next chunk at an equal budget")
    return record(store, "datadao_comparison", scores, picture)
