"""Distractors: what others said at the same time about the same things."""

from dataclasses import dataclass

import numpy as np

TIME_NEIGHBOURS = 100
"""So many chunks before and after in time are looked at, of which the nearest in topic are taken."""


@dataclass(frozen=True)
class Moments:
    """Chunks of one DataDAO and split, in time order: users, windows [n] int64 codes, unit topics [n, d]."""

    users: np.ndarray
    windows: np.ndarray
    topics: np.ndarray


def matched_others(moments: Moments, rows: np.ndarray, count: int, usable: np.ndarray) -> np.ndarray:
    """For each of `rows`, the `count` chunks [len(rows), count] of as many other people nearest in topic among its
    `TIME_NEIGHBOURS` in time; -1 where there are not enough.

    Never of the user, of a window that the user speaks in, or not `usable` [n] bool.
    """
    found = np.full((len(rows), count), -1, dtype=np.int64)
    by_user = np.argsort(moments.users, kind="stable")
    names, begins = np.unique(moments.users[by_user], return_index=True)
    own = dict(zip(names, np.split(moments.windows[by_user], begins[1:]), strict=True))
    for place, row in enumerate(rows.tolist()):
        near = np.arange(max(0, row - TIME_NEIGHBOURS), min(len(moments.users), row + TIME_NEIGHBOURS + 1))
        user = moments.users[row]
        allowed = usable[near] & (moments.users[near] != user) & ~np.isin(moments.windows[near], own[user])
        near = near[allowed]
        order = near[np.argsort(-(moments.topics[near] @ moments.topics[row]), kind="stable")]
        _, first = np.unique(moments.users[order], return_index=True)  # one chunk a person: their nearest
        chosen = order[np.sort(first)][:count]
        if len(chosen) == count:
            found[place] = chosen
    return found
