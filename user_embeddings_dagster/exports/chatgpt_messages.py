"""Conversations of ChatGPT as typed structs, and the text of a message.

What is not text becomes a typed placeholder: `[image]`, `[voice]`, `[video]`, `[file]`; the transcript of a voice
message is kept. Citation marks (private-use characters around `cite…turn0search1`, and 【12†source】) are no words of
anybody and are removed.
"""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

Time = float | str | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_MARK = re.compile("\ue200([^\ue200\ue201]*)\ue201|【[^】\n]{0,80}†[^】\n]{0,80}】|[\ue200-\ue2ff]")
_MARKS = "\ue200\ue201\ue202\ue203\ue204\ue205\ue206【"
_POINTERS = (("image", "image"), ("audio_video", "voice"), ("audio", "voice"), ("video", "video"), ("file", "file"))
_HIDDEN = ("thoughts", "reasoning_recap")  # the model's own working, which the user is not answered with
_ROLES = ("user", "assistant", "system", "tool")


class Author(msgspec.Struct, gc=False):
    """Who wrote a message: user, assistant, system or tool."""

    role: str | None = None


class Content(msgspec.Struct, gc=False):
    """What a message holds; which fields are there depends on `content_type`."""

    content_type: str | None = None
    parts: Any = None
    text: Any = None
    result: Any = None
    content: Any = None
    thoughts: Any = None
    user_profile: Any = None
    user_instructions: Any = None


class Metadata(msgspec.Struct, gc=False):
    """Of a message's metadata, only its uploaded files."""

    attachments: Any = None


class Message(msgspec.Struct, gc=False):
    """A message of the tree (author, content) or of the connector (role, content as a string)."""

    id: str | int | None = None
    author: Author | None = None
    role: str | None = None
    create_time: Time = None
    content: Content | str | None = None
    content_type: str | None = None
    metadata: Metadata | None = None


class Node(msgspec.Struct, gc=False):
    """One node of a conversation's tree."""

    parent: str | None = None
    message: Message | None = None


class Conversation(msgspec.Struct, gc=False):
    """One conversation: a tree (`mapping`, `current_node`), or the connector's list of messages."""

    id: str | None = None
    conversation_id: str | None = None
    create_time: Time = None
    current_node: str | None = None
    mapping: dict[str, Node] | None = None
    messages: list[Message] | None = None


def microseconds(time: Time) -> int | None:
    """Microseconds since the epoch of seconds (also as text) or ISO 8601; None if it is neither, or not positive."""
    if isinstance(time, str):
        try:
            time = float(time)
        except ValueError:
            try:
                parsed = datetime.fromisoformat(time)
            except ValueError:
                return None
            time = (parsed.replace(tzinfo=parsed.tzinfo or UTC) - _EPOCH).total_seconds()
    # A float that is not a number fails both comparisons.
    return round(time * 1e6) if time is not None and 0 < time < _LAST_SECOND else None


def path(conversation: Conversation) -> list[tuple[str, Message]]:
    """Messages from the root to the current node, with their node ids; of every fork only the branch in use.

    Without a usable `current_node`, the branch that ends in the newest leaf. A cycle or a missing parent ends it.
    """
    mapping = conversation.mapping
    if mapping is None:
        return [(str(message.id or index), message) for index, message in enumerate(conversation.messages or ())]
    at = conversation.current_node
    if at not in mapping:
        at = _newest_leaf(mapping)
    nodes: list[tuple[str, Message]] = []
    seen: set[str] = set()
    while at is not None and at in mapping and at not in seen:
        seen.add(at)
        node = mapping[at]
        if node.message is not None:
            nodes.append((at, node.message))
        at = node.parent
    nodes.reverse()
    return nodes


def _newest_leaf(mapping: dict[str, Node]) -> str | None:
    parents = {node.parent for node in mapping.values()}
    leaves = [name for name, node in mapping.items() if name not in parents and node.message is not None]
    # In a pure cycle there is no leaf; of equally old ones the last in the file is the newest.
    candidates = leaves or [name for name, node in mapping.items() if node.message is not None]
    best, newest = None, 0
    for name in candidates:
        message = mapping[name].message
        time = microseconds(message.create_time if message else None) or 0
        if best is None or time >= newest:
            best, newest = name, time
    return best


def role(message: Message) -> str:
    """user, assistant, system or tool. Custom instructions are the system's; hidden working is a tool's."""
    kind = message.content.content_type if isinstance(message.content, Content) else message.content_type
    if kind == "user_editable_context":
        return "system"
    if kind in _HIDDEN:
        return "tool"
    written = (message.author.role if message.author else message.role) or "system"
    return written if written in _ROLES else "tool"


def rendered(message: Message) -> tuple[str, str | None]:
    """The message's text with placeholders, and the kind of its first medium."""
    content = message.content
    if content is None or isinstance(content, str):
        return _unmarked(content or ""), None
    parts = content.parts
    plain = content.content_type == "text" and type(parts) is list and len(parts) == 1 and type(parts[0]) is str
    if plain and (message.metadata is None or not message.metadata.attachments):
        return _unmarked(parts[0]), None
    pieces, kinds = [], []
    for part in content.parts if isinstance(content.parts, list) else ():
        piece, kind = _part(part)
        pieces.append(piece)
        if kind:
            kinds.append(kind)
    pieces += _fields(content)
    if message.metadata and isinstance(message.metadata.attachments, list) and message.metadata.attachments:
        files = len(message.metadata.attachments) - kinds.count("image")
        pieces[:0] = ["[file]"] * max(0, files)
        kinds += ["file"] * max(0, files)
    if content.content_type == "code" and not kinds:
        kinds.append("code")
    return _unmarked("\n".join(piece for piece in pieces if piece)), kinds[0] if kinds else None


def _part(part: Any) -> tuple[str, str | None]:
    if isinstance(part, str):
        return part, None
    if not isinstance(part, dict):
        return "", None
    kind = part.get("content_type")
    if isinstance(part.get("text"), str):
        return part["text"], "voice" if kind == "audio_transcription" else None
    found = next((name for mark, name in _POINTERS if isinstance(kind, str) and mark in kind), None)
    return (f"[{found}]", found) if found else ("[file]", "file") if "asset_pointer" in part else ("", None)


def _fields(content: Content) -> list[str]:
    thoughts = content.thoughts if isinstance(content.thoughts, list) else ()
    fields = (content.text, content.result, content.content, content.user_profile, content.user_instructions)
    texts = [field for field in fields if isinstance(field, str)]
    return texts + [t["content"] for t in thoughts if isinstance(t, dict) and isinstance(t.get("content"), str)]


def _unmarked(text: str) -> str:
    if text.isascii() or not any(mark in text for mark in _MARKS):
        return text
    return _MARK.sub(_visible, text)


def _visible(mark: re.Match[str]) -> str:
    """Of a mark, what the reader saw: the title of a link, else nothing."""
    kind, _, rest = (mark[1] or "").partition("\ue202")
    return rest.split("\ue202")[0] if kind == "url" else ""
