"""A small platform whose exports are sealed, and a backup of it; each test has copies of its own."""

import shutil
from pathlib import Path

import pytest
from small_platform import materialise

from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.landing import LINKS
from user_embeddings_dagster.exports.sealing import seal_folder
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.settings import Layout


@pytest.fixture(scope="session")
def sealed_platform(tmp_path_factory) -> Layout:
    layout = materialise(tmp_path_factory.mktemp("built") / "data")
    with ContributorKeys.of(layout) as keys:
        for folder in sorted(layout.landing.glob("[a-z]*")):
            links = contributor_links(folder / LINKS)
            assert not seal_folder(folder, load_or_create_key(layout.key), keys, links).left
    return layout


@pytest.fixture(scope="session")
def backed_up(sealed_platform, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backup") / "one"
    back_up(sealed_platform, folder)
    return folder


@pytest.fixture
def layout(sealed_platform, tmp_path) -> Layout:
    shutil.copytree(sealed_platform.root, tmp_path / "data", symlinks=True)
    return Layout(tmp_path / "data")


@pytest.fixture
def backup(backed_up, tmp_path) -> Path:
    return Path(shutil.copytree(backed_up, tmp_path / "backup"))
