"""A link in the landing folder leads nowhere unless the operator made it."""

import json

import pytest

from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.landing import LINKED, foreign_links, link, raw_paths
from user_embeddings_dagster.privacy.sealed_format import MAGIC
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
    link(folder, outside, outside.name)
    link(folder, outside, outside.name)
    assert built(tmp_path).read("messages", "dao")["text"].to_list() == ["a secret of this machine"]
    (folder / outside.name).unlink()
    (folder / outside.name).symlink_to(tmp_path / "landing" / LINKED)
    assert foreign_links(folder) == [folder / outside.name]
    assert built(tmp_path).read("messages", "dao").is_empty()


def test_a_linked_export_that_is_not_there_takes_nothing_away(tmp_path, outside):
    """A disk that is not mounted. Removing the link is what takes the rows away."""
    folder = tmp_path / "landing" / "dao"
    link(folder, outside, outside.name)
    built(tmp_path)
    outside.rename(outside.with_name("moved"))
    with pytest.raises(FileNotFoundError, match="dao: 1 linked exports are not there"):
        built(tmp_path)
    assert Lake(tmp_path / "lake").read("messages", "dao").height == 1
    (folder / outside.name).unlink()
    assert built(tmp_path).read("messages", "dao").is_empty()


def test_exports_of_one_name_lie_below_folders_of_their_own(tmp_path, outside):
    """Every Telegram export is a result.json: none takes another's place, and each is followed."""
    folder, others = tmp_path / "landing" / "dao", []
    for number, name in enumerate(("ann", "bob")):
        others.append(outside.parent / name / "result.ndjson")
        others[-1].parent.mkdir()
        others[-1].write_text(json.dumps(ROW | {"id": f"d{number}", "parent_id": "t3_abc", "body": name}) + "\n")
        link(folder, others[-1], f"{name}/result.ndjson")
    assert foreign_links(folder) == []
    assert sorted(built(tmp_path).read("messages", "dao")["text"]) == ["ann", "bob"]


def test_an_export_is_not_linked_twice(tmp_path, outside):
    """What was linked at the top of the folder by an earlier version is moved to where it belongs."""
    folder = tmp_path / "landing" / "dao"
    link(folder, outside, outside.name)
    link(folder, outside, f"outside/{outside.name}")
    assert raw_paths(folder) == [folder / "outside" / outside.name] and foreign_links(folder) == []
    assert list(json.loads((folder.parent / LINKED).read_text())) == [f"dao/outside/{outside.name}"]


@pytest.mark.parametrize("way", ["drop", "sealed", "link", "folder", "linked_folder", "file_for_folder"])
def test_a_link_takes_nothings_place_but_its_own(tmp_path, outside, way):
    """A contributor's drop may be the only copy."""
    folder, place = tmp_path / "landing" / "dao", "some/result.json"
    taken = folder / place
    taken.parent.mkdir()
    if way == "drop":
        taken.write_text("the only copy")
    elif way == "sealed":
        taken = folder / f"{place}.sealed"
        taken.write_bytes(MAGIC)
    elif way == "link":
        taken.symlink_to(tmp_path / "elsewhere")
    elif way == "folder":
        (taken / "below").mkdir(parents=True)
    else:
        taken = taken.parent
        taken.rmdir()
        taken.symlink_to(tmp_path) if way == "linked_folder" else taken.write_text("the only copy")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match=f"{taken}: in the place of a link"):
        link(folder, outside, place)
    assert sorted(tmp_path.rglob("*")) == before
