"""Erasures: who was erased from what, and what the scans before and after found."""

import dagster as dg

from assets.exclusion import removing
from assets.live_runs import refuse_beside_runs
from assets.policies import PRIVACY, RETRY
from assets.reporting import check_result, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.privacy.erasure.erase import erase, pending, receipts
from user_embeddings_dagster.privacy.erasure.report import as_table, nothing_left
from user_embeddings_dagster.schema import ERASURES


@dg.asset(
    group_name="privacy",
    owners=PRIVACY,
    kinds={"parquet"},
    code_version="1",
    metadata=table_metadata(ERASURES),
    check_specs=domain_specs("erasures", nothing_left),
    retry_policy=RETRY,
)
@removing
def erasures(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult:
    """One row per erased contributor and store: what was removed, canaries found before and after, checkpoints named.

    `user-embeddings erase` erases; this finishes what was killed half way and tables the receipts.
    """
    for users in pending(store.layout):
        refuse_beside_runs(context.instance, context.run.run_id)
        erase(store.layout, users, context.log.info, executing="wait")
    before = store.lake.current(ERASURES.name)
    frame = as_table(receipts(store.layout))
    commit = store.lake.commit(ERASURES, frame)
    return table_result(
        ERASURES, commit, reused=commit == before, checks=[check_result(nothing_left(frame), ERASURES.name)]
    )
