"""C13: what of the raw exports nobody reads is listed, counted where it occurs, and in no table."""

import csv
import io
import json
import zipfile
from pathlib import Path

import pytest

from assets.messages import messages
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.minimisation import FILES, NOT_READ, READ, as_markdown, survey
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.registry import FORMATS, detect
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.storage.lake import Lake

NEW = "brand_new_field"
WORDS = "what I think of tea"


def canary(format: str, name: str) -> str:
    """A text of its own for every field that nobody is to read."""
    return f"qx{content_id(format, name)[:16]}zw"


def fields(format: str) -> dict[str, str]:
    """Every field (no file) that is listed, and one that no list knows, with their canaries."""
    names = [name for kind, names in NOT_READ[format].items() if kind != FILES for name in names]
    return {name: canary(format, name) for name in [*names, NEW]}


def table(row: dict[str, str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerows([list(row), list(row.values())])
    return stream.getvalue()


def comment() -> dict[str, str]:
    at = {"id": "c1", "permalink": "/r/x/comments/abc/_/c1", "date": "2024-01-01 10:00:00 UTC", "subreddit": "x"}
    return at | {"link": "https://www.reddit.com/r/x/comments/abc/t/", "parent": "", "body": WORDS}


def reddit_zip(folder: Path, format: str) -> Path:
    path = folder / "export_somebody_20240101.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("comments.csv", table(comment() | fields(format)))
        archive.writestr(
            "statistics.csv", f"statistic,value\naccount name,somebody\nregistration ip,{canary(format, NEW)}"
        )
        for name in NOT_READ[format][FILES]:
            archive.writestr(name, f"any,thing\n{canary(format, name)},1\n")
        archive.writestr("new_file.csv", canary(format, NEW))
    return path


def reddit_csv(folder: Path, format: str) -> Path:
    path = folder / "somebody_comments.csv"
    path.write_text(table(comment() | fields(format)))
    return path


def reddit_unread(folder: Path, format: str) -> Path:
    for name in NOT_READ[format][FILES]:
        (folder / name).write_text(f"any,thing\n{canary(format, name)},1\n")
    return folder / NOT_READ[format][FILES][0]


def pushshift(folder: Path, format: str) -> Path:
    path = folder / "dump.ndjson"
    row = {"id": "c1", "author": "somebody", "created_utc": 1_700_000_000, "subreddit": "x", "link_id": "t3_abc"}
    path.write_text(json.dumps(row | {"parent_id": "t3_abc", "body": WORDS} | fields(format)) + "\n")
    return path


def telegram(folder: Path, format: str) -> Path:
    path = folder / "result.json"
    planted = fields(format)
    message = {
        "id": 1,
        "type": "message",
        "date": "2024-01-01T10:00:00",
        "from": "Som",
        "from_id": "user42",
        "text": WORDS,
    }
    contact = {"contact_information": planted, "location_information": planted, "invoice_information": planted}
    chat = {"name": "Other", "type": "personal_chat", "id": 43, "messages": [message | contact | planted]}
    document = {
        "about": canary(format, NEW),
        "personal_information": {"user_id": 42, "first_name": "Som", **planted},
        "contacts": {"list": [planted]},
        "sessions": {"list": [planted]},
        **{name: value for name, value in planted.items() if name not in ("contacts", "sessions")},
        "chats": {"about": "", "list": [chat]},
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def telegram_dfusion(folder: Path, format: str) -> Path:
    path = folder / "dfusion.json"
    planted = fields(format)
    message = {"id": 1, "className": "Message", "date": 1_700_000_000, "out": True, "message": WORDS}
    chat = {"chat_id": 43, "contents": [message | {"peerId": {"userId": "43", **planted}} | planted]}
    path.write_text(json.dumps({"revision": "1", "source": "telegram", "user": "42", **planted, "chats": [chat]}))
    return path


def chatgpt(folder: Path, format: str) -> Path:
    path = folder / "chatgpt.zip"
    planted = fields(format)
    message = {"id": "m", "author": {"role": "user", **planted}, "create_time": 1.7e9, "metadata": planted, **planted}
    message["content"] = {"content_type": "text", "parts": [WORDS], **planted}
    mapping = {"r": {"id": "r", "parent": None, "children": ["m"]}, "m": {"id": "m", "parent": "r", "message": message}}
    conversation = {"id": "k", "create_time": 1.7e9, "current_node": "m", "mapping": mapping, **planted}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversations.json", json.dumps([conversation]))
        archive.writestr("user.json", json.dumps({"id": "user-1", **planted}))
        for name in NOT_READ[format][FILES]:
            archive.writestr(name, json.dumps({"x": canary(format, name)}))
    return path


EXPORTS = {
    "reddit_request_zip": reddit_zip, "reddit_request_csv": reddit_csv, "reddit_request_unread": reddit_unread,
    "pushshift": pushshift, "telegram_desktop": telegram, "telegram_dfusion": telegram_dfusion, "chatgpt": chatgpt,
}  # fmt: skip


def planted(format: str) -> list[str]:
    return [canary(format, name) for kinds in NOT_READ[format].values() for name in kinds] + (
        [canary(format, NEW)] if format != "reddit_request_unread" else []
    )


def test_every_format_has_a_list_and_no_field_is_on_both():
    assert FORMATS.keys() == READ.keys() == NOT_READ.keys() == EXPORTS.keys()
    for format, kinds in NOT_READ.items():
        assert not READ[format] & {name for names in kinds.values() for name in names}, format


@pytest.mark.parametrize("format", EXPORTS)
def test_fields_that_nobody_reads_are_in_no_table(format, tmp_path):
    """C13: a canary in every listed field and in one that no list knows; found in the raw file, and nowhere else."""
    folder = tmp_path / "landing" / "dao"
    folder.mkdir(parents=True)
    path = EXPORTS[format](folder, format)
    found = detect(RawFile(path, path.name, ""))
    assert found is not None and found.name == format
    lake = Lake(tmp_path / "lake")
    result = build_messages("dao", tmp_path / "landing", lake, bytes(32), threads=1)
    if format != "reddit_request_unread":
        assert lake.read("messages", "dao").height == 1 and "tea" in lake.read("messages", "dao")["text"][0]
        assert int(result.stats["unknown_fields_not_read"]) >= 1
    assert int(result.stats["known_fields_not_read"]) >= 1
    wanted = planted(format)
    assert scan(folder, wanted).canaries == set(wanted)  # the control: they are there to be read
    assert scan(lake.root, wanted).canaries == set()
    if format != "reddit_request_unread":
        assert scan(lake.root, [WORDS]).canaries == {WORDS}  # the control: what is read is found in the tables


@pytest.mark.parametrize("format", [name for name in EXPORTS if name != "reddit_request_unread"])
def test_a_field_that_a_platform_adds_is_counted_as_not_read(format, tmp_path):
    path = EXPORTS[format](tmp_path, format)
    file = RawFile(path, path.name, "")
    before = survey(file, FORMATS[format])
    assert before.known >= {name for name in fields(format) if name != NEW}
    assert before.n_unknown >= 1 and NEW not in before.known


def test_a_reader_of_the_ui_sees_the_list():
    shown = [spec.metadata["never_read"].value for spec in messages.specs if "never_read" in spec.metadata]
    assert shown == [as_markdown()]
    for kinds in NOT_READ.values():
        assert all(f"`{name}`" in shown[0] for names in kinds.values() for name in names)
