"""Command lines whose runs do nothing, and data roots that are only begun."""

import pytest

from user_embeddings_dagster import cli


@pytest.fixture
def real(tmp_path, monkeypatch, capsys):
    """`user-embeddings real` with a config file of some content: exit status, config of the run, standard error."""
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.json").write_text("{}")
    started = []
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: started.append(ops) or 0)

    def command(content=None, *corpora):
        config = tmp_path / "config.json"
        if content is not None:
            config.write_text(content)
        options = ["--config", str(config)] if content is not None else []
        arguments = ["--data", str(tmp_path / "data"), "real", "--exports", str(tmp_path / "exports"), *options]
        try:
            status = cli.main([*arguments, *(corpora or ["some=*.json"])])
        except SystemExit as exit:
            status = exit.code
        return status, started, capsys.readouterr().err

    return command


@pytest.fixture
def begun(tmp_path) -> list[str]:
    """Options of a data root into which nobody has dropped anything yet."""
    (tmp_path / "data" / "landing").mkdir(parents=True)
    return ["--data", str(tmp_path / "data")]
