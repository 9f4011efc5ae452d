"""The log of accesses as a table, and whether it is what was written."""

import msgspec
import polars as pl

from user_embeddings_dagster.privacy.access.log import AccessLog, Entry
from user_embeddings_dagster.privacy.access.verification import Verification, verify
from user_embeddings_dagster.quality.outcome import ERROR, CheckOutcome
from user_embeddings_dagster.schema import ACCESS_LOG
from user_embeddings_dagster.settings import Layout


def as_table(layout: Layout) -> tuple[pl.DataFrame, Verification]:
    """ACCESS_LOG up to the first bad entry, and what the verification found; no rows before anything was logged."""
    if not layout.access_key.exists():
        return ACCESS_LOG.empty(), Verification(0, "", not layout.access_log.exists(), reason="no key")
    log = AccessLog.of(layout)
    result = verify(log)
    lines = log.path.read_bytes().split(b"\n")[: result.count] if log.path.exists() else []
    entries = [msgspec.json.decode(line, type=Entry) for line in lines]
    rows = [tuple(getattr(entry, name) for name in ACCESS_LOG.schema) for entry in entries]
    return pl.DataFrame(rows, schema=ACCESS_LOG.schema, orient="row"), result


def chain_intact(result: Verification) -> CheckOutcome:
    """Every entry of the access log is the one that was written, in its place, and none is missing at the end."""
    metrics = {"entries": float(result.count), "torn_bytes": float(result.torn)}
    if result.first_bad is not None:
        metrics["first_bad"] = float(result.first_bad)
    return CheckOutcome("chain_intact", result.verified, ERROR, metrics)
