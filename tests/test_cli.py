import json

import pytest

from user_embeddings_dagster import cli


@pytest.fixture
def real(tmp_path, monkeypatch, capsys):
    """`user-embeddings real` with a config file of some content: exit status, config of the run, standard error."""
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.json").write_text("{}")
    started = []
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: started.append(ops) or 0)

    def command(content=None):
        config = tmp_path / "config.json"
        if content is not None:
            config.write_text(content)
        options = ["--config", str(config)] if content is not None else []
        arguments = ["--data", str(tmp_path / "data"), "real", "--exports", str(tmp_path / "exports"), *options]
        try:
            status = cli.main([*arguments, "some=*.json"])
        except SystemExit as exit:
            status = exit.code
        return status, started, capsys.readouterr().err

    return command


def test_real_exports_run_with_the_default_caps(real):
    assert real()[:2] == (0, [cli.REAL_CONFIG])


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
    ],
)
def test_a_config_that_is_none_starts_nothing(real, content, message):
    status, started, error = real(content)
    assert (status, started) == (2, []) and "config.json" in error and message in error
