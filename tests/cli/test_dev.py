"""`user-embeddings dev`: one on a data root, and how it is opened."""

import os
import signal
import subprocess
import sys

from user_embeddings_dagster import cli
from user_embeddings_dagster.settings import Layout


def test_what_opens_the_ui_is_told_for_this_data_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli._opens(Layout(tmp_path / "data")) == "`make dev`"
    assert cli._opens(Layout(tmp_path / "data-real")) == f"`user-embeddings --data {tmp_path}/data-real dev`"
    assert cli._opens(Layout(tmp_path / "a b")) == f"`user-embeddings --data '{tmp_path}/a b' dev`"


def test_a_second_dev_on_a_data_root_is_refused_while_the_first_lives(tmp_path, monkeypatch, capsys):
    """Also as the program that it becomes; killed, it counts no longer, but what it started is no first one."""
    begun = (
        "import os, sys; from pathlib import Path; from user_embeddings_dagster.storage.durability import keep_alone;"
        'keep_alone(Path(sys.argv[1])); code = \'import subprocess; p = subprocess.Popen(["sleep", "60"]);'
        "print(p.pid, flush=True); p.wait()'; os.execv(sys.executable, [sys.executable, '-c', code])"
    )
    executed = []
    monkeypatch.setattr(cli.os, "execv", lambda *arguments: executed.append(arguments))
    (tmp_path / "dagster_home").mkdir()
    first = subprocess.Popen(
        [sys.executable, "-c", begun, tmp_path / "dagster_home"], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    child = int(first.stdout.readline())
    assert cli.main(["--data", str(tmp_path), "dev"]) == 2
    refused = f"{tmp_path}: `user-embeddings dev` is running on this data root already\n"
    assert capsys.readouterr().err == refused and not executed
    first.kill()
    first.wait()
    cli.main(["--data", str(tmp_path), "dev"])
    os.kill(child, signal.SIGKILL)
    assert len(executed) == 1
    assert cli.main(["--data", str(tmp_path), "dev"]) == 2, "this process holds it now"
