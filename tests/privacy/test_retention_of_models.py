"""How old a version of a model is for the stage models (C16): since it was trained, whatever marked it later."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from user_embeddings_dagster.privacy.retention.by_products import OldModels
from user_embeddings_dagster.privacy.retention.stage import Sweep
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import ModelFolder, Models


def trained(models: Models, version: str, days_ago: int) -> ModelFolder:
    folder = models.folder("item_encoder", version)
    folder.output.mkdir(parents=True)
    (folder.output / "job.json").write_text(f'{{"metadata": {{}}, "data_version": "{version}"}}')
    finalise(folder.output)
    models.promote("item_encoder", version)
    then = (datetime.now(UTC) - timedelta(days=days_ago)).timestamp()
    for path in folder.root.rglob("*"):
        os.utime(path, (then, then))
    return folder


def test_marking_a_version_makes_it_no_younger(tmp_path: Path):
    """C16, C14: what holds somebody who revoked was kept for a window more, again with everybody who revoked."""
    layout = Layout(tmp_path)
    models = Models(layout.models)
    old, young = trained(models, "a", 40), trained(models, "b", 10)
    trained(models, "c", 40)
    for folder in (old, young):
        folder.mark_withdrawn(["somebody"])
        folder.taint(["another"])
    sweep = Sweep(layout, {"models": datetime.now(UTC) - timedelta(days=30)}, {})
    found = OldModels().find(sweep)
    assert sorted(found.items) == ["models/item_encoder/a"] and found.kept == 2
    assert found.items["models/item_encoder/a"] > sum(path.stat().st_size for path in old.output.iterdir())
    OldModels().remove(sweep, found)
    assert not old.root.exists() and young.root.exists()
