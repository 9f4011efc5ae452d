"""Reddit's data-request zip of one account."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from user_embeddings_dagster.samples import archives
from user_embeddings_dagster.samples.oddities import pii_value
from user_embeddings_dagster.samples.people import Person
from user_embeddings_dagster.samples.reddit import Item, account, stamp

_COMMENTS = ("id", "permalink", "date", "ip", "subreddit", "gildings", "link", "parent", "body", "media")
_POSTS = ("id", "permalink", "date", "ip", "subreddit", "gildings", "title", "url", "body")
_MESSAGES = ("id", "permalink", "thread_id", "date", "ip", "from", "to", "subject", "body")
_WEB = "https://www.reddit.com"


def write_request(rng: Random, folder: Path, person: Person, items: Sequence[Item], tally: Counter[str]) -> Path:
    """The zip of `person`, who wrote `items`. One account in four has the older form: prefixed ids, relative links."""
    own = sorted((i for i in items if i.person is person and "bot" not in i.marks), key=lambda i: (i.at, i.id))
    older = rng.random() < 0.25
    name = account(person)

    def ip() -> str:
        if rng.random() > 0.3:
            return ""
        tally["ip_column_values"] += 1
        return pii_value(rng, "ip", person.first, person.last)

    comments = [_comment(i, older, ip()) for i in own if i.parent]
    posts = [_post(i, older, ip()) for i in own if not i.parent]
    tally["records"] += len(own)
    tally["request_rows"] += len(own)
    joined = 1_500_000_000 + rng.randrange(180_000_000)
    members = {
        "account_gender.csv": archives.csv_text(("account_gender",), []),
        "chat_history.csv": archives.csv_text(("message_id", "created_at", "updated_at", "username", "message"), []),
        "comment_headers.csv": archives.csv_text(_COMMENTS[:8], [row[:8] for row in comments]),
        "comments.csv": archives.csv_text(_COMMENTS, comments),
        "ip_logs.csv": archives.csv_text(
            ("date", "ip"), [("registration ip", pii_value(rng, "ip", "", "")), (stamp(joined), ip())]
        ),
        "messages_archive.csv": archives.csv_text(_MESSAGES, [_welcome(rng, name, joined, ip())]),
        "post_headers.csv": archives.csv_text(_POSTS[:8], [row[:8] for row in posts]),
        "posts.csv": archives.csv_text(_POSTS, posts),
        "saved_posts.csv": archives.csv_text(("id", "permalink"), []),
        "statistics.csv": archives.csv_text(("statistic", "value"), _statistics(rng, person, joined)),
        "subscribed_subreddits.csv": archives.csv_text(
            ("subreddit",), [(sub,) for sub in sorted({i.subreddit for i in own})]
        ),
        "user_preferences.csv": archives.csv_text(
            ("preference", "value"), [("autoplay_media", "on"), ("lang", "en"), ("over_18", "False")]
        ),
    }
    path = folder / f"export_{name}_{rng.choice(('20240902', '20240905', '20240911'))}.zip"
    archives.write(path, archives.zipped(members))
    return path


def _link(item: Item, older: bool) -> tuple[str, str, str]:
    full, own = f"{_WEB}{item.path}", f"{item.path}{item.id}/" if item.parent else item.path
    return full, own if older else _WEB + own, ("t1_" if item.parent else "t3_") if older else ""


def _comment(item: Item, older: bool, ip: str) -> tuple[object, ...]:
    full, own, prefix = _link(item, older)
    parent = item.parent or ""
    if not older:  # newer requests leave the parent of a top-level comment empty and write ids bare
        parent = "" if parent.startswith("t3_") else parent.removeprefix("t1_")
    return prefix + item.id, own, stamp(item.at), ip, item.subreddit, 0, full, parent, item.text, ""


def _post(item: Item, older: bool, ip: str) -> tuple[object, ...]:
    full, own, prefix = _link(item, older)
    url = item.url or full
    return prefix + item.id, own, stamp(item.at), ip, item.subreddit, 0, item.title, url, item.text


def _welcome(rng: Random, name: str, at: int, ip: str) -> tuple[object, ...]:
    code = f"{rng.randrange(36**5):x}"
    body = "Welcome! Here are some communities to start with. This inbox is not monitored."
    return code, f"{_WEB}/message/messages/{code}", "", stamp(at), ip, "reddit", name, "welcome to reddit!", body


def _statistics(rng: Random, person: Person, joined: int) -> list[tuple[str, str]]:
    return [
        ("account name", account(person)),
        ("export time", stamp(1_725_264_000 + rng.randrange(80_000))),
        ("is_deleted", "False"),
        ("registration date", stamp(joined)),
        ("email verified", "True"),
        ("email address", pii_value(rng, "email", person.first, person.last)),
        ("phone number", pii_value(rng, "phone", person.first, person.last)),
    ]
