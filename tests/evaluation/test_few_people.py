"""The score assets where a DataDAO has one contributor, or nobody who consented: what cannot be measured is omitted."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from granting import grant
from made_up_population import AXES, sequence_encoder

from assets import leakage, scores
from assets.containment import metadata_value
from assets.judge_agreement import judge_agreement_scores
from assets.training_snapshot import training_snapshot
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from training.sequence_inference import SequenceEncoder
from user_embeddings_dagster.evaluation.measure import SequenceModel
from user_embeddings_dagster.evaluation.scores import OMITTED
from user_embeddings_dagster.schema import MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import write_json
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import StaleEncoder

CHUNKS = 8
VECTORS = ("item_embeddings", "chunk_embeddings", "summary_embeddings")
ASSETS = [
    scores.item_encoder_scores, scores.sequence_encoder_scores, scores.user_matching_scores, scores.sparse_user_scores,
    scores.user_probe_scores, scores.datadao_comparison, leakage.membership_inference_scores,
    leakage.embedding_inversion_scores, leakage.cross_user_retrieval_scores,
]  # fmt: skip
FITTED = {"sequence_encoder_scores", "user_matching_scores", "sparse_user_scores", "user_probe_scores"}
SEVERAL = {"cross_user_retrieval_scores": "5 held-out users", "datadao_comparison": "5 held-out users"}
NOBODY = {
    **dict.fromkeys(FITTED, "no training user"), "cross_user_retrieval_scores": "5 held-out users",
    "item_encoder_scores": "nobody has consented", "datadao_comparison": "nobody has consented",
    "embedding_inversion_scores": "no held-out user",
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SequenceModel:
    return SequenceModel(SequenceEncoder.load(sequence_encoder(tmp_path_factory.mktemp("encoder") / "output")))


def store_of(root: Path, people: dict[str, str], consenting: bool = True) -> Store:
    """All that the assets read, of these people (name: split), who consented to everything or to nothing."""
    store, start = Store(data=str(root)), datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "chunk_id": f"{user}{position}", "datadao": "dao", "user_id": user, "split": split, "position": position,
            "started_at": start + timedelta(days=position), "ended_at": start + timedelta(days=position, minutes=5),
            "window_id": f"{user}{position}", "thread_id": "t", "speakers": ["<P1>", "SUBJECT"],
            "turns": ["where to", f"plum cake number {position}"], "message_ids": [f"a{position}", f"b{position}"],
            "text": f"<P1>: where to\nSUBJECT: plum cake number {position}", "n_subject_turns": 1, "n_tokens": 9,
            "n_masked": 0, "context_free": False, "community": None,
        }
        for user, split in people.items()
        for position in range(CHUNKS)
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    for table, partition in ((MASKED_CHUNKS, "dao"), (TRAINING_SNAPSHOT, None)):
        part = table.conform(frame.select(table.schema.names()))
        store.lake.commit(table, part, partition) if partition else store.lake.commit(table, part)
    grant(store.lake, "dao", people if consenting else [])
    rng = np.random.default_rng(0)
    for table in VECTORS:
        vectors = rng.normal(size=(frame.height, AXES)).astype(np.float32)
        named = frame.select("user_id", id="chunk_id", version=pl.lit("v")).with_columns(vector=pl.Series(vectors))
        store.lance.upsert("dao", table, named)
    folder = store.models.folder("item_encoder", "a" * 32)
    folder.output.mkdir(parents=True)
    write_json(folder.output / "job.json", {"metadata": {}, "data_version": "item"})
    finalise(folder.output)
    store.models.promote("item_encoder", folder.root.name)
    return store


def measured(
    store: Store, encoder: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The scores after all assets have succeeded; why rows are omitted, by asset, as Dagster may store it."""
    for module in (scores, leakage):
        monkeypatch.setattr(module, "sequence_models", lambda *_: {"sequence_encoder_24": encoder})
    monkeypatch.setattr(scores, "refuse_stale_vectors", lambda *_: None)  # these are by no encoder
    resources = {"store": store, "text_encoder": TextEncoderResource()}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(ASSETS, instance=instance, resources=resources, raise_on_error=False)
    assert [event.step_key for event in result.all_events if event.is_step_failure] == []
    told = {
        event.asset_key.to_user_string(): metadata_value("reason", event.materialization.metadata["reason"]).value
        for event in result.get_asset_materialization_events()
        if "reason" in event.materialization.metadata
    }
    return store.scores.read(), told


@pytest.mark.parametrize(
    ("people", "consenting", "reasons"),
    [
        ({"ann": "train"}, True, {**SEVERAL, "embedding_inversion_scores": "no held-out user"}),
        ({"ann": "test"}, True, {**SEVERAL, **dict.fromkeys(FITTED, "no training user")}),
        ({"ann": "test"}, False, NOBODY),
    ],
    ids=["one to train on", "one held out", "nobody consented"],
)
def test_every_score_asset_succeeds_and_says_why_it_measures_nothing(
    people: dict[str, str], consenting: bool, reasons: dict[str, str], encoder: SequenceModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found, told = measured(store_of(tmp_path, people, consenting), encoder, monkeypatch)
    assert set(found["asset"]) == {asset.key.to_user_string() for asset in ASSETS}
    omitted = found.filter(pl.col("candidate_set").str.starts_with(OMITTED))
    assert omitted["value"].null_count() == omitted.height and not omitted["n"].sum()
    said = dict(omitted.select("asset", "candidate_set").iter_rows())
    assert said == {asset: f"{OMITTED}{reason}" for asset, reason in told.items()}
    assert said.keys() == reasons.keys()
    assert all(reason in said[asset] for asset, reason in reasons.items())
    measurable = {"item_encoder_scores", "embedding_inversion_scores"} - reasons.keys()
    assert "test" not in people.values() or measurable <= set(found.drop_nulls("value")["asset"]), "the control"


def trained(store: Store, dimension: str, basis: str) -> None:
    """Promote a sequence encoder that was trained on vectors of the item encoder `basis`."""
    folder = store.models.folder(f"sequence_encoder/{dimension}", basis)
    sequence_encoder(folder.output)
    write_json(folder.output / "job.json", {"metadata": {"seconds": 1.0}, "data_version": dimension})
    finalise(folder.output)
    folder.note_basis(basis)
    store.models.promote(f"sequence_encoder/{dimension}", folder.root.name)


def test_dimensions_that_were_not_trained_since_the_item_encoder_are_left_out_and_named(tmp_path: Path) -> None:
    """The weekly trainings make the served one anew, and the evaluation after them failed on those of the demo."""
    store = store_of(tmp_path, {"ann": "train", "bob": "test", "cat": "test"})
    for dimension, basis in (("64", "before"), ("256", "item"), ("1024", "item")):
        trained(store, dimension, basis)
    assets = [scores.sequence_encoder_scores, scores.user_matching_scores]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(assets, instance=instance, resources={"store": store})
    for event in result.get_asset_materialization_events():
        assert event.materialization.metadata["dimensions_left_out"].value == ["64"]
    found = store.scores.read().filter(pl.col("model").str.starts_with("sequence_encoder"))
    assert set(found["model"].str.split(" - ").list.first()) == {"sequence_encoder_256", "sequence_encoder_1024"}
    assert found["asset"].n_unique() == len(assets)
    trained(store, "1024", "before")
    with pytest.raises(StaleEncoder, match="sequence_encoder/1024"):
        scores.scored_dimensions(dg.build_asset_context(), store)


def test_nobody_at_all_is_said_where_nothing_can_be_done(tmp_path: Path) -> None:
    """Once, in words: another try would say the same."""
    store = store_of(tmp_path / "with", {"ann": "test"}, consenting=False)
    for data, asset, words in (
        (store, judge_agreement_scores, "no held-out user has consented to `evaluate`"),
        (Store(data=str(tmp_path / "without")), training_snapshot, "no DataDAO has masked chunks"),
    ):
        resources = {
            "store": data, "language_model": LanguageModelResource(), "training_jobs": TrainingJobs(),
            "text_encoder": TextEncoderResource(),
        }  # fmt: skip
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([asset], instance=instance, resources=resources, raise_on_error=False)
        assert not any(event.is_step_up_for_retry for event in result.all_events)
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert words in str(failure.step_failure_data.error)
