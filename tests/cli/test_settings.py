"""Settings of a run, from a file and from the environment: what cannot be is told before anything runs."""

import json
from pathlib import Path

import pytest

from user_embeddings_dagster import cli, run_settings


def test_real_exports_run_with_the_default_caps(real):
    assert real()[:2] == (0, [run_settings.REAL])


def test_a_config_file_takes_their_place(real):
    config = {"masked_chunks:some": {"max_chunks_per_user": 3}, "item_encoder": {"steps": 2}}
    assert real(json.dumps(config))[:2] == (0, [config])


def test_the_demo_takes_settings_too(real, tmp_path, monkeypatch):
    """C43: larger sample exports are trained on as long as real ones."""
    monkeypatch.setattr(cli, "_samples", lambda options, layout: 0)
    started = []
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: started.append(ops) or 0)
    settings = tmp_path / "config.json"
    settings.write_text('{"base_decoder": {"steps": 2}}')
    for options in ([], ["--config", str(settings)]):
        assert cli.main(["--data", str(tmp_path / "data"), "demo", *options]) == 0
    assert started == [{}, {"base_decoder": {"steps": 2}}]


def test_a_dimension_that_is_no_partition_runs_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--data", str(tmp_path / "data"), "demo", "--dimensions", "64", "33"])
    assert "'33' is none of" in capsys.readouterr().err and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ('{"item_encoder": 3}', "object of objects"),
        ('{"nothing:x": {}}', "no assets: ['nothing:x']"),
        ('{"item_encoder": {"stepz": 3}}', "item_encoder: Received unexpected config entry"),
        ('{"masked_chunks:some": {"max_users": "x"}}', "masked_chunks:some: Invalid scalar"),
        ('{"item_encoder:some": {"steps": 3}}', "item_encoder has no such partition"),
        ('{"sequence_encoder:65": {"steps": 3}}', "sequence_encoder has no such partition"),
        ('{"masked_chunks:A Name": {"max_users": 3}}', "masked_chunks has no such partition"),
        ('{"masked_chunks:some": {"max_users": -3}}', "max_users: Input should be greater than or equal to 1"),
        ('{"unsummarised_chunks": {"max_failed_share": 0.1}}', "no step of its own makes it"),
    ],
)
def test_a_config_that_is_none_starts_nothing(real, tmp_path, content, message):
    status, started, error = real(content)
    assert (status, started) == (2, []) and "config.json" in error and message in error
    assert not (tmp_path / "data").exists()


def test_a_setting_from_a_variable_that_is_not_set_is_told_without_a_stack_trace(real, monkeypatch):
    monkeypatch.delenv("STEPS", raising=False)
    status, started, error = real('{"item_encoder": {"steps": {"env": "STEPS"}}}')
    assert (status, started) == (2, []) and "item_encoder: " in error and "STEPS" in error
    assert "Stack Trace" not in error and 'File "' not in error


def test_a_step_without_settings_takes_none(real):
    assert real('{"messages": {}}')[:2] == (0, [{"messages": {}}])
    status, started, error = real('{"messages": {"x": 1}}')
    assert status == 2 and len(started) == 1 and 'messages: Received unexpected config entry "x"' in error


def test_the_settings_that_come_with_it_are_taken(tmp_path):
    for settings in (Path(cli.__file__).parents[1] / "docs" / "encoders.json", tmp_path / "real.json"):
        if not settings.exists():
            settings.write_text(json.dumps(run_settings.REAL))
        assert run_settings.of_file(str(settings)) == json.loads(settings.read_text())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TORCH_THREADS", "many"),
        ("TORCH_THREADS", "0"),
        ("REPORT_MIN_PEOPLE", "x"),
        ("SEAL", "maybe"),
        ("ERASED_CHECKPOINTS", "keep"),
        ("RETENTION", '{"messages": 99999999999}'),
        ("RETENTION", '{"nope": 1}'),
    ],
)
def test_a_setting_that_cannot_be_is_told_before_anything_runs(tmp_path, capsys, monkeypatch, variable, value):
    monkeypatch.setenv(f"USER_EMBEDDINGS_{variable}", value)
    assert cli.main(["--data", str(tmp_path / "data"), "samples"]) == 2
    assert f"USER_EMBEDDINGS_{variable}" in capsys.readouterr().err and not (tmp_path / "data").exists()
