"""The score assets where a DataDAO has one contributor, or nobody who consented: what cannot be measured is omitted."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from asset_contexts import asset_context
from evaluated_store import ASSETS, store_of, train

from assets import scores
from assets.containment import metadata_value
from assets.judge_agreement import judge_agreement_scores
from assets.training_snapshot import training_snapshot
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation.scores import OMITTED
from user_embeddings_dagster.storage.models import StaleEncoder

FITTED = {"sequence_encoder_scores", "user_matching_scores", "sparse_user_scores", "user_probe_scores"}
SEVERAL = {"cross_user_retrieval_scores": "5 held-out users", "datadao_comparison": "5 held-out users"}
NOBODY = {
    **dict.fromkeys(FITTED, "no training user"), "cross_user_retrieval_scores": "5 held-out users",
    "item_encoder_scores": "nobody has consented", "datadao_comparison": "nobody has consented",
    "embedding_inversion_scores": "no held-out user",
}  # fmt: skip


def measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[pl.DataFrame, dict[str, str]]:
    """The scores after all assets have succeeded; why rows are omitted, by asset, as Dagster may store it."""
    train(store, "1024", "item")
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
    people: dict[str, str], consenting: bool, reasons: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, told = measured(store_of(tmp_path, people, consenting), monkeypatch)
    assert set(found["asset"]) == {asset.key.to_user_string() for asset in ASSETS}
    omitted = found.filter(pl.col("candidate_set").str.starts_with(OMITTED))
    assert omitted["value"].null_count() == omitted.height and not omitted["n"].sum()
    said = dict(omitted.select("asset", "candidate_set").iter_rows())
    assert said == {asset: f"{OMITTED}{reason}" for asset, reason in told.items()}
    assert said.keys() == reasons.keys()
    assert all(reason in said[asset] for asset, reason in reasons.items())
    measurable = {"item_encoder_scores", "embedding_inversion_scores"} - reasons.keys()
    assert "test" not in people.values() or measurable <= set(found.drop_nulls("value")["asset"]), "the control"


def test_dimensions_that_were_not_trained_since_the_item_encoder_are_left_out_and_named(tmp_path: Path) -> None:
    """The weekly trainings make the served one anew, and the evaluation after them failed on those of the demo."""
    store = store_of(tmp_path, {"ann": "train", "bob": "test", "cat": "test"})
    for dimension, basis in (("64", "before"), ("256", "item"), ("1024", "item")):
        train(store, dimension, basis)
    assets = [scores.sequence_encoder_scores, scores.user_matching_scores]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(assets, instance=instance, resources={"store": store})
    for event in result.get_asset_materialization_events():
        assert event.materialization.metadata["dimensions_left_out"].value == ["64"]
    found = store.scores.read().filter(pl.col("model").str.starts_with("sequence_encoder"))
    assert set(found["model"].str.split(" - ").list.first()) == {"sequence_encoder_256", "sequence_encoder_1024"}
    assert found["asset"].n_unique() == len(assets)
    train(store, "1024", "before")
    with asset_context() as context, pytest.raises(StaleEncoder, match="sequence_encoder/1024"):
        scores.scored_dimensions(context, store)


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
