"""`user-embeddings seal-model`."""

import pytest

from user_embeddings_dagster import cli


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "no *.safetensors there"),
        ("config.json", "no *.safetensors there"),
        ("modeling.py", "modeling.py: a pickle or code"),
        ("other.safetensors", "other.safetensors: not a safetensors file"),
    ],
)
def test_what_is_no_model_is_not_sealed(tmp_path, capsys, file, message):
    """A folder that is mistyped is not made either."""
    folder = tmp_path / "model"
    if file is not None:
        folder.mkdir()
        (folder / file).write_text("{}")
    if file == "modeling.py":
        header = b"{}"
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["seal-model", str(folder)]) == 2
    said = capsys.readouterr()
    assert str(folder) in said.err and message in said.err and "sealed as" not in said.err
    assert sorted(tmp_path.rglob("*")) == before
    if file == "modeling.py":
        (folder / file).unlink()
        assert cli.main(["seal-model", str(folder)]) == 0
        assert (folder / "manifest.json").exists()
