"""Messages of a Telegram Desktop export as typed structs, and what of them becomes columns.

Text keeps its links (`text (href)`) and mentions. What is not text becomes a typed placeholder before it:
`[photo] caption`. Contacts and locations give only `[contact]` and `[location]`: neither number nor coordinates are
read. Words that are not the author's own say so: `[forwarded]`, `[via bot]`.
"""

from operator import itemgetter

import msgspec


class Entity(msgspec.Struct, gc=False):
    """Part of a text: its kind, and where it leads."""

    text: str = ""
    href: str | None = None
    user_id: int | str | None = None


Text = str | list[str | Entity] | None


class Answer(msgspec.Struct, gc=False):
    """One option of a poll."""

    text: Text = ""


class Poll(msgspec.Struct, gc=False):
    """A poll as asked; votes are not read."""

    question: Text = ""
    answers: list[Answer] = []


class Present(msgspec.Struct, gc=False):
    """Something whose content is not read."""


class Message(msgspec.Struct, gc=False, rename={"name": "from"}):
    """One element of `messages`, of every client version; other keys are skipped by the parser.

    First the ORDINARY fields, in the order in which Telegram writes them, in which the parser looks for them; of the
    others a message has none unless there is something special about it.
    """

    id: int
    date: str | None = None
    date_unixtime: int | None = None
    name: str | None = None
    from_id: str | int | None = None
    reply_to_message_id: int | None = None
    text: Text = ""
    edited: str | None = None
    edited_unixtime: int | None = None
    actor: str | None = None
    actor_id: str | int | None = None
    action: str | None = None
    members: list[str | None] | None = None
    forwarded_from: str | None = None
    forwarded_from_id: str | None = None
    via_bot: str | None = None
    photo: str | None = None
    file: str | None = None
    media_type: str | None = None
    sticker_emoji: str | None = None
    contact_information: Present | None = None
    location_information: Present | None = None
    game_title: str | None = None
    invoice_information: Present | None = None
    poll: Poll | None = None


class Author(msgspec.Struct, gc=False, rename={"name": "from"}):
    """Of one message, who wrote it."""

    name: str | None = None
    from_id: str | int | None = None


ORDINARY = 7  # fields
_others = itemgetter(slice(ORDINARY, None))
_NOTHING_SPECIAL = (None,) * (len(Message.__struct_fields__) - ORDINARY)


def special(fields: list[tuple]) -> list[int]:
    """Rows of the messages (their fields) that are more than a text: one slice is cheaper than every column."""
    return [row for row, others in enumerate(map(_others, fields)) if others != _NOTHING_SPECIAL]


_MEDIA_TYPES = {
    "voice_message": "voice",
    "video_message": "video_note",
    "video_file": "video",
    "audio_file": "audio",
    "animation": "animation",
    "sticker": "sticker",
}


_OTHER_MEDIA = (
    ("photo", "photo"),
    ("poll", "poll"),
    ("contact_information", "contact"),
    ("location_information", "location"),
    ("game_title", "game"),
    ("invoice_information", "invoice"),
    ("file", "file"),
)


def account(identifier: str | int | None) -> str | None:
    """`user123` or `channel123`; exports before 2021 wrote users as bare numbers."""
    return f"user{identifier}" if isinstance(identifier, int) else identifier


def flat(text: Text) -> str:
    """A text with its entities as one string."""
    if isinstance(text, str):
        return text
    return "".join([part if isinstance(part, str) else linked(part) for part in text or ()])


def linked(entity: Entity) -> str:
    """Part of a text, and where it leads."""
    if not entity.href or entity.href == entity.text:
        return entity.text
    # Channels hide the link of a preview picture behind invisible characters.
    return f"{entity.text} ({entity.href})" if any(map(str.isalnum, entity.text)) else entity.href


def media_kind(message: Message) -> str | None:
    """Kind of what is attached, or None."""
    if message.media_type:
        return _MEDIA_TYPES.get(message.media_type, "file")
    for field, kind in _OTHER_MEDIA:
        if getattr(message, field) is not None:
            return kind
    return None


def rendered(message: Message, kind: str | None, text: str) -> str:
    """The message's text (flat, given) behind its placeholders; of a service message, its action."""
    if message.action is not None:
        return f"[{message.action}]"
    if kind is not None:
        mark = f"[{kind}]"
        if kind == "sticker" and message.sticker_emoji:
            mark = f"{mark} {message.sticker_emoji}"
        elif message.poll is not None:
            mark = f"{mark} {_asked(message.poll)}"
        text = f"{mark} {text}" if text else mark
    if message.via_bot:
        text = f"[via bot] {text}".rstrip()
    if message.forwarded_from is not None or message.forwarded_from_id is not None:
        text = f"[forwarded] {text}".rstrip()
    return text


def _asked(poll: Poll) -> str:
    return f"{flat(poll.question)} ({' / '.join(flat(answer.text) for answer in poll.answers)})"
