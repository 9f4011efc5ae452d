"""`user-embeddings seal` (C19) and `seal-model`."""

import os

import pytest

from user_embeddings_dagster import cli
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.settings import Layout


def test_the_commands_seal_check_and_tell(tmp_path, capsys):
    layout = Layout(tmp_path / "data")
    generate(layout.landing, seed=3, contributors=20)
    root = ["--data", str(layout.root)]
    assert cli.main([*root, "seal"]) == 0 and cli.main([*root, "seal"]) == 0
    told = capsys.readouterr().out
    assert "chatgpt: 0 files sealed" in told and "USER_EMBEDDINGS_SEAL is on" in told
    assert cli.main([*root, "seal", "--check"]) == 0 and "intact" in capsys.readouterr().out
    path = next(layout.landing.rglob("*.sealed"))
    os.truncate(path, path.stat().st_size - 1)
    assert cli.main([*root, "seal", "--check"]) == 1
    assert str(path) in (told := capsys.readouterr().out) and "is cut off" in told


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
