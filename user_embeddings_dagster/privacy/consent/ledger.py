"""The consent ledger of a DataDAO: every grant with the time in which it holds, one row per purpose (C14)."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from user_embeddings_dagster.privacy.consent.grants import GRANTS, PURPOSES, Grant, Rejected, Stated, Statement
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import CONSENT_LEDGER, REJECTED_GRANTS

VERSION = "1"
OWN, STATED = "own grant", "statement"
NOBODY, NOBODY_ENDED = "of_nobody", "of_nobody_ended"
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


def authors_of(messages: Frame) -> pl.Series:
    """user_ids of everybody who wrote anything in MESSAGES, sorted."""
    return messages.lazy().select(pl.col("author_id").drop_nulls().unique()).collect()["author_id"].sort()


def build_ledger(datadao: str, stated: Stated, subjects: pl.Series, erased: Tombstones) -> LedgerResult:
    """Own grants, and the statement for every SUBJECT who has no row of their own; without the `erased`."""
    grants = _own([grant for grant in stated.grants if not erased or grant.user_id not in erased])
    covered = subjects.filter(~subjects.is_in(list(stated.own)))
    if stated.statement is None or not stated.whole:
        covered = covered.clear()
    frame = pl.concat([grants, _stated(stated.statement, covered)]).with_columns(datadao=pl.lit(datadao))
    return LedgerResult(CONSENT_LEDGER.conform(frame), _rejected(datadao, stated.rejected))


def of_nobody(
    datadao: str, stated: Stated, authors: pl.Series, erased: Tombstones, as_of: datetime
) -> pl.DataFrame:  # fmt: skip
    """REJECTED_GRANTS rows for the lines of consent.csv about nobody of the `authors`; without the `erased`.

    They grant nothing to anybody here: the account is mistyped, and who is meant keeps what the statement grants, or
    the export has not arrived. Those of which the grant has ended have a reason of their own: a revocation may be lost.
    """
    here = {*authors.filter(authors.is_in([row.user_id for row in stated.rows]))}  # an archive has millions
    lost = [row for row in stated.rows if row.user_id not in here and not (erased and row.user_id in erased)]
    ended = [row.ends_at is not None and row.ends_at <= as_of for row in lost]
    found = zip(lost, ended, strict=True)
    return _rejected(datadao, [Rejected(GRANTS, row.line, NOBODY_ENDED if over else NOBODY) for row, over in found])


def _rejected(datadao: str, found: list[Rejected]) -> pl.DataFrame:
    schema = {"file": pl.String, "line": pl.Int64, "reason": pl.String}
    rows = pl.DataFrame(sorted({(each.file, each.line, each.reason) for each in found}), schema, orient="row")
    return REJECTED_GRANTS.conform(rows.with_columns(datadao=pl.lit(datadao)))


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
