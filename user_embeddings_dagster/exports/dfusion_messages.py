"""Messages of the DFusion DataDAO's Telegram dumps as typed structs, and what of them becomes columns.

- GramJS: `className` Message or MessageService, `id`, `date`, `editDate` (seconds), `out`, `message`, numbers as
  strings:
  `fromId` and `peerId` (PeerUser.userId, PeerChat.chatId, PeerChannel.channelId), `replyTo.replyToMsgId`, `fwdFrom`,
  `viaBotId`, `media.className`, `action.className`. In a personal chat `fromId` is null: `out` tells who wrote.
- TDLib: `@type` message, `id` (the server's id times 2^20), `date`, `edit_date` (0 if never), `sender_id` (user_id or
  chat_id), `is_outgoing`, `content` (`@type` messageText with `text`, others with `caption`), `reply_to.message_id`,
  `forward_info`, `via_bot_user_id`.
"""

from typing import Any

import msgspec

_SERVER_ID = 1 << 20  # TDLib's factor between a server's message id and its own
_CHANNEL = 1_000_000_000_000  # TDLib and bots write channel N as -(10^12 + N)
_MEDIA = {
    "MessageMediaPhoto": "photo", "MessageMediaDocument": "file", "MessageMediaContact": "contact",
    "MessageMediaGeo": "location", "MessageMediaGeoLive": "location", "MessageMediaVenue": "location",
    "MessageMediaPoll": "poll", "MessageMediaGame": "game", "MessageMediaInvoice": "invoice",
    "messagePhoto": "photo", "messageDocument": "file", "messageContact": "contact", "messageLocation": "location",
    "messageVenue": "location", "messagePoll": "poll", "messageGame": "game", "messageInvoice": "invoice",
    "messageVideo": "video", "messageVideoNote": "video_note", "messageVoiceNote": "voice", "messageAudio": "audio",
    "messageAnimation": "animation", "messageSticker": "sticker",
}  # fmt: skip
_SPOKEN = ("messageText", "messageAnimatedEmoji", *(name for name in _MEDIA if name.startswith("message")))


class _Peer(msgspec.Struct, gc=False, rename={"user": "userId", "chat": "chatId", "channel": "channelId"}):
    user: int | None = None
    chat: int | None = None
    channel: int | None = None


class _Sender(msgspec.Struct, gc=False):
    user_id: int | None = None
    chat_id: int | None = None


class _Reply(msgspec.Struct, gc=False):
    replyToMsgId: int | None = None
    message_id: int | None = None


class _Kind(msgspec.Struct, gc=False, rename={"name": "className"}):
    name: str = ""
    voice: bool | None = None


class _Document(msgspec.Struct, gc=False):
    attributes: list[_Kind] | None = None


class _Media(msgspec.Struct, gc=False, rename={"name": "className"}):
    name: str = ""
    voice: bool | None = None
    round: bool | None = None
    video: bool | None = None
    document: _Document | None = None


class _Content(msgspec.Struct, gc=False, rename={"kind": "@type"}):
    kind: str = ""
    text: Any = None
    caption: Any = None
    emoji: str | None = None


class _Present(msgspec.Struct, gc=False):
    """Something whose content is not read."""


class Message(msgspec.Struct, gc=False):
    """One element of `contents`, of either kind."""

    id: int
    date: int | None = None
    message: str | None = None
    out: bool | None = None
    fromId: _Peer | None = None
    peerId: _Peer | None = None
    replyTo: _Reply | None = None
    fwdFrom: _Present | None = None
    viaBotId: int | None = None
    editDate: int | None = None
    media: _Media | None = None
    action: _Kind | None = None
    content: _Content | None = None
    sender_id: _Sender | None = None
    is_outgoing: bool | None = None
    edit_date: int | None = None
    reply_to: _Reply | None = None
    reply_to_message_id: int | None = None
    forward_info: _Present | None = None
    via_bot_user_id: int | None = None


def chat_account(chat: int) -> str:
    """`user1`, `chat1` or `channel1` of a chat id as TDLib and bots write it."""
    if chat >= 0:
        return f"user{chat}"
    return f"channel{-chat - _CHANNEL}" if chat <= -_CHANNEL else f"chat{-chat}"


def peer_account(peer: _Peer | None) -> str | None:
    """`user1`, `channel1` or `chat1` of a GramJS peer."""
    if peer is None:
        return None
    kinds = (("user", peer.user), ("channel", peer.channel), ("chat", peer.chat))
    return next((f"{kind}{number}" for kind, number in kinds if number is not None), None)


def author(message: Message, owner: str | None, chat: str) -> str | None:
    """Account of the author; `chat` is the account of the chat itself."""
    if message.sender_id is not None:
        sender = message.sender_id
        number = sender.chat_id
        return f"user{sender.user_id}" if sender.user_id is not None else chat_account(number) if number else None
    if message.fromId is not None:
        return peer_account(message.fromId)
    return owner if message.out else peer_account(message.peerId) or chat


def server_id(message: Message, number: int | None) -> str | None:
    """A message id as the server counts."""
    if not number:
        return None
    return str(number >> 20 if message.content is not None and number % _SERVER_ID == 0 else number)


def rendered(message: Message) -> tuple[str, str | None, bool]:
    """Text with placeholders, kind of medium, and whether it is a service message."""
    content, text, kind = message.content, message.message or "", None
    if message.action is not None:
        return f"[{message.action.name}]", None, True
    if content is not None:
        if content.kind not in _SPOKEN:
            return f"[{content.kind}]", None, True
        text = _plain(content.text) or _plain(content.caption) or content.emoji or ""
        kind = _MEDIA.get(content.kind)
    elif message.media is not None:
        kind = _attached(message.media)
    forwarded = message.fwdFrom is not None or message.forward_info is not None
    via_bot = message.viaBotId or message.via_bot_user_id
    marks = ("[forwarded]" if forwarded else "", "[via bot]" if via_bot else "", f"[{kind}]" if kind else "")
    return " ".join(part for part in (*marks, text) if part), kind, False


def _attached(media: _Media) -> str | None:
    """Kind of a GramJS medium: by its flags, the document's attributes, or its class."""
    names = {a.name: a for a in (media.document.attributes if media.document else None) or ()}
    audio = names.get("DocumentAttributeAudio")
    kinds = (
        ("sticker", "DocumentAttributeSticker" in names),
        ("voice", media.voice or (audio is not None and audio.voice)),
        ("audio", audio is not None),
        ("video_note", media.round),
        ("animation", "DocumentAttributeAnimated" in names),
        ("video", media.video or "DocumentAttributeVideo" in names),
    )
    return next((kind for kind, holds in kinds if holds), None) or _MEDIA.get(media.name)


def _plain(text: Any) -> str:
    """TDLib's formattedText, or a bare string."""
    inner = text.get("text") if isinstance(text, dict) else text
    return inner if isinstance(inner, str) else ""
