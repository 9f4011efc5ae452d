"""The log of accesses and changes, and whether it is what was written."""

import dagster as dg

from assets.policies import PRIVACY, RETRY
from assets.reporting import check_result, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.privacy.access.report import as_table, chain_intact
from user_embeddings_dagster.schema import ACCESS_LOG


@dg.asset(
    group_name="privacy",
    owners=PRIVACY,
    kinds={"parquet"},
    code_version="1",
    metadata=table_metadata(ACCESS_LOG),
    check_specs=domain_specs("access_log", chain_intact),
    retry_policy=RETRY,
)
def access_log(store: Store) -> dg.MaterializeResult:
    """One row per entry of the log of accesses and changes: what, when, of whom (pseudonym), with what outcome.

    `user-embeddings access` and erasures write the log; this verifies its chain and signed head, and tables it up to
    the first entry that is not what was written.
    """
    before = store.lake.current(ACCESS_LOG.name)
    frame, verification = as_table(store.layout)
    commit = store.lake.commit(ACCESS_LOG, frame)
    return table_result(
        ACCESS_LOG,
        commit,
        reused=commit == before,
        metadata={
            "verified": verification.verified,
            "head": verification.head,
            "refused": frame.filter(outcome="refused").height,
        },
        checks=[check_result(chain_intact(verification), ACCESS_LOG.name)],
    )
