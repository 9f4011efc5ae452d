"""C19: raw exports are sealed once they were read, under their contributor's key; tables are the same either way."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from user_embeddings_dagster.exports import sealing
from user_embeddings_dagster.exports.build import build_messages, contributor_links
from user_embeddings_dagster.exports.landing import scan
from user_embeddings_dagster.exports.opening import NoKeys, clear_path
from user_embeddings_dagster.exports.sealing import datadao_owner, seal_folder, unsealed
from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy import sealed_format
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed import SealedReader, SealedWriter
from user_embeddings_dagster.privacy.sealed_format import Tampered, is_sealed, owner_of
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
COMMENTS = "id,permalink,date,ip,subreddit,gildings,link,parent,body,media\n"
ROW = '{id},/p,2023-06-16 08:00:00 UTC,,pics,0,https://x/comments/l1/,t1_p,"{body}",\n'


@pytest.fixture
def keys(tmp_path):
    with ContributorKeys(tmp_path / "keys" / "c.sqlite", bytes(32)) as keys:
        yield keys


@pytest.fixture
def folder(tmp_path) -> Path:
    """Every kind of owner: a data request (zip and bare), a zip of one account, a chat, a dump, a file of no format."""
    folder = tmp_path / "landing" / "dao"
    (folder / "bare").mkdir(parents=True)
    with zipfile.ZipFile(folder / "export_Ann_20240101.zip", "w") as archive:
        archive.writestr("comments.csv", COMMENTS + ROW.format(id="c1", body="what Ann wrote to the others"))
    (folder / "bare" / "Ben_comments.csv").write_text(COMMENTS + ROW.format(id="c2", body="Ben has another view of it"))
    (folder / "bare" / "Ben_ip_logs.csv").write_text("date,ip\nx,203.0.113.77\n")
    (folder / "bare" / "Ben_statistics.csv").write_text("statistic,value\naccount name,Ben\n")
    messages = [
        {"id": n, "type": "message", "date_unixtime": str(10**9 + n), "from": f"P{n % 2}", "from_id": f"user{n % 2}",
         "text": f"message {n} of a long chat"} for n in range(6)
    ]  # fmt: skip
    chat = {"name": "g", "type": "private_group", "id": 5, "messages": messages}
    (folder / "chat.json").write_text(json.dumps(chat))
    comment = {"id": "c9", "author": "zed", "body": "said in public, years ago", "created_utc": 10**9, "edited": False,
               "subreddit": "pics", "link_id": "t3_l1", "parent_id": "t3_l1"}  # fmt: skip
    (folder / "RC.ndjson").write_text(json.dumps(comment) + "\n")
    (folder / "notes.txt").write_text("no reader knows this")
    (folder / "contributors.csv").write_text("contributor,account\nann-the-first,ann\n")
    return folder


def build(folder: Path, lake: str, keys: ContributorKeys | None = None, seal: bool = False):
    return build_messages(
        folder.name, folder.parent, Lake(folder.parent.parent / lake), KEY, keys=keys, seal=seal, threads=1
    )


def content(result) -> dict[str, tuple[str, str, dict]]:
    return {name: (commit.content_hash, commit.fingerprint, commit.stats) for name, commit in result.commits.items()}


def owners(folder: Path, keys: ContributorKeys) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and is_sealed(path))
    return {clear_path(path).relative_to(folder).as_posix(): owner_of(path, keys) for path in found}


def test_tables_data_versions_and_cursors_are_the_same_sealed_or_not(folder, keys):
    """C19: bit for bit, with sealing, read from sealed files, and read again."""
    before, drops = content(build(folder, "clear")), scan(folder.parent)
    sealing_run = build(folder, "sealing", keys, seal=True)
    assert sealing_run.sealing and sealing_run.sealing.sealed == 7 and not sealing_run.sealing.left
    assert unsealed(folder) == [] and (folder / "contributors.csv").exists()
    again, from_sealed = build(folder, "sealing", keys, seal=True), build(folder, "from sealed", keys)
    assert again.reused and content(sealing_run) == content(again) == content(from_sealed) == before
    assert scan(folder.parent) == drops
    names = Lake(folder.parent.parent / "from sealed").read("rejected_records", "dao")["raw_file"]
    assert list(names) == ["notes.txt"]


def test_sample_exports_give_the_same_tables(tmp_path, keys):
    """C19: every format that contributors send, and its oddities."""
    generate(tmp_path / "landing", seed=5, contributors=20)
    for name in ("chatgpt", "telegram"):
        folder = tmp_path / "landing" / name
        before = content(build(folder, "clear"))
        assert content(build(folder, "sealing", keys, seal=True)) == before == content(build(folder, "sealed", keys))
        whose = owners(folder, keys).values()
        assert len({owner for owner in whose if len(owner) == 32}) >= 5 and unsealed(folder) == []


def test_a_contributors_files_are_under_their_key_and_what_many_share_under_the_datadaos(folder, keys):
    seal_folder(folder, KEY, keys, contributor_links(folder / "contributors.csv"))
    ann, ben = user_id(KEY, "", "ann", {"ann": "ann-the-first"}), user_id(KEY, "reddit", "ben")
    assert owners(folder, keys) == {
        "export_Ann_20240101.zip": ann, "bare/Ben_comments.csv": ben, "bare/Ben_ip_logs.csv": ben,
        "bare/Ben_statistics.csv": ben, "chat.json": datadao_owner("dao"), "RC.ndjson": datadao_owner("dao"),
        "notes.txt": datadao_owner("dao"),
    }  # fmt: skip


DEATHS = {
    "before anything": ("SealedWriter", "__init__", True),
    "a frame written": ("SealedWriter", "_put", False),
    "before it is in its place": ("SealedWriter", "commit", True),
    "in its place": ("SealedWriter", "commit", False),
    "read back": ("SealedReader", "verify", False),
    "before the clear file goes": ("Path", "unlink", True),
    "the clear file gone": ("Path", "unlink", False),
}


@pytest.mark.parametrize("point", DEATHS)
def test_killed_at_any_point_and_run_again_it_ends_the_same(folder, keys, tmp_path, point):
    """C19: a process that dies there leaves the content readable; the next one seals it, and nothing lies beside."""
    before = content(build(folder, "before"))
    name, method, first = DEATHS[point]
    child = os.fork()
    if not child:  # dies without any clean-up
        owner = {"SealedWriter": SealedWriter, "SealedReader": SealedReader, "Path": Path}[name]
        done = getattr(owner, method)

        def die(*arguments, **named):
            if not first:
                done(*arguments, **named)
            os._exit(9)

        setattr(owner, method, die)
        with ContributorKeys(tmp_path / "keys" / "c.sqlite", bytes(32)) as its_own:
            seal_folder(folder, KEY, its_own, {})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert content(build(folder, "after the death", keys)) == before
    seal_folder(folder, KEY, keys, {})
    assert content(build(folder, "sealed", keys)) == before
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert len(names) == 8 and sum(name.endswith(".sealed") for name in names) == 7


def test_links_files_in_use_and_long_names_are_left_and_told(folder, keys, tmp_path, monkeypatch):
    outside = tmp_path / "outside.json"
    (folder / "chat.json").rename(outside)
    (folder / "chat.json").symlink_to(outside)
    long = folder / f"{'n' * 245}.json"
    long.write_text("{}")
    with (folder / "RC.ndjson").open("ab"):
        done = seal_folder(folder, KEY, keys, {})
    assert done.left == {"in_use": 1, "links": 1, "long_names": 1} and done.sealed == 5
    assert outside.read_text() and (folder / "chat.json").is_symlink() and long.exists()
    monkeypatch.setattr(sealing, "_changed", lambda path, before: path.name == "RC.ndjson")
    assert seal_folder(folder, KEY, keys, {}).left == {"changed": 1, "links": 1, "long_names": 1}
    assert (folder / "RC.ndjson").exists() and not (folder / "RC.ndjson.sealed").exists()
    monkeypatch.undo()
    assert seal_folder(folder, KEY, keys, {}).sealed == 1


def test_a_folder_that_is_a_link_is_left_too(folder, keys, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(moved)
    assert seal_folder(folder, KEY, keys, {}).left == {"links": 7} and len(unsealed(folder)) == 7


def test_a_new_drop_under_an_old_name_counts_and_is_sealed_in_its_place(folder, keys):
    build(folder, "lake", keys, seal=True)
    (folder / "notes.txt").write_text("another text")
    first = build(folder, "lake", keys, seal=True)
    assert not first.reused and first.sealing and first.sealing.sealed == 1
    with SealedReader(folder / "notes.txt.sealed", keys) as reader:
        assert reader.read() == b"another text"


def test_the_same_dropped_again_is_neither_read_nor_sealed_again(folder, keys, monkeypatch):
    dropped = (folder / "chat.json").read_bytes()
    build(folder, "lake", keys, seal=True)
    sealed_bytes = (folder / "chat.json.sealed").read_bytes()
    (folder / "chat.json").write_bytes(dropped)
    before = scan(folder.parent)
    monkeypatch.setattr(sealing, "owners_of", None)
    again = build(folder, "lake", keys, seal=True)
    assert again.reused and again.sealing and again.sealing.sealed == 1 and unsealed(folder) == []
    assert (folder / "chat.json.sealed").read_bytes() == sealed_bytes and scan(folder.parent) == before


def test_files_whose_key_is_gone_are_counted_and_the_others_read(folder, keys):
    build(folder, "lake", keys, seal=True)
    keys.destroy(user_id(KEY, "reddit", "ben"))
    result = build(folder, "lake", keys)
    assert result.shredded == 3 and result.stats["n_files"] == 4 and not result.reused


def test_a_damaged_file_stops_the_reading_by_frame_and_the_tables_stay(folder, keys):
    before = build(folder, "lake", keys, seal=True)
    path = folder / "RC.ndjson.sealed"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "more.txt").write_text("so that it is read again")
    with pytest.raises(Tampered, match="frame 1 of 1"):
        build(folder, "lake", keys)
    assert Lake(folder.parent.parent / "lake").current("messages", "dao") == before.commits["messages"]
    path.write_bytes(whole)
    (folder / "RC.ndjson.sealed").rename(folder / "other.ndjson.sealed")
    with pytest.raises(Tampered, match="another name"):
        build(folder, "lake", keys)


def test_what_a_contributor_drops_as_sealed_is_rejected_and_the_others_are_read(folder, keys, tmp_path):
    (folder / "forged.zip.sealed").write_bytes(sealed_format.MAGIC + os.urandom(300))
    others = ContributorKeys(tmp_path / "others.sqlite", KEY)
    with others, SealedWriter(folder / "foreign.zip.sealed", others, "x", b"dao/foreign.zip") as writer:
        writer.commit()
    result = build(folder, "lake", keys, seal=True)
    rejected = Lake(folder.parent.parent / "lake").read("rejected_records", "dao")
    assert list(rejected.sort("raw_file")["reason"]) == ["foreign_seal", "foreign_seal", "unknown_format"]
    assert result.stats["n_messages"] > 0 and scan(folder.parent)[0]


def test_sealed_files_are_not_read_without_keys(folder, keys):
    build(folder, "lake", keys, seal=True)
    with pytest.raises(NoKeys):
        build(folder, "lake")
