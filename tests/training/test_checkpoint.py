import json
import random

import numpy as np
import pytest
import torch

from training import checkpoint
from training.checkpoint import Checkpoints
from user_embeddings_dagster.storage.durability import DiskFull
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise, verify


def _state(step):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": None, "history": [0.1, step]}


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def test_a_state_comes_back_bit_for_bit_with_its_types(tmp_path):
    state = _state(3) | {"pair": (1, 2.5), "flags": [True, None], "scalar": np.float64(1 / 3)}
    Checkpoints(tmp_path).save(3, state)
    loaded = Checkpoints(tmp_path).latest(pytest.fail)
    assert loaded.step == 3
    assert _equal(loaded.state, state | {"scalar": 1 / 3})
    assert 0 in loaded.state["optimizer"]["state"], "integer keys stay integers"


def test_random_generators_continue_where_they_were(tmp_path):
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    torch.rand(3), np.random.standard_normal(3), random.gauss(0, 1)  # leaves a half-used Gaussian pair behind
    Checkpoints(tmp_path).save(1, {})

    def draw():
        return torch.rand(4).tolist(), np.random.standard_normal(4).tolist(), random.gauss(0, 1), random.random()

    expected = draw()
    assert draw() != expected
    Checkpoints(tmp_path).latest(pytest.fail)
    assert draw() == expected


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(tmp_path, name, damage):
    for step in (10, 20):
        newest = Checkpoints(tmp_path).save(step, _state(step))
    path = newest / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    log = []
    loaded = Checkpoints(tmp_path).latest(log.append)
    assert loaded.step == 10
    assert len(log) == 1 and "refused" in log[0] and "step-00000020" in log[0]
    assert [path.name for path in Checkpoints(tmp_path).paths()] == ["step-00000010"]


def test_every_single_bit_flip_of_the_tensors_is_caught(tmp_path):
    """Broken twin: safetensors alone loads nearly all of them without a word."""
    folder = Checkpoints(tmp_path).save(1, {"w": torch.arange(8.0)})
    path = folder / "tensors.safetensors"
    good, silent = path.read_bytes(), 0
    for bit in random.Random(0).sample(range(len(good) * 8), 100):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(CorruptArtifact):
            checkpoint.read(folder)
        try:
            checkpoint.load_file(path)
            silent += 1
        except Exception:  # noqa: BLE001 - safetensors raises its own error on a damaged header
            pass
    assert silent > 50, "the twin without a manifest does not notice"


def test_no_good_checkpoint_is_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none").latest(pytest.fail) is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, _state(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskFull, match="checkpoint of step 2: no space left"):
        checkpoints.save(2, _state(2))
    monkeypatch.undo()
    assert checkpoints.latest(pytest.fail).step == 1
    checkpoints.save(3, _state(3))
    assert not list(tmp_path.glob(".step-*")), "leftovers of the failed save are removed"


def test_only_the_last_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, {})
    assert [path.name for path in checkpoints.paths()] == ["step-00000003", "step-00000004"]


def test_what_is_not_a_tensor_or_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        Checkpoints(tmp_path).save(1, {"x": object()})
    assert Checkpoints(tmp_path).paths() == []


def test_nothing_is_pickled(tmp_path):
    folder = Checkpoints(tmp_path).save(1, _state(1))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    json.loads((folder / "state.json").read_bytes())


def test_a_manifest_names_missing_added_and_changed_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("a")
    (tmp_path / "sub" / "b").write_text("b")
    with pytest.raises(CorruptArtifact, match=r"no manifest\.json"):
        verify(tmp_path)
    assert finalise(tmp_path) == verify(tmp_path)
    (tmp_path / "c").write_text("c")
    with pytest.raises(CorruptArtifact, match="not in the manifest"):
        verify(tmp_path)
    (tmp_path / "c").unlink()
    (tmp_path / "a").write_text("x")
    with pytest.raises(CorruptArtifact, match="sha256"):
        verify(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        verify(tmp_path)
