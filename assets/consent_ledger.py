"""The consent ledger: who has consented to what, and what becomes of the data of those who do not any more."""

from datetime import UTC, datetime

import dagster as dg
import polars as pl

from assets.containment import containing
from assets.partitions import DATADAO, datadaos
from assets.policies import EAGER, LANCE_WRITE, PRIVACY, RETRY
from assets.readable_models import tell_automation
from assets.reporting import check_result, domain_specs, table_metadata, table_result
from resources.store import Store
from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.landing import GRANTS, LINKS, STATEMENT, BadFile, MissingExports, landing_folder
from user_embeddings_dagster.privacy.consent import withdrawal
from user_embeddings_dagster.privacy.consent.grants import SERVE, read_stated
from user_embeddings_dagster.privacy.consent.ledger import VERSION, authors_of, build_ledger, of_nobody, subjects_of
from user_embeddings_dagster.privacy.consent.live import Consent, last_change, live, live_hash, now, states
from user_embeddings_dagster.privacy.consent.report import (
    about_models,
    as_metadata,
    grants_of_somebody,
    grants_readable,
    models_consented,
    nobody_as_metadata,
    nobody_as_text,
    places,
    somebody_consented,
)
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import CONSENT_LEDGER, INSIGHT_TASKS, REJECTED_GRANTS
from user_embeddings_dagster.storage.lake import fingerprint

ASSET = CONSENT_LEDGER.name
CHECKS = (somebody_consented, grants_readable, grants_of_somebody, models_consented)


@dg.asset(
    partitions_def=datadaos,
    deps=["raw_exports", "messages"],
    group_name="privacy",
    owners=PRIVACY,
    kinds={"polars", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(CONSENT_LEDGER),
    check_specs=domain_specs(ASSET, *CHECKS, partitions=datadaos),
    automation_condition=EAGER,
    retry_policy=RETRY,
    pool=LANCE_WRITE,
)
def consent_ledger(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult:
    """One row per contributor, purpose (train, evaluate, serve, compare) and grant, with the time in which it holds.

    From `consent.csv` (grants of single people) and `datadao.json` (a statement that covers everybody without one) in
    the landing folder; with neither, nobody has consented, and nothing of the DataDAO goes further than messages.
    Whatever the stores hold of people whose consent has ended is removed, and models trained on them are marked. Its
    data version changes whenever what holds does, also by the clock. Without the landing folder, or where a file about
    consent there is none, it fails, and only what has ended by the clock is removed.
    """
    lake, datadao, moment = store.lake, context.partition_key, now()
    try:
        folder = landing_folder(store.layout.landing, datadao)
        stated = read_stated(folder, store.key, contributor_links(folder / LINKS))
    except (MissingExports, BadFile):  # who withdrew is not known, but the clock goes on
        if lake.current(ASSET, datadao):
            withdraw(store, datadao, {*lake.read(ASSET, datadao)["user_id"]}, moment)
            tell_automation(context.instance, store)
        raise
    messages, erased = lake.scan("messages", datadao), Tombstones.load(store.layout.erased, store.key)
    subjects = subjects_of(messages)
    result = build_ledger(datadao, stated, subjects, erased)
    nobody = of_nobody(datadao, stated, authors_of(messages), erased, moment)
    rejected = pl.concat([result.rejected, nobody])
    granted = live(result.ledger, moment)
    holds = live_hash(granted)
    wanted = fingerprint(VERSION, result.ledger.write_csv(), rejected.write_csv(), holds)
    commit = lake.up_to_date(ASSET, datadao, wanted)
    if not (reused := commit is not None):
        lake.commit(REJECTED_GRANTS, rejected, datadao, wanted)
        stats = {"holds": holds, "rejected": result.rejected.height}
        commit = lake.commit(CONSENT_LEDGER, result.ledger, datadao, wanted, stats)
    removed, marked, unused = withdraw(store, datadao, {*result.ledger["user_id"], *subjects}, moment)
    tell_automation(context.instance, store)
    consenting = subjects.filter(subjects.is_in(granted["user_id"].unique().implode())).len()
    say(context, datadao, subjects.len(), consenting, result.rejected, nobody, marked, unused)
    counted = as_metadata(states(result.ledger, subjects, moment)) | {"grants_of_nobody": nobody.height}
    outcomes = [
        somebody_consented(subjects.len(), consenting),
        grants_readable(result.rejected),
        grants_of_somebody(nobody),
    ]
    models = check_result(models_consented(len(marked), len(unused)), ASSET)
    reported = table_result(
        CONSENT_LEDGER,
        commit,
        reused=reused,
        metadata={
            "subjects": subjects.len(),
            "consenting": consenting,
            **counted,
            **nobody_as_metadata(nobody),
            **removed,
            "models_marked": marked,
            "models_marked_unused": unused,
        },
        checks=[
            *(check_result(outcome, ASSET) for outcome in outcomes),
            models._replace(description=about_models(marked, unused)),
        ],
    )
    return reported._replace(data_version=dg.DataVersion(wanted))


def withdraw(
    store: Store, datadao: str, people: set[str], moment: datetime
) -> tuple[dict[str, int], list[str], list[str]]:
    """Remove what the stores hold of people whose consent has ended; what was removed, and the versions of models
    marked: promoted ones, and others.

    `people`: of the ledger, and every SUBJECT, because a row that was deleted or cannot be read is in no ledger.
    """
    lake = store.lake
    consent = Consent.of_all(lake, moment)
    removed = withdrawal.withdraw_rows(lake, datadao, consent)
    removed[INSIGHT_TASKS.name] += withdrawal.withdraw_tasks(lake, datadao, consent, store.key)
    removed += withdrawal.withdraw_all_vectors(store.lance, datadao, consent, store.key)
    if (store.layout.user_memories / f"{datadao}.sqlite").exists():
        with store.user_memories(datadao) as memories:
            removed["user_memories"] += withdrawal.withdraw_memories(memories, consent.users(datadao, SERVE))
    gone = sorted(people - {*consent.granted["user_id"]})
    if gone:
        with store.language_model_cache() as cache:
            removed["cached_answers"] += withdrawal.forget_answers(cache, gone)
    everything = pl.concat([lake.read(ASSET, name) for name in lake.partitions(ASSET)])
    marked, unused = withdrawal.mark_models(store.models, everything, consent, store.key)
    return {f"removed_{name}": n for name, n in sorted(removed.items()) if n}, marked, unused


def say(
    context: dg.AssetExecutionContext, datadao: str, subjects: int, consenting: int, rejected: pl.DataFrame,
    nobody: pl.DataFrame, marked: list[str], unused: list[str],
) -> None:  # fmt: skip
    """What an operator must not miss, in the log."""
    if subjects and not consenting:
        context.log.warning(
            f"{datadao}: nobody has consented ({GRANTS} and {STATEMENT} grant nothing that holds now): "
            f"nothing of {subjects} contributors goes further than messages"
        )
    for file, line, reason in rejected.select("file", "line", "reason").head(20).iter_rows():
        where = f"line {line}" if line else places([line])
        context.log.warning(f"{datadao}: {file}, {where}: {reason}; it consents to nothing")
    for lines_of_nobody in nobody_as_text(nobody):
        context.log.warning(f"{datadao}: {lines_of_nobody}")
    for name in marked:
        context.log.warning(f"models/{name}: consent revoked by people it was trained on")
    for name in unused:
        context.log.info(f"models/{name}: consent revoked by people it was trained on; nothing reads it")


@dg.sensor(
    name="consent",
    asset_selection=dg.AssetSelection.assets(ASSET),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the ledger of each DataDAO in which a grant has begun or ended by the clock.",
)
@containing
def consent_sensor(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    """A run per DataDAO whose live grants are not those of its ledger's last materialisation; automation goes on.

    A ledger that an erasure took rows from does not say what held: it is asked for too. A run that failed is asked for
    again in the next hour.
    """
    lake, moment = store.lake, now()
    requests, ledgers = [], lake.partitions(ASSET)
    registered = set(context.instance.get_dynamic_partitions(DATADAO))
    for datadao in ledgers:
        if datadao not in registered:  # Dagster would refuse the requests for all
            context.log.warning(f"{datadao}: no partition any more, but it has a consent ledger; not asked for")
            continue
        commit, ledger = lake.current(ASSET, datadao), lake.read(ASSET, datadao)
        if commit is None or commit.stats.get("holds") == live_hash(live(ledger, moment)):
            continue
        changed = last_change(ledger, moment)
        key = f"{datadao} {commit.file} {changed} {moment.astimezone(UTC):%Y-%m-%dT%H}"
        requests.append(dg.RunRequest(run_key=key, partition_key=datadao))
    if not requests:
        return dg.SkipReason("no grant has begun or ended since the ledgers were materialised")
    return dg.SensorResult(run_requests=requests)
