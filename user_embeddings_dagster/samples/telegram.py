"""Telegram Desktop exports: full accounts and single chats."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from user_embeddings_dagster.samples import archives
from user_embeddings_dagster.samples.bank import topics
from user_embeddings_dagster.samples.casting import CHAT, Manners, play, scenes
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread
from user_embeddings_dagster.samples.oddities import pii_value, plant
from user_embeddings_dagster.samples.people import Person, sharing
from user_embeddings_dagster.samples.storyline import Session
from user_embeddings_dagster.samples.telegram_chats import Chat, Scribe

_ABOUT = (
    "Here is the data you requested. Remember: Telegram is ad free, it doesn't use your data for ad targeting and "
    "doesn't sell it to others. Telegram only keeps the information it needs to function as a secure and feature-rich "
    "cloud service.\n\nCheck out Settings > Privacy & Security on Telegram's mobile apps for the relevant settings."
)
_CONTACTS = (
    "If you allow access, your contacts are continuously synced with Telegram. Thanks to this, you can easily switch "
    "to Telegram and immediately connect with friends across all your devices."
)
_FREQUENT = "This rating shows which people you are likelier to message frequently."
_PUBLIC = 2  # groups that are exported on their own too
_FULL_COPIES = 2  # owners whose export holds a whole group; the others' hold their own messages only
_SAVED, _PERSONAL = 0.06, 0.2


def _iso(at: int, shift: int) -> str:
    return datetime.fromtimestamp(at + shift * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def dated(message: Mapping[str, Any], shift: int, legacy: bool) -> dict[str, Any]:
    """A message with its times as Desktop writes them: local time of the exporter `shift` hours off UTC.

    `legacy`: the form of 2020 (integer ids, no Unix times, `edited` always there, no entities).
    """
    row: dict[str, Any] = {}
    for key, value in message.items():
        if key == "at":
            row["date"] = _iso(value, shift)
            if legacy and "edited_at" not in message:
                row["edited"] = "1970-01-01T05:00:00"
            elif not legacy:
                row["date_unixtime"] = str(value)
        elif key == "edited_at":
            row["edited"] = _iso(value, shift)
            if not legacy:
                row["edited_unixtime"] = str(value)
        elif legacy and key in ("from_id", "actor_id") and value:
            row[key] = int(value.removeprefix("user"))
        elif not (legacy and key == "text_entities"):
            row[key] = value
    return row


class World:
    """All chats of the telegram DataDAO."""

    def __init__(
        self, rng: Random, dialogue: Dialogue, owners: Sequence[Person], others: Sequence[Person], tally: Counter[str]
    ) -> None:
        self.rng, self.dialogue, self.tally = rng, dialogue, tally
        self.owners, self.others = owners, others
        self.groups: list[Chat] = []
        self.own: dict[int, list[Chat]] = {owner.number: [] for owner in owners}
        self.scribe = Scribe(rng, dialogue, tally)
        self.threads: list[Thread] = []

    def live(self, sessions: Sequence[Session]) -> None:
        """Spread `sessions` over groups, personal chats and saved messages, and write every chat."""
        rng = self.rng
        group, personal, saved = [], [], []
        for session in sessions:
            draw = rng.random()
            (saved if draw < _SAVED else personal if draw < _SAVED + _PERSONAL else group).append(session)
        for topic in sorted({s.topic for s in group}):
            self._group(topic, [s for s in group if s.topic == topic])
        for owner in self.owners:
            self._personal(owner, [s for s in personal if s.person is owner], [s for s in saved if s.person is owner])

    def _threads(self, sessions: Sequence[Session], manners: Manners, people: Sequence[Person]) -> list[Thread]:
        found = [
            play(self.rng, self.dialogue, s, manners, people) for s in scenes(self.rng, sessions, manners, lambda _: "")
        ]
        if len(found) > 8:
            plant(self.rng, self.dialogue, found, self.tally, floor=1)
        self.threads += found
        return found

    def _group(self, topic: str, sessions: list[Session]) -> None:
        rng = self.rng
        bystanders = sharing(rng, self.others, topic, 5)
        members = list({s.person.number: s.person for s in sessions}.values()) + bystanders
        public = len(self.groups) < _PUBLIC
        name = rng.choice(topics()[topic].groups or [topic.title()])
        # Several members export it: only supergroups number their messages the same for everyone.
        kind = "public_supergroup" if public else "private_supergroup"
        chat = Chat(rng.randrange(10**9, 2 * 10**9), name, kind, members)
        self.scribe.fill(chat, self._threads(sessions, CHAT, bystanders), 1 + rng.randrange(900), name)
        self.groups.append(chat)

    def _personal(self, owner: Person, talks: list[Session], notes: list[Session]) -> None:
        rng = self.rng
        if talks:
            friend = rng.choice(self.others)
            chat = Chat(friend.telegram_id, friend.first, "personal_chat", [owner, friend])
            manners = Manners(True, 0.0, 0, (15, 900), (1, 2, 2), 0.6, 0.8)
            self.scribe.fill(chat, self._threads(talks, manners, [friend]), 3000 + rng.randrange(9000), None)
            self.own[owner.number].append(chat)
        if notes:
            chat = Chat(owner.telegram_id, None, "saved_messages", [owner])
            threads = [self.dialogue.open(note, "", 0.5, chat=True) for note in notes]
            self.scribe.fill(chat, threads, 20_000 + rng.randrange(9000), None)
            self.threads += threads
            self.own[owner.number].append(chat)

    def write(self, folder: Path) -> list[Path]:
        """Every export below `folder`; one account is zipped, one has the form of 2020."""
        copies: Counter[int] = Counter()
        paths = [self._single(folder, chat) for chat in self.groups[:_PUBLIC]]
        for place, owner in enumerate(self.owners):
            legacy, shift = place == 3, 0 if place == 3 else self.rng.choice((-7, -5, 0, 1, 2, 8))
            listed = [self._entry(chat, chat.messages, shift, legacy) for chat in self.own[owner.number]]
            for chat in self.groups:
                if any(member is owner for member in chat.members):
                    whole = copies[chat.id] < _FULL_COPIES and chat.type != "public_supergroup"
                    copies[chat.id] += 1
                    kept = [m for m, a in zip(chat.messages, chat.authors, strict=True) if whole or a is owner]
                    listed.append(self._entry(chat, kept, shift, legacy))
            self.rng.shuffle(listed)
            paths.append(self._account(folder, owner, listed, zipped=place == 5))
        return paths

    def _entry(self, chat: Chat, messages: list[dict[str, Any]], shift: int, legacy: bool) -> dict[str, Any]:
        self.tally["records"] += sum(m["type"] == "message" for m in messages)
        head: dict[str, Any] = {} if chat.type == "saved_messages" else {"name": chat.name}
        return head | {"type": chat.type, "id": chat.id, "messages": [dated(m, shift, legacy) for m in messages]}

    def _single(self, folder: Path, chat: Chat) -> Path:
        entry = self._entry(chat, chat.messages, 2, False)
        path = folder / f"ChatExport_2024-09-0{len(entry['messages']) % 9 + 1} {chat.id % 97}" / "result.json"
        archives.write(path, json.dumps(entry, ensure_ascii=False, indent=1).encode())
        return path

    def _account(self, folder: Path, owner: Person, listed: list[dict[str, Any]], zipped: bool) -> Path:
        rng = self.rng
        contacts = [
            {
                "user_id": 0,
                "first_name": p.first,
                "last_name": p.last,
                "phone_number": pii_value(rng, "phone", p.first, p.last),
                "date": _iso(1_600_000_000 + p.number * 7_777, 0),
            }
            for p in rng.sample(list(self.others), min(4, len(self.others)))
        ]
        export = {
            "about": _ABOUT,
            "personal_information": {
                "user_id": owner.telegram_id,
                "first_name": owner.first,
                "last_name": owner.last,
                "phone_number": pii_value(rng, "phone", owner.first, owner.last),
                "username": f"@{owner.handle.replace('-', '_')}",
                "bio": f"{owner.life['job']}, {owner.life['city']}",
            },
            "profile_pictures": [],
            "contacts": {"about": _CONTACTS, "list": contacts},
            "frequent_contacts": {"about": _FREQUENT, "list": []},
            "chats": {"about": "This page lists all chats from this export.", "list": listed},
        }
        text = json.dumps(export, ensure_ascii=False, indent=1)
        name = f"{owner.wallet[2:10]}/DataExport_2024-09-{1 + owner.number % 28:02d}"
        if zipped:
            path = folder / f"{name}.zip"
            archives.write(path, archives.zipped({"result.json": text}))
        else:
            path = folder / name / "result.json"
            archives.write(path, text.encode())
        return path
