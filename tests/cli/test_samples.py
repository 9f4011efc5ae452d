"""Sample exports: how few contributors are too few, and no place of people's exports is taken."""

import pytest

from user_embeddings_dagster import cli


def test_too_few_contributors_are_told_before_the_graph_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: pytest.fail("it ran"))
    assert cli.main(["--data", str(tmp_path / "data"), "demo", "--contributors", "3"]) == 2
    assert capsys.readouterr().err == "contributors: 3 is fewer than 20\n"


def test_samples_take_no_place_of_exports(tmp_path, capsys):
    """C14: a consent.csv of people's is not replaced. Samples are written again over samples."""
    consent = tmp_path / "landing" / "telegram" / "consent.csv"
    consent.parent.mkdir(parents=True)
    consent.write_text("grants of people")
    command = ["--data", str(tmp_path), "samples", "--contributors", "20"]
    assert cli.main(command) == 2
    assert "telegram may be no samples; nothing was written" in capsys.readouterr().err
    assert consent.read_text() == "grants of people" and list(tmp_path.rglob("*.*")) == [consent]
    consent.unlink()
    consent.parent.rmdir()
    assert [cli.main(command), cli.main(command)] == [0, 0] and consent.read_text().startswith("grant_id,")
