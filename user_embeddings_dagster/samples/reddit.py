"""Reddit: data-request zips of contributors, and the monthly public dumps that hydrate them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from user_embeddings_dagster.samples import archives
from user_embeddings_dagster.samples.bank import phrases
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread, Turn
from user_embeddings_dagster.samples.people import Person

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_WEB = "https://www.reddit.com"


def base36(number: int) -> str:
    """`number` as Reddit writes its ids."""
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _BASE36[rest] + digits
    return digits


@dataclass
class Item:
    """A post (`parent` None) or comment with its Reddit ids."""

    id: str
    author: str
    person: Person | None
    text: str
    at: int
    subreddit: str
    title: str
    link: str
    parent: str | None
    edited: int | None = None
    url: str | None = None
    era: int = 0
    deleted: bool = False
    in_dump: bool = True
    records: int = 1
    path: str = ""
    marks: set[str] = field(default_factory=set)


def account(person: Person) -> str:
    """The person's Reddit name."""
    return person.handle.replace(" ", "_")


def _slug(title: str) -> str:
    kept = "".join(c if c.isalnum() else "_" for c in title.lower())[:50]
    return "_".join(part for part in kept.split("_") if part) or "_"


def items_of(rng: Random, dialogue: Dialogue, threads: Sequence[Thread], first_id: int) -> list[Item]:
    """Every post and comment of `threads`, with bots' and deleted authors' comments among them."""
    items: list[Item] = []
    number = first_id
    for thread in sorted(threads, key=lambda t: t.turns[0].at):
        number += rng.randrange(40, 4_000)
        post = base36(number)
        path = f"/r/{thread.place}/comments/{post}/{_slug(thread.title)}/"
        hidden = rng.random() < 0.04  # a private community: never in the public dump
        ids: list[str] = []
        for index, turn in enumerate(thread.turns):
            number += rng.randrange(3, 90)
            ids.append(post if not index else base36(number * 36 + rng.randrange(36)))
            items.append(_item(rng, thread, turn, index, ids, path, hidden))
        if rng.random() < 0.15 and not hidden:
            items.append(_bot(rng, dialogue, thread, items[-1], ids, base36(number * 36 + 41), path))
    return items


def _item(rng: Random, thread: Thread, turn: Turn, index: int, ids: list[str], path: str, hidden: bool) -> Item:
    post = ids[0]
    parent = None if not index else f"t3_{post}" if not turn.parent else f"t1_{ids[turn.parent]}"
    item = Item(
        ids[-1],
        account(turn.person) if turn.person else "[deleted]",
        turn.person,
        turn.text,
        turn.at,
        thread.place,
        thread.title,
        post,
        parent,
        turn.edited,
        path=path,
        in_dump=not hidden,
        marks=turn.marks,
    )
    if not index and rng.random() < 0.1:
        item.text, item.url = "", f"https://{rng.choice(('blog', 'news', 'video'))}.example.org/{_slug(thread.title)}"
    return item


def _bot(rng: Random, dialogue: Dialogue, thread: Thread, like: Item, ids: list[str], new_id: str, path: str) -> Item:
    auto = rng.random() < 0.7
    pattern = "bot" if auto else "helper_bot"
    bound = thread.bound | {"label": thread.stage.label}
    text = dialogue.grammar.say(phrases()[pattern], bound)
    parent = f"t3_{ids[0]}" if auto else f"t1_{ids[-1]}" if len(ids) > 1 else f"t3_{ids[0]}"
    at = (thread.turns[0].at if auto else like.at) + rng.randrange(1, 9)
    name = "AutoModerator" if auto else "metric_units_bot"
    return Item(new_id, name, None, text, at, thread.place, thread.title, ids[0], parent, path=path, marks={"bot"})


def disturb(rng: Random, items: list[Item], owners: set[int], tally: Counter[str]) -> None:
    """Deleted authors, missing parents, reply cycles and repeated records among bystanders' comments, in place."""
    tally["unhydrated_records"] = sum(
        not i.in_dump and i.person is not None and i.person.number in owners for i in items
    )
    loose = [i for i in items if i.parent and i.person and i.person.number not in owners and i.in_dump]
    rng.shuffle(loose)
    share = max(2, len(loose) // 30)
    for item in loose[:share]:
        item.deleted = True
        item.author = "[deleted]"
        item.text = rng.choice(("[deleted]", "[removed]", item.text))
        tally["deleted_authors"] += 1
    answered = {i.parent for i in items}
    gone = [i for i in loose[share:] if f"t1_{i.id}" in answered][: max(1, share // 3)]
    for item in gone:
        item.in_dump = False
        tally["missing_parents"] += 1
    rest = [i for i in loose[share:] if i.in_dump]
    for item in rest[: max(1, share // 6)]:
        item.parent = f"t1_{item.id}"
        tally["self_replies"] += 1
    pair = next(((a, b) for a in rest[share:] for b in items if b.parent == f"t1_{a.id}" and b.in_dump), None)
    if pair:
        pair[0].parent = f"t1_{pair[1].id}"
        tally["reply_cycles"] += 1
    for item in rest[-max(2, share // 4) :]:
        item.records = 2
        tally["repeated_records"] += 1


def record(item: Item, rng: Random) -> dict[str, Any]:
    """The dump's record of `item` in its era's shape (key order as the dumps have it)."""
    common: dict[str, Any] = {
        "author": item.author,
        "author_flair_css_class": None,
        "author_flair_text": None,
        "created_utc": str(item.at) if item.era == 1 else item.at,
        "distinguished": "moderator" if item.author == "AutoModerator" else None,
        "edited": (float(item.edited) if item.era == 2 else item.edited) if item.edited else False,
        "gilded": 0,
        "id": item.id,
        "retrieved_on": item.at + 86_400 * 20 + rng.randrange(90_000),
        "score": rng.choice((1, 1, 1, 2, 3, 5, 8, 13, 21, -2)),
        "stickied": False,
        "subreddit": item.subreddit,
        "subreddit_id": f"t5_{base36(sum(map(ord, item.subreddit)) * 977)}",
    }
    return _comment(item, common) if item.parent else _post(item, common)


def _comment(item: Item, common: dict[str, Any]) -> dict[str, Any]:
    extra = {"body": item.text, "controversiality": 0, "link_id": f"t3_{item.link}", "parent_id": item.parent}
    if item.era == 1:  # 2005 to 2016: flat, `ups`, `created_utc` as a string in some months
        return {"ups": 1, "downs": 0, "score_hidden": False, "archived": True, "name": f"t1_{item.id}"} | common | extra
    if item.era == 2:  # 2017 to 2019: permalinks, floats for `edited`
        return common | extra | {"permalink": f"{item.path}{item.id}/", "is_submitter": False, "author_fullname": None}
    head = {"all_awardings": [], "archived": False, "associated_award": None, "awarders": [], "collapsed": False}
    tail = {
        "locked": False,
        "no_follow": True,
        "permalink": f"{item.path}{item.id}/",
        "send_replies": True,
        "gildings": {},
    }
    return head | common | extra | tail | {"treatment_tags": [], "unrepliable_reason": None, "updated_on": item.at + 9}


def _post(item: Item, common: dict[str, Any]) -> dict[str, Any]:
    extra = {
        "domain": f"self.{item.subreddit}" if not item.url else item.url.split("/")[2],
        "is_self": not item.url,
        "num_comments": 0,
        "over_18": False,
        "permalink": item.path,
        "selftext": item.text,
        "title": item.title,
        "url": item.url or _WEB + item.path,
    }
    if item.era == 1:
        return (
            {"media_embed": {}, "from": None, "downs": 0, "hide_score": False, "name": f"t3_{item.id}"} | common | extra
        )
    if item.era == 2:
        return common | extra | {"is_crosspostable": False, "is_video": False, "pinned": False, "spoiler": False}
    return {"all_awardings": [], "allow_live_comments": False} | common | extra | {"upvote_ratio": 1.0, "wls": 6}


def month(at: int) -> str:
    """The dump's month of a Unix time, as YYYY-MM."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def write_dumps(
    rng: Random, folder: Path, items: Sequence[Item], tally: Counter[str], bz2_month: str | None, broken: bool
) -> list[Path]:
    """Monthly RC_ and RS_ files below `folder`; with `broken`, one damaged line inside one and one cut-off end."""
    months: dict[str, list[Item]] = {}
    for item in items:
        if item.in_dump:
            months.setdefault(f"{'RC' if item.parent else 'RS'}_{month(item.at)}", []).append(item)
    paths = []
    for index, (name, found) in enumerate(sorted(months.items())):
        lines = []
        for item in sorted(found, key=lambda i: (i.at, i.id)):
            item.era = index % 3
            lines += [archives.compact(record(item, rng))] * item.records
            tally["records"] += item.records
        if broken and name.endswith("03") and name.startswith("RC"):
            lines.insert(
                len(lines) // 2, '{"id":"kq0brok","author":"nobody","body":"cut \\u00 in the middle,"created_utc":17\n'
            )
            tally["broken_records"] += 1
        if broken and name.endswith("05") and name.startswith("RC"):
            lines.append(lines[0][: len(lines[0]) * 2 // 3])
            tally["truncated_ends"] += 1
        paths.append(folder / f"{name}.{'bz2' if name[3:] == bz2_month else 'zst'}")
        archives.dump(lines, paths[-1])
    return paths


def stamp(at: int) -> str:
    """A time as data requests write it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
