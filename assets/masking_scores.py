"""What the masking finds in labelled data: part of `evaluate`, because a rule that breaks must show."""

from pathlib import Path

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.measured import measured
from assets.policies import PRIVACY, RETRY, SCORES_WRITE
from assets.reporting import expectation_specs, table_metadata
from assets.scoring import record
from resources.store import Store
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.masking import ASSET, measure_masking
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.settings import labelled_pii


class MaskingScoresConfig(AssetConfig):
    """`labelled`: folder of public labelled data (presidio-research .json, .conll); default USER_EMBEDDINGS_PII_DATA.

    Without one, only our own messages are measured. `seed` is the bootstrap's.
    """

    labelled: str | None = None
    seed: int = Field(default=0, ge=0)


@dg.asset(
    name=ASSET,
    group_name="evaluation",
    owners=PRIVACY,
    kinds={"polars", "duckdb"},
    code_version="1",
    metadata=table_metadata(SCORES),
    check_specs=expectation_specs("scores", ASSET),
    retry_policy=RETRY,
    pool=SCORES_WRITE,
)
def masking_scores(
    context: dg.AssetExecutionContext, config: MaskingScoresConfig, store: Store
) -> dg.MaterializeResult:
    """One row per metric of an entity in a labelled data set: recall, precision and F2 of the masking (C11)."""
    folder = Path(config.labelled) if config.labelled else labelled_pii()
    if folder is None:
        context.log.info("no labelled data is named: only messages of our own making are measured")
    labelled = [] if folder is None else sorted(path for path in folder.rglob("*") if path.is_file())
    inputs = [[(path.name, file_sha256(path)) for path in labelled], config.seed]
    result = measured(store, ASSET, inputs, lambda: measure_masking(folder, config.seed))
    bars = result.scores.filter(metric="f2").with_columns(model=pl.col("slice"), slice=pl.lit("all"))
    return record(store, ASSET, result, plots.score_bars(bars, metric="f2", title="Masking: F2 per entity"))
