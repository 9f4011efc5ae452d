"""DFusion's Telegram dumps with canaries: the desktop miner's (GramJS) and the web app's (TDLib)."""

import json
from pathlib import Path
from typing import Any

from benchmarks.leaks.planting import DAY, MESSAGES_PER_ACCOUNT, START, Source, everywhere, listed, said, write

_OTHER_MINER: dict[str, Any] = {
    "postAuthor": "",
    "groupedId": "",
    "fwdFrom": {"fromName": "", "postAuthor": "", "savedFromName": ""},
    "entities": [{"className": "MessageEntityTextUrl", "url": "", "language": ""}],
    "restrictionReason": [{"text": ""}],
    "replyMarkup": {"rows": [{"buttons": [{"text": "", "url": "", "data": ""}]}]},
    "factcheck": {"text": {"text": ""}},
    "reactions": {"recentReactions": [{"reaction": {"emoticon": ""}}]},
    "x_unknown": {"deep": ["", {"er": ""}]},
}
_OTHER_MEDIA: dict[str, Any] = {
    "webpage": {"url": "", "displayUrl": "", "siteName": "", "title": "", "description": "", "author": ""},
    "phoneNumber": "",
    "firstName": "",
    "lastName": "",
    "vcard": "",
    "title": "",
    "address": "",
    "provider": "",
    "poll": {"question": {"text": ""}, "answers": [{"text": {"text": ""}}]},
    "geo": {"lat": "", "long": ""},
    "game": {"title": "", "description": ""},
    "caption": "",
}
_OTHER_WEBAPP: dict[str, Any] = {
    "author_signature": "",
    "restriction_reason": "",
    "forward_info": {"origin": {"sender_name": ""}, "source": ""},
    "reply_markup": {"rows": [[{"text": "", "type": {"url": ""}}]]},
    "fact_check": {"text": {"text": ""}},
    "interaction_info": {"reactions": [{"emoji": ""}]},
    "x_unknown": [{"a": [""]}],
}
_OTHER_CONTENT: dict[str, Any] = {
    "web_page": {"url": "", "title": "", "description": {"text": ""}, "author": ""},
    "document": {"file_name": ""},
    "contact": {"phone_number": "", "first_name": "", "vcard": ""},
    "venue": {"title": "", "address": ""},
    "poll": {"question": {"text": ""}, "options": [{"text": {"text": ""}}]},
    "game": {"title": ""},
    "title": "",
    "entities": [{"type": {"url": ""}}],
}


def _batches(source: Source) -> tuple[list, list[str], int]:
    spoken = list(source.batches("spoken"))
    dropped = [listed(batch) for batch in source.batches("dropped")]
    return spoken, dropped, max(len(spoken), len(dropped))


def _dump(source: Source, landing: Path, number: int, chats: list[dict[str, Any]], hidden: str, origin: str) -> None:
    dump = {
        "revision": hidden,
        "source": origin,
        "user": str(4_000 + number % 500),
        "submission_token": hidden,
        "x_unknown": everywhere({"a": [""]}, hidden),
        "chats": [{**chat, "x_unknown": hidden} for chat in chats],
    }
    names = source.planted["filed"]
    name = "; ".join(one.written for one in names[number * 3 : number * 3 + 3])[:150] or "dump"
    write(landing / source.datadao / origin / f"{name} {number}.json", json.dumps(dump).encode())


def write_miner(source: Source, landing: Path) -> None:
    """One dump for each account."""
    spoken, dropped, n = _batches(source)
    n_accounts = max(4, -(-n // MESSAGES_PER_ACCOUNT))
    for number in range(n_accounts):
        messages = []
        for place in range(number, n, n_accounts):
            batch, hidden = spoken[place % len(spoken)], dropped[place % len(dropped)]
            forms: list[dict[str, Any]] = [
                {"message": said(place, batch), **everywhere(_OTHER_MINER, hidden)},
                {
                    "message": said(place + 1, batch),
                    "media": {
                        "className": "MessageMediaDocument",
                        **everywhere(_OTHER_MEDIA, hidden),
                        "document": {
                            "mimeType": hidden,
                            "attributes": [{"className": "DocumentAttributeFilename", "fileName": hidden}],
                        },
                    },
                },
                {
                    "message": "",
                    "media": {"className": "MessageMediaPhoto", "caption": hidden},
                    "action": {"className": batch[place % len(batch)].alone, "title": hidden, "message": hidden},
                },
            ]
            for form, fields in enumerate(forms):
                messages.append(
                    {
                        "id": 10 * place + form + 1,
                        "date": START + (3 * place + form) * DAY,
                        "out": True,
                        "className": "MessageService" if "action" in fields else "Message",
                        "fromId": {"userId": str(4_000 + number), "className": "PeerUser", "x": hidden},
                        "peerId": {"channelId": str(600 + number), "className": "PeerChannel"},
                        "replyTo": {"replyToMsgId": 10 * place, "quoteText": hidden, "className": "MessageReplyHeader"},
                        **fields,
                    }
                )
        chats = [{"chat_id": -1_000_000_000_000 - 600 - number, "contents": messages[::-1]}]
        _dump(source, landing, number, chats, dropped[number % len(dropped)], "telegramMiner")


def write_webapp(source: Source, landing: Path) -> None:
    """One dump for each account."""
    spoken, dropped, n = _batches(source)
    n_accounts = max(4, -(-n // MESSAGES_PER_ACCOUNT))
    for number in range(n_accounts):
        messages = []
        for place in range(number, n, n_accounts):
            batch, hidden = spoken[place % len(spoken)], dropped[place % len(dropped)]
            other = everywhere(_OTHER_CONTENT, hidden)
            forms: list[dict[str, Any]] = [
                {"@type": "messageText", "text": {"text": said(place, batch), "entities": hidden}, **other},
                {"@type": "messagePhoto", "caption": {"text": said(place + 1, batch)}, **other},
                {"@type": "messageSticker", "emoji": said(place + 2, batch), **other},
                {"@type": batch[place % len(batch)].alone, "title": hidden},
            ]
            for form, content in enumerate(forms):
                messages.append(
                    {
                        "@type": "message",
                        "id": (10 * place + form + 1) << 20,
                        "date": START + (4 * place + form) * DAY,
                        "sender_id": {"@type": "messageSenderUser", "user_id": 4_000 + number},
                        "is_outgoing": True,
                        "chat_id": -1_000_000_000_000 - 700 - number,
                        "content": content,
                        "reply_to": {
                            "@type": "messageReplyToMessage",
                            "message_id": 0,
                            "quote": {"text": {"text": hidden}},
                        },
                        **everywhere(_OTHER_WEBAPP, hidden),
                    }
                )
        chats = [{"chat_id": -1_000_000_000_000 - 700 - number, "contents": messages[::-1]}]
        _dump(source, landing, 500 + number, chats, dropped[number % len(dropped)], "telegram")
