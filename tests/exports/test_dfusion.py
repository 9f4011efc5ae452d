"""C1, C7: Telegram dumps of the DFusion DataDAO: the miner's (GramJS) and the web app's (TDLib)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.exports import dfusion, registry
from user_embeddings_dagster.exports.reader import RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES

SUPERGROUP = -1001229138991


def _dump(source: str, user: Any, *chats: dict) -> dict:
    return {"revision": "01.01", "source": source, "user": user, "submission_token": "secret", "chats": list(chats)}


def _gram(number: int, sender: dict | None, peer: dict, text: str = "hello", **more: Any) -> dict:
    head = {
        "flags": 256,
        "out": False,
        "id": number,
        "fromId": sender,
        "peerId": peer,
        "replyTo": None,
        "fwdFrom": None,
    }
    tail = {"date": 1700000000 + number, "message": text, "media": None, "editDate": None, "className": "Message"}
    return head | tail | more


def _td(number: int, sender: dict, content: dict, **more: Any) -> dict:
    head = {
        "@type": "message",
        "id": number << 20,
        "sender_id": sender,
        "is_outgoing": False,
        "date": 1700000000 + number,
    }
    return head | {"chat_id": SUPERGROUP, "edit_date": 0, "via_bot_user_id": 0, "content": content} | more


def _user(number: str) -> dict:
    return {"userId": number, "className": "PeerUser"}


def _text(words: str) -> dict:
    return {"@type": "formattedText", "text": words, "entities": []}


def _file(folder: Path, content: Any) -> RawFile:
    path = folder / "dump.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=4).encode())
    return RawFile(path, path.name, "0" * 64)


def _read(file: RawFile) -> tuple[pl.DataFrame, list[Rejected]]:
    batches = list(dfusion.read(file))
    messages = pl.concat([NATIVE_MESSAGES.conform(batch.messages) for batch in batches])
    return messages, [r for batch in batches for r in batch.rejected]


def test_miner(tmp_path: Path) -> None:
    group = {"chatId": "919006036", "className": "PeerChat"}
    joined = {"inviterId": "1", "className": "MessageActionChatJoinedByLink"}
    voice = {"className": "MessageMediaDocument", "document": {"attributes": [
        {"className": "DocumentAttributeAudio", "voice": True}]}}  # fmt: skip
    document = _dump(
        "telegramMiner",
        "7",
        {"chat_id": -919006036, "contents": [
            _gram(5, _user("8"), group, action=joined, className="MessageService"),
            _gram(4, _user("7"), group, "mine", replyTo={"replyToMsgId": 3}, editDate=1700000100),
            _gram(3, _user("8"), group, "", media=voice),
            _gram(2, {"channelId": "99", "className": "PeerChannel"}, group, "fwd", fwdFrom={"date": 1}),
        ]},
        {"chat_id": 8, "contents": [
            _gram(2, None, _user("8"), "from 8"), _gram(1, None, _user("8"), "mine", out=True),
        ]},
        {"chat_id": SUPERGROUP, "contents": [_gram(9, None, {"channelId": "1229138991"}, "post")]},
    )  # fmt: skip
    file = _file(tmp_path, document)
    found = registry.detect(file)
    assert found is not None and (found.name, found.platform) == ("telegram_dfusion", "telegram")
    messages, rejected = _read(file)
    assert not rejected
    assert messages.select("native_thread", "native_id", "native_parent", "native_author", "role", "text").rows() == [
        ("919006036@user7", "5", None, "user8", "service", "[MessageActionChatJoinedByLink]"),
        ("919006036@user7", "4", "3", "user7", "user", "mine"),
        ("919006036@user7", "3", None, "user8", "user", "[voice]"),
        ("919006036@user7", "2", None, "channel99", "user", "[forwarded] fwd"),
        ("8@user7", "2", None, "user8", "user", "from 8"),
        ("8@user7", "1", None, "user7", "user", "mine"),
        ("1229138991", "9", None, "channel1229138991", "user", "post"),
    ]
    assert messages["numbering"].to_list() == ["919006036@user7"] * 4 + ["8@user7"] * 2 + [None]
    assert messages["is_owner"].to_list() == [False, True, False, False, False, True, False]
    assert messages["created_at"][1] == datetime.fromtimestamp(1700000004, UTC)
    assert messages["edited_at"].to_list() == [None, datetime.fromtimestamp(1700000100, UTC)] + [None] * 5
    assert messages["media_kind"].to_list() == [None, None, "voice"] + [None] * 4
    assert "secret" not in str(messages.rows())


def test_web_app(tmp_path: Path) -> None:
    channel = {"@type": "messageSenderChat", "chat_id": SUPERGROUP}
    mine = {"@type": "messageSenderUser", "user_id": 7}
    photo = {"@type": "messagePhoto", "photo": {"sizes": []}, "caption": _text("look")}
    reply = {"@type": "messageReplyToMessage", "message_id": 503 << 20}
    document = _dump(
        "telegram",
        7,
        {"chat_id": SUPERGROUP, "contents": [
            _td(503, channel, photo),
            _td(504, mine, {"@type": "messageText", "text": _text("yes")}, reply_to=reply, is_outgoing=True),
            _td(505, mine, {"@type": "messageText", "text": "bare"}, edit_date=1700009999, forward_info={"date": 1}),
            _td(506, channel, {"@type": "messagePinMessage", "message_id": 1}),
            _td(507, mine, {"@type": "messageContact", "contact": {"phone_number": "+15550100"}}),
        ]},
    )  # fmt: skip
    messages, rejected = _read(_file(tmp_path, document))
    assert not rejected
    assert messages.select("native_thread", "native_id", "native_parent", "native_author", "role", "text").rows() == [
        ("1229138991", "503", None, "channel1229138991", "user", "[photo] look"),
        ("1229138991", "504", "503", "user7", "user", "yes"),
        ("1229138991", "505", None, "user7", "user", "[forwarded] bare"),
        ("1229138991", "506", None, "channel1229138991", "service", "[messagePinMessage]"),
        ("1229138991", "507", None, "user7", "user", "[contact]"),
    ]
    assert messages["is_owner"].to_list() == [False, True, True, False, True]
    assert messages["edited_at"].to_list() == [None, None, datetime.fromtimestamp(1700009999, UTC), None, None]
    assert "0100" not in str(messages.rows())


def test_owner_after_the_chats_is_still_the_owner(tmp_path: Path) -> None:
    document = _dump("telegramMiner", "7", {"chat_id": 8, "contents": [_gram(1, None, _user("8"), out=True)]})
    turned = dict(reversed(document.items()))
    assert _read(_file(tmp_path, turned))[0].equals(_read(_file(tmp_path, document))[0])


@pytest.mark.parametrize(("cut", "kept"), [(False, 59), (True, 10)])
def test_a_broken_dump_keeps_its_good_part(tmp_path: Path, cut: bool, kept: int) -> None:
    """C7: one located rejected record; messages behind the broken place keep their chat."""
    chats = [
        {"chat_id": c, "contents": [_gram(i, None, _user(str(c)), f"chat {c} {i}") for i in range(20)]}
        for c in (1, 2, 3)
    ]
    raw = json.dumps(_dump("telegramMiner", "7", *chats), indent=4).encode()
    at = raw.index(b"chat 1 10")
    messages, rejected = _read(_file(tmp_path, raw[:at] if cut else raw[:at] + b'\x00"{' + raw[at + 2 :]))
    assert messages.height == kept
    assert all(thread == f"{text.split()[1]}@user7" for thread, text in messages.select("native_thread", "text").rows())
    assert [(r.location, r.reason) for r in rejected] == [(10, "truncated" if cut else "malformed_json")]


_VALID = json.dumps(
    _dump("telegram", 7, {"chat_id": 8, "contents": [_gram(1, None, _user("8")), _gram(2, None, _user("8"))]})
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_become_rows_or_located_rejects(tmp_path: Path, data: st.DataObject) -> None:
    """C7: no content, however broken, raises."""
    valid = _VALID.encode()
    start = data.draw(st.integers(0, len(valid)))
    stop = data.draw(st.integers(start, min(len(valid), start + 80)))
    raw = valid[:start] + data.draw(st.binary(max_size=30)) + valid[stop:]
    messages, rejected = _read(_file(tmp_path, data.draw(st.sampled_from([raw, raw[:stop], raw[start:]]))))
    assert messages.height <= 3 and all(r.location >= 0 for r in rejected)
