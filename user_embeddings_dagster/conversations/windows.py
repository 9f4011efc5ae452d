"""Linear chats: consecutive windows cut at silences and at a token budget (C5)."""

from collections import Counter

from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.conversations.thread import ROOT, Thread, Window
from user_embeddings_dagster.conversations.trees import LABEL_TOKENS

REPLY_DEPTH = 2  # a reply's target outside the window, and what that one replied to
REPLY_TOKENS = 32  # each of them is shortened to this


def linear_windows(thread: Thread, config: ChunkConfig, counts: Counter[str]) -> list[Window]:
    """Windows that cover every turn once, in order; targets of replies that lie outside come first in them.

    Prepended turns may take half the budget, the latest first; those left out count as `capped_replies`.
    """
    gap = config.gap_minutes * 60_000_000
    windows: list[list[int]] = []
    tokens = 0
    last = 0
    for place, time in enumerate(thread.times):
        if time is None:
            raise ValueError("a linear thread holds a message without a time: fill times first")
        if not thread.speaks(place):
            continue
        cost = thread.tokens[place] + LABEL_TOKENS
        if not windows or time - last > gap or tokens + cost > config.max_tokens:
            windows.append([])
            tokens = 0
        windows[-1].append(place)
        tokens += cost
        last = time
    return [_with_targets(thread, window, config, counts) for window in windows]


def _with_targets(thread: Thread, window: list[int], config: ChunkConfig, counts: Counter[str]) -> Window:
    members = frozenset(window)
    targets: set[int] = set()
    for place in window:
        target = thread.parents[place]
        for _ in range(REPLY_DEPTH):
            if target == ROOT or target in members or target in targets:
                break
            if thread.speaks(target):
                targets.add(target)
            target = thread.parents[target]
    room = config.max_tokens // 2
    kept: list[int] = []
    for target in sorted(targets, reverse=True):
        room -= min(thread.tokens[target], REPLY_TOKENS) + LABEL_TOKENS
        if room < 0:
            break
        kept.append(target)
    counts["capped_replies"] += len(targets) - len(kept)
    kept.reverse()
    return Window([*kept, *window], members, dict.fromkeys(kept, REPLY_TOKENS))
