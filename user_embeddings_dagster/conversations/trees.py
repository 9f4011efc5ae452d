"""Reply trees: SUBJECT's messages with their ancestors, parents before children (C4).

Orphans become roots, a reply cycle is broken at its oldest message, and nothing recurses: a thread of depth
10,000 costs as much as a flat one.
"""

from collections import Counter
from dataclasses import dataclass, field

from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.conversations.thread import ROOT, Thread, Window

LABEL_TOKENS = 3  # "ASSISTANT: " and the line break
_LATEST = 2**63


@dataclass(frozen=True)
class Tree:
    """A thread without cycles: parents, roots, depths, and times that are never before the parent's."""

    parents: list[int]
    roots: list[int]
    depths: list[int]
    times: list[int]

    def key(self, place: int) -> tuple[int, int, int]:
        """Reading order: time, then depth, then the thread's canonical order."""
        return self.times[place], self.depths[place], place


def grow(thread: Thread, counts: Counter[str]) -> Tree:
    """The thread's reply forest; cycles and clock skew are counted in `counts`."""
    parents = list(thread.parents)
    counts["cycles"] += _break_cycles(thread, parents)
    known = [time for time in thread.times if time is not None]
    earliest = min(known)
    size = len(parents)
    roots, depths, times = [ROOT] * size, [-1] * size, [0] * size
    for place in range(size):
        path = []
        while place != ROOT and depths[place] < 0:
            path.append(place)
            place = parents[place]
        for node in reversed(path):
            parent, own = parents[node], thread.times[node]
            before = earliest if parent == ROOT else times[parent]
            counts["clock_skew"] += own is not None and own < before and parent != ROOT
            roots[node] = node if parent == ROOT else roots[parent]
            depths[node] = 0 if parent == ROOT else depths[parent] + 1
            times[node] = before if own is None else own if parent == ROOT else max(own, before)
    return Tree(parents, roots, depths, times)


def _break_cycles(thread: Thread, parents: list[int]) -> int:
    """Cut every cycle of `parents`, in place, at its oldest message (ties: lowest id); returns how many."""
    seen = [0] * len(parents)  # 0 unseen, otherwise the walk that saw it
    cycles = 0
    for walk, start in enumerate(range(len(parents)), start=1):
        place = start
        while place != ROOT and not seen[place]:
            seen[place] = walk
            place = parents[place]
        if place == ROOT or seen[place] != walk:
            continue
        members, node = [place], parents[place]
        while node != place:
            members.append(node)
            node = parents[node]
        oldest = min(members, key=lambda member: _age(thread, member))
        parents[oldest] = ROOT
        cycles += 1
    return cycles


def _age(thread: Thread, place: int) -> tuple[int, str]:
    time = thread.times[place]
    return _LATEST if time is None else time, thread.ids[place]


@dataclass
class _Growing:
    """A chunk under construction for one SUBJECT."""

    tokens: int = 0
    last: int = 0
    members: set[int] = field(default_factory=set)
    turns: set[int] = field(default_factory=set)


def tree_windows(
    thread: Thread, tree: Tree, subject: str, messages: list[int], config: ChunkConfig, counts: Counter[str]
) -> list[Window]:
    """Chunks of `subject`, whose `messages` are given by place: each message once, with its ancestors.

    A chunk that would exceed the budget, or that SUBJECT's silence has ended, gives way to a new one. Where a
    new one continues a path whose ancestors no longer fit, it reaches back to SUBJECT's previous message on
    the path and names the root; what lies between is in the earlier chunk (counted as `elided_ancestors`).
    """
    gap = config.tree_gap_minutes * 60_000_000
    windows: list[_Growing] = []
    placed: set[int] = set()
    for message in sorted(messages, key=tree.key):
        current = windows[-1] if windows else None
        if current is not None and tree.times[message] - current.last <= gap:
            added = _ancestors(tree, message, current.turns, config)
            cost = _cost(thread, [*added, message], subject, config)
            if current.tokens + cost <= config.max_tokens:
                _extend(current, message, added, cost, tree)
                placed.add(message)
                continue
        ancestors = _ancestors(tree, message, set(), config)
        kept = _fitting(thread, tree, ancestors, message, subject, placed, config)
        counts["elided_ancestors"] += tree.depths[message] - len(kept)
        windows.append(_Growing())
        _extend(windows[-1], message, kept, _cost(thread, [*kept, message], subject, config), tree)
        placed.add(message)
    return [_window(thread, tree, growing, config) for growing in windows]


def _extend(window: _Growing, message: int, ancestors: list[int], cost: int, tree: Tree) -> None:
    window.members.add(message)
    window.turns.update(ancestors, (message,))
    window.tokens += cost
    window.last = tree.times[message]


def _ancestors(tree: Tree, message: int, known: set[int], config: ChunkConfig) -> list[int]:
    """Nearest first, up to the first in `known`; of a longer path, the nearest and the root."""
    path: list[int] = []
    place = tree.parents[message]
    while place != ROOT and place not in known and len(path) < config.max_ancestors:
        path.append(place)
        place = tree.parents[place]
    root = tree.roots[message]
    if place != ROOT and place not in known and root not in known:
        path.append(root)
    return path


def _cost(thread: Thread, turns: list[int], subject: str, config: ChunkConfig) -> int:
    """Tokens of new turns when those of other people are shortened as far as they may be."""
    least = config.min_context_tokens
    return sum(
        (thread.tokens[t] if thread.authors[t] == subject else min(thread.tokens[t], least)) + LABEL_TOKENS
        for t in turns
        if thread.speaks(t)
    )


def _fitting(
    thread: Thread,
    tree: Tree,
    ancestors: list[int],
    message: int,
    subject: str,
    placed: set[int],
    config: ChunkConfig,
) -> list[int]:
    if _cost(thread, [*ancestors, message], subject, config) <= config.max_tokens:
        return ancestors
    for distance, place in enumerate(ancestors):
        if place in placed:
            root = [ancestors[-1]] if distance < len(ancestors) - 1 else []
            return [*ancestors[: distance + 1], *root]
    return ancestors


def _window(thread: Thread, tree: Tree, growing: _Growing, config: ChunkConfig) -> Window:
    turns = [place for place in sorted(growing.turns, key=tree.key) if thread.speaks(place)]
    context = [place for place in turns if place not in growing.members]
    own = sum(thread.tokens[place] for place in growing.members)
    room = config.max_tokens - own - LABEL_TOKENS * len(turns)
    limit = max(config.min_context_tokens, _water_level([thread.tokens[place] for place in context], room))
    return Window(turns, frozenset(growing.members), dict.fromkeys(context, limit))


def _water_level(sizes: list[int], room: int) -> int:
    """The largest cap under which `sizes` sum to at most `room`: short turns stay whole, long ones share."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return max(0, room // left)
        room -= size
        left -= 1
    return max(sizes, default=0)
