"""One thread in memory: parallel lists over its messages, texts already marked."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

ROOT = -1
SPEAKING_ROLES = ("user", "assistant", "bot", "deleted")  # service, system and tool messages are no turns


@dataclass(frozen=True)
class Thread:
    """Messages of one thread in canonical order; `times` in microseconds since 1970, None if unknown.

    `parents` holds places in the thread, ROOT for none; `orphaned` those whose parent is not in the table.
    """

    thread_id: str
    is_tree: bool
    ids: list[str]
    authors: list[str | None]
    roles: list[str]
    times: list[int | None]
    texts: list[str]
    tokens: list[int]
    subjects: list[bool]
    parents: list[int]
    orphaned: set[int]
    self_replies: int
    communities: list[str | None]

    def speaks(self, place: int) -> bool:
        """Whether the message is a turn of the conversation: said by somebody, and not empty."""
        return self.roles[place] in SPEAKING_ROLES and bool(self.texts[place])


@dataclass(frozen=True)
class Window:
    """Messages of one chunk, by place in the thread and in the order they are read.

    `members` are the messages the window is about; other turns are context. `limits` caps a turn's tokens.
    """

    turns: list[int]
    members: frozenset[int]
    limits: dict[int, int]


def threads(messages: pl.DataFrame) -> Iterator[Thread]:
    """The threads of `messages` (MESSAGES with marked text, in canonical order, threads adjacent)."""
    columns = [
        "message_id",
        "author_id",
        "role",
        "time",
        "text",
        "tokens",
        "subject",
        "parent_id",
        "community",
    ]
    start = 0
    for length, thread_id in messages["thread_id"].rle().struct.unnest().iter_rows():
        part = messages.slice(start, length)
        ids, authors, roles, times, texts, tokens, subjects, parent_ids, communities = (
            part[name].to_list() for name in columns
        )
        parents, orphaned, self_replies = _parents(ids, parent_ids)
        is_tree = part["thread_shape"][0] == "tree"
        yield Thread(
            thread_id, is_tree, ids, authors, roles, times, texts, tokens, subjects, parents, orphaned,
            self_replies, communities,
        )  # fmt: skip
        start += length


def _parents(ids: list[str], parent_ids: list[str | None]) -> tuple[list[int], set[int], int]:
    places = {message_id: place for place, message_id in enumerate(ids)}
    parents: list[int] = []
    orphaned: set[int] = set()
    self_replies = 0
    for place, parent_id in enumerate(parent_ids):
        parent = ROOT if parent_id is None else places.get(parent_id, ROOT)
        if parent == place:
            self_replies += 1
            parent = ROOT
        elif parent == ROOT and parent_id is not None:
            orphaned.add(place)
        parents.append(parent)
    return parents, orphaned, self_replies
