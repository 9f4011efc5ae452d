"""Telegram Desktop's machine-readable export, `result.json`: one chat, or a full account; also inside a zip.

The owner is the account of `personal_information`; without it, the account of the "Saved messages" chat, or else
the one author who is in every personal chat without being its partner. A group alone has no known owner. In
public groups and channels every author may be a subject.

Message ids are the account's own in personal chats and basic groups, so that two people's exports use the same
pair of chat and message id for different messages: there they count under the numbering `chat@owner`. The thread is
named by what both people's exports know, a personal chat by its two accounts and a group by its id, so that their
copies meet there and the merge makes one conversation of them. Where that cannot be known (no owner), or the copies
could not be matched (times without their zone, of clients before 2022), the thread is the numbering's own. Elsewhere
threads are named by the chat id.
`raw_location` is the 0-based index of the message in the file, over all its chats.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from user_embeddings_dagster.exports import json_source
from user_embeddings_dagster.exports import telegram_messages as tm
from user_embeddings_dagster.exports.json_source import Document
from user_embeddings_dagster.exports.reader import Batch, Format, Fullness, RawFile
from user_embeddings_dagster.exports.telegram_chats import Header, Person, Walk
from user_embeddings_dagster.exports.telegram_columns import Chat, Columns
from user_embeddings_dagster.keys import content_id

FLUSH = 25_000  # rows of a batch
MEMBER = re.compile(r"result\.json")
_OF_ONE_ACCOUNT = ("personal_chat", "bot_chat", "saved_messages", "private_group")
_WITH_PARTNER = ("personal_chat", "bot_chat")
_OF_ONE_PERSON = ("bot_chat", "saved_messages")  # nobody else exports them
_TELLING = (*_WITH_PARTNER, "saved_messages", "")
_MOST_CHATS = 50_000  # with messages, of which the owner is told; people have thousands at most
_FEW = 100  # authors of a chat beyond which it is no personal chat
_OLD_USER = 1 << 32  # added to the user's number in chat ids of exports before 2021


@dataclass
class _Survey:
    """What a document says of its owner and chats, wherever it says so. Chats by the place of their messages."""

    owner: str | None = None
    person: Person | None = None
    headers: dict[int, Header] = field(default_factory=dict)


def _partner(header: Header, author: str | None, name: str | None) -> bool:
    """Whether an author is the person (or bot) whom a chat is with."""
    if header.id is None:
        return name == header.name
    return author in (f"user{header.id}", f"user{header.id - _OLD_USER}") or name == header.name


def _shared(header: Header, owner: str | None) -> str | None:
    """What a chat is called in the exports of all who are in it, if that is known."""
    if header.id is None:
        return None
    if header.type == "private_group":
        return f"group{header.id}"
    partner = f"user{header.id}"
    if header.type != "personal_chat" or owner in (None, partner):
        return None
    return "+".join(sorted((owner, partner)))


def _beginning(first: tm.Message) -> str:
    """What two exports of a chat by one account have in common, and two people's chats with somebody do not."""
    return content_id(str(first.id), first.date or "", tm.account(first.from_id) or "", tm.flat(first.text))


def _survey(walk: Walk) -> _Survey:
    """Read a whole document once for the headers of its chats and its owner."""
    survey, others = _Survey(), Counter[str]()
    chats: list[tuple[Header, set[tuple[str | None, str | None]]]] = []
    for header, offset in walk.chats():
        seen: set[tuple[str | None, str | None]] = set()
        for part in walk.read():
            if len(seen) < _FEW:
                seen |= {(tm.account(item.from_id), item.name) for item in part.items}
        if seen and len(chats) < _MOST_CHATS:
            survey.headers[offset] = header
            chats.append((header, seen))
    survey.person = walk.person
    if walk.person and walk.person.user_id:
        survey.owner = f"user{walk.person.user_id}"
        return survey
    saved = next((h.id for h, _ in chats if h.type == "saved_messages" and h.id is not None), None)
    if saved is not None:
        survey.owner = f"user{saved}"
        return survey
    for header, seen in chats:
        if header.type in _WITH_PARTNER:
            mine = {a for a, name in seen if a and a.startswith("user") and not _partner(header, a, name)}
            others.update(mine if len(mine) == 1 else ())
    best = others.most_common(2)
    if best and (len(best) == 1 or best[0][1] > best[1][1]):
        survey.owner = best[0][0]
    return survey


class _Reading:
    """One document on its way to batches."""

    def __init__(self, file: RawFile, document: Document) -> None:
        self._file, self._document = file, document
        self._walk = Walk(document, tm.Message)
        self._columns = Columns(file.sha256, document.member)
        self._surveyed: _Survey | None = None
        self._fullness = Fullness(FLUSH)

    def _survey(self) -> _Survey:
        if self._surveyed is None:
            with self._document.again() as document:
                self._surveyed = _survey(Walk(document, tm.Author))
        return self._surveyed

    def _owner(self, header: Header) -> str | None:
        """The owner's account; asked of the whole document only where the document can know it."""
        if self._walk.person and self._walk.person.user_id:
            return f"user{self._walk.person.user_id}"
        # A group or channel alone does not tell.
        return None if self._walk.single and header.type not in _TELLING else self._survey().owner

    def batches(self) -> Iterator[Batch]:
        """The document's batches, in order."""
        owner = None
        for header, offset in self._walk.chats():
            if not header.type or header.id is None:
                header = self._survey().headers.get(offset, header)
            owner = self._owner(header)
            chat = None
            for part in self._walk.read():
                if part.items:
                    chat = chat or self._chat(header, owner, offset, part.items[0])
                    self._columns.add(chat, part.items, part.indices)
                if self._full():
                    yield self._batch(owner)
            self._columns.finish(chat or self._chat(header, owner, offset, None))
            if self._full():
                yield self._batch(owner)
        self._walk.rejected += self._document.damage(self._walk.location)
        yield self._batch(owner)

    def _full(self) -> bool:
        columns, walk = self._columns, self._walk
        return self._fullness.reached(columns.pending, columns.characters, len(walk.rejected), walk.window.offset)

    def _batch(self, owner: str | None) -> Batch:
        messages, names = self._columns.frame(owner)
        rejected = tuple(self._walk.rejected)
        self._walk.rejected.clear()
        return Batch(messages, names, rejected, self._document.progress())

    def _thread(
        self, header: Header, owner: str | None, offset: int, first: tm.Message | None
    ) -> tuple[str, str | None]:
        """The chat's thread, and whose message ids it has; None where everybody's are the same. `first` message."""
        number = f"{self._file.sha256}:{offset}" if header.id is None else str(header.id)
        if not header.type:
            return number, number
        if header.type not in _OF_ONE_ACCOUNT:
            return number, None
        if owner and header.type in _OF_ONE_PERSON:
            return f"{number}@{owner}", None
        shared = _shared(header, owner) if first is None or first.date_unixtime is not None else None
        # Without an owner, a chat is known again by how it begins; where copies are matched by what was said, ids of
        # two files never count as one numbering.
        numbering = f"{number}@{owner or (self._file.sha256 if shared or first is None else _beginning(first))}"
        return shared or numbering, numbering

    def _chat(self, header: Header, owner: str | None, offset: int, first: tm.Message | None) -> Chat:
        thread, numbering = self._thread(header, owner, offset, first)
        chat = Chat(
            thread=thread,
            numbering=numbering,
            is_public=header.type.startswith("public_"),
            bot=f"user{header.id}" if header.type == "bot_chat" else None,
        )
        if header.type in _WITH_PARTNER and header.id is not None and header.name:
            self._columns.add_name(chat, f"user{header.id}", header.name)
        person = self._walk.person or (self._surveyed.person if self._surveyed else None)
        if person and owner and not chat.is_public:
            self._columns.add_name(chat, owner, f"{person.first_name} {person.last_name}".strip())
            self._columns.add_name(chat, owner, person.username.lstrip("@"), "handle")
        return chat


def read(file: RawFile) -> Iterator[Batch]:
    """Batches of a result.json, or of every result.json in a zip."""
    for document in json_source.documents(file, MEMBER):
        if isinstance(document, Document):
            yield from _Reading(file, document).batches()
        else:
            yield Batch(rejected=document.rejected)


_SHAPE = re.compile(
    rb'"personal_information"\s*:\s*\{|"(?:left_)?chats"\s*:\s*\{\s*"(?:about|list)"'
    rb'|"type"\s*:\s*"(?:personal_chat|bot_chat|saved_messages|(?:private|public)_(?:group|supergroup|channel))"'
)


def matches(file: RawFile) -> bool:
    """Whether a document of the file begins as a Telegram Desktop export does."""
    named = MEMBER.fullmatch(file.base_name) is not None
    return any(_SHAPE.search(head) or (named and head[:1] == b"{") for head in json_source.heads(file, MEMBER))


FORMATS = (Format("telegram_desktop", "telegram", matches, read),)
