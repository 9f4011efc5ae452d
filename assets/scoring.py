"""What the score assets share: settings, specs, what is shown and how it is reported, the encoders they load."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.measured import Measured
from assets.policies import ML, RETRY, SCORES_WRITE
from assets.reporting import check_result, expectation_results, expectation_specs, plot, table_metadata
from resources.store import Store
from user_embeddings_dagster.evaluation.disclosure import published, visible
from user_embeddings_dagster.evaluation.measure import SequenceModel
from user_embeddings_dagster.evaluation.scores import OMITTED
from user_embeddings_dagster.quality.escaping import cell
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.settings import report_min_people
from user_embeddings_dagster.storage.lake import fingerprint

HEADLINE = (
    "mrr", "mrr_difference", "recall@1", "r2", "auc", "f2", "benign_changed", "tpr@1%fpr", "f1", "foreign@10",
    "exposure", "accuracy", "accuracy_change", "answer_kl", "gain", "judge_score", "pair_accuracy", "flops_ratio",
    "seconds_to_first_token_ratio",
)  # fmt: skip


class EvaluationConfig(AssetConfig):
    """Seed of the bootstrap and of any sampling."""

    seed: int = Field(default=0, ge=0)


class QueryConfig(EvaluationConfig):
    """`max_queries` bounds the queries of one DataDAO and task (a seeded sample); the candidates stay all."""

    max_queries: int | None = Field(default=5000, ge=1)


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
    measured: Measured,
    picture: bytes,
    extra: Sequence[CheckOutcome] = (),
    pictures: Mapping[str, bytes] | None = None,
    left_out: Sequence[str] = (),
) -> dg.MaterializeResult:
    """Write an asset's rows to the scores table and report them; `left_out`: dimensions that were not scored."""
    scores = measured.scores
    written = store.scores.replace(asset, scores, measured.made_from)
    visible_rows = published(scores.filter(pl.col("value").is_not_null()), report_min_people())
    headline = visible_rows.filter(pl.col("metric").is_in(HEADLINE))
    headline = headline.sort("hidden", pl.col("datadao") != "all", pl.col("slice") != "all", maintain_order=True)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(fingerprint(scores.write_csv())),
        metadata={
            "dagster/row_count": scores.height,
            "reused": measured.reused,
            "inserted": written.inserted,
            "updated": written.updated,
            "deleted": written.deleted,
            "unchanged": written.unchanged,
            "scores": dg.MetadataValue.md(_markdown(headline)),
            "hidden_rows": int(visible_rows["hidden"].sum()),
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


def sequence_outputs(store: Store, *dimensions: str) -> dict[str, Path]:
    """Folders of the promoted sequence encoders, by name. Raises StaleEncoder or TaintedModel on one not to be read."""
    return {
        f"sequence_encoder_{dimension}": store.models.current_on(f"sequence_encoder/{dimension}", "item_encoder").output
        for dimension in dimensions
    }


def loaded(outputs: Mapping[str, Path]) -> dict[str, SequenceModel]:
    """Sequence encoders as functions of histories, by name."""
    from training.sequence_inference import SequenceEncoder  # torch: never at module level of a code location

    return {name: SequenceModel(SequenceEncoder.load(output)) for name, output in outputs.items()}
