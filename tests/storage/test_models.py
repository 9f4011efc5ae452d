"""Versions of trained encoders: whole ones are promoted, and nothing of a job stays beside them."""

import polars as pl
import pytest

from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise
from user_embeddings_dagster.storage.models import ModelFolder, Models


def trained(models: Models, fingerprint: str) -> ModelFolder:
    folder = models.folder("encoder/64", fingerprint)
    folder.write_inputs({"seed": 0}, pairs=pl.DataFrame({"text": ["SUBJECT: hello"]}))
    folder.output.mkdir()
    (folder.output / "model.safetensors").write_bytes(b"weights")
    finalise(folder.output)
    return folder


@pytest.fixture
def models(tmp_path) -> Models:
    return Models(tmp_path)


def test_before_the_first_training_the_encoder_is_named(models):
    with pytest.raises(FileNotFoundError, match="encoder/64"):
        models.current("encoder/64")


def test_promoting_moves_the_pointer_and_only_to_a_whole_version(models):
    first, second = trained(models, "a"), trained(models, "b")
    models.promote("encoder/64", "a")
    (second.output / "model.safetensors").write_bytes(b"flipped")
    assert (first.complete, second.complete) == (True, False)
    with pytest.raises(CorruptArtifact):
        models.promote("encoder/64", "b")
    assert models.current("encoder/64").root == first.root
    assert models.promoted("encoder") == ["encoder/64"]


def test_leftovers_of_a_killed_run_go_and_the_result_stays(models):
    """Inputs hold masked text; the work folder holds checkpoints."""
    folder = trained(models, "a")
    checkpoint = folder.root / "output.work" / "checkpoints"
    checkpoint.mkdir(parents=True)
    folder.remove_leftovers()
    assert (folder.inputs.exists(), checkpoint.parent.exists(), folder.complete) == (False, False, True)
