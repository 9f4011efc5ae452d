"""What every asset says of itself: column schema and lineage, row counts, data version, plots, checks.

Metadata holds numbers, hashes and plots; never a value of a personal column.
"""

import base64
import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from user_embeddings_dagster.quality.great_expectations_adapter import CheckOutcome, validate
from user_embeddings_dagster.quality.suites import SUITES
from user_embeddings_dagster.schema import Table
from user_embeddings_dagster.storage.lake import Commit

MAX_PLOT_BYTES = 500_000  # inline in the event log, so capped


def table_metadata(table: Table) -> dict[str, object]:
    """Definition metadata of an asset that is a table: its columns."""
    columns = [
        dg.TableColumn(
            column.name,
            str(column.dtype),
            description=column.description + (" (personal)" if column.personal else ""),
            constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=table.primary_key == (column.name,)),
        )
        for column in table.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns), "primary_key": ", ".join(table.primary_key)}


def vector_columns(**descriptions: str) -> dict[str, object]:
    """Definition metadata of a LanceDB table: its columns and what they hold."""
    types = {"n_chunks": "int64", "ended_at": "timestamp", "last_chunk_at": "timestamp"}
    types |= {"vector": "list<float>", "projected": "list<float>"}
    columns = [dg.TableColumn(name, types.get(name, "string"), description=text) for name, text in descriptions.items()]
    return {"dagster/column_schema": dg.TableSchema(columns), "primary_key": "id"}


def column_lineage(**columns: tuple[str, Sequence[str]]) -> dg.TableColumnLineage:
    """Column lineage: column → (upstream asset, its columns)."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(asset), upstream) for upstream in upstreams]
            for column, (asset, upstreams) in columns.items()
        }
    )


def plot(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG inline in the UI. Raises ValueError above 500 kB."""
    if len(png) > MAX_PLOT_BYTES:
        raise ValueError(f"plot of {len(png)} bytes is over {MAX_PLOT_BYTES}")
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def table_result(
    table: Table,
    commit: Commit,
    *,
    reused: bool,
    lineage: dg.TableColumnLineage | None = None,
    metadata: Mapping[str, Any] | None = None,
    checks: Sequence[dg.AssetCheckResult] = (),
    asset_key: str | None = None,
) -> dg.MaterializeResult:
    """Result of an asset that is a table: rows, content hash as data version, statistics, checks."""
    return dg.MaterializeResult(
        asset_key=asset_key or table.name,
        data_version=dg.DataVersion(commit.content_hash[:32]),
        metadata={
            "dagster/row_count": commit.rows,
            "reused": reused,
            **({"dagster/column_lineage": lineage} if lineage else {}),
            **commit.stats,
            **({name: 0 for name in commit.stats if reused and name.endswith("_this_run")}),
            **(metadata or {}),
        },
        check_results=list(checks),
    )


def expectation_specs(
    suite: str, asset: str | None = None, partitions: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    """Check specs of a Great Expectations suite, known without importing Great Expectations."""
    return [
        dg.AssetCheckSpec(
            expectation.name,
            asset=asset or suite,
            description=expectation.description,
            blocking=expectation.severity == "error",
            partitions_def=partitions,
        )
        for expectation in SUITES[suite]
    ]


def domain_specs(
    asset: str,
    *checks: Callable[..., CheckOutcome],
    blocking: Container[Callable[..., CheckOutcome]] = (),
    partitions: dg.PartitionsDefinition | None = None,
) -> list[dg.AssetCheckSpec]:
    """Check specs of domain checks: a check's name and docstring are what the UI shows."""
    return [
        dg.AssetCheckSpec(
            check.__name__,
            asset=asset,
            description=inspect.getdoc(check),
            blocking=check in blocking,
            partitions_def=partitions,
        )
        for check in checks
    ]


def expectation_results(
    suite: str, frame: pl.DataFrame | pl.LazyFrame, asset: str | None = None
) -> list[dg.AssetCheckResult]:
    """Run a suite on a frame; one result per expectation, counts only."""
    return [check_result(outcome, asset or suite) for outcome in validate(suite, frame)]


def check_result(outcome: CheckOutcome, asset: str) -> dg.AssetCheckResult:
    """A domain outcome as Dagster shows it."""
    return dg.AssetCheckResult(
        check_name=outcome.name,
        asset_key=asset,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if outcome.severity == "error" else dg.AssetCheckSeverity.WARN,
        # NumPy scalars do not serialise
        metadata={**{name: float(value) for name, value in outcome.metrics.items()}, **outcome.places},
    )
