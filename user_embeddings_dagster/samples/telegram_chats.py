"""Telegram chats as Desktop writes their messages: entities, media, service messages, forwards, polls, replies."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from user_embeddings_dagster.samples.bank import phrases
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread, Turn
from user_embeddings_dagster.samples.people import Person

_ENTITY = re.compile(
    r"```(?P<pre>.*?)```|`(?P<code>[^`\n]+)`|(?P<link>https?://\S+)|(?P<mention>@\w{4,})|(?P<email>[\w.]+@[\w.]+\w)",
    re.S,
)
NOT_INCLUDED = "(File not included. Change data exporting settings to download.)"


@dataclass
class Chat:
    """A chat with its messages in time order; `members` are the people in it."""

    id: int
    name: str | None
    type: str
    members: list[Person]
    messages: list[dict[str, Any]] = field(default_factory=list)
    authors: list[Person | None] = field(default_factory=list)


def parts(text: str) -> list[dict[str, str]]:
    """`text` as Telegram's entities; joined, they give the text without its markup."""
    found: list[dict[str, str]] = []
    end = 0
    for match in _ENTITY.finditer(text):
        if match.start() > end:
            found.append({"type": "plain", "text": text[end : match.start()]})
        kind = match.lastgroup or "plain"
        inner = match[kind]
        entity = {"type": kind, "text": inner.strip("\n") if kind == "pre" else inner}
        if kind == "pre":
            head, _, body = entity["text"].partition("\n")
            language = head if head in ("python", "sql", "bash", "rust", "yaml") else ""
            entity = {"type": "pre", "text": body if language else entity["text"], "language": language}
        found.append(entity)
        end = match.end()
    if end < len(text):
        found.append({"type": "plain", "text": text[end:]})
    return found


def _text(text: str) -> dict[str, Any]:
    entities = parts(text)
    if all(entity["type"] == "plain" for entity in entities):
        return {"text": text, "text_entities": entities}
    mixed = [entity["text"] if entity["type"] == "plain" else entity for entity in entities]
    return {"text": [*mixed, ""] if isinstance(mixed[-1], dict) else mixed, "text_entities": entities}


def _media(rng: Random, kind: str, number: int) -> dict[str, Any]:
    seconds = rng.randrange(2, 95)
    match kind:
        case "photo":
            return {"photo": f"photos/photo_{number}.jpg", "width": 1280, "height": rng.choice((720, 960))}
        case "sticker":
            emoji = rng.choice(("😆", "👍", "🐸", "❤️", "🙈"))
            return {
                "file": f"stickers/sticker ({number % 90}).webp",
                "thumbnail": f"stickers/sticker ({number % 90}).webp_thumb.jpg",
                "media_type": "sticker",
                "sticker_emoji": emoji,
                "width": 512,
                "height": 512,
            }
        case "voice_message":
            return {
                "file": f"voice_messages/audio_{number}.ogg",
                "media_type": kind,
                "mime_type": "audio/ogg",
                "duration_seconds": seconds,
            }
        case "video_file":
            return {
                "file": NOT_INCLUDED,
                "thumbnail": NOT_INCLUDED,
                "media_type": kind,
                "mime_type": "video/mp4",
                "duration_seconds": seconds,
                "width": 720,
                "height": 1280,
            }
        case _:
            return {"file": f"files/notes_{number}.pdf", "mime_type": "application/pdf"}


class Scribe:
    """Turns threads into a chat's messages."""

    def __init__(self, rng: Random, dialogue: Dialogue, tally: Counter[str]) -> None:
        self.rng = rng
        self.dialogue = dialogue
        self.tally = tally

    def fill(self, chat: Chat, threads: Sequence[Thread], first_id: int, title: str | None) -> None:
        """All turns of `threads` as messages of `chat`, in time order with rising ids."""
        placed: list[tuple[int, int, Thread | None, Turn]] = []
        for order, thread in enumerate(threads):
            placed += [(turn.at, order, thread, turn) for turn in self._split(thread)]
        placed.sort(key=lambda row: (row[0], row[1]))
        number = first_id
        if title is not None and placed:
            opener = chat.members[0]
            names = [member.name for member in chat.members]
            self._service(
                chat,
                number,
                placed[0][0] - 90_000,
                opener,
                {"action": "create_group", "title": title, "members": names},
            )
        ids: dict[int, int] = {}
        for at, _, thread, turn in placed:
            number += self.rng.choice((1, 1, 1, 2, 5))
            ids[id(turn)] = number
            parent = thread.turns[turn.parent] if thread and turn.parent is not None else None
            chat.messages.append(self._message(number, at, turn, ids.get(id(parent)) if parent else None))
            chat.authors.append(turn.person)
            number = self._interlude(chat, number, at)

    def _split(self, thread: Thread) -> list[Turn]:
        """Turns of `thread`; some people send each sentence as a message of its own."""
        rows = []
        for turn in thread.turns:
            rows.append(turn)
            sentences = re.split(r"(?<=[.?!]) (?=[A-Z])", turn.text)
            if (
                turn.person
                and turn.person.style.splits
                and len(sentences) > 1
                and "```" not in turn.text
                and not turn.marks
            ):
                turn.text = sentences[0]
                for gap, sentence in enumerate(sentences[1:], 1):
                    rows.append(Turn(turn.person, sentence, turn.at + 6 * gap, None, turn.act))
        return rows

    def _message(self, number: int, at: int, turn: Turn, reply: int | None) -> dict[str, Any]:
        rng, person = self.rng, turn.person
        message: dict[str, Any] = {"id": number, "type": "message", "at": at}
        if turn.edited:
            message["edited_at"] = turn.edited
        name = (
            None if not person or (not person.platforms and person.number % 17 == 5) else person.name
        )  # None: deleted
        message |= {"from": name, "from_id": f"user{person.telegram_id}" if person else None}
        if reply and rng.random() < 0.8:
            message["reply_to_message_id"] = reply
        elif rng.random() < 0.004:
            message["reply_to_message_id"] = number - 1 if rng.random() < 0.3 else 900_000 + number
            self.tally["missing_parents"] += 1
        text = turn.text
        if rng.random() < 0.05:
            kind = rng.choice(("photo", "photo", "voice_message", "sticker", "video_file", "file"))
            message |= _media(rng, kind, number)
            self.tally[f"media_{kind}"] += 1
            if kind in ("voice_message", "sticker"):
                text = ""
            elif rng.random() < 0.5 and person:
                text = self.dialogue.voice.message(
                    person, [self.dialogue.grammar.say(phrases()["sticker_caption"], {})]
                )
        return message | _text(text)

    def _service(self, chat: Chat, number: int, at: int, actor: Person, extra: dict[str, Any]) -> None:
        message = {
            "id": number,
            "type": "service",
            "at": at,
            "actor": actor.name,
            "actor_id": f"user{actor.telegram_id}",
        }
        chat.messages.append(message | extra | {"text": "", "text_entities": []})
        chat.authors.append(actor)
        self.tally["service_messages"] += 1

    def _interlude(self, chat: Chat, number: int, at: int) -> int:
        rng, draw = self.rng, self.rng.random()
        member = rng.choice(chat.members)
        if chat.name is None or draw > 0.035:
            return number
        if draw < 0.015:
            extra = rng.choice(
                (
                    {"action": "pin_message", "message_id": number},
                    {"action": "invite_members", "members": [member.name]},
                    {"action": "phone_call", "duration_seconds": 77, "discard_reason": "hangup"},
                )
            )
            self._service(chat, number + 1, at + 30, member, extra)
            return number + 1
        bound = {"weekday": rng.choice(phrases()["weekdays"])}
        turn = Turn(member, "", at + 40)
        if draw < 0.025:
            question, _, answers = self.dialogue.grammar.say(phrases()["poll"], bound).partition(" :: ")
            options = [{"text": a, "voters": rng.randrange(6), "chosen": False} for a in answers.split(" | ")]
            message = self._message(number + 1, at + 40, turn, None)
            message["poll"] = {
                "question": question,
                "closed": False,
                "total_voters": sum(o["voters"] for o in options),
                "answers": options,
            }
            self.tally["polls"] += 1
        else:
            turn.text = self.dialogue.grammar.say(phrases()["forward_text"], bound)
            message = self._message(number + 1, at + 40, turn, None)
            message["forwarded_from"] = rng.choice(phrases()["forward_from"])
            self.tally["forwards"] += 1
        chat.messages.append(message)
        chat.authors.append(member)
        return number + 1
