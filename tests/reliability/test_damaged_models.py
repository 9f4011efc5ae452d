"""F20: damaged and hostile model folders are refused. The whole figure: `python -m benchmarks.damaged_models`."""

import random
from pathlib import Path

import pytest

from benchmarks.damaged_models import artifacts, control_runs_the_pickle, damage, hostile, remote_code
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.storage.manifest import CorruptArtifact


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return artifacts(tmp_path_factory.mktemp("models"))


def test_flips_and_cuts_are_refused_by_name(found):
    generator, silent, flipped = random.Random(1), 0, 0
    for artifact in found:
        count, loaded, of = damage(artifact, 24, 12, generator)
        assert (count.refused, count.wrong) == (36, [])
        silent, flipped = silent + loaded, flipped + of
    assert silent > flipped / 2, "the twin without a manifest does not notice"


def test_no_pickle_and_no_code_of_a_folder_is_run(found, tmp_path):
    canary = tmp_path / "canary"
    for artifact in found:
        count = hostile(artifact, canary)
        assert (count.refused, count.wrong) == (count.tried, [])
    count = remote_code(found[0], canary)
    assert (count.refused, count.tried) == (3, 3)
    assert not canary.exists()
    assert control_runs_the_pickle(tmp_path), "the canary works"


def test_a_base_encoder_that_nobody_vouches_for_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"config\.json: not that of the published encoder.*seal-model"):
        base_model.verified(tmp_path)


def test_the_published_encoder_passes_without_a_manifest():
    assert base_model.verified(base_model.model_folder("minilm")) == base_model.model_folder("minilm")
    assert not (Path(base_model.model_folder("minilm")) / "manifest.json").exists()
