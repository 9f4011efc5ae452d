"""C15: an erased contributor is in no store any more, and the scan that says so would see them (F4, F5)."""

import json
import shutil

import polars as pl
import pytest
import small_platform
from small_platform import person

from user_embeddings_dagster import cli
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.protocol import Message, Request
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import evidence, identity, stores
from user_embeddings_dagster.privacy.erasure.erase import erase, pending, receipts
from user_embeddings_dagster.privacy.erasure.raw_files import search
from user_embeddings_dagster.privacy.erasure.report import as_table, nothing_left
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.schema import ERASURES, TABLES
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import Models, TaintedModel
from user_embeddings_dagster.storage.user_memories import UserMemories

HELD = {
    "landing", "tables/messages", "tables/participants", "tables/masked_chunks", "tables/chunk_summaries",
    "tables/training_snapshot", "tables/hard_negatives", "tables/insight_tasks",
    "lancedb/chunk_embeddings", "lancedb/summary_embeddings", "lancedb/item_embeddings", "lancedb/user_embeddings",
    "user_memories",
}  # fmt: skip


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Layout:
    return small_platform.materialise(tmp_path_factory.mktemp("built") / "data")


@pytest.fixture
def layout(built, tmp_path) -> Layout:
    shutil.copytree(built.root, tmp_path / "data", symlinks=True)
    return Layout(tmp_path / "data")


def spoken(layout: Layout, users: frozenset[str], gone: set[str]) -> list[str]:
    """Chunks of these users, and others' in which one of these messages is a turn."""
    lake, found = Lake(layout.root), list[str]()
    theirs = pl.col("message_ids").is_in(list(gone)) | pl.col("user_id").is_in(list(users))
    for name in lake.partitions("masked_chunks"):
        turns = lake.read("masked_chunks", name).explode("message_ids")
        found += turns.filter(theirs)["chunk_id"].to_list()
    return found


def content(layout: Layout, without: frozenset[str], chunks: list[str]) -> dict[str, object]:
    """Everything stored that is not of these users, and of none of these chunks."""
    lake, lance, found, users = Lake(layout.root), LanceTables(layout.lancedb), {}, list(without)
    for table in TABLES:
        for partition in lake.partitions(table):
            frame = lake.read(table, partition)
            for column in {"user_id", "author_id"} & set(frame.columns):
                frame = frame.filter(~pl.col(column).is_in(users).fill_null(False))
            for column in {"chunk_id", "negative_chunk_id"} & set(frame.columns):
                frame = frame.filter(~pl.col(column).is_in(chunks))
            if "option_chunk_ids" in frame.columns:
                frame = frame.filter(~pl.col("option_chunk_ids").list.eval(pl.element().is_in(chunks)).list.any())
            found[f"{table}/{partition}"] = frame
    for folder in layout.lancedb.glob("*/*.lance"):
        datadao, table = folder.parent.name, folder.stem
        frame = lance.read(datadao, table, ["id", "version", "vector"])
        found[f"lance/{datadao}/{table}"] = frame.filter(~pl.col("id").is_in([*users, *chunks]))
    for path in layout.user_memories.glob("*.sqlite"):
        with UserMemories(path) as memories:
            known = [user for user in memories.known("v")["user_id"] if user not in without]
            found[path.name] = memories.read(known)[1].tobytes()
    return found


def same(one: object, other: object) -> bool:
    return one.equals(other) if isinstance(one, pl.DataFrame) else one == other


def test_nothing_of_an_erased_contributor_is_left_and_nothing_of_others_is_gone(layout):
    """C15, F4: found in every store before, in none after; the others' rows are the same bits."""
    users = person(layout)
    old = Layout(layout.root.with_name("old"))
    shutil.copytree(layout.root, old.root)
    receipt = erase(layout, users)
    assert receipt.hits_before.keys() >= HELD
    assert receipt.clean and receipt.hits_after == receipt.undecoded == {} and receipt.canaries > 50
    assert receipt.removed["cache"] > 0 and receipt.removed["keys"] == 1 and receipt.removed["leftovers"] == 1
    said = [set(Lake(root).read("messages", "telegram")["message_id"]) for root in (old.root, layout.root)]
    chunks = spoken(old, users, said[0] - said[1])
    before, after = content(old, users, chunks), content(layout, users, chunks)
    # Of the export that was withdrawn, what people wrote who are no contributors went too.
    loose = {"messages/telegram", "raw_files/telegram", "dropped_messages/telegram"}
    assert [name for name in before if name not in loose and not same(before[name], after[name])] == []
    kept = before["messages/telegram"].filter("is_subject").drop("text")
    assert kept.equals(after["messages/telegram"].filter("is_subject").drop("text"))
    left = after["masked_chunks/telegram"]["user_id"]
    assert len(left) > 20 and not set(users) & set(left)
    frame = as_table(receipts(layout))
    assert Lake(layout.root).commit(ERASURES, frame).rows == frame.height and nothing_left(frame).passed
    assert not any(user in str(receipt) for user in users)


def test_erasing_again_removes_nothing_more(layout):
    users = person(layout)
    first = erase(layout, users)
    again = erase(layout, frozenset(list(users)[:1]))
    assert again.clean and again.person == first.person
    assert (again.removed, again.hits_before) == (first.removed, first.hits_before)
    assert len(receipts(layout)) == 1 and pending(layout) == []


@pytest.mark.parametrize(
    "point",
    ["erase_landing", "erase_tables", "lance delete", "scan"],
)
def test_killed_anywhere_it_is_resumed_to_the_same_end(layout, monkeypatch, point):
    """F4: killed half-way and resumed, the counts are those of one go and nothing is left."""
    users = person(layout)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if point == "lance delete":
            patch.setattr(LanceTables, "purge", lambda self, *what: kill(self.delete(*what)))
        elif point == "scan":
            patch.setattr("user_embeddings_dagster.privacy.erasure.erase._Erasure._receipt", kill)
        else:
            done = getattr(stores, point)
            patch.setattr(stores, point, lambda *what: kill(done(*what)))
        with pytest.raises(Killed):
            erase(layout, users)
    assert pending(layout) == [users]
    receipt = erase(layout, users)
    assert receipt.clean and receipt.hits_before.keys() >= HELD and pending(layout) == []
    assert receipt.removed["tables/masked_chunks"] > 0 and receipt.removed["lancedb/item_embeddings"] > 0
    assert receipt.removed["landing"] > 0 and receipt.removed["user_memories"] == 1


@pytest.mark.parametrize(
    ("forgotten", "store"),
    [("erase_landing", "landing"), ("erase_memories", "user_memories"), ("erase_tables", "tables/messages")],
)
def test_the_scan_catches_a_store_that_was_forgotten(layout, monkeypatch, forgotten, store):
    monkeypatch.setattr(stores, forgotten, lambda *_: [])
    receipt = erase(layout, person(layout))
    assert not receipt.clean and store in receipt.hits_after
    assert not nothing_left(as_table([receipt])).passed


@pytest.mark.parametrize("keys_too", [True, False])
def test_a_name_that_is_a_key_of_what_others_exported_is_found_before_and_not_after(layout, monkeypatch, keys_too):
    """F4; control: where keys stay, the scan finds it after as well."""
    named, key = "Kwame Sørensen", load_or_create_key(layout.key)
    author = Lake(layout.root).read("participants", "telegram").filter(name=named)["author_id"][0]
    users = identity.of_user(layout.landing, key, author)
    shared = [found for found in search(layout.landing / "telegram", key, users) if found.known and not found.own]
    path = shared[0].file.path
    path.write_text(json.dumps(json.loads(path.read_text()) | {"voices": {named: 3, "nobody": 1}}))
    small_platform.read(layout, "telegram")
    if not keys_too:
        monkeypatch.setattr(Redaction, "keys", lambda self, names, people=(): dict(zip(names, names, strict=True)))
    receipt = erase(layout, users)
    assert receipt.hits_before["landing"]
    assert json.loads(path.read_text())["voices"] == {"<PERSON>" if keys_too else named: 3, "nobody": 1}
    assert receipt.clean == keys_too and ("landing" in receipt.hits_after) != keys_too


@pytest.mark.parametrize("told_apart", [True, False])
def test_the_same_words_in_a_branch_of_somebody_else_are_no_trace(layout, monkeypatch, told_apart):
    """Nobody reads that branch: `messages` alone does not tell whose words they are. Without the check, they count."""
    users, said = person(layout), Lake(layout.root).read("messages", "telegram")
    text = said.filter(pl.col("author_id").is_in(list(users))).sort(pl.col("text").str.len_chars())["text"][-1]
    nodes = {
        "r": {"id": "r", "parent": None, "message": None},
        **{
            name: {
                "id": name,
                "parent": "r",
                "message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": [words]}},
            }
            for name, words in (("a", "read"), ("b", text))
        },
    }
    other = layout.landing / "chatgpt" / "exports" / "conversations.json"
    other.write_text(json.dumps([{"id": "c", "mapping": nodes, "current_node": "a"}], ensure_ascii=False))
    if not told_apart:
        monkeypatch.setattr(evidence, "of_others", lambda *_: False)
    receipt = erase(layout, users)
    assert receipt.clean == told_apart
    assert receipt.canaries > 50 and text in other.read_text()


def test_what_turns_up_again_is_not_read_in(layout):
    """A tombstone: the same exports dropped again bring back neither words nor names."""
    users = person(layout)
    lake, raw = Lake(layout.root), layout.root.with_name("raw")
    shutil.copytree(layout.landing / "telegram", raw)
    names = lake.read("participants", "telegram").filter(pl.col("author_id").is_in(list(users)))["name"].unique()
    erase(layout, users)
    shutil.rmtree(layout.landing / "telegram")
    shutil.copytree(raw, layout.landing / "telegram")
    small_platform.read(layout, "telegram")
    messages, chunks = lake.read("messages", "telegram"), lake.read("masked_chunks", "telegram")
    assert messages.height and chunks.height
    for frame, column in ((messages, "author_id"), (lake.read("participants", "telegram"), "author_id")):
        assert not frame.filter(pl.col(column).is_in(list(users))).height
    assert lake.read("dropped_messages", "telegram").filter(reason="erased")["n"].sum() > 0
    long = [name.lower() for name in names if len(name) > 8]
    text = "\n".join(chunks["text"].str.to_lowercase())
    assert long and not [name for name in long if name in text]


def test_the_next_materialisation_cuts_the_others_chunks_without_them(layout):
    users, lake = person(layout), Lake(layout.root)
    said = lake.read("messages", "telegram").filter(pl.col("author_id").is_in(list(users)))["message_id"]
    erase(layout, users)
    removed = lake.read("masked_chunks", "telegram").height
    small_platform.read(layout, "telegram")
    chunks = lake.read("masked_chunks", "telegram")
    assert chunks.height >= removed
    assert not set(chunks["message_ids"].explode()) & set(said)


def test_checkpoints_trained_on_them_are_named_and_not_promoted(layout):
    """F5: the encoder, and the one on its vectors; by policy they may be released all the same."""
    trained = Models(layout.models).folder("item_encoder", "a" * 32).contributors
    assert trained
    receipt = erase(layout, person(layout))
    assert receipt.checkpoints == [f"item_encoder/{'a' * 32}", f"sequence_encoder/8/{'b' * 32}"]
    strict, lenient = Models(layout.models), Models(layout.models, release_tainted=True)
    for encoder, version in (("item_encoder", "a" * 32), ("sequence_encoder/8", "b" * 32)):
        for refused in (lambda e=encoder, v=version: strict.promote(e, v), lambda e=encoder: strict.current(e)):
            with pytest.raises(TaintedModel, match=encoder):
                refused()
        lenient.promote(encoder, version)
        assert lenient.current(encoder).tainted
    assert not strict.current("summary_program").tainted


def test_answers_about_others_are_kept_and_the_erased_ones_key_is_gone(layout):
    users, lake = person(layout), Lake(layout.root)
    chunks = lake.read("masked_chunks", "chatgpt").filter(~pl.col("user_id").is_in(list(users)))
    asked = [
        Request((Message("user", text),), {"type": "object"}, owner, "p/1")
        for text, owner in chunks.select("text", "user_id").iter_rows()
    ]
    erase(layout, users)
    with ContributorKeys.of(layout) as keys:
        assert not any(keys.existing(user) for user in users)
        with open_cache(layout.language_model_cache, keys) as cache:
            kept = cache.get("m", asked)
    assert any(kept)


def test_the_command_tells_what_it_did_and_what_it_does_not_cover(layout, capsys):
    users = person(layout)
    assert cli.main(["--data", str(layout.root), "erase", sorted(users)[0]]) == 0
    told = capsys.readouterr().out
    assert "clean: nothing of theirs was found" in told and "not covered: " in told and "models/item_encoder" in told
    assert not any(user in told for user in users)
    assert cli.main(["--data", str(layout.root), "erase", "--resume"]) == 0
    assert cli.main(["--data", str(layout.root), "erase", "--account", "myspace:tom"]) == 2
    assert "PLATFORM:NAME" in capsys.readouterr().err
