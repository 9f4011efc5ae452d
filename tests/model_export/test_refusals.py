"""C48, C14: what may not be exported is not; an export is there whole or not at all, and stands in the access log."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from exported_root import DIMENSION, Root, finished, make_root, snapshot

from user_embeddings_dagster import cli
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.model_export import export
from user_embeddings_dagster.model_export.export import export_models
from user_embeddings_dagster.privacy.access.log import AccessLog
from user_embeddings_dagster.privacy.access.verification import verify
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.schema import CONSENT_LEDGER
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.manifest import CorruptArtifact
from user_embeddings_dagster.storage.models import Models, StaleEncoder, TaintedModel

ONLY = ["user_encoder"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    made = make_root(tmp_path)
    monkeypatch.setenv("USER_EMBEDDINGS_DECODER", str(made.decoder))
    return made


def logged(root: Root) -> list[tuple[str, str, str]]:
    log = AccessLog.of(root.layout)
    assert verify(log).verified
    lines = log.path.read_text().splitlines() if log.path.exists() else []
    return [(entry["event"], entry["outcome"], entry["subject"]) for entry in map(json.loads, lines)]


def test_a_model_trained_on_somebody_who_was_erased_is_refused_and_logged(root: Root, tmp_path: Path) -> None:
    root.sequence.taint(["a" * 32])
    with pytest.raises(TaintedModel, match="sequence_encoder"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION))
    assert not list((tmp_path / "to").glob("*")) and logged(root) == [("export_model", "refused", "user_encoder")]


def test_the_operator_may_release_it_and_the_card_says_so(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.sequence.taint(["a" * 32])
    monkeypatch.setenv("USER_EMBEDDINGS_ERASED_CHECKPOINTS", "release")
    (folder,) = export_models(root.layout, tmp_path / "to", str(DIMENSION), ONLY)
    assert "Trained on people who were erased or withdrew" in (folder / "README.md").read_text()


def test_a_grant_that_ended_since_the_models_were_marked_is_seen(root: Root, tmp_path: Path) -> None:
    """The ledger was not materialised since: nobody has marked the model yet."""
    lake = Lake(root.layout.root)
    gone = (pl.col("user_id") == "train0") & (pl.col("purpose") == "train")
    ended = pl.when(gone).then(datetime(2024, 6, 1, tzinfo=UTC)).otherwise(pl.col("expires_at")).alias("expires_at")
    ledger = CONSENT_LEDGER.conform(lake.read("consent_ledger", "zig").with_columns(ended))
    lake.commit(CONSENT_LEDGER, ledger, "zig", stats={"holds": "", "rejected": 0})
    with pytest.raises(TaintedModel, match="consent has ended"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION), ONLY)
    assert not root.item.withdrawn, "an export marks nothing"
    key = load_or_create_key(root.layout.key)
    assert erasure_id(key, "train0") in frozenset().union(*root.item.subjects.values())


def test_without_a_ledger_nothing_is_exported(root: Root, tmp_path: Path) -> None:
    for path in root.layout.root.glob("tables/consent_ledger/*/current.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="consent_ledger"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION), ONLY)


def test_models_that_do_not_belong_together_are_refused(root: Root, tmp_path: Path) -> None:
    """Another sequence encoder than the decoder's; another item encoder than the sequence encoder's."""
    models = Models(root.layout.models)
    finished(models, f"sequence_encoder/{DIMENSION}", root.sequence, "d" * 32)
    with pytest.raises(StaleEncoder, match="states of another encoder"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION), ["personalised_llm"])
    finished(models, "item_encoder", root.item, "c" * 32)
    with pytest.raises(StaleEncoder, match="item_encoder"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION), ONLY)


def test_a_damaged_model_is_refused(root: Root, tmp_path: Path) -> None:
    path = root.sequence.output / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors"):
        export_models(root.layout, tmp_path / "to", str(DIMENSION), ONLY)
    assert not any((tmp_path / "to").iterdir())


def test_an_export_is_whole_or_not_there(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed half way leaves a hidden folder, which the next one replaces; a log that refuses stops it."""
    to = tmp_path / "to"
    (to / ".user_encoder.partial").mkdir(parents=True)
    (to / ".user_encoder.partial" / "left.txt").write_text("half")
    with monkeypatch.context() as patch:
        patch.setattr(export, "finalise", lambda _folder: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            export_models(root.layout, to, str(DIMENSION), ONLY)
    assert not any(to.iterdir()) and logged(root) == []
    (folder,) = export_models(root.layout, to, str(DIMENSION), ONLY)
    version = root.sequence.record()["data_version"]
    assert logged(root) == [("export_model", "done", f"user_encoder/{version}")]
    with pytest.raises(FileExistsError, match="there already"):
        export_models(root.layout, to, str(DIMENSION), ONLY)
    assert (folder / "manifest.json").exists() and not (folder / "left.txt").exists()


def test_the_command_says_what_is_wrong(root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, to = ["--data", str(root.layout.root)], ["--to", str(tmp_path / "to")]
    assert cli.main([*data, "export-model", *to, "--dimension", "999"]) == 2
    assert "sequence_encoder/999 has not been trained yet" in capsys.readouterr().err
    assert cli.main([*data, "export-model", *to, "--dimension", str(DIMENSION), "--only", "user_encoder"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "to" / "user_encoder")
    root.personalised.taint(["a" * 32])
    assert cli.main([*data, "export-model", *to, "--dimension", str(DIMENSION), "--only", "personalised_llm"]) == 1
    assert "erased contributor" in capsys.readouterr().err
    assert len(snapshot())
