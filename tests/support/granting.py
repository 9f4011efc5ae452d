"""Consent for tests that are about something else: a ledger in which everybody has granted everything."""

from collections.abc import Iterable

import polars as pl

from user_embeddings_dagster.privacy.consent.grants import PURPOSES
from user_embeddings_dagster.schema import CONSENT_LEDGER, REJECTED_GRANTS
from user_embeddings_dagster.storage.lake import Lake


def grant(lake: Lake, datadao: str, users: Iterable[str], purposes: Iterable[str] = PURPOSES) -> None:
    """Commit a ledger of these users' grants, which begin with their data and do not end."""
    rows = pl.DataFrame({"user_id": sorted(set(users))}, {"user_id": pl.String})
    rows = rows.join(pl.DataFrame({"purpose": list(purposes)}), how="cross")
    never = {name: pl.lit(None, CONSENT_LEDGER.schema[name]) for name in ("granted_at", "expires_at", "revoked_at")}
    rows = rows.with_columns(datadao=pl.lit(datadao), grant_id=pl.lit("statement"), basis=pl.lit("test"), **never)
    lake.commit(CONSENT_LEDGER, rows, datadao, stats={"holds": "", "rejected": 0})
    lake.commit(REJECTED_GRANTS, REJECTED_GRANTS.empty(), datadao)
