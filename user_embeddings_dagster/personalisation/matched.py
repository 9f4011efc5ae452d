"""Distractors: what others said at the same time about the same things."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

TIME_NEIGHBOURS = 100
"""So many chunks before and after in time are looked at, of which the nearest in topic are taken."""


@dataclass(frozen=True)
class Moments:
    """Chunks of one DataDAO and split, in time order: users, windows [n] int64 codes, unit topics [n, d].

    `contents` [n] int64: equal where what is offered as an option is equal; by default none is. `messages` of each
    chunk, and `heard`, those of all chunks of a user; by default chunks share none but those of their window.
    """

    users: np.ndarray
    windows: np.ndarray
    topics: np.ndarray
    contents: np.ndarray | None = None
    messages: Sequence[Sequence[str]] | None = None
    heard: Mapping[int, frozenset[str]] = field(default_factory=dict)


def matched_others(moments: Moments, rows: np.ndarray, count: int, usable: np.ndarray) -> np.ndarray:
    """For each of `rows`, the `count` chunks [len(rows), count] of as many other people nearest in topic among its
    `TIME_NEIGHBOURS` in time; -1 where there are not enough.

    Never of the user, of a window that the user speaks in, with a message of any chunk of the user, with content equal
    to the row's or to another's, or not `usable` [n] bool.
    """
    found = np.full((len(rows), count), -1, dtype=np.int64)
    users, windows = moments.users, _of_users(moments.users, moments.windows)
    names: list[int] = users.tolist()
    contents: list[int] = list(range(len(users))) if moments.contents is None else moments.contents.tolist()
    for place, row in enumerate(rows.tolist()):
        near = np.arange(max(0, row - TIME_NEIGHBOURS), min(len(users), row + TIME_NEIGHBOURS + 1))
        user = names[row]
        near = near[usable[near] & (users[near] != user) & ~np.isin(moments.windows[near], windows[user])]
        order = near[np.argsort(-(moments.topics[near] @ moments.topics[row]), kind="stable")]
        people, said, chosen = {user}, {contents[row]}, list[int]()
        for other in order.tolist():
            new = names[other] not in people and contents[other] not in said
            if new and (moments.messages is None or moments.heard[user].isdisjoint(moments.messages[other])):
                chosen.append(other)
                people.add(names[other])
                said.add(contents[other])
            if len(chosen) == count:
                found[place] = chosen
                break
    return found


def _of_users(users: np.ndarray, values: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(users, kind="stable")
    names, begins = np.unique(users[order], return_index=True)
    return dict(zip(names.tolist(), np.split(values[order], begins[1:]), strict=True))
