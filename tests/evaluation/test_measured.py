"""Scores are measured once: C67, that a second run does nothing; and measured anew whenever they could differ."""

import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from evaluated_store import ASSETS, AXES, store_of, train
from granting import grant

from assets import leakage, masking_scores, measured, reporting, scores
from assets.containment import metadata_value
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.privacy.consent.grants import EVALUATE, SERVE, TRAIN
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.quality.suites import SUITES
from user_embeddings_dagster.schema import MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import Models

PEOPLE = {f"u{number}": ("train", "valid", "test")[number % 3] for number in range(18)}
NAMES = {asset.key.to_user_string() for asset in ASSETS}


def instead_of_measuring(patch: pytest.MonkeyPatch) -> None:
    """Whatever the assets measure becomes a row that says that nothing was."""
    patch.setattr(scores, "refuse_stale_vectors", lambda *_: None)  # these are by no encoder
    patch.setattr(reporting, "validate", unchecked)
    nothing_measured = EvaluationInputs(TRAINING_SNAPSHOT.empty(), pl.Series(), np.empty((0, AXES)), 0).omitted
    for module, function, asset in measures():
        rows = nothing_measured(asset, "mrr", "a test")
        patch.setattr(module, function, lambda *_, rows=rows: rows)


def unchecked(suite: str, _: pl.DataFrame) -> list[CheckOutcome]:
    """What the checks of such rows say is no question here, and a third of the time."""
    return [CheckOutcome(expectation.name, True, expectation.severity, {}) for expectation in SUITES[suite]]


@pytest.fixture(scope="module")
def measured_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a store whose scores have been measured."""
    with pytest.MonkeyPatch.context() as patch:
        instead_of_measuring(patch)
        store = store_of(tmp_path_factory.mktemp("measured"), PEOPLE)
        train(store, "1024", "item")
        assert reused(store) == dict.fromkeys(NAMES, False)
    return Path(store.data)


@pytest.fixture
def store(measured_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of it."""
    instead_of_measuring(monkeypatch)
    return Store(data=str(shutil.copytree(measured_root, tmp_path / "data")))


def measures() -> list[tuple[ModuleType, str, str]]:
    """Module and name of the function that measures, and the asset, in the order of ASSETS."""
    of_scores = ("item_encoder", "sequence_encoders", "matching", "sparse_users", "probes")
    functions = [(scores, f"measure_{name}") for name in of_scores] + [(scores, "compare_datadaos")]
    functions += [(leakage, f"measure_{name}") for name in ("membership", "inversion", "cross_user")]
    return [(*found, asset.key.to_user_string()) for found, asset in zip(functions, ASSETS, strict=True)]


def reused(store: Store, **config: Any) -> dict[str, bool]:
    """By asset, whether a materialisation said that it had measured nothing; all must have succeeded."""
    resources = {"store": store, "text_encoder": TextEncoderResource()}
    run_config = {"ops": {name: {"config": config} for name in NAMES}} if config else {}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(ASSETS, instance=instance, resources=resources, run_config=run_config)
    return {
        event.asset_key.to_user_string(): metadata_value("reused", event.materialization.metadata["reused"]).value
        for event in result.get_asset_materialization_events()
    }


def test_a_second_materialisation_measures_nothing_and_tells_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.scores.read()
    for module, function, _ in measures():
        monkeypatch.setattr(module, function, lambda *_, name=function: pytest.fail(f"{name} was called"))
    assert reused(store) == dict.fromkeys(NAMES, True)
    assert store.scores.read().equals(before)


def another_vector(store: Store) -> None:
    vector = np.ones((1, AXES), dtype=np.float32)
    row = pl.DataFrame({"user_id": ["u2"], "id": ["u23"], "version": ["v"]}).with_columns(vector=pl.Series(vector))
    for table in ("item_embeddings", "chunk_embeddings"):
        store.lance.upsert("dao", table, row)


def other_words(store: Store) -> None:
    chunks = store.lake.read("masked_chunks", "dao")
    said = pl.when(chunk_id="u23").then(pl.lit("SUBJECT: quince")).otherwise("text")
    store.lake.commit(MASKED_CHUNKS, chunks.with_columns(text=said), "dao")


def another_encoder(store: Store) -> None:
    train(store, "1024", "item", data_version="another")


def consent_to_less(store: Store) -> None:
    grant(store.lake, "dao", PEOPLE, (TRAIN, EVALUATE, SERVE))


OF_TEXTS = {"item_encoder_scores", "user_probe_scores", "membership_inference_scores", "embedding_inversion_scores"}


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (another_vector, NAMES),
        (other_words, OF_TEXTS),
        (another_encoder, NAMES - {"item_encoder_scores"}),
        (consent_to_less, NAMES),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_stored_otherwise_is_measured_anew(store: Store, change: Callable, anew: set[str]) -> None:
    change(store)
    assert {name for name, same in reused(store).items() if not same} == anew


def test_other_settings_and_other_code_measure_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reused(store, seed=1) == dict.fromkeys(NAMES, False)
    monkeypatch.setattr(measured, "code_hash", lambda: "another")
    assert reused(store, seed=1) == dict.fromkeys(NAMES, False)


def test_labelled_data_that_changed_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, labelled = Store(data=str(tmp_path / "data")), tmp_path / "labelled"
    labelled.mkdir()
    rows = EvaluationInputs(TRAINING_SNAPSHOT.empty(), pl.Series(), np.empty((0, 1)), 0).omitted
    monkeypatch.setattr(masking_scores, "measure_masking", lambda *_: rows("masking_scores", "f2", "a test"))
    run_config = {"ops": {"masking_scores": {"config": {"labelled": str(labelled)}}}}

    def again() -> bool:
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [masking_scores.masking_scores], instance=instance, resources={"store": store}, run_config=run_config
            )
        (event,) = result.get_asset_materialization_events()
        return metadata_value("reused", event.materialization.metadata["reused"]).value

    assert [again(), again()] == [False, True]
    (labelled / "texts.json").write_text("[]")
    assert [again(), again()] == [False, True]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the tables, vectors and models that were read, but for whose consent holds and what is hashed."""
    names: set[str] = set()

    def recorded(owner: type, method: str, name_of: Callable[..., str]) -> None:
        original = getattr(owner, method)

        def wrapper(self: Any, *given: Any, **more: Any) -> Any:
            if not {frame.function for frame in inspect.stack()} & {"consented_snapshot", "stored_inputs"}:
                names.add(name_of(*given))
            return original(self, *given, **more)

        monkeypatch.setattr(owner, method, wrapper)

    recorded(Lake, "path", lambda table, *_: table)
    recorded(LanceTables, "open", lambda _, table: table)
    recorded(Models, "_pointed_to", lambda encoder: encoder.split("/")[0])
    yield names


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.key.to_user_string())
def test_an_asset_reads_nothing_that_it_does_not_depend_on(
    asset: dg.AssetsDefinition, tmp_path: Path, reads: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its scores would be taken for those of other inputs. The item encoder is asked for its version, an input."""
    monkeypatch.setattr(scores, "refuse_stale_vectors", lambda *_: None)
    store = store_of(tmp_path, PEOPLE)
    train(store, "1024", "item")
    reads.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([asset], instance=instance, resources={"store": store, "text_encoder": TextEncoderResource()})
    depends_on = {key.to_user_string() for key in asset.asset_deps[asset.key]}
    assert {"item_embeddings"} <= reads <= depends_on | {"item_encoder"}
