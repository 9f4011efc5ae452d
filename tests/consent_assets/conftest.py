"""The chat of four people as a store, for tests that write its consent.csv."""

from pathlib import Path

import pytest
from consent_chat import NAMES, chat

from resources.store import Store
from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.keys import user_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return chat(tmp_path)


@pytest.fixture
def training(tmp_path: Path) -> Store:
    """The same, with a key by which all four are training users: no chunk holds a test user's words."""
    keys = (number.to_bytes(32, "big") for number in range(1000))
    key = next(k for k in keys if {split_of(user_id(k, "reddit", name), k) for name in NAMES} == {"train"})
    path = Store(data=str(tmp_path)).layout.key
    path.parent.mkdir(parents=True)
    path.write_text(key.hex())
    path.chmod(0o600)
    return chat(tmp_path)
