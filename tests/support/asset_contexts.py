"""Contexts of assets outside of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def asset_context() -> Iterator[dg.AssetExecutionContext]:
    """Its instance is closed here: one that Dagster makes by itself is closed whenever garbage is collected, which may
    be within a parse of Python 3.11, that fails then ("AST constructor recursion depth mismatch")."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield dg.build_asset_context(instance=instance)
