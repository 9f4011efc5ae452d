"""C1, C3, C6, C7: Telegram Desktop's result.json of every client version, single chat and full account."""

import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.exports import registry, telegram
from user_embeddings_dagster.exports.reader import Batch, RawFile
from user_embeddings_dagster.schema import NATIVE_MESSAGES

REAL = Path(os.environ.get("USER_EMBEDDINGS_REAL_DATA", "/nonexistent")) / "telegram"


def _message(number: int, author: int | str = 1, text: Any = "hello", **more: Any) -> dict:
    name = more.pop("name", f"Name{author} Last")
    head = {"id": number, "type": "message", "date": "2024-01-01T00:00:00", "date_unixtime": str(1704067200 + number)}
    return head | {"from": name, "from_id": f"user{author}", "text": text, "text_entities": []} | more


def _account(*chats: dict, **more: Any) -> dict:
    person = {
        "user_id": 1,
        "first_name": "Ann",
        "last_name": "Owner",
        "phone_number": "+1 555 0100",
        "username": "@ann",
    }
    return {"about": "x", "personal_information": person, "chats": {"about": "y", "list": list(chats)}} | more


def _chat(number: int, kind: str, *messages: dict, name: str | None = "A chat") -> dict:
    return {"name": name, "type": kind, "id": number, "messages": list(messages)}


def _file(folder: Path, content: bytes | dict, name: str = "result.json") -> RawFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return RawFile(path, name, "0" * 64)


def _together(batches: list[Batch]) -> tuple[pl.DataFrame, pl.DataFrame, list]:
    messages = pl.concat([NATIVE_MESSAGES.conform(b.messages) for b in batches])
    return messages, pl.concat([b.names for b in batches]), [r for b in batches for r in b.rejected]


def _read(folder: Path, content: bytes | dict) -> tuple[pl.DataFrame, pl.DataFrame, list]:
    return _together(list(telegram.read(_file(folder, content))))


def test_account_knows_its_owner_in_every_chat(tmp_path: Path) -> None:
    document = _account(
        _chat(2, "personal_chat", _message(1, 2), _message(2, 1), name="Bob"),
        _chat(3, "private_supergroup", _message(1, 3), _message(2, 1), _message(3, 2, reply_to_message_id=1)),
        left_chats={"about": "z", "list": [_chat(4, "public_supergroup", _message(9, 1), _message(10, 5))]},
    )
    messages, names, rejected = _read(tmp_path, document)
    assert not rejected
    assert messages["native_thread"].to_list() == ["user1+user2"] * 2 + ["3"] * 3 + ["4"] * 2
    assert messages["numbering"].to_list() == ["2@user1"] * 2 + [None] * 5
    assert messages["is_owner"].to_list() == [False, True, False, True, False, True, False]
    assert messages["is_public"].to_list() == [False] * 5 + [True] * 2
    assert messages["native_parent"].to_list() == [None] * 4 + ["1"] + [None] * 2
    assert messages["raw_location"].to_list() == list(range(7))
    assert set(messages["thread_shape"]) == {"linear"}
    assert messages["created_at"][0] == datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)
    rows = set(names.rows())
    pair = "user1+user2"
    assert {(pair, "user1", "ann", "handle"), (pair, "user1", "Ann Owner", "display_name")} <= rows
    assert {(pair, "user2", "Bob", "display_name"), ("3", "user3", "Name3", "first_name")} <= rows
    assert "0100" not in str(rows)


def test_text_media_and_what_is_not_the_authors_own(tmp_path: Path) -> None:
    """C3-like placeholders: no phone number, no coordinates."""
    entities = [
        "see ",
        {"type": "text_link", "text": "this", "href": "https://a.example"},
        {"type": "bold", "text": "!"},
    ]
    mention = [{"type": "mention_name", "text": "Carl X", "user_id": 77}, " hi"]
    cases = [
        (_message(1, text=entities), "see this (https://a.example)!", None),
        (_message(2, text=mention), "Carl X hi", None),
        (_message(3, text="cap", photo="p.jpg"), "[photo] cap", "photo"),
        (_message(4, text="", media_type="voice_message", file="v.ogg"), "[voice]", "voice"),
        (_message(5, text="", media_type="sticker", sticker_emoji="😆"), "[sticker] 😆", "sticker"),
        (_message(6, text="", contact_information={"phone_number": "+1 555 0101"}), "[contact]", "contact"),
        (_message(7, text="", location_information={"latitude": 41.3, "longitude": 69.3}), "[location]", "location"),
        (_message(8, text="old news", forwarded_from="Somebody"), "[forwarded] old news", None),
        (_message(9, text="gif", via_bot="@gif"), "[via bot] gif", None),
        (_message(10, text="", poll={"question": "Tea?", "answers": [{"text": "yes"}, {"text": "no"}]}),
         "[poll] Tea? (yes / no)", "poll"),
        (_message(11, text="f", file="a.pdf", mime_type="application/pdf"), "[file] f", "file"),
    ]  # fmt: skip
    messages, names, rejected = _read(tmp_path, _account(_chat(3, "private_group", *(m for m, _, _ in cases))))
    assert not rejected
    assert messages["text"].to_list() == [text for _, text, _ in cases]
    assert messages["media_kind"].to_list() == [kind for _, _, kind in cases]
    assert ("group3", "user77", "Carl X", "display_name") in names.rows()
    assert "0101" not in str(messages.rows()) and "41.3" not in str(messages.rows())


def test_service_bots_edits_and_old_clients(tmp_path: Path) -> None:
    service = {"id": 1, "type": "service", "date": "2016-11-09T00:26:24", "edited": "1970-01-01T05:00:00",
               "actor": "Al", "actor_id": 22, "action": "create_group", "members": ["Al", "Zoe Q"]}  # fmt: skip
    old = {"id": 2, "type": "message", "date": "2016-11-09T00:29:16", "edited": "2016-11-09T00:30:00",
           "from": "Al", "from_id": 22, "text": "hi"}  # fmt: skip
    bot = _chat(9, "bot_chat", _message(3, 9), _message(4, 1))
    document = _account(_chat(8, "private_group", service, old), bot)
    messages, names, rejected = _read(tmp_path, document)
    assert not rejected
    assert messages["role"].to_list() == ["service", "user", "bot", "user"]
    assert messages["native_author"].to_list() == ["user22", "user22", "user9", "user1"]
    assert messages["edited_at"].to_list() == [None, datetime(2016, 11, 9, 0, 30, tzinfo=UTC), None, None]
    assert messages["created_at"][1] == datetime(2016, 11, 9, 0, 29, 16, tzinfo=UTC)
    assert ("8@user1", "Zoe Q", "Zoe Q", "display_name") in names.rows()
    assert not names.filter((pl.col("name") == "Al") & (pl.col("native_author") != "user22")).height


@pytest.mark.parametrize(
    ("chat", "owners"),
    [
        (_chat(2, "personal_chat", _message(1, 2, name="Bob"), _message(2, 1), name="Bob"), [False, True]),
        (_chat(2 + 2**32, "personal_chat", _message(1, 2, name="B"), _message(2, 1), name="Bob"), [False, True]),
        (_chat(1, "saved_messages", _message(1, 1), _message(2, 1)), [True, True]),
        (_chat(2, "private_supergroup", _message(1, 2), _message(2, 1)), [False, False]),
        (_chat(7, "personal_chat", _message(1, 2), _message(2, 1), name="Nobody"), [False, False]),
        (_chat(5, "public_channel", _message(1, 2), _message(2, 1)), [False, False]),
    ],
)
def test_owner_of_a_single_chat(tmp_path: Path, chat: dict, owners: list[bool]) -> None:
    """Where the partner cannot be told from the owner, nobody is the owner."""
    messages, _, rejected = _read(tmp_path, chat)
    assert messages["is_owner"].to_list() == owners and not rejected


@pytest.mark.parametrize(
    ("kind", "owner", "zoned", "thread", "numbering"),
    [
        ("personal_chat", 7, True, "user2+user7", "2@user7"),
        ("personal_chat", 7, False, "2@user7", "2@user7"),
        ("personal_chat", None, True, None, None),
        ("personal_chat", 2, True, "2@user2", "2@user2"),
        ("private_group", 7, True, "group2", "2@user7"),
        ("private_group", 7, False, "2@user7", "2@user7"),
        ("private_group", None, True, "group2", "2@" + "0" * 64),
        ("private_group", None, False, None, None),
        ("bot_chat", 7, True, "2@user7", None),
        ("saved_messages", 7, True, "2@user7", None),
        ("private_supergroup", 7, True, "2", None),
        ("public_channel", None, True, "2", None),
        ("", 7, True, "2", "2"),
    ],
)
def test_threads_are_named_by_what_all_exports_of_them_know(
    tmp_path: Path, kind: str, owner: int | None, zoned: bool, thread: str | None, numbering: str | None
) -> None:
    """Else by whose export it is; without an owner, by how the chat begins."""
    rows = [_message(1, 8), _message(2, 9)]
    for row in rows if not zoned else ():
        del row["date_unixtime"]
    document = _account(_chat(2, kind, *rows), personal_information={"user_id": owner})
    messages, _, _ = _read(tmp_path, document)
    threads, numberings = set(messages["native_thread"]), set(messages["numbering"])
    if thread is None:
        assert threads == numberings and len(threads) == 1
        again = _chat(2, kind, *rows, _message(3, 8, "later"))
        assert threads == set(_read(tmp_path, again)[0]["native_thread"])
        rows[0]["text"] = "another chat"
        assert threads != set(_read(tmp_path, _chat(2, kind, *rows))[0]["native_thread"])
    else:
        assert (threads, numberings) == ({thread}, {numbering})


def test_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    document = _account(
        _chat(2, "personal_chat", _message(1, 2), _message(2, 1)), _chat(3, "public_channel", _message(1, 4))
    )
    plain = _read(tmp_path, document)
    backwards = json.loads(json.dumps(document), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    turned = _read(tmp_path, backwards)
    assert plain[0].equals(turned[0]) and not turned[2]
    assert _read(tmp_path, json.dumps(backwards, separators=(",", ":")).encode())[0].equals(plain[0])


def test_a_broken_middle_keeps_the_rest_and_its_threads(tmp_path: Path) -> None:
    """C7: the broken place is one located rejected record; messages behind it keep their own chat."""
    chats = [
        _chat(n, "private_supergroup", *(_message(i, 2, f"chat {n} text {i}") for i in range(50))) for n in (5, 6, 7)
    ]
    raw = json.dumps(_account(*chats), indent=1).encode()
    at = raw.index(b"chat 5 text 40")
    messages, _, rejected = _read(tmp_path, raw[:at] + b'\x00"{{' + raw[at + 4 :])
    assert [(r.reason, r.location) for r in rejected] == [("malformed_json", 40)]
    kept = [(str(n), f"chat {n} text {i}") for n in (5, 6, 7) for i in range(50) if (n, i) != (5, 40)]
    assert messages.select("native_thread", "text").rows() == kept
    # Cut from inside chat 5's last message into chat 6: what follows is chat 6's.
    messages, _, rejected = _read(
        tmp_path, raw[: raw.index(b"text 49")] + raw[raw.index(b'"name": "A chat"', at) - 6 :]
    )
    assert rejected and all(t == text.split()[1] for t, text in messages.select("native_thread", "text").rows())
    assert messages.height >= 149 and messages.filter(native_thread="6").height == 50


def test_many_small_chats_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C6: batches follow one another without loss, overlap or change of order, whatever their size."""
    chats = [_chat(n, "private_supergroup", *(_message(i, n, f"{n} {i}") for i in range(n % 4))) for n in range(200)]
    file = _file(tmp_path, _account(*chats))
    whole = _together(list(telegram.read(file)))
    monkeypatch.setattr(telegram, "FLUSH", 7)
    batches = list(telegram.read(file))
    assert len(batches) > 10
    small = _together(batches)
    assert whole[0].equals(small[0]) and set(whole[1].rows()) == set(small[1].rows()) and not small[2]
    assert small[0].select("native_thread", "text").rows() == [
        (str(n), f"{n} {i}") for n in range(200) for i in range(n % 4)
    ]
    assert sum(batch.bytes_read for batch in batches) == file.path.stat().st_size


def test_a_document_without_messages_tells_its_names(tmp_path: Path) -> None:
    messages, names, rejected = _read(tmp_path, _account(_chat(7, "personal_chat", name="Bo Silent")))
    assert messages.equals(NATIVE_MESSAGES.empty()) and not rejected
    assert {"Bo Silent", "Bo"} <= set(names["name"])


def test_truncated_file_and_damaged_zip(tmp_path: Path) -> None:
    raw = json.dumps(_chat(5, "private_supergroup", *(_message(i, 2) for i in range(500))), indent=1).encode()
    messages, _, rejected = _read(tmp_path, raw[: raw.index(b'"id": 400')])
    assert messages.height == 400 and [(r.reason, r.location) for r in rejected] == [("truncated", 400)]
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ChatExport/result.json", raw)
    damaged = bytearray(path.read_bytes())
    damaged[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    batches = list(telegram.read(RawFile(path, path.name, "0" * 64)))
    messages, _, rejected = _together(batches)
    assert messages.height > 400 and {"damaged_archive"} <= {r.reason for r in rejected}
    assert {r.member for r in rejected} == {"ChatExport/result.json"}


def test_detection(tmp_path: Path) -> None:
    file = _file(tmp_path, _chat(5, "private_supergroup", name=None), "some.json")
    found = registry.detect(file)
    assert found is not None and found.name == "telegram_desktop"
    assert not telegram.matches(_file(tmp_path, {"messages": 1}, "other.json"))


_VALID = json.dumps(
    _account(
        _chat(2, "personal_chat", _message(1, 2), _message(2, 1, ["a", {"type": "bold", "text": "b"}])),
        _chat(3, "private_group", *(_message(i, 3, photo="x") for i in range(6))),
    ),
    indent=1,
).encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_become_rows_or_located_rejects(tmp_path: Path, data: st.DataObject) -> None:
    """C7: no content, however broken, raises; and nothing is dropped without a rejected record."""
    start = data.draw(st.integers(0, len(_VALID)))
    stop = data.draw(st.integers(start, min(len(_VALID), start + 80)))
    raw = _VALID[:start] + data.draw(st.binary(max_size=30)) + _VALID[stop:]
    raw = data.draw(st.sampled_from([raw, raw[:stop], raw[start:]]))
    messages, _, rejected = _read(tmp_path, raw)
    if raw == _VALID:
        assert messages.height == 8 and not rejected
    reasons = ("malformed_json", "truncated", "wrong_type", "damaged_archive")
    assert all(r.location >= 0 and r.reason in reasons for r in rejected)
    places = messages["raw_location"].to_list() + [r.location for r in rejected if "passed over" in r.detail]
    assert len(set(places)) == len(places)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="USER_EMBEDDINGS_REAL_DATA is not set")
@pytest.mark.parametrize(
    ("name", "rows", "service", "owned", "replies"),
    [
        ("frozenspider.telegram_2020-01.result.json", 50, 8, 13, 1),
        ("frozenspider.telegram_2021-05.result.json", 3, 2, 0, 0),
        ("frozenspider.telegram_2023-01.result.json", 6, 5, 3, 0),
        ("frozenspider.telegram_2023-10_audio-video.result.json", 4, 0, 0, 0),
        ("frozenspider.telegram_2024-01_inline-bot-buttons.result.json", 5, 0, 5, 0),
        ("tg2md.result.json", 19, 1, 0, 0),
        ("ubuntu_irc_as_telegram.zip", 221_056, 0, 0, 56_517),
        ("zig_irc_as_telegram.zip", 303_890, 0, 0, 0),
    ],
)
def test_real_exports(name: str, rows: int, service: int, owned: int, replies: int) -> None:
    """C1: every real export has its documented counts, and nothing is rejected."""
    file = RawFile(REAL / name, name, "0" * 64)
    found = registry.detect(file)
    assert found is not None and found.name == "telegram_desktop"
    messages, _, rejected = _together(list(found.read(file)))
    assert not rejected and messages.height == rows
    assert messages.filter(role="service").height == service
    assert messages["is_owner"].sum() == owned
    assert messages["native_parent"].drop_nulls().len() == replies
    assert messages["created_at"].null_count() == 0
    assert messages["raw_location"].to_list() == list(range(rows))
