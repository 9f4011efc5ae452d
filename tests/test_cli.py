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
        status = cli.main([*arguments, "some=*.json"])
        return status, started, capsys.readouterr().err

    return command


def test_real_exports_run_with_the_default_caps(real):
    assert real()[:2] == (0, [cli.REAL_CONFIG])


def test_a_config_file_takes_their_place(real):
    config = {"masked_chunks:some": {"max_chunks_per_user": 3}, "item_encoder": {"steps": 2}}
    assert real(json.dumps(config))[:2] == (0, [config])


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
