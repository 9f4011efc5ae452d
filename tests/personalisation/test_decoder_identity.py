"""A decoder is known by its content: what was trained on it is found again wherever the data root lies (C67)."""

import shutil

from user_embeddings_dagster.personalisation.decoder_identity import decoder_hash


def test_the_place_does_not_count_and_the_weights_do(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    for name, content in (("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "weights")):
        (here / name).write_text(content)
    shutil.copytree(here, there)
    (there / "README.md").write_text("read by nobody")
    assert decoder_hash(here) == decoder_hash(there)
    (there / "model.safetensors").write_text("other")
    assert decoder_hash(here) != decoder_hash(there)
