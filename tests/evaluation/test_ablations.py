"""The ablations' own parts: negatives of each kind, and no variant passed over in silence."""

import polars as pl
import pytest

from benchmarks import ablations


def pairs() -> pl.DataFrame:
    """Ten windows of three people each; person 2 is a validation user."""
    rows = [
        {"chunk_id": f"c{window}{person}", "window_id": f"w{window}", "user_id": f"u{person}", "split": split}
        for window in range(10)
        for person, split in enumerate(("train", "train", "valid"))
    ]
    return pl.DataFrame(rows).with_columns(negatives=pl.lit(["c01"]))


def joined(found: pl.DataFrame) -> pl.DataFrame:
    others = pairs().select(negatives="chunk_id", window="window_id", user="user_id", its_split="split")
    return found.explode("negatives").drop_nulls("negatives").join(others, on="negatives")


def test_negatives_of_each_kind_are_training_chunks_of_that_kind():
    """Never of a validation user; `random` from other windows, `window` from other people of the same one."""
    random = ablations.negatives_of_kind(pairs(), "random", seed=0)
    window = ablations.negatives_of_kind(pairs(), "window", seed=0)
    for found in (random, window):
        assert found["chunk_id"].to_list() == sorted(pairs()["chunk_id"])
        assert found.filter(split="valid")["negatives"].list.len().sum() == 0
        assert (joined(found)["its_split"] == "train").all()
    assert (joined(random)["window"] != joined(random)["window_id"]).all()
    assert random.filter(split="train")["negatives"].list.len().mean() > 2
    assert (joined(window)["window"] == joined(window)["window_id"]).all()
    assert (joined(window)["user"] != joined(window)["user_id"]).all()
    assert window.filter(split="train")["negatives"].list.len().unique().to_list() == [1]
    assert random.equals(ablations.negatives_of_kind(pairs(), "random", seed=0))
    with pytest.raises(ValueError, match="unknown kind"):
        ablations.negatives_of_kind(pairs(), "other", seed=0)


def test_a_setting_the_encoder_lacks_and_a_failed_training_are_said(tmp_path, monkeypatch, capsys):
    """The default's settings decide what is known; a default that fails ends it."""

    def train(command, **_):
        inputs, output = command[-3], command[-1]
        config = (inputs / "config.json").read_text()
        failed = '"rate": 2' in config
        if not failed:
            (output.parent / "made").write_text("")
            output.mkdir(parents=True)
            (output / "encoder.json").write_text('{"settings": {"rate": 1, "layers": 2}}')
        return type("Done", (), {"returncode": 3 if failed else 0, "stderr": ""})()

    monkeypatch.setattr(ablations.subprocess, "run", train)
    monkeypatch.setattr(ablations.ModelFolder, "complete", property(lambda self: self.output.exists()))
    variants = {
        "default": {}, "deep": {"layers": 9}, "same": {"layers": 2}, "other": {"projector": False}, "bad": {"rate": 2},
    }  # fmt: skip
    notes: dict[str, str] = {}
    made = list(ablations.trained("job", tmp_path, {"rate": 1}, variants, lambda _: {"rows": pairs()}, notes))
    assert [name for name, _ in made] == ["default", "deep"]
    assert notes == {
        "same": "is the default",
        "other": "the encoder has no setting projector",
        "bad": "job failed with exit status 3",
    }
    assert not list(tmp_path.rglob("*.parquet"))  # masked text is not left behind
    with pytest.raises(RuntimeError, match="default's training failed"):
        list(ablations.trained("job", tmp_path / "b", {"rate": 2}, {"default": {}}, lambda _: {"rows": pairs()}, notes))
