"""The messages build: hydration, duplicates, bots, subjects, conservation, repeatability."""

import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from user_embeddings_dagster.exports import merge
from user_embeddings_dagster.exports.build import TABLES, build_messages, contributor_links
from user_embeddings_dagster.exports.landing import BadFile
from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.privacy.containment import contained
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
LONG = "This sentence is surely longer than twenty characters"
COMMENTS = "id,permalink,date,ip,subreddit,gildings,link,parent,body,media\n"


def record(id: str, author: str, body: str, at: int = 1_000_000, link: str = "L1", parent: str | None = None) -> dict:
    return {
        "id": id, "author": author, "body": body, "created_utc": at, "edited": False, "subreddit": "pics",
        "link_id": f"t3_{link}", "parent_id": parent or f"t3_{link}",
    }  # fmt: skip


def dump(folder: Path, *records: dict | str, name: str = "RC.ndjson") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (folder / name).write_text("\n".join(rows) + "\n")


def request(folder: Path, account: str, *rows: tuple[str, str, str, str]) -> None:
    """A data request of `account` with rows (id, link, parent, body), all of the same second."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f'{id},/p,1970-01-12 13:46:40 UTC,,pics,0,https://x/comments/{link}/,{parent},"{body}",'
        for id, link, parent, body in rows
    ]
    with zipfile.ZipFile(folder / f"export_{account}_20240101.zip", "w") as out:
        info = zipfile.ZipInfo("comments.csv", (2024, 1, 1, 0, 0, 0))
        out.writestr(info, COMMENTS + "\n".join(lines) + "\n")


@pytest.fixture
def landing(tmp_path) -> Path:
    return tmp_path / "landing"


def build(landing: Path, name: str = "lake", **kwargs):
    lake = Lake(landing.parent / name)
    return build_messages("reddit", landing, lake, KEY, **kwargs), lake


def message(native_id: str, link: str = "l1") -> str:
    return keyed_id(KEY, "message", "reddit", f"t3_{link}", native_id)


def drops(lake: Lake) -> dict[str, int]:
    frame = lake.read("dropped_messages", "reddit").group_by("reason").agg(pl.col("n").sum())
    return dict(frame.iter_rows())


def conserved(lake: Lake) -> bool:
    read = lake.read("raw_files", "reddit")["n_messages"].sum()
    return read == lake.read("messages", "reddit").height + sum(drops(lake).values())


@pytest.mark.parametrize("others", [0, 8500])
def test_a_name_of_the_erased_is_replaced_also_in_what_was_read_before_it(landing, others):
    """F4: 0 or 6 MB of a dump, and a contributor's export, before their own comment; `erased_names` tell more."""
    folder = landing / "reddit"
    request(folder, "Ann", ("c1", "l1", "t3_l1", "I met zelka_k and Nowak"))
    text = "lorem ipsum " * 60
    dump(
        folder,
        record("c2", "bob", "zelka_k said so", link="l1"),
        *(record(f"x{n}", "carl", f"{n} {text}", link="l1") for n in range(others)),
        record("c3", "zelka_k", "yes I did", link="l1"),
    )
    erased = Tombstones(KEY, frozenset()).with_users([user_id(KEY, "reddit", "zelka_k")])
    known = ErasedNames(KEY).with_names([("Zelka Nowak", "display_name")])
    seen = {}
    for name, kwargs in {"nobody": {}, "by hash": {"erased_names": known}, "as told": {}}.items():
        _, lake = build(landing, name, erased=None if name == "nobody" else erased, threads=1, **kwargs)
        frame = lake.read("messages", "reddit")
        seen[name] = {frame.filter(message_id=message(of))["text"].item() for of in ("t1_c1", "t1_c2")}
        assert conserved(lake)
    assert seen == {
        "nobody": {"I met zelka_k and Nowak", "zelka_k said so"},
        "by hash": {"I met <PERSON> and <PERSON>", "<PERSON> said so"},
        "as told": {"I met <PERSON> and Nowak", "<PERSON> said so"},
    }


def test_where_none_of_the_erased_is_found_nobody_is_taken_for_them(landing):
    """F4: the others' rows stay the same bits: "Will" was erased elsewhere."""
    folder = landing / "reddit"
    dump(folder, record("c2", "bob", "I will"))
    erased = Tombstones(KEY, frozenset()).with_users([user_id(KEY, "reddit", "will")])
    _, lake = build(landing, erased=erased, erased_names=ErasedNames(KEY).with_names([("will", "handle")]), threads=1)
    assert lake.read("messages", "reddit")["text"].to_list() == ["I will"]


def test_a_dump_hydrates_the_threads_of_contributors_and_nothing_else(landing):
    """C2: parents' texts come from the dump; other threads are counted away; bystanders are no subjects."""
    folder = landing / "reddit"
    request(folder, "Ann", ("c2", "l1", "t1_c1", "my answer"), ("c9", "gone", "t1_x", "no dump has this thread"))
    dump(
        folder,
        record("c1", "bob", "a question", link="l1"),
        record("c2", "ann", "my answer", link="l1", parent="t1_c1"),
        record("c3", "carol", "elsewhere", link="l2"),
        record("c4", "dave", "elsewhere too", link="l2"),
    )
    result, lake = build(landing)
    rows = lake.read("messages", "reddit")
    assert dict(rows.select("message_id", "is_subject").iter_rows()) == {
        message("t1_c1"): False, message("t1_c2"): True, message("t1_c9", "gone"): True,
    }  # fmt: skip
    own = rows.row(by_predicate=pl.col("message_id") == message("t1_c2"), named=True)
    assert own["parent_id"] == message("t1_c1")
    assert own["author_id"] == user_id(KEY, "reddit", "ann")
    assert own["raw_member"] == "comments.csv"
    assert drops(lake) == {"not_in_contributor_thread": 2, "exact_duplicate": 1}
    assert conserved(lake)
    assert result.stats["n_read"] == 6
    names = lake.read("participants", "reddit")
    assert set(names["name"]) == {"Ann", "ann", "bob"}


def test_the_contributors_row_is_kept_and_filled_from_the_dump(landing):
    """C2, C8: what the data request lacks comes from the dump; the row stays the contributor's."""
    request(landing / "reddit", "Ann", ("c1", "l1", "", "[deleted]"), ("c2", "l1", "", "mine"))
    dump(
        landing / "reddit",
        record("c1", "[deleted]", "what was written", link="l1", parent="t1_c0"),
        record("c2", "ann", "theirs", link="l1"),
    )
    _, lake = build(landing)
    rows = lake.read("messages", "reddit")
    assert dict(rows.select("message_id", "text").iter_rows()) == {
        message("t1_c1"): "what was written", message("t1_c2"): "mine",
    }  # fmt: skip
    assert rows["is_subject"].all()
    assert conserved(lake)


def test_in_a_public_archive_every_author_is_a_subject_but_bots_and_the_deleted(landing):
    """C8: bots go, deleted authors stay as context, empty texts go; each counted by its reason."""
    dump(
        landing / "reddit",
        record("a", "bob", "hello"),
        record("b", "AutoModerator", "rules"), record("c", "metric_units_bot", "1 mile"), record("d", "FooBot", "beep"),
        record("e", "Talbot", "no bot"), record("f", "robot", "no bot either"),
        record("g", "[deleted]", "kept as context"), record("h", "[deleted]", "[deleted]"),
        record("i", "eve", "[removed]"),
    )  # fmt: skip
    _, lake = build(landing)
    rows = lake.read("messages", "reddit")
    assert sorted(rows.filter("is_subject")["text"]) == ["hello", "no bot", "no bot either"]
    context = rows.filter(~pl.col("is_subject"))
    assert context.select("text", "role", "author_id").rows() == [("kept as context", "deleted", None)]
    assert drops(lake) == {"bot": 3, "deleted_author": 1, "empty": 1}
    assert conserved(lake)


def test_duplicates_are_dropped_by_author_time_and_normalised_text(landing):
    """C8: exact and near duplicates; what only looks like one is kept."""
    day = 86_400
    dump(
        landing / "reddit",
        record("a", "ann", LONG), record("a", "ann", LONG),  # the same id twice: exact
        record("b", "ann", LONG, link="L2"),  # same author, time and text: exact
        record("c", "ann", LONG.upper().replace(" ", "  ") + "!!", at=1_000_000 + day),  # a day later: near
        record("d", "ann", LONG + "?", at=1_000_001 + 2 * day),  # over a day after the last: kept
        record("e", "bob", LONG, at=1_000_000),  # another author: kept
        record("f", "ann", "ok thanks", at=1_000_010), record("g", "ann", "ok thanks", at=1_000_020),  # short: kept
    )  # fmt: skip
    _, lake = build(landing)
    assert drops(lake) == {"exact_duplicate": 2, "near_duplicate": 1}
    kept = {message(f"t1_{i}", link="L1") for i in "adefg"} | {message("t1_b", "L2")}
    rows = set(lake.read("messages", "reddit")["message_id"])
    assert rows < kept
    assert len(rows) == 5
    assert conserved(lake)


def test_the_conservation_law_notices_a_lost_message(landing, monkeypatch):
    """C8: a merge that loses rows without a reason raises before anything is committed."""
    dump(landing / "reddit", record("a", "ann", "x"), record("b", "bob", "y"))
    monkeypatch.setattr(merge.sql, "ORDER", merge.sql.ORDER.replace("ORDER BY", "WHERE seq <> 1 ORDER BY"))
    with pytest.raises(RuntimeError, match="2 messages read, but 1 kept and 0 dropped"):
        build(landing)
    assert Lake(landing.parent / "lake").current("messages", "reddit") is None


def test_an_owner_in_anothers_export_is_a_subject_there(landing):
    """A contributor's message counts as theirs wherever in the DataDAO it was found."""
    request(landing / "reddit", "Ann", ("c1", "l1", "", "from ann"))
    request(landing / "reddit", "Bob", ("c2", "l2", "", "from bob"))
    dump(landing / "reddit", record("c3", "BOB", "bob in ann's thread", link="l1"), record("c4", "eve", "x", link="l1"))
    _, lake = build(landing)
    subjects = dict(lake.read("messages", "reddit").select("text", "is_subject").iter_rows())
    assert subjects == {"from ann": True, "from bob": True, "bob in ann's thread": True, "x": False}


def test_linked_accounts_are_one_person(landing):
    request(landing / "reddit", "Ann", ("c1", "l1", "", "one"))
    request(landing / "reddit", "Ann_2", ("c2", "l1", "", "two"))
    (landing / "reddit" / "contributors.csv").write_text("contributor,account\nperson-7,ann\nperson-7,Ann_2\n")
    _, lake = build(landing)
    assert set(lake.read("messages", "reddit")["author_id"]) == {keyed_id(KEY, "contributor", "person-7")}
    assert "contributors.csv" not in set(lake.read("raw_files", "reddit")["raw_file"])


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "contributor,account\n,x\n", "contributor,account\np,x\nq,X\n"])
def test_a_wrong_contributors_file_names_the_line_and_no_account(tmp_path, text):
    path = tmp_path / "contributors.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"contributors\.csv"):
        contributor_links(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("contributor,account\np-1,ann\np-2,José\n".encode("cp1252"), 3),
        ("contributor,account\np-1,ann\n".encode("utf-16"), 1),
        ("contributor,account\np-1,ann\n".encode("utf-16-be"), 1),
        (b"contributor,account\r\np-1,al\0ice\r\n", 2),
        (b"contributor,account\np-1,ann\np-2," + b"x" * (3 << 20) + b"\n", 3),
    ],
    ids=["cp1252", "utf-16", "utf-16 without a mark", "nul", "long field"],
)
def test_a_contributors_file_that_is_no_text_is_told_by_its_line_and_not_by_its_content(landing, content, line):
    dump(landing / "reddit", record("a", "ann", "x"))
    (landing / "reddit" / "contributors.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^reddit/contributors\.csv, line {line}: ") as caught:
        build(landing)
    told = contained(caught.value)
    assert told is caught.value and type(told) is BadFile  # its text is our own, and shown
    assert not any(word in str(told) for word in ("Jos", "p-1", "al", "xx"))


@pytest.mark.parametrize("text", ["\ufeffcontributor,account\np-1,José\n", "contributor,account\r\np-1,josé\r\n"])
def test_a_contributors_file_with_a_mark_or_windows_lines_is_read(tmp_path, text):
    path = tmp_path / "contributors.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert contributor_links(path) == {"josé": "p-1"}


def test_unknown_files_and_bad_lines_are_rejected_rows(landing):
    """C7: the place and reason of everything unread, beside the good rows."""
    dump(landing / "reddit", record("a", "ann", "x"), "{broken", record("b", "bob", "y"))
    (landing / "reddit" / "notes.bin").write_bytes(b"\0\1\2")
    (landing / "reddit" / "zero").write_bytes(b"")
    result, lake = build(landing)
    rows = lake.read("rejected_records", "reddit").sort("raw_file")
    assert rows.select("raw_file", "raw_location", "reason").rows() == [
        ("RC.ndjson", 2, "malformed_json"), ("notes.bin", 0, "unknown_format"), ("zero", 0, "unknown_format"),
    ]  # fmt: skip
    assert lake.read("messages", "reddit").height == 2
    assert result.stats["n_rejected"] == 3
    hashes = lake.read("raw_files", "reddit")
    assert set(lake.read("messages", "reddit")["raw_sha256"]) <= set(hashes["raw_sha256"])
    assert dict(hashes.select("raw_file", "n_rejected").iter_rows())["RC.ndjson"] == 1


def test_an_empty_landing_folder_and_a_missing_one(landing):
    (landing / "reddit").mkdir(parents=True)
    result, lake = build(landing)
    assert {name: commit.rows for name, commit in result.commits.items()} == dict.fromkeys(
        (table.name for table in TABLES), 0
    )
    assert lake.read("messages", "reddit").is_empty()
    with pytest.raises(FileNotFoundError):
        build_messages("other", landing, lake, KEY)


def test_the_same_file_under_two_names_is_read_once(landing):
    dump(landing / "reddit", record("a", "ann", "x"), "{bad", name="one.ndjson")
    dump(landing / "reddit", record("a", "ann", "x"), "{bad", name="two.ndjson")
    _, lake = build(landing)
    assert lake.read("raw_files", "reddit")["n_messages"].to_list() == [1, 0]
    assert lake.read("rejected_records", "reddit").height == 1
    assert conserved(lake)
