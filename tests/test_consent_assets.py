"""Consent through the assets: revoking, expiring, granting change what they concern and nothing else (C14, F6)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from served_assets import served

from assets import consent_ledger as module
from assets.chunk_summaries import chunk_summaries
from assets.consent_ledger import consent_ledger, consent_sensor
from assets.containment import reported
from assets.data_funnel import tables
from assets.embeddings import chunk_embeddings, summary_embeddings
from assets.hard_negatives import hard_negatives
from assets.koais import koais
from assets.masked_chunks import masked_chunks
from assets.partitions import DATADAO
from assets.relabelled_pairs import relabelled_pairs
from assets.reporting import check_result
from assets.training_snapshot import training_snapshot
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation.funnel import data_funnel
from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.mining.pairs import training_pairs
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.privacy.consent.report import grants_of_somebody
from user_embeddings_dagster.privacy.containment import ContainedError
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.schema import INSIGHT_TASKS, MASKED_CHUNKS, MESSAGES, PARTICIPANTS, TABLES
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.manifest import finalise

ASSETS = [consent_ledger, masked_chunks, chunk_summaries, koais, chunk_embeddings]
PREPARED = [consent_ledger, masked_chunks, chunk_summaries, chunk_embeddings, summary_embeddings]
TRAINING = [training_snapshot, hard_negatives, relabelled_pairs]
OF_DATADAO = ("masked_chunks", "chunk_summaries", "unsummarised_chunks", "koai_extractions", "koais")
NAMES = ("ann", "bob", "cat", "dan")
HEADER = "grant_id,account,purposes,granted_at,expires_at,revoked_at\n"
AT = datetime(2024, 6, 1, tzinfo=UTC)


class Stub:
    """An encoder without a model: a vector of its own for each text."""

    version, dimension = "stub", 8

    def encode(self, texts: list[str], progress: Any = None) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).normal(size=self.dimension) for text in texts]
        matrix = np.asarray(rows, np.float32).reshape(-1, self.dimension)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class StubEncoder(TextEncoderResource):
    """Loads the stub."""

    def load(self, adapter: Path | None = None) -> Any:
        return Stub()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A chat of four people, all SUBJECTs, as `messages` has it."""
    return chat(tmp_path)


@pytest.fixture
def training(tmp_path: Path) -> Store:
    """The same, with a key by which all four are training users: no chunk holds a test user's words."""
    keys = (number.to_bytes(32, "big") for number in range(1000))
    key = next(k for k in keys if {split_of(user_id(k, "reddit", name), k) for name in NAMES} == {"train"})
    path = Store(data=str(tmp_path)).layout.key
    path.parent.mkdir(parents=True)
    path.write_text(key.hex())
    path.chmod(0o600)
    return chat(tmp_path)


def chat(folder: Path) -> Store:
    store = Store(data=str(folder))
    (store.layout.landing / "dao").mkdir(parents=True)
    people, rows = {name: user_id(store.key, "reddit", name) for name in NAMES}, []
    for number in range(96):
        name = NAMES[number % 4]
        rows.append({
            "message_id": f"{number:032x}", "datadao": "dao", "platform": "reddit", "thread_id": "t", "parent_id": None,
            "thread_shape": "linear", "author_id": people[name], "role": "user", "is_subject": True,
            "created_at": AT + timedelta(minutes=number + 60 * (number // 8)), "edited_at": None,
            "text": f"I prefer plum cake number {number} to anything that {name} ever baked.", "media_kind": None,
            "community": None, "raw_sha256": "r", "raw_member": "", "raw_location": number,
        })  # fmt: skip
    named = [("dao", "t", people[name], name, "handle") for name in NAMES]
    store.lake.commit(MESSAGES, pl.DataFrame(rows, MESSAGES.schema), "dao", "build")
    store.lake.commit(PARTICIPANTS, pl.DataFrame(named, PARTICIPANTS.schema, orient="row"), "dao", "build")
    return store


def say(store: Store, **grants: str) -> None:
    """Write consent.csv: purposes by name, and after a comma expiry and revocation."""
    lines = [
        f"{name},reddit:{name},{what.split(',')[0]},2020-01-01,{(what + ',,').split(',', 1)[1].rstrip(',')}"
        for name, what in grants.items()
    ]
    rows = [line + "," * (5 - line.count(",")) for line in lines]
    (store.layout.landing / "dao" / "consent.csv").write_text(HEADER + "\n".join(rows) + "\n")


def materialise(store: Store, assets: list[Any] | None = None) -> dict[str, dict[str, Any]]:
    """Metadata by asset."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        resources = {
            "store": store, "language_model": LanguageModelResource(), "training_jobs": TrainingJobs(),
            "text_encoder": StubEncoder(),
        }  # fmt: skip
        partition = None if training_snapshot in (assets or []) else "dao"
        result = dg.materialize(assets or ASSETS, partition_key=partition, resources=resources, instance=instance)
    found = {
        event.asset_key.to_user_string(): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }
    found["checks"] = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    return found


def people(store: Store) -> dict[str, set[str]]:
    """Whose rows each table holds, by name."""
    by_id = {user_id(store.key, "reddit", name): name for name in NAMES}
    found = {
        table: {by_id[user] for user in store.lake.read(table, "dao")["user_id"]}
        for table in OF_DATADAO
        if "user_id" in TABLES[table].schema
    }
    if store.lance.exists("dao", "chunk_embeddings"):
        users = store.lance.read("dao", "chunk_embeddings", ["user_id"])["user_id"]
        found["chunk_embeddings"] = {by_id[user] for user in users}
    assert not found.pop("unsummarised_chunks"), "everybody says something"
    return found


def state(lake: Lake, without: str | None = None) -> dict[str, pl.DataFrame]:
    return {t: lake.read(t, "dao").filter(pl.col("user_id") != (without or "")) for t in OF_DATADAO if t != "x"}


EVERYTHING = "train evaluate serve compare"


def test_revoking_takes_one_person_out_of_everything_and_changes_nobody_else(store):
    """C14, F6: then back, by granting again, to exactly what was."""
    say(store, ann=EVERYTHING, bob=EVERYTHING, cat="serve")
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "bob", "cat"})}
    bob = user_id(store.key, "reddit", "bob")
    before, whole = state(store.lake, bob), state(store.lake)

    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},,2021-01-01", cat="serve")
    first = materialise(store, [consent_ledger])
    assert first["consent_ledger"]["train_revoked"] == 1
    assert first["consent_ledger"]["removed_chunk_embeddings"] > 0
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "cat"})}, "by the ledger alone"
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "cat"})}
    assert all(table.equals(before[name]) for name, table in state(store.lake).items())
    assert "bob" not in "".join(store.lake.read("masked_chunks", "dao")["text"])

    say(store, ann=EVERYTHING, bob=EVERYTHING, cat="serve")
    materialise(store)
    assert all(table.equals(whole[name]) for name, table in state(store.lake).items())


STATEMENT = '{"consent": {"basis": "public archive", "purposes": ["train", "serve"]}}'


@pytest.mark.parametrize("how", ["revoked", "row deleted", "unreadable date", "statement withdrawn"])
def test_answers_about_a_person_are_forgotten_however_consent_ends(store, how):
    """C14: also where the ledger has no row of theirs any more; nobody else's."""
    stated = how == "statement withdrawn"
    folder, gone = store.layout.landing / "dao", set(NAMES) if stated else {"bob", "cat", "dan"}
    if stated:
        (folder / "datadao.json").write_text(STATEMENT)
    else:
        say(store, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(store, [consent_ledger])
    asked = {}
    with store.language_model_cache() as cache:
        for name in NAMES:
            asked[name] = Request((Message("user", name),), {"type": "object"}, user_id(store.key, "reddit", name), "p")
            cache.put("m", asked[name], Completion(asked[name].id, {}, Usage(1, 1, 1, 1, 0.0), 1, 0.1))
    if stated:
        (folder / "datadao.json").write_text("{}")
    else:
        ends = {"revoked": f"{EVERYTHING},,2021-01-01", "unreadable date": f"{EVERYTHING},,01.02.2021"}
        say(store, ann=EVERYTHING, **dict.fromkeys(gone, ends[how]) if how in ends else {})
    assert materialise(store, [consent_ledger])["consent_ledger"]["removed_cached_answers"] == len(gone)
    with store.language_model_cache() as cache:
        assert {name for name in NAMES if cache.get("m", [asked[name]])[0] is None} == gone


def test_what_a_change_does_not_concern_is_not_computed_again(store):
    """Ann withdraws one purpose of several: no chunk, summary, KOAI or vector is made anew; control: her last one."""
    say(store, ann="serve compare", bob=EVERYTHING)
    materialise(store)
    say(store, ann="serve", bob=EVERYTHING)
    again = materialise(store)
    assert not again["consent_ledger"]["reused"]
    assert all(again[name]["reused"] for name in ("masked_chunks", "chunk_summaries", "koais"))
    assert again["chunk_embeddings"]["embedded"] == again["chunk_embeddings"]["withdrawn"] == 0
    assert materialise(store)["consent_ledger"]["reused"]
    say(store, bob=EVERYTHING)
    gone = materialise(store)
    assert not any(gone[name]["reused"] for name in ("masked_chunks", "chunk_summaries", "koais"))
    assert gone["chunk_embeddings"]["embedded"] == 0


def test_without_any_word_nothing_goes_further_and_it_is_said(store):
    """A failed check, a warning in the log, and a stage of the funnel without messages."""
    found = materialise(store)
    assert not found["checks"]["somebody_consented"]
    assert found["masked_chunks"]["subjects_without_consent"] == 4
    assert not any(people(store).values())
    rows = {row["stage"]: row["n"] for row in data_funnel("dao", _funnel(store)).iter_rows(named=True)}
    assert (rows["subject_messages"], rows["consented_messages"], rows["chunks"]) == (96, 0, 0)
    say(store, ann="serve")
    assert materialise(store)["checks"]["somebody_consented"]


def _funnel(store: Store) -> Any:
    from user_embeddings_dagster.schema import (
        DROPPED_MESSAGES,
        HARD_NEGATIVES,
        RAW_FILES,
        REJECTED_RECORDS,
        TRAINING_SNAPSHOT,
    )

    for table in (RAW_FILES, REJECTED_RECORDS, DROPPED_MESSAGES):
        store.lake.commit(table, table.empty(), "dao")
    for table in (TRAINING_SNAPSHOT, HARD_NEGATIVES):
        store.lake.commit(table, table.empty())
    return tables(store.lake, store.lance, "dao")


def test_an_asset_that_runs_before_the_ledger_is_brought_up_to_date_is_gated_too(store, monkeypatch):
    """A grant ends by the clock while chunks of it lie there: nothing more is made of them."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    monkeypatch.setattr("user_embeddings_dagster.privacy.consent.live.now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    monkeypatch.setattr("user_embeddings_dagster.privacy.consent.live.now", lambda: datetime(2031, 1, 1, tzinfo=UTC))
    late = materialise(store, [chunk_summaries, koais, chunk_embeddings])
    held = people(store)
    assert held.pop("masked_chunks") == {"ann", "bob"}, "the control: they are there"
    assert set(map(frozenset, held.values())) == {frozenset({"ann"})}
    assert late["chunk_embeddings"]["withdrawn"] > 0
    again = materialise(store, [masked_chunks, chunk_summaries, koais])
    assert not again["masked_chunks"]["reused"]
    assert again["chunk_summaries"]["reused"] and again["koais"]["reused"], "they were right already"


def test_the_split_decides_which_purpose_the_snapshot_needs(store):
    """C14: train for the training and validation splits, evaluate for the test split; counted."""
    needs = {
        n: "evaluate" if split_of(user_id(store.key, "reddit", n), store.key) == "test" else "train" for n in NAMES
    }
    other = {"train": "evaluate serve compare", "evaluate": "train serve compare"}

    def users() -> set[str]:
        return set(store.lake.read("training_snapshot")["user_id"])

    for right in (True, False):
        say(store, **{name: purpose if right else other[purpose] for name, purpose in needs.items()})
        materialise(store, PREPARED)
        counts = materialise(store, [training_snapshot])["training_snapshot"]
        left_out = counts["users_without_consent_to_train"] + counts["users_without_consent_to_evaluate"]
        assert left_out == (0 if right else len(NAMES))
        assert bool(users()) == right


def test_a_chunk_without_a_summary_is_left_out_of_the_training_and_stops_nothing(training):
    """The model gave no answer about it, or its summary was purged before or after the snapshot was made."""
    say(training, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(training, PREPARED)
    whole = materialise(training, TRAINING)["training_snapshot"]
    assert (whole["without_summary"], whole["dagster/row_count"]) == (0, whole["chunks"])
    snapshot = training.lake.read("training_snapshot")
    first = snapshot.filter(split="train", position=0)["chunk_id"][0]
    tasks = snapshot.filter(datadao="dao").select("datadao", "user_id", "split", "chunk_id", n_history="position")
    empty = {"option_chunk_ids": pl.lit([], pl.List(pl.String)), "options": pl.lit([], pl.List(pl.String))}
    texts = {name: pl.lit("") for name in ("kind", "question", "reference", "status", "validator")}
    numbers = {name: pl.lit(-1) for name in ("answer", "context_answer", "search_answer")}
    rows = tasks.with_columns(task_id="chunk_id", **empty, **texts, **numbers)
    training.lake.commit(INSIGHT_TASKS, INSIGHT_TASKS.conform(rows), "dao")
    training.lake.purge(TABLES["chunk_summaries"], "dao", pl.col("chunk_id") == first)
    training.lance.delete("dao", "summary_embeddings", [first])

    gated = consented_snapshot(training.lake)
    assert gated.height == snapshot.height - 1 and gated["position"].min() == 0, "after the snapshot was made"
    asked = consented_tasks(training.lake, gated)
    placed = asked.join(gated, on="chunk_id")
    assert placed.height == asked.height > 0
    assert (placed["n_history"] == placed["position"]).all(), "each would be asked one chunk too late"
    found = materialise(training, TRAINING)
    assert found["training_snapshot"]["without_summary"] == 1
    assert training.lake.read("training_snapshot").equals(gated)
    assert not found["hard_negatives"]["reused"] and first not in training.lake.read("hard_negatives")["chunk_id"]
    training.lance.delete("dao", "summary_embeddings", [gated["chunk_id"][0]])
    with pytest.raises(ValueError, match="1 chunks of the snapshot are not in summary_embeddings"):
        training_pairs(gated, training.lake, training.lance)


def test_a_datadao_that_is_masked_alone_is_left_out_of_the_training_and_named(training):
    """Its preparation failed after masking: the others are trained on all the same."""
    say(training, **dict.fromkeys(NAMES, EVERYTHING))
    materialise(training, PREPARED)
    alone = materialise(training, TRAINING)["training_snapshot"]
    lake = training.lake
    for table in (MASKED_CHUNKS, MESSAGES, TABLES["consent_ledger"]):
        rows = lake.read(table.name, "dao").with_columns(datadao=pl.lit("another"))
        lake.commit(table, rows, "another", stats={"holds": "", "rejected": 0})
    found = materialise(training, TRAINING)["training_snapshot"]
    assert found["datadaos_left_out"] == ["another: no chunk_summaries, chunk_embeddings, summary_embeddings"]
    assert (found["split_hash"], found["without_summary"]) == (alone["split_hash"], 0)
    lake.commit(TABLES["chunk_summaries"], lake.read("chunk_summaries", "dao"), "another")
    found = materialise(training, TRAINING)["training_snapshot"]
    assert found["datadaos_left_out"] == ["another: no chunk_embeddings, summary_embeddings"]
    assert found["split_hash"] == alone["split_hash"] and "datadaos_left_out" not in alone
    for table in ("chunk_embeddings", "summary_embeddings"):
        training.lance.drop("dao", table)
    with pytest.raises(dg.Failure, match="no DataDAO is summarised and embedded yet"):
        materialise(training, TRAINING)


def test_the_sensor_asks_for_the_ledger_when_a_grant_ends_by_the_clock(store, monkeypatch):
    """C14: once for each change, and only for the DataDAO concerned."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")

    def tick(year: int) -> Any:
        monkeypatch.setattr(module, "now", lambda: datetime(year, 1, 1, tzinfo=UTC))
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(DATADAO, ["dao", "other"])
            return consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))

    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store, [consent_ledger])
    assert isinstance(tick(2029), dg.SkipReason)
    (request,) = tick(2030).run_requests
    assert request.partition_key == "dao"
    materialise(store, [consent_ledger])
    assert isinstance(tick(2030), dg.SkipReason)


def test_a_disk_that_is_not_mounted_withdraws_nobody_but_what_the_clock_ended(store, monkeypatch):
    """C14: the folder's absence is not taken for everybody's withdrawal, which would mark every model."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "bob"})}
    (store.layout.landing / "dao").rename(store.layout.landing.parent / "elsewhere")
    monkeypatch.setattr(module, "now", lambda: datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(dg.Failure, match="dao: no landing folder") as failed:
        materialise(store, [served("consent_ledger")])
    assert not failed.value.allow_retries
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann"})}
    (store.layout.landing / "dao").mkdir()  # empty: how a DataDAO is taken out
    materialise(store, [served("consent_ledger")])
    assert set(map(frozenset, people(store).values())) == {frozenset()}


@pytest.mark.parametrize(
    ("name", "instead", "said"),
    [
        *((name, what, "no file") for name in ("consent.csv", "datadao.json", "contributors.csv")
          for what in ("link", "folder")),
        ("contributors.csv", "contributor,account\nann,x\nbob,x\n", "line 3: account of another contributor"),
    ],
)  # fmt: skip
def test_a_file_about_consent_that_is_none_withdraws_nobody(store, monkeypatch, name, instead, said):
    """A link to a disk that is not mounted, a folder, or what cannot be read: only what the clock ended is removed."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    path = store.layout.landing / "dao" / name
    path.unlink(missing_ok=True)
    if instead == "link":
        path.symlink_to(store.layout.root / "unmounted" / name)
    elif instead == "folder":
        path.mkdir()
    else:
        path.write_text(instead)
    for year, left in ((2029, {"ann", "bob"}), (2030, {"ann"})):
        monkeypatch.setattr(module, "now", lambda year=year: datetime(year, 1, 1, tzinfo=UTC))
        with pytest.raises(dg.Failure, match=f"dao/{name}.*{said}") as failed:
            materialise(store, [served("consent_ledger")])
        assert not failed.value.allow_retries
        assert set(map(frozenset, people(store).values())) == {frozenset(left)}


@pytest.mark.parametrize("file", ["table", "pointer"])
def test_a_damaged_table_is_named_and_not_read_as_other_rows(store, file):
    """Polars reads a table whose middle was overwritten without an error; the text of others' errors is withheld."""
    say(store, ann=EVERYTHING)
    materialise(store)
    table = store.lake.path("masked_chunks", "dao")
    damaged = table if file == "table" else table.with_name("current.json")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:40] + bytes(40) + content[80:])
    with pytest.raises(dg.Failure, match="materialise masked_chunks/dao again") as failed:
        materialise(store, [served("chunk_summaries")])
    assert str(failed.value.description).startswith(f"{damaged}: damaged") and not failed.value.allow_retries


def test_the_sensor_asks_for_a_ledger_that_an_erasure_took_rows_from(store):
    """It does not say any more what held; the others are looked at as before."""
    say(store, ann=EVERYTHING, bob=EVERYTHING)
    materialise(store, [consent_ledger])
    commit, table = store.lake.current("consent_ledger", "dao"), TABLES["consent_ledger"]
    assert commit is not None
    store.lake.commit(table, store.lake.read("consent_ledger", "dao"), "other", stats=commit.stats)
    assert store.lake.purge(table, "dao", pl.col("user_id") == user_id(store.key, "reddit", "bob"))

    def tick() -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(DATADAO, ["dao", "other"])
            return consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))

    assert [request.partition_key for request in tick().run_requests] == ["dao"]
    materialise(store, [consent_ledger])
    assert isinstance(tick(), dg.SkipReason)


def test_a_ledger_whose_partition_was_deleted_holds_up_no_other(store, capsys):
    """Dagster refuses every request of a tick if one is for a partition that it does not know."""
    say(store, ann=EVERYTHING, bob=EVERYTHING)
    materialise(store, [consent_ledger])
    ledger, table = store.lake.read("consent_ledger", "dao"), TABLES["consent_ledger"]
    for datadao in ("dao", "gone"):
        store.lake.commit(table, ledger, datadao, "changed", stats={"holds": "something else"})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        found = consent_sensor(dg.build_sensor_context(instance=instance, resources={"store": store}))
    assert isinstance(found, dg.SensorResult)
    assert [request.partition_key for request in found.run_requests or []] == ["dao"]
    assert "gone: no partition any more" in capsys.readouterr().err


def test_what_the_sensor_cannot_read_is_not_quoted(store, monkeypatch):
    def unreadable(*_: object) -> None:
        raise KeyError("Ann from number 7")

    monkeypatch.setattr(Lake, "partitions", unreadable)
    context = dg.build_sensor_context(resources={"store": store})
    with pytest.raises(ContainedError, match="KeyError") as raised:
        consent_sensor(context)
    assert "Ann" not in str(raised.value)


def test_the_ledger_names_nobody_where_it_is_shown(store):
    """Bad rows are warned about by line; neither account nor grant id is in the log, metadata or table."""
    say(store, ann=EVERYTHING, bob="sell")
    found = materialise(store, [consent_ledger])
    assert not found["checks"]["grants_readable"]
    shown = str(found) + str(store.lake.read("consent_ledger", "dao").rows())
    shown += str(store.lake.read("rejected_grants", "dao").rows())
    assert "ann" not in shown and "bob" not in shown
    assert store.lake.read("rejected_grants", "dao").select("file", "line", "reason").rows() == [
        ("consent.csv", 3, "unknown_purpose")
    ]


def test_rows_of_nobody_here_are_told_by_line_everywhere(store, capsys):
    """A revocation of a mistyped account revokes nothing: that is a warning, and goes once the account is mended."""
    from user_embeddings_dagster.cli import main

    (store.layout.landing / "dao" / "datadao.json").write_text(STATEMENT)
    say(store, ann=EVERYTHING, bbo=f"{EVERYTHING},,2021-01-01", cta=EVERYTHING)
    found = materialise(store, [consent_ledger])
    assert found["consent_ledger"]["train_granted"] == 4 and found["consent_ledger"]["grants_of_nobody"] == 2
    assert found["consent_ledger"]["lines_of_nobody_ended"] == "3"
    assert found["consent_ledger"]["lines_of_nobody"] == "4"
    shown = check_result(grants_of_somebody(store.lake.read("rejected_grants", "dao")), "consent_ledger")
    assert reported(shown).metadata["lines_of_nobody_ended"].value == "3", "as the check shows it"
    assert found["checks"]["grants_readable"] and not found["checks"]["grants_of_somebody"]
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "consent.csv, lines 3: revoked or expired, but about nobody" in text
        assert "consent.csv, lines 4: about nobody" in text
    assert not any(name in str(found) + told.out + told.err for name in ("bbo", "cta"))

    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},,2021-01-01", cat=EVERYTHING)
    found = materialise(store, [consent_ledger])
    assert found["consent_ledger"]["train_granted"] == 3 and found["consent_ledger"]["grants_of_nobody"] == 0
    assert found["checks"]["grants_of_somebody"] and "lines_of_nobody" not in found["consent_ledger"]
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    assert "nobody" not in capsys.readouterr().out


def test_whose_export_arrives_later_is_nobody_until_then(store):
    """The ledger is the same; what it warns of is asked again with the messages."""
    say(store, ann=EVERYTHING, eve=EVERYTHING)
    assert not materialise(store, [consent_ledger])["checks"]["grants_of_somebody"]
    messages = store.lake.read("messages", "dao")
    eve = messages.tail(1).with_columns(
        message_id=pl.lit("e" * 32), author_id=pl.lit(user_id(store.key, "reddit", "eve"))
    )
    store.lake.commit(MESSAGES, pl.concat([messages, eve]), "dao", "again")
    assert materialise(store, [consent_ledger])["checks"]["grants_of_somebody"]
    assert store.lake.read("rejected_grants", "dao").is_empty()


def test_a_consent_file_with_semicolons_is_told_so(store, capsys):
    from user_embeddings_dagster.cli import main

    say(store, ann=EVERYTHING)
    path = store.layout.landing / "dao" / "consent.csv"
    path.write_text(path.read_text().replace(",", ";"))
    materialise(store, [consent_ledger])
    assert main(["--data", str(store.layout.root), "consent", "dao"]) == 0
    told = capsys.readouterr()
    assert "consent.csv, not_separated_by_commas, the whole file" in told.out
    assert "consent.csv, the whole file: not_separated_by_commas" in told.err


def test_the_command_line_prints_counts_alone(store, capsys):
    """C14: by purpose and state; before the first ledger it says what is missing."""
    from user_embeddings_dagster.cli import main

    command = ["--data", str(store.layout.root), "consent", "dao"]
    assert main(command) == 2
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2021-01-01", cat="serve,,2021-01-01", dan="sell")
    materialise(store, [consent_ledger])
    assert main(command) == 0
    told = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines()}
    assert rows["serve"] == ["1", "1", "1", "1"] and rows["train"] == ["1", "0", "1", "2"]
    assert "unknown_purpose, lines 5" in told
    assert not any(name in told for name in NAMES)


def test_the_ledger_tells_automation_when_the_item_encoder_may_not_be_read(store):
    """Also one that fails for want of its files, with what the clock ended."""
    folder = store.models.folder("item_encoder", "a")
    folder.output.mkdir(parents=True)
    (folder.output / "job.json").write_text('{"metadata": {}, "data_version": "a"}')
    finalise(folder.output)
    ann = pl.DataFrame({"datadao": ["dao"], "user_id": [user_id(store.key, "reddit", "ann")]})
    folder.note_subjects(subjects_of(store.key, ann))
    store.models.promote("item_encoder", "a")
    check = dg.AssetCheckKey(dg.AssetKey("item_encoder"), "may_be_read")

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATADAO, ["dao"])
        instance.report_runless_asset_event(dg.AssetMaterialization("item_encoder"))

        def told() -> str:
            given = {"instance": instance, "resources": {"store": store}, "partition_key": "dao"}
            dg.materialize([served("consent_ledger")], raise_on_error=False, **given)
            return instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check].status.value

        say(store, ann="train", bob="train")
        assert told() == "SUCCEEDED"
        say(store, ann="train,,2021-01-01", bob="train")
        assert told() == "FAILED"
        say(store, ann="train", bob="train")
        assert told() == "SUCCEEDED"
        folder.taint(["somebody"])
        (store.layout.landing / "dao" / "consent.csv").unlink()
        (store.layout.landing / "dao" / "consent.csv").mkdir()
        assert told() == "FAILED"
