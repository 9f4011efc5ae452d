"""Telegram Desktop exports with canaries: full accounts and single public chats."""

import io
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.leaks.kinds import Canary
from benchmarks.leaks.planting import DAY, MESSAGES_PER_ACCOUNT, START, Source, everywhere, listed, quiet, said, write

_OTHER_MESSAGE_FIELDS: dict[str, Any] = {
    "forwarded_from": "",
    "saved_from": "",
    "via_bot": "",
    "author": "",
    "signature": "",
    "inviter": "",
    "title": "",
    "thumbnail": "",
    "file_name": "",
    "photo": "",
    "performer": "",
    "mime_type": "",
    "contact_vcard": "",
    "contact_information": {"first_name": "", "last_name": "", "phone_number": ""},
    "location_information": {"latitude": "", "longitude": ""},
    "place_name": "",
    "address": "",
    "game_title": "",
    "game_description": "",
    "game_link": "",
    "invoice_information": {"title": "", "description": ""},
    "reply_to_peer_id": "",
    "quote": "",
    "reply_quote": {"text": ""},
    "reactions": [{"type": "emoji", "emoji": "", "recent": [{"from": "", "from_id": ""}]}],
    "inline_bot_buttons": [[{"type": "url", "text": "", "data": ""}]],
    "new_title": "",
    "gift_code": "",
    "discard_reason": "",
    "text_entities": [{"type": "plain", "text": ""}, {"type": "text_link", "text": "", "href": "", "language": ""}],
    "giveaway_information": {"additional_prize": "", "channels": [""]},
    "x_unknown": {"deep": ["", {"er": ""}]},
}
# Of these the text would not be read, or would become another kind of message.
_MEDIA = ("photo", "contact_information", "location_information", "game_title", "invoice_information")
_OTHER_ACCOUNT_FIELDS: dict[str, Any] = {
    "about": "",
    "profile_pictures": [{"date": "", "photo": ""}],
    "stories": [{"media": "", "caption": ""}],
    "contacts": {
        "about": "",
        "list": [{"user_id": 0, "first_name": "", "last_name": "", "phone_number": "", "date": ""}],
    },
    "frequent_contacts": {"about": "", "list": [{"id": "user7", "category": "", "type": "", "name": ""}]},
    "sessions": {
        "about": "",
        "list": [
            {
                "last_active": "",
                "last_ip": "",
                "last_country": "",
                "last_region": "",
                "application_name": "",
                "application_version": "",
                "device_model": "",
                "platform": "",
                "system_version": "",
                "created": "",
            }
        ],
    },
    "web_sessions": {"about": "", "list": [{"domain_name": "", "bot_username": "", "browser": "", "last_ip": ""}]},
    "other_data": {"about_meta": "", "changes_log": "", "created_groups": [""], "app_config": {"x": ""}},
    "ringtones": [{"file": "", "title": ""}],
    "x_unknown": [[""], {"a": ""}],
}


def _message(number: int, at: int, author: tuple[str, str], spoken: Any, hidden: str) -> dict[str, Any]:
    """A message with every field that is read by nobody; `spoken` is its text."""
    return {
        "id": number,
        "type": "message",
        "date": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "date_unixtime": str(at),
        "from": author[0],
        "from_id": author[1],
        **everywhere(_OTHER_MESSAGE_FIELDS, hidden),
        "text": spoken,
    }


def _bare(message: dict[str, Any], *fields: str) -> dict[str, Any]:
    """Without fields that would make something else of the text."""
    return {key: value for key, value in message.items() if key not in fields}


def _spoken(place: int, batch: Sequence[Canary], about: Sequence[Canary]) -> list[dict[str, Any]]:
    """Every form in which a text is said: plain, in entities, links, polls, emoji, actions; without `from`."""
    links = [
        part for one in batch[:5] for part in ({"type": "text_link", "text": one.sentence, "href": one.alone}, " ")
    ]
    mentions = [part for one in batch[5:] for part in ({"type": "mention", "text": one.alone}, ", ")]
    asked = {"question": said(place, batch[:5]), "answers": [{"text": one.sentence, "voters": 1} for one in batch[5:]]}
    return [
        {"text": said(place, batch, *about)},
        {"text": [said(place + 1, batch), " ", *links, " and ", *mentions]},
        {"text": said(place + 2, batch[:2]), "poll": asked},
        {"text": "", "media_type": "sticker", "sticker_emoji": said(place, batch)},
        {"text": said(place + 3, batch[::-1]), "media_type": batch[0].alone, "file": batch[1 % len(batch)].alone},
    ]


def _chat(
    source: Source, places: Sequence[int], authors: Sequence[tuple[str, str]], about: Sequence[Canary], first: int
) -> list[dict[str, Any]]:
    """Messages with the batches at these places, each of an author in turn, each a day after the other."""
    spoken, dropped = list(source.batches("spoken")), list(source.batches("dropped"))
    messages, number = [], first
    for turn, place in enumerate(places):
        batch, hidden = spoken[place % len(spoken)], listed(dropped[place % len(dropped)])
        said_of = about[turn % len(about) :: max(1, len(places))][:4] if about else ()
        for form, fields in enumerate(_spoken(place, batch, said_of)):
            number += 1
            at = START + (6 * place + form) * DAY
            message = _message(number, at, authors[(turn + form) % len(authors)], "", hidden) | fields
            if form > 1:  # every field has held the batch by now
                message = _bare(message, *_OTHER_MESSAGE_FIELDS.keys() - fields.keys())
            if "poll" not in fields and "media_type" not in fields:
                drop = _MEDIA
                message = _bare(message, *drop, *(("forwarded_from", "via_bot") if form == 0 else ()))
            messages.append(message)
        number += 1
        service = _message(number, START + (6 * place + 5) * DAY, authors[0], "", hidden)
        messages.append(
            _bare(service, "from", "from_id")
            | {
                "type": "service",
                "actor": authors[0][0],
                "actor_id": authors[0][1],
                "action": batch[place % len(batch)].alone,
                "members": [],
            }
        )
    return messages


def _crew(
    people: Sequence[Canary], owner: tuple[str, str], first: int
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """A chat in which everybody says hello and the owner speaks of everybody; who is in it."""
    crew = [(one.written, f"user{9_000_000 + first + place}") for place, one in enumerate(people)]
    messages = []
    for place, (author, one) in enumerate(zip(crew, people, strict=True)):
        at = START + 2 * place * DAY
        messages.append(_message(first + 2 * place, at, author, quiet(place), "-"))
        messages.append(_message(first + 2 * place + 1, at + DAY, owner, f"{quiet(place + 1)} but {one.sentence}", "-"))
    return [_bare(message, *_OTHER_MESSAGE_FIELDS) for message in messages], crew


def _named(source: Source, author: tuple[str, str], first: int) -> list[dict[str, Any]]:
    """Names that are canaries, wherever a chat names somebody."""
    messages = []
    for place, batch in enumerate(source.batches("named")):
        text = listed(batch)
        message = _message(
            first + 2 * place, START + place * DAY, (text, f"user{8_000_000 + place}"), quiet(place), "-"
        )
        messages.append(_bare(message, *_OTHER_MESSAGE_FIELDS))
        service = {
            "type": "service",
            "actor": text,
            "actor_id": f"user{8_000_000 + place}",
            "action": "invite_members",
            "members": [one.written for one in batch],
        }
        messages.append(_bare(message, "from", "from_id") | service | {"id": first + 2 * place + 1})
    mine = _message(first + 99_999, START + DAY // 2, author, quiet(3), "-")
    return [*messages, _bare(mine, *_OTHER_MESSAGE_FIELDS)]


def write_accounts(source: Source, landing: Path) -> None:
    """Full accounts, one of them zipped: groups, private chats, saved messages; contacts, sessions, and so on."""
    n_batches = max(len(list(source.batches(of))) for of in ("spoken", "dropped"))
    dropped = list(source.batches("dropped"))
    n_accounts = max(4, -(-n_batches // (MESSAGES_PER_ACCOUNT // 2)))
    for number in range(n_accounts):
        owner = (f"Writer Number{number:03}", f"user{1_000 + number}")
        hidden = [listed(batch) for batch in dropped[number::n_accounts]] or [listed(dropped[0])]
        people = source.people[number::n_accounts]
        places = range(number, n_batches, n_accounts)
        crew, _ = _crew(people, owner, 500_000)
        lists = [
            {
                "name": hidden[0],
                "type": "private_supergroup",
                "id": 700_000 + number,
                "x_unknown": hidden[0],
                "messages": _chat(source, places, [owner], (), 10_000),
            },
            {"name": "crew", "type": "private_supergroup", "id": 800_000 + number, "messages": crew},
        ]
        if number < 2:
            lists.append(
                {
                    "name": "names",
                    "type": "private_supergroup",
                    "id": 900_000 + number,
                    "messages": _named(source, owner, 600_000),
                }
            )
            lists += [
                {
                    "name": batch[0].written,
                    "type": "personal_chat",
                    "id": 8_500_000 + place,
                    "messages": [
                        _bare(
                            _message(50_000 + place, START + place * DAY, owner, quiet(place), "-"),
                            *_OTHER_MESSAGE_FIELDS,
                        )
                    ],
                }
                for place, batch in enumerate(source.batches("named"))
            ]
        export = {
            **{key: everywhere(value, hidden[-1]) for key, value in _OTHER_ACCOUNT_FIELDS.items()},
            "personal_information": {
                "user_id": 1_000 + number,
                "first_name": owner[0].split()[0],
                "last_name": owner[0].split()[1],
                "phone_number": hidden[0],
                "username": f"@writer_{number}",
                "bio": hidden[0],
                "x_unknown": hidden[0],
            },
            "chats": {"about": hidden[0], "list": lists},
            "left_chats": {"about": hidden[0], "list": []},
        }
        content, folder = (
            json.dumps(export, ensure_ascii=number % 2 == 0).encode(),
            landing / source.datadao / "accounts",
        )
        if number:
            write(folder / f"{number}" / "result.json", content)
            continue
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{source.planted['filed'][0].written}/result.json", content)
            for place, one in enumerate(source.planted["filed"]):
                archive.writestr(f"photos/{place}/{one.written}.jpg", b"")
        write(folder / f"{source.planted['filed'][-1].written}.zip", packed.getvalue())


def write_chats(source: Source, landing: Path) -> None:
    """Public groups exported on their own, in folders with canaries for names: everybody in them is a subject."""
    n_batches = max(len(list(source.batches(of))) for of in ("spoken", "dropped"))
    dropped, filed = list(source.batches("dropped")), source.planted["filed"]
    n_chats = max(2, n_batches // 40)
    for number in range(n_chats):
        authors = [(f"Talker Number{number:02}{place:02}", f"user{2_000 + 100 * number + place}") for place in range(6)]
        crew, _ = _crew(source.people[number::n_chats], authors[0], 500_000)
        messages = [*_chat(source, range(number, n_batches, n_chats), authors, (), 10_000), *crew]
        if number == 0:
            messages += _named(source, authors[0], 600_000)
        chat = {
            "name": listed(dropped[number % len(dropped)]),
            "type": "public_supergroup",
            "id": 3_000 + number,
            "messages": messages,
            "x_unknown": everywhere({"a": [""]}, listed(dropped[-1])),
        }
        name = filed[number % len(filed)].written
        write(landing / source.datadao / "chats" / f"{name} {number}" / "result.json", json.dumps(chat).encode())
    for place, one in enumerate(filed):
        write(landing / source.datadao / "other" / f"{place}" / one.written / "note", f"nothing {place}".encode())
