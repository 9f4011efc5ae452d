"""The one place that runs Great Expectations. Its import takes seconds, so it happens inside `validate`.

Great Expectations reads pandas, not Polars, and returns samples of the values it did not expect: only its counts
leave this module.
"""

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import polars as pl

from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.quality.suites import SUITES, Expectation
from user_embeddings_dagster.settings import prepare_environment

__all__ = ["CheckOutcome", "validate"]

_COUNTS = ("element_count", "unexpected_count", "missing_count", "unexpected_percent")
_RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 0, "include_unexpected_rows": False}
_ONE_CONTEXT = threading.Lock()
"""Great Expectations keeps its context in process globals."""


def validate(suite_name: str, frame: pl.DataFrame | pl.LazyFrame) -> list[CheckOutcome]:
    """One outcome per expectation of the suite, in its order; the name is the expectation's.

    Of a lazy frame only the columns are read that the suite asks for: no text of a message, for one.

    Metrics are counts: `element_count`, `unexpected_count`, `missing_count`, `unexpected_percent`, or
    `observed_value` (rows). Raises KeyError for an unknown suite, ValueError naming the expectations that could not
    be evaluated (a column is missing or of the wrong type).
    """
    expectations = SUITES[suite_name]
    needed = dict.fromkeys(column for expectation in expectations for column in expectation.columns)
    columns = frame.lazy().collect_schema().names()
    if missing := [column for column in needed if column not in columns]:
        raise ValueError(f"suite {suite_name}: the frame has no columns {missing}")
    # At least one column, so that rows can be counted.
    chosen = frame.lazy().select(list(needed) or columns[:1]).collect()
    pandas = chosen.to_pandas(use_pyarrow_extension_array=True)
    with _ONE_CONTEXT, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecation notices; failures come as results
        results = _run(suite_name, expectations, pandas)
    broken = [name for name, result in results.items() if _raised(result)]
    if broken:
        raise ValueError(f"suite {suite_name}: expectations that could not be evaluated: {broken}")
    return [_outcome(expectation, results[expectation.name]) for expectation in expectations]


def _run(suite_name: str, expectations: Sequence[Expectation], pandas: Any) -> dict[str, Any]:
    """Great Expectations' result of each expectation, by our name."""
    prepare_environment()
    import great_expectations as gx
    from great_expectations import expectations as kinds
    from great_expectations.core import ExpectationSuite
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pandas})
    declared = []
    for expectation in expectations:
        only = {}
        if expectation.only is not None:
            column, values = expectation.only
            only = {"row_condition": f"{column} in {list(values)}", "condition_parser": "pandas"}
        kind = getattr(kinds, expectation.kind)
        declared.append(kind(**expectation.kwargs, **only, meta={"name": expectation.name}))
    found = batch.validate(ExpectationSuite(suite_name, expectations=declared), result_format=_RESULT_FORMAT)
    results: list[Any] = list(found.results)
    return {result.expectation_config.meta["name"]: result for result in results}


def _raised(result: Any) -> bool:
    """The expectation raised instead of answering. The exception's text may quote values: it is not passed on."""
    information = result.exception_info  # by metric, without this key, when a metric raised
    return bool(information) and bool(information.get("raised_exception", True))


def _outcome(expectation: Expectation, result: Any) -> CheckOutcome:
    found = {name: float(result.result[name]) for name in _COUNTS if result.result.get(name) is not None}
    counts = {name: count for name, count in found.items() if math.isfinite(count)}  # NaN percent of no rows
    observed = result.result.get("observed_value")
    if expectation.kind == "ExpectTableRowCountToBeBetween" and observed is not None:
        counts["observed_value"] = float(observed)
    return CheckOutcome(expectation.name, bool(result.success), expectation.severity, counts)
