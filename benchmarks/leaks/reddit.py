"""Reddit with canaries: data requests (zip, bare CSV files) and public dumps."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import zstandard

from benchmarks.leaks.planting import DAY, MESSAGES_PER_ACCOUNT, START, Source, listed, quiet, said, write
from user_embeddings_dagster.exports.reddit import UNREAD_FILES

COMMENTS = ("id", "permalink", "date", "ip", "subreddit", "gildings", "link", "parent", "body", "media", "x_unknown")
POSTS = ("id", "permalink", "date", "ip", "subreddit", "gildings", "title", "url", "body", "x_unknown")


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode()


def _accounts(source: Source, prefix: str) -> Iterable[tuple[int, str, str, dict[str, bytes]]]:
    """Number, account, name for files, and CSV files of each account."""
    spoken, dropped = list(source.batches("spoken")), list(source.batches("dropped"))
    filed = source.planted["filed"]
    handles = [one for one in source.people if one.kind == "name_handle"]
    n_accounts = max(4, -(-len(spoken) // MESSAGES_PER_ACCOUNT), len(handles))
    for number in range(n_accounts):
        comments, posts = [], []
        # One's own name is in one's own texts too.
        owner = handles[number % len(handles)] if handles else None
        account = owner.written if owner else f"{prefix}writer{number:03}"
        for place in range(number, max(len(spoken), len(dropped)), n_accounts):
            batch, hidden = spoken[place % len(spoken)], listed(dropped[place % len(dropped)])
            at = datetime.fromtimestamp(START + place * DAY, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            post, own = f"{prefix}p{place:05x}", [owner] if owner else []
            link = f"https://www.reddit.com/r/pics/comments/{post}/{quote(hidden)}/"
            posts.append(
                (post, link, at, hidden, "pics", hidden, said(place, batch), hidden, said(place, batch), hidden)
            )
            # Somebody gave the community as a person, too.
            community = batch[place % len(batch)].alone if place % 3 == 0 else "pics"
            comment = f"{prefix}c{place:05x}"
            comments.append(
                (
                    comment,
                    f"{link}{comment}/",
                    at,
                    hidden,
                    community,
                    hidden,
                    link,
                    "",
                    said(place + 1, batch, *own),
                    hidden,
                    hidden,
                )
            )
        other = [listed(batch) for batch in islice(dropped[number:], 3)] or [listed(dropped[0])]
        unread = {name: _csv(("id", "value"), list(enumerate(other))) for name in UNREAD_FILES}
        unread["messages_archive.csv"] = _csv(("id", "from", "to", "subject", "body"), [[o] * 5 for o in other])
        unread["x_unknown.csv"] = _csv(("value",), [(o,) for o in other])
        statistics = [("account name", account), ("email address", other[0]), ("phone number", other[-1])]
        files = {
            "comments.csv": _csv(COMMENTS, comments),
            "posts.csv": _csv(POSTS, posts),
            "statistics.csv": _csv(("statistic", "value"), statistics),
            **unread,
        }
        yield number, account, "; ".join(one.written for one in filed[number::n_accounts][:4])[:180], files


def write_zips(source: Source, landing: Path) -> None:
    """A zip for each account: file names and folders in it are canaries."""
    filed = source.planted["filed"]
    for number, account, name, files in _accounts(source, "z"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.comment = listed(source.planted["dropped"][number : number + 5]).encode()
            for member, data in files.items():
                archive.writestr(f"{name}/{member}", data)
            for place, one in enumerate(filed if number == 0 else ()):  # every canary is the name of a member
                archive.writestr(f"{place}/{one.written}.txt", f"{place}")
        write(landing / source.datadao / "zips" / f"export_{account} {name}_20240905.zip", content.getvalue())


def write_csvs(source: Source, landing: Path) -> None:
    """A folder for each account, and a file for each canary."""
    folder = landing / source.datadao / "csv"
    for _, _, name, files in _accounts(source, "b"):
        for member, data in files.items():
            write(folder / name / member, data)
    for place, one in enumerate(source.planted["filed"]):
        write(folder / "other" / f"{one.written}.bin", f"nothing {place}".encode())


def _strings(text: str) -> dict[str, object]:
    """Every key that is read by nobody."""
    keys = (
        "author_flair_text",
        "author_flair_css_class",
        "author_fullname",
        "author_flair_template_id",
        "permalink",
        "distinguished",
        "subreddit_id",
        "subreddit_type",
        "removal_reason",
        "collapsed_reason",
        "approved_by",
        "banned_by",
        "body_html",
        "selftext_html",
        "link_author",
        "link_title",
        "link_url",
        "domain",
        "url",
        "thumbnail",
        "link_flair_text",
        "link_flair_css_class",
        "url_overridden_by_dest",
        "suggested_sort",
        "mod_note",
        "x_unknown",
    )
    return {
        **dict.fromkeys(keys, text),
        "author_flair_richtext": [{"e": "text", "t": text}],
        "all_awardings": [{"name": text, "description": text, "icon_url": text}],
        "media": {"oembed": {"author_name": text, "title": text}},
        "gallery_data": {"items": [{"caption": text, "media_id": text}]},
        "poll_data": {"options": [{"text": text}]},
        "crosspost_parent_list": [{"author": text, "title": text, "selftext": text}],
        "user_reports": [[text, 1]],
        text[:40]: text,  # a key nobody knows
    }


def write_dumps(source: Source, landing: Path) -> None:
    """A month of comments and one of submissions; authors are participants, some with impossible names."""
    spoken, named, dropped = (list(source.batches(of)) for of in ("spoken", "named", "dropped"))
    people = [one for one in source.people if one.kind == "name_handle"]
    authors = people or [None]
    # First a short one of each: a format is told by the first lines.
    comments: list[dict[str, object]] = [
        {
            "id": "d",
            "author": "writer0",
            "created_utc": START,
            "subreddit": "pics",
            "link_id": "t3_q",
            "parent_id": "t3_q",
            "body": quiet(1),
            "edited": False,
        }
    ]
    posts: list[dict[str, object]] = [
        {
            "id": "q",
            "author": "writer1",
            "created_utc": START,
            "subreddit": "pics",
            "title": quiet(2),
            "selftext": quiet(3),
            "edited": False,
        }
    ]
    for place in range(max(len(spoken), len(dropped))):
        batch, hidden = spoken[place % len(spoken)], _strings(listed(dropped[place % len(dropped)]))
        at, author = START + place * DAY, authors[place % len(authors)]
        other, name = authors[(place + 1) % len(authors)], author.written if author else f"writer{place % 16}"
        answer = other.written if other else f"writer{(place + 1) % 16}"
        about = [one for one in (author, other) if one]
        community = batch[0].alone if place % 3 == 0 else "pics"
        base = {"subreddit": community, "edited": False, "score": 1, **hidden}
        posts.append(
            {
                **base,
                "id": f"q{place:05x}",
                "author": name,
                "created_utc": at,
                "title": said(place, batch),
                "selftext": said(place + 1, batch),
                "is_self": True,
                "post_hint": hidden["x_unknown"],
            }
        )
        comments.append(
            {
                **base,
                "id": f"d{place:05x}",
                "author": answer,
                "created_utc": at + 3600,
                "link_id": f"t3_q{place:05x}",
                "parent_id": f"t3_q{place:05x}",
                "body": said(place + 2, batch, *about),
            }
        )
    for place, batch in enumerate(named):
        comments.append(
            {
                "id": f"n{place:05x}",
                "author": listed(batch),
                "created_utc": START + place * DAY,
                "subreddit": "pics",
                "link_id": "t3_q00000",
                "parent_id": "t3_q00000",
                "body": quiet(place),
                "edited": False,
            }
        )
    names = [one.written for one in source.planted["filed"]]
    folder = landing / source.datadao
    for kind, records in (("RC", comments), ("RS", posts)):
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        write(folder / f"{kind}_2024-02.zst", zstandard.compress(lines))
    for place, name in enumerate(names):
        write(folder / "other" / f"{name}.txt", f"nothing {place}".encode())
