"""ChatGPT exports with canaries: the zip, bare conversations, and the connector's JSON."""

import io
import json
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.leaks.kinds import Canary
from benchmarks.leaks.planting import DAY, MESSAGES_PER_ACCOUNT, START, Source, everywhere, listed, quiet, said, write

_OTHER_CONVERSATION: dict[str, Any] = {
    "title": "",
    "plugin_ids": [""],
    "conversation_template_id": "",
    "gizmo_id": "",
    "gizmo_type": "",
    "safe_urls": [""],
    "default_model_slug": "",
    "conversation_origin": "",
    "voice": "",
    "async_status": "",
    "workspace_id": "",
    "moderation_results": [{"category": ""}],
    "memory_scope": "",
    "blocked_urls": [""],
    "owner": {"name": "", "email": ""},
    "context_scopes": [""],
    "x_unknown": {"deep": ["", {"er": ""}]},
}
_OTHER_METADATA: dict[str, Any] = {
    "model_slug": "",
    "finish_details": {"type": "", "stop": ""},
    "citations": [{"metadata": {"title": "", "url": ""}}],
    "request_id": "",
    "message_source": "",
    "search_queries": [{"q": ""}],
    "content_references": [{"matched_text": "", "alt": ""}],
    "user_context_message_data": {"about_user_message": "", "about_model_message": ""},
    "default_model_slug": "",
    "_cite_metadata": {"metadata_list": [{"title": "", "url": "", "text": ""}]},
    "aggregate_result": {"code": ""},
    "command": "",
    "args": [""],
    "invoked_plugin": {"namespace": ""},
    "gizmo_id": "",
    "location": "",
    "x_unknown": "",
}
_OTHER_MEMBERS = (
    "chat.html",
    "message_feedback.json",
    "model_comparisons.json",
    "shared_conversations.json",
    "user_settings.json",
    "sora.json",
    "shopping.json",
    "tasks.json",
    "group_chats.json",
    "x_unknown.json",
)


def _contents(place: int, batch: Sequence[Canary], hidden: str) -> list[tuple[str, dict[str, Any]]]:
    """(role, content) of every kind of message."""
    text = said(place, batch)
    return [
        ("system", {"content_type": "text", "parts": [text]}),
        (
            "system",
            {
                "content_type": "user_editable_context",
                "user_profile": text,
                "user_instructions": said(place + 1, batch),
            },
        ),
        ("user", {"content_type": "text", "parts": [said(place + 2, batch)]}),
        ("assistant", {"content_type": "thoughts", "thoughts": [{"summary": hidden, "content": text}]}),
        ("assistant", {"content_type": "code", "language": hidden, "text": said(place + 3, batch[:3])}),
        ("tool", {"content_type": "execution_output", "text": text}),
        ("tool", {"content_type": "tether_quote", "url": hidden, "domain": hidden, "title": hidden, "text": text}),
        ("tool", {"content_type": "tether_browsing_display", "result": text, "summary": hidden, "assets": [hidden]}),
        ("assistant", {"content_type": "text", "parts": [said(place + 4, batch[:3])]}),
        (
            "user",
            {
                "content_type": "multimodal_text",
                "parts": [
                    said(place + 5, batch),
                    {"content_type": "image_asset_pointer", "asset_pointer": hidden, "metadata": {"a": hidden}},
                    {"content_type": "audio_transcription", "text": said(place + 6, batch)},
                ],
            },
        ),
        ("assistant", {"content_type": "text", "parts": [quiet(place)]}),
        ("user", {"content_type": "text", "parts": [" ; ".join([quiet(place + 7), *(one.alone for one in batch)])]}),
    ]


def _conversation(source: Source, place: int, people: Sequence[Canary]) -> dict[str, Any]:
    """A tree with every field; another branch that nobody sees; who the user is called."""
    spoken, named, dropped = (list(source.batches(of)) for of in ("spoken", "named", "dropped"))
    batch, hidden = spoken[place % len(spoken)], listed(dropped[place % len(dropped)])
    # A name of everybody's liking, as it stands in the system's message.
    calls = [one.written for one in (people or named[place % len(named)])]
    contents = _contents(place, batch, hidden)
    contents[:0] = [("system", {"content_type": "text", "parts": [f"Preferred name: {name}"]}) for name in calls]
    contents += [("user", {"content_type": "text", "parts": [f"{quiet(place + 8)}: {one.sentence}"]}) for one in people]
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    before = "root"
    for turn, (role, content) in enumerate(contents):
        name = f"m{place}-{turn}"
        metadata = everywhere(_OTHER_METADATA, hidden) if turn % 6 == 2 else {}
        if turn % 4 == 3:
            metadata["attachments"] = [{"id": hidden, "name": hidden, "mimeType": hidden}]
        mapping[name] = {
            "id": name,
            "parent": before,
            "children": [],
            "x_unknown": hidden,
            "message": {
                "id": name,
                "author": {"role": role, "name": hidden, "metadata": {"real_author": hidden}},
                "create_time": START + place * DAY + 60.0 * turn,
                "status": hidden,
                "recipient": hidden,
                "channel": hidden,
                "content": content,
                "metadata": metadata,
                "x_unknown": hidden,
            },
        }
        before = name
    branch = {"role": "user"}, {"content_type": "text", "parts": [hidden]}
    mapping["branch"] = {
        "id": "branch",
        "parent": "root",
        "children": [],
        "message": {"id": "branch", "author": branch[0], "create_time": START + place * DAY, "content": branch[1]},
    }
    identity = f"{source.format}-{place}"
    return {
        **everywhere(_OTHER_CONVERSATION, hidden),
        "conversation_id": identity,
        "id": identity,
        "create_time": START + place * DAY + 0.5,
        "update_time": START + place * DAY + 9.5,
        "current_node": before,
        "mapping": mapping,
    }


def _accounts(source: Source) -> list[list[dict[str, Any]]]:
    n = max(len(list(source.batches(of))) for of in ("spoken", "named", "dropped"))
    people, size = source.people, 4
    n_accounts = max(4, -(-n // (MESSAGES_PER_ACCOUNT // 2)))
    accounts: list[list[dict[str, Any]]] = [[] for _ in range(n_accounts)]
    for place in range(n):
        accounts[place % n_accounts].append(_conversation(source, place, ()))
    for place, start in enumerate(range(0, len(people), size)):
        accounts[place % n_accounts].append(_conversation(source, n + place, people[start : start + size]))
    return accounts


def write_zips(source: Source, landing: Path) -> None:
    """One zip for each account, its other members full of what nobody reads."""
    dropped, filed = list(source.batches("dropped")), source.planted["filed"]
    for number, conversations in enumerate(_accounts(source)):
        hidden = [listed(batch) for batch in islice(dropped, number, None, 7)] or [listed(dropped[0])]
        user = everywhere({"email": "", "phone_number": "", "name": "", "birth_year": "", "x": [""]}, hidden[0])
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            folder = filed[number % len(filed)].written
            archive.writestr(f"{folder}/conversations.json", json.dumps(conversations))
            archive.writestr(f"{folder}/user.json", json.dumps({"id": f"user-{number:04}", **user}))
            for name in _OTHER_MEMBERS:
                archive.writestr(name, json.dumps(hidden))
            for place, one in enumerate(filed if number == 0 else ()):
                archive.writestr(f"{place}/{one.written}.png", b"")
        write(landing / source.datadao / "zips" / f"{number}.zip", packed.getvalue())


def write_bare(source: Source, landing: Path) -> None:
    """One file for each account: a list, or for one account single conversations as the backend gives them."""
    filed = source.planted["filed"]
    for number, conversations in enumerate(_accounts(source)):
        folder = landing / source.datadao / "bare" / f"{number}"
        name = "; ".join(one.written for one in filed[3 * number : 3 * number + 3])[:150] or "x"
        if number % 5 == 4:
            for place, one in enumerate(conversations):
                write(folder / f"{name} {place}.json", json.dumps(one).encode())
        else:
            write(folder / name / "conversations.json", json.dumps(conversations, ensure_ascii=False).encode())


def write_connector(source: Source, landing: Path) -> None:
    """The connector's JSON: plain messages, in its envelope."""
    filed = source.planted["filed"]
    for number, conversations in enumerate(_accounts(source)):
        told = []
        for one in conversations:
            hidden, messages = one["title"], []
            for node in one["mapping"].values():
                message = node["message"]
                if message is None or node["id"] == "branch":
                    continue
                content, time = message["content"], message["create_time"]
                texts = [
                    *content.get("parts", ()),
                    content.get("text"),
                    content.get("result"),
                    content.get("user_profile"),
                ]
                text = "\n".join(part for part in texts if isinstance(part, str))
                messages.append(
                    {
                        "id": message["id"],
                        "role": message["author"]["role"],
                        "content": text,
                        "content_type": "text",
                        "create_time": time,
                        "model": hidden,
                        "x_unknown": hidden,
                    }
                )
            told.append(
                {
                    **everywhere(_OTHER_CONVERSATION, hidden),
                    "id": one["id"],
                    "create_time": one["create_time"],
                    "messages": messages,
                }
            )
        hidden = told[0]["title"] if told else ""
        inner = {"conversations": told, "total": len(told), "x_unknown": hidden}
        envelope = {"$schema": hidden, "version": hidden, "scope": hidden, "collectedAt": hidden, "user": hidden}
        body = inner if number % 2 else {"data": inner, **envelope}
        name = filed[number % len(filed)].written
        export = {"chatgpt.conversations": body, **envelope}
        write(landing / source.datadao / "connector" / f"{name} {number}.json", json.dumps(export).encode())
