"""A Telegram chat that several contributors export: nothing of the conversation is lost, and nothing is there twice."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.keys import file_sha256, user_id
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
ANN, BOB, CAT = 11, 22, 33
LONG = "These are words of more than twenty characters, number"


def said(author: int, at: int, text: str = "", answers: int | None = None, **more: Any) -> dict:
    """A message of the conversation; `answers` is the place of another in it."""
    return {"author": author, "at": at, "text": text or f"{LONG} {at} of {author}", "answers": answers, "more": more}


TALK = [said(ANN, 0), said(BOB, 60, answers=0), said(ANN, 120, answers=1), said(BOB, 180, "ok")]


def messages(talk: list[dict], first: int = 1, kept: set[int] | None = None, legacy: bool = False) -> list[dict]:
    """As one account numbers them, from `first` on; an account of long ago wrote local times only."""
    rows = []
    for place, one in enumerate(talk):
        row = {"id": first + place, "type": "message", "date": f"2024-01-01T{one['at'] // 3600 % 24:02}:"}
        row["date"] += f"{one['at'] // 60 % 60:02}:{one['at'] % 60:02}"
        if not legacy:
            row["date_unixtime"] = str(1704067200 + one["at"])
        row |= {"from": f"{first} {one['author']}", "from_id": f"user{one['author']}", "text": one["text"]}
        if one["answers"] is not None:
            row["reply_to_message_id"] = first + one["answers"]
        if kept is None or place in kept:
            rows.append(row | one["more"])
    return rows


def chat(number: int, kind: str, rows: list[dict], name: str = "A chat") -> dict:
    return {"name": name, "type": kind, "id": number, "messages": rows}


def account(owner: int, *chats: dict) -> dict:
    return {"personal_information": {"user_id": owner}, "chats": {"list": list(chats)}}


class Built:
    """The messages of some exports, named in their order unless `names` says so."""

    def __init__(self, *exports: dict, names: str = "abcdef") -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            self.sha = []
            for name, export in zip(names, exports, strict=False):
                path = root / "landing" / "chats" / name / ("dump.json" if "source" in export else "result.json")
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(export, indent=1))
                self.sha.append(file_sha256(path))
            self.stats = build_messages("chats", root / "landing", Lake(root / "lake"), KEY, threads=1).stats
            self.rows = Lake(root / "lake").read("messages", "chats")
            self.names = Lake(root / "lake").read("participants", "chats")

    @property
    def threads(self) -> list[list[str]]:
        """Texts by thread, each in order of time."""
        return sorted(self.rows.sort("created_at", "text").group_by("thread_id").agg("text")["text"].to_list())

    def dropped(self) -> dict[str, int]:
        drops = {k.removeprefix("dropped_"): int(v) for k, v in self.stats.items() if k.startswith("dropped_")}
        assert self.rows.height + sum(drops.values()) == self.stats["n_read"]
        return drops

    def answered(self) -> dict[str, str | None]:
        """Text answered, by text; of an answer to what is not there, a hash."""
        texts = dict(self.rows.select("message_id", "text").iter_rows())
        return {t: texts.get(p, p) for t, p in self.rows.select("text", "parent_id").iter_rows() if p is not None}


def texts(talk: list[dict]) -> list[str]:
    return [one["text"] for one in talk]


def subjects(built: Built) -> set[str]:
    return set(built.rows.filter("is_subject")["author_id"])


def person(number: int) -> str:
    return user_id(KEY, "telegram", f"user{number}")


PERSONAL = (
    account(ANN, chat(BOB, "personal_chat", messages(TALK, 1), "Bob")),
    account(BOB, chat(ANN, "personal_chat", messages(TALK, 501), "Ann")),
)
GROUP = (
    account(ANN, chat(8, "private_group", messages(TALK, 1))),
    account(BOB, chat(8, "private_group", messages(TALK, 501))),
)


@pytest.mark.parametrize("exports", [PERSONAL, GROUP], ids=["personal chat", "group"])
def test_two_contributors_copies_of_a_chat_are_one_conversation(exports):
    """Each message once, from its author's own export; both are subjects; answers lead to what they answered."""
    built = Built(*exports)
    assert built.threads == [texts(TALK)]
    assert built.dropped() == {"exact_duplicate": 4}
    assert built.rows["is_subject"].all() and subjects(built) == {person(ANN), person(BOB)}
    own = dict(zip((person(ANN), person(BOB)), built.sha, strict=True))
    assert all(own[author] == sha for author, sha in built.rows.select("author_id", "raw_sha256").iter_rows())
    assert built.answered() == {TALK[1]["text"]: TALK[0]["text"], TALK[2]["text"]: TALK[1]["text"]}
    assert {"1 11", "501 11", "1 22", "501 22"} <= set(built.names["name"])


def test_both_contributors_chunks_have_what_the_other_said():
    built = Built(*PERSONAL)
    chunks = build_chunks(built.rows, built.names).chunks
    assert set(chunks["user_id"]) == {person(ANN), person(BOB)}
    assert all(f"number 60 of {BOB}" in text and f"number 120 of {ANN}" in text for text in chunks["text"])


def test_the_order_of_files_changes_nothing():
    assert Built(*PERSONAL).rows.equals(Built(*PERSONAL, names="ba").rows)
    assert Built(*GROUP).rows.equals(Built(*GROUP, names="ba").rows)


def test_chats_of_one_person_with_two_others_stay_two():
    """The same words in the same second to two people are two messages, each in its own thread."""
    talk = [said(ANN, 0), said(ANN, 60, "the same")]
    with_cat = [said(ANN, 0), said(CAT, 30), said(ANN, 60, "the same")]
    built = Built(
        account(
            ANN,
            chat(BOB, "personal_chat", messages(talk, 1)),
            chat(CAT, "personal_chat", messages(with_cat, 501)),
        ),
        account(BOB, chat(ANN, "personal_chat", messages(talk, 901))),
    )
    assert built.threads == sorted([texts(talk), texts(with_cat)]) and built.dropped() == {"exact_duplicate": 2}


def test_a_group_exported_alone_has_no_owner_and_is_still_one_conversation():
    """Ids of two files never count as one numbering: here they are the same for different messages."""
    parts = [chat(8, "private_group", messages(part, 1)) for part in (TALK, [*TALK[1:], said(CAT, 240)])]
    for row in parts[1]["messages"]:
        row.pop("reply_to_message_id", None)
    built = Built(*parts)
    assert built.threads == [[*texts(TALK), f"{LONG} 240 of {CAT}"]] and built.dropped() == {"exact_duplicate": 3}
    assert built.answered() == {TALK[1]["text"]: TALK[0]["text"], TALK[2]["text"]: TALK[1]["text"]}


def test_where_nobody_knows_the_owner_both_chats_stay_whole():
    """Of two chats with somebody, of unknown owners, no message may be lost, though ids are the same."""
    one, other = [said(CAT, 0), said(CAT, 60)], [said(CAT, 5), said(CAT, 60)]
    exports = [chat(CAT, "personal_chat", messages(talk, 1), "Cat") for talk in (one, other)]
    exports[0]["messages"][0]["text"] = "the first words"
    built = Built(*exports)
    assert built.threads == sorted([["the first words", texts(one)[1]], texts(other)]) and built.dropped() == {}


def test_times_without_a_zone_leave_both_chats_whole():
    """Copies in two time zones cannot be matched; in one, they are not taken apart either."""
    exports = (
        account(ANN, chat(BOB, "personal_chat", messages(TALK, 1, legacy=True))),
        account(BOB, chat(ANN, "personal_chat", messages(TALK, 501, legacy=True))),
    )
    built = Built(*exports)
    assert built.threads == [texts(TALK)] * 2 and built.dropped() == {}
    assert built.rows["is_subject"].all()


def test_dumps_of_the_miner_stay_whole():
    """One personal chat from both sides, in the form of the DFusion DataDAO: nothing is dropped across threads."""

    def dump(owner: int, other: int, first: int) -> dict:
        contents = [
            {"id": first + place, "out": one["author"] == owner, "peerId": {"userId": other}, "message": one["text"],
             "date": 1704067200 + one["at"], "className": "Message"} for place, one in enumerate(TALK)
        ]  # fmt: skip
        return {"source": "telegramMiner", "user": owner, "chats": [{"chat_id": other, "contents": contents}]}

    built = Built(dump(ANN, BOB, 1), dump(BOB, ANN, 501))
    assert built.threads == [texts(TALK)] * 2 and built.dropped() == {} and built.rows["is_subject"].all()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["personal_chat", "private_group"])
def test_an_owners_later_export_adds_to_the_earlier_one(kind, legacy):
    """Also to one by a client that wrote no zones: the ids are the account's own in both."""
    later = [*TALK, said(BOB, 240)]
    export = [account(ANN, chat(BOB, kind, messages(talk, 1, legacy=old), "Bob"))
              for talk, old in ((TALK, legacy), (later, False))]  # fmt: skip
    other = account(BOB, chat(ANN if kind == "personal_chat" else BOB, kind, messages(later, 501), "Ann"))
    for exports, copies in ((export, 4), ([*export, other], 9)):
        for names in ("abc", "cba"):
            built = Built(*exports, names=names)
            assert built.threads == [texts(later)] and built.dropped() == {"exact_duplicate": copies}


def test_what_a_later_export_no_longer_has_stays_in_the_thread():
    earlier = account(ANN, chat(BOB, "personal_chat", messages(TALK, 1, legacy=True), "Bob"))
    later = account(ANN, chat(BOB, "personal_chat", messages(TALK, 1, kept={0, 2, 3}), "Bob"))
    built = Built(earlier, later)
    assert built.threads == [texts(TALK)] and built.dropped() == {"exact_duplicate": 3}
    assert built.names["thread_id"].n_unique() == 1


def test_exports_of_own_messages_only_are_put_together():
    """What Ann's answer answers is not in her export: the copy in Cat's says it."""
    talk = [said(CAT, 0), said(BOB, 60, answers=0), said(ANN, 120, answers=0), said(CAT, 180, answers=2)]
    parts = ((ANN, {2}), (BOB, {1}), (CAT, {0, 2, 3}))
    built = Built(*(account(who, chat(8, "private_group", messages(talk, 100 * who, kept))) for who, kept in parts))
    assert built.threads == [texts(talk)] and built.dropped() == {"exact_duplicate": 1}
    answered = built.answered()
    assert answered[talk[2]["text"]] == talk[0]["text"] and answered[talk[3]["text"]] == talk[2]["text"]
    assert answered[talk[1]["text"]] not in texts(talk)  # only Bob's export has it, and not what it answers


def test_albums_calls_and_edits():
    """Pictures of one second are several messages; an edit after the first export makes no second one."""
    call: dict[str, Any] = {
        "type": "service",
        "actor": "Bob",
        "actor_id": f"user{BOB}",
        "action": "phone_call",
        "from_id": None,
    }
    picture: dict[str, Any] = {"photo": "p.jpg"}
    talk = [said(ANN, 0, " ", **picture), said(ANN, 0, " ", **picture), said(ANN, 0, " ", **picture),
            said(BOB, 30, "to the second", answers=1), said(BOB, 60, " ", **call),
            said(ANN, 90, "teh last")]  # fmt: skip
    edited = [*talk[:5], said(ANN, 90, "the last", edited_unixtime="1704070000")]
    built = Built(
        account(ANN, chat(BOB, "personal_chat", messages(talk, 1))),
        account(BOB, chat(ANN, "personal_chat", messages(edited, 501))),
    )
    assert built.rows.sort("created_at")["text"].to_list() == [
        *["[photo]  "] * 3, "to the second", "[phone_call]", "teh last",
    ]  # fmt: skip
    assert built.dropped() == {"exact_duplicate": 6}
    assert built.answered() == {"to the second": "[photo]  "}


_WORDS = st.sampled_from(["yes", "no", LONG, f"{LONG} 2"])
_MESSAGE = st.tuples(st.sampled_from([ANN, BOB, CAT]), st.integers(0, 3), _WORDS, st.booleans())


@settings(max_examples=25, deadline=None)
@given(st.lists(_MESSAGE, min_size=1, max_size=12), st.data())
def test_any_split_of_a_group_over_its_members_gives_every_message_once(drawn, data):
    """Each exporter has any part of it, in a numbering that may collide; answers that can be resolved are."""
    talk, at = [], 0
    for place, (author, wait, text, is_picture) in enumerate(drawn):
        at += wait
        answers = data.draw(st.none() | st.integers(0, place - 1)) if place else None
        # Words differ in all but pictures: what somebody says again within a day is dropped on purpose.
        more = {"photo": "p.jpg"} if is_picture else {}
        talk.append(said(author, at, text if is_picture else f"{text}{'x' * place} {place}", answers, **more))
    owners = data.draw(st.lists(st.sampled_from([ANN, BOB, CAT, None]), min_size=2, max_size=3, unique=True))
    # Copies of one moment's same pictures are told apart by their order alone: a whole moment is kept, or nothing.
    moments = sorted({one["at"] for one in talk})
    exports, everywhere = [], set()
    for owner in owners:
        seen = data.draw(st.sets(st.sampled_from(moments), min_size=1))
        kept = {place for place, one in enumerate(talk) if one["at"] in seen}
        group = chat(8, "private_group", messages(talk, data.draw(st.sampled_from([1, 2, 100])), kept))
        exports.append(account(owner, group) if owner else group)
        everywhere |= kept
    built = Built(*exports)
    rendered = [("[photo] " if one["more"] else "") + one["text"] for one in talk]
    assert sorted(built.rows["text"]) == sorted(rendered[place] for place in everywhere)
    assert built.rows["thread_id"].n_unique() == 1 and built.rows["message_id"].n_unique() == built.rows.height
    assert set(built.dropped()) <= {"exact_duplicate"}
    wrote = {person(owner) for owner in owners if owner} & set(built.rows["author_id"])
    assert subjects(built) <= wrote
    contributed = built.rows.filter(pl.col("author_id").is_in(list(subjects(built))))
    assert contributed["is_subject"].all()
    answered = built.answered()
    for place in everywhere:
        one = talk[place]
        together = any({place, one["answers"]} <= {r["id"] for r in _placed(export, talk)} for export in exports)
        if not one["more"] and one["answers"] is not None and together:
            assert answered[rendered[place]] == rendered[one["answers"]]


def _placed(export: dict, talk: list[dict]) -> list[dict]:
    """The messages of an export, with their place in the talk as id."""
    rows = (export["chats"]["list"][0] if "chats" in export else export)["messages"]
    first = int(rows[0]["from"].split()[0])
    return [row | {"id": row["id"] - first} for row in rows]
