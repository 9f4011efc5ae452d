"""A link in the landing folder leads nowhere unless the operator made it."""

import json

import pytest

from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.landing import LINKED, foreign_links, link
from user_embeddings_dagster.storage.lake import Lake

ROW = {"id": "c1", "author": "somebody", "created_utc": 1_700_000_000, "subreddit": "x", "link_id": "t3_abc"}


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside" / "dump.ndjson"
    path.parent.mkdir()
    path.write_text(json.dumps(ROW | {"parent_id": "t3_abc", "body": "a secret of this machine"}) + "\n")
    (tmp_path / "landing" / "dao").mkdir(parents=True)
    return path


def built(tmp_path):
    lake = Lake(tmp_path / "lake")
    build_messages("dao", tmp_path / "landing", lake, bytes(32), threads=1)
    return lake


def test_a_contributors_link_is_not_followed_but_counted_and_located(tmp_path, outside):
    folder = tmp_path / "landing" / "dao"
    (folder / "a.ndjson").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    (folder / "folder").symlink_to(outside.parent)
    (folder / "good.ndjson").write_text(json.dumps(ROW | {"id": "c2", "parent_id": "t3_abc", "body": "fine"}) + "\n")
    lake = built(tmp_path)
    assert lake.read("messages", "dao")["text"].to_list() == ["fine"]
    rejected = lake.read("rejected_records", "dao")
    assert rejected["reason"].to_list() == ["foreign_link"] * 3
    assert sorted(rejected["raw_file"]) == ["a.ndjson", "dangling", "folder"]
    assert lake.read("raw_files", "dao")["n_rejected"].sum() == 3


def test_the_operators_link_is_followed_as_long_as_it_leads_where_it_did(tmp_path, outside):
    """The control, and a contributor who puts another link in its place."""
    folder = tmp_path / "landing" / "dao"
    link(folder, outside)
    link(folder, outside)
    assert built(tmp_path).read("messages", "dao")["text"].to_list() == ["a secret of this machine"]
    (folder / outside.name).unlink()
    (folder / outside.name).symlink_to(tmp_path / "landing" / LINKED)
    assert foreign_links(folder) == [folder / outside.name]
    assert built(tmp_path).read("messages", "dao").is_empty()
