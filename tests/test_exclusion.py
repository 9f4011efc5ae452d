"""Nothing is written beside an erasure or a purge: assets wait for these, and these for assets."""

import inspect
import os
import signal
import subprocess
import sys
import typing
from threading import Event, Thread
from typing import Any

import dagster as dg
import pytest

from assets.containment import contain
from assets.erasures import erasures
from assets.retention import retention_purges
from resources.store import Store
from user_embeddings_dagster import cli
from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.privacy.erasure.erase import AssetsExecuting, erase, undisturbed
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import together

HOLDING = """
import sys, time
from pathlib import Path
from user_embeddings_dagster.storage.durability import together
with together(Path(sys.argv[1]), lambda: None):
    print("holding", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Layout(tmp_path / "data")


@pytest.fixture
def executing(layout):
    """A process in which an asset executes."""
    layout.root.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(layout.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


def materialise(layout: Layout, asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(contain([asset]), resources={"store": Store(data=str(layout.root))}, instance=instance)


def steps(generating: bool, executed: Event) -> dg.AssetsDefinition:
    """An asset that says when it executes."""
    if generating:

        @dg.asset(name="step")
        def generates(context: dg.AssetExecutionContext, store: Store):
            executed.set()
            yield dg.MaterializeResult()

        return generates

    @dg.asset
    def step(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult:
        executed.set()
        return dg.MaterializeResult()

    return step


@pytest.mark.parametrize("generating", [False, True])
def test_an_asset_waits_for_an_erasure_and_says_so(layout, generating):
    """Also a thread of the same process."""
    executed, results = Event(), []
    with dg.DagsterInstance.ephemeral() as instance:
        asset = steps(generating, executed)
        run = Thread(target=lambda: results.append(materialise(layout, asset, instance)))
        with undisturbed(layout, "refuse"):
            run.start()
            assert not executed.wait(2)
        assert executed.wait(60)
        run.join()
        (result,) = results
        assert result.success
        logs = [entry.user_message for entry in instance.all_logs(result.run_id)]
        assert "waiting for an erasure or a purge to end" in logs


def test_assets_do_not_wait_for_each_other(layout, executing):
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialise(layout, steps(False, Event()), instance)
        assert result.success
        assert not [entry for entry in instance.all_logs(result.run_id) if "waiting" in entry.user_message]


def test_nothing_is_removed_beside_an_asset_unless_forced_and_a_killed_one_is_none(layout, executing, capsys):
    with pytest.raises(AssetsExecuting):
        erase(layout, frozenset({"f" * 32}))
    data = ["--data", str(layout.root), "purge"]
    assert cli.main(data) == 2 and "assets of the platform are executing" in capsys.readouterr().err
    assert cli.main([*data, "--dry-run"]) == cli.main([*data, "--force"]) == 0
    os.kill(executing.pid, signal.SIGKILL)
    executing.wait()
    assert cli.main(data) == 0


@pytest.mark.parametrize("asset", [retention_purges, erasures], ids=["retention_purges", "erasures"])
def test_the_assets_that_remove_wait_for_others_and_not_for_themselves(layout, executing, asset, monkeypatch):
    monkeypatch.setattr("assets.erasures.pending", lambda layout: [frozenset({"f" * 32})])
    results = []
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr("assets.retention.stages", lambda instance: [])
        run = Thread(target=lambda: results.append(materialise(layout, asset, instance)))
        run.start()
        run.join(3)
        assert run.is_alive()
        executing.kill()
        run.join(60)
    assert not run.is_alive() and results[0].success


def test_every_asset_of_the_code_location_is_held_off():
    removing = set()
    for asset in defs.assets or []:
        if not isinstance(asset, dg.AssetsDefinition) or not asset.is_executable:
            continue
        function = typing.cast(Any, asset.node_def).compute_fn.decorated_fn
        assert "store" in inspect.signature(function).parameters, asset.keys
        if "removing" in function.__dict__:
            removing |= {key.to_user_string() for key in asset.keys}
        else:
            assert function.__wrapped__.__code__.co_filename.endswith("exclusion.py"), asset.keys
    assert removing == {"erasures", "retention_purges"}


def test_a_data_root_that_can_only_be_read_is_held_too(layout):
    layout.root.mkdir(mode=0o500)
    with together(layout.root, lambda: pytest.fail("nobody holds it")):
        assert not list(layout.root.iterdir())
