"""C68: a job that Dagster Pipes starts: metadata, live log, and no orphan."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from toy_job import Toy

DAGSTER = """
import json, sys
import dagster as dg

script, *arguments = json.loads(sys.argv[1])

@dg.asset
def toy(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient):
    command = [sys.executable, "-P", script, *arguments]
    return pipes.run(command=command, context=context).get_materialize_result(implicit_materialization=False)

result = dg.materialize([toy], resources={"pipes": dg.PipesSubprocessClient()}, raise_on_error=False)
events = result.asset_materializations_for_node("toy") if result.success else []
print(json.dumps([{k: v.value for k, v in event.metadata.items()} | {"tags": event.tags} for event in events]))
sys.exit(not result.success)
"""


def _under_dagster(toy, **environment):
    arguments = json.dumps([str(toy.script), *toy.arguments])
    home = toy.folder / "dagster_home"
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", DAGSTER, arguments],
        env={**os.environ, "DAGSTER_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_under_pipes_one_materialisation_with_metadata_and_live_log(undisturbed, tmp_path):
    """C68: the same job under Dagster Pipes gives the same weights, its log and its metadata."""
    toy = Toy(tmp_path)
    process = _under_dagster(toy)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (metadata,) = json.loads(out.splitlines()[-1])
    assert metadata["device"] == "cpu" and metadata["steps"] == 14 and metadata["seconds"] > 0
    assert metadata["tags"]["dagster/data_version"] == "v1"
    assert "step 14/14 loss" in err
    assert toy.weights == undisturbed.weights


def test_the_job_dies_with_its_dagster_run(tmp_path):
    """C68: kill -9 of the run leaves no orphan."""
    toy = Toy(tmp_path, steps=1000)
    process = _under_dagster(toy, PAUSE="0.1")
    toy.wait_for_checkpoint()
    job = int((tmp_path / "models" / "toy.work" / "pid").read_text())
    os.kill(job, 0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while _alive(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(job)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False
