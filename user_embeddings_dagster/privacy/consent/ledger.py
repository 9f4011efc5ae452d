"""The consent ledger of a DataDAO: every grant with the time in which it holds, one row per purpose (C14)."""

from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.privacy.consent.grants import PURPOSES, Grant, Stated, Statement
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import CONSENT_LEDGER, REJECTED_GRANTS

VERSION = "1"
OWN, STATED = "own grant", "statement"
Frame = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True)
class LedgerResult:
    """CONSENT_LEDGER and REJECTED_GRANTS rows."""

    ledger: pl.DataFrame
    rejected: pl.DataFrame


def subjects_of(messages: Frame) -> pl.Series:
    """user_ids of everybody who is a SUBJECT in MESSAGES, sorted."""
    rows = messages.lazy().filter(pl.col("is_subject") & pl.col("author_id").is_not_null())
    return rows.select(user_id=pl.col("author_id").unique()).collect()["user_id"].sort()


def build_ledger(datadao: str, stated: Stated, subjects: pl.Series, erased: Tombstones) -> LedgerResult:
    """Own grants, and the statement for every SUBJECT who has no row of their own; without the `erased`."""
    grants = _own([grant for grant in stated.grants if not erased or grant.user_id not in erased])
    covered = subjects.filter(~subjects.is_in(list(stated.own)))
    if stated.statement is None or not stated.whole:
        covered = covered.clear()
    frame = pl.concat([grants, _stated(stated.statement, covered)]).with_columns(datadao=pl.lit(datadao))
    rejected = {(each.file, each.line, each.reason) for each in stated.rejected}
    schema = {"file": pl.String, "line": pl.Int64, "reason": pl.String}
    rows = pl.DataFrame(sorted(rejected), schema, orient="row").with_columns(datadao=pl.lit(datadao))
    return LedgerResult(CONSENT_LEDGER.conform(frame), REJECTED_GRANTS.conform(rows))


_SCHEMA = pl.Schema({name: dtype for name, dtype in CONSENT_LEDGER.schema.items() if name != "datadao"})


def _own(grants: list[Grant]) -> pl.DataFrame:
    rows = [
        (grant.user_id, purpose, grant.grant_id, OWN, grant.granted_at, grant.expires_at, grant.revoked_at)
        for grant in grants
        for purpose in grant.purposes
    ]
    return pl.DataFrame(rows, _SCHEMA, orient="row")


def _stated(statement: Statement | None, covered: pl.Series) -> pl.DataFrame:
    if statement is None:
        return pl.DataFrame(schema=_SCHEMA)
    purposes = pl.DataFrame({"purpose": [purpose for purpose in PURPOSES if purpose in statement.purposes]})
    rows = covered.alias("user_id").to_frame().join(purposes, how="cross")
    never = [pl.lit(None, _SCHEMA[name]).alias(name) for name in ("granted_at", "expires_at", "revoked_at")]
    return rows.with_columns(*never, grant_id=pl.lit(STATED), basis=pl.lit(statement.basis)).select(_SCHEMA.names())
