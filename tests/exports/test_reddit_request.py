"""Reddit data requests: the zip and the bare CSV files."""

import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from user_embeddings_dagster.exports import reddit
from user_embeddings_dagster.exports.minimisation import NOT_READ
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.schema import NATIVE_MESSAGES

REAL = Path(os.environ.get("USER_EMBEDDINGS_REAL_DATA", "")) / "reddit"
COMMENTS = "id,permalink,date,ip,subreddit,gildings,link,parent,body,media\n"
POSTS = "id,permalink,date,ip,subreddit,gildings,title,url,body\n"
LINK = "https://www.reddit.com/r/pics/comments/abc/title/"
IP = "203.0.113.77"


def comment(body="hi", id="c1", parent="t1_p", link=LINK) -> str:
    return f'{id},/r/pics/comments/abc/title/c1/,2023-06-16 08:00:00 UTC,{IP},pics,0,{link},{parent},"{body}",\n'


def request(path: Path, **members: str | bytes) -> RawFile:
    with zipfile.ZipFile(path, "w") as out:
        for name, text in members.items():
            out.writestr(f"{name}.csv", text)
    return RawFile(path, path.name, "f" * 64)


def read(file: RawFile):
    found = detect(file)
    assert found
    batches = list(found.read(file))
    assert sum(batch.bytes_read for batch in batches) == file.path.stat().st_size
    messages = pl.concat([NATIVE_MESSAGES.empty(), *(NATIVE_MESSAGES.conform(b.messages) for b in batches)])
    return messages, pl.concat([b.names for b in batches]), [r for b in batches for r in b.rejected]


def test_a_zip_gives_comments_and_posts_of_its_owner(tmp_path):
    """C1, C7: ids with and without prefix, posts' titles, the account of statistics.csv, lines of the member."""
    posts = POSTS + f'p1,/r/u_ann/comments/p1/t/,2023-06-15 14:30:00 UTC,,u_ann,0,Title,{LINK},"Body"\n'
    file = request(
        tmp_path / "export_zoe_20240101.zip",
        comments=COMMENTS + comment("two\nlines", id="t1_c1") + comment(id="c2", parent="") + comment("[deleted]"),
        posts=posts,
        statistics="statistic,value\naccount name,Ann\n",
        ip_logs=f"date,ip\nx,{IP}\n",
    )
    messages, names, rejected = read(file)
    assert not rejected
    rows = messages.select("native_thread", "native_id", "native_parent", "text", "raw_member", "raw_location")
    assert rows.rows() == [
        ("t3_abc", "t1_c1", "t1_p", "two\nlines", "comments.csv", 2),
        ("t3_abc", "t1_c2", "t3_abc", "hi", "comments.csv", 4),
        ("t3_abc", "t1_c1", "t1_p", "", "comments.csv", 5),
        ("t3_p1", "t3_p1", None, "Title\n\nBody", "posts.csv", 2),
    ]
    assert messages["created_at"][0] == datetime(2023, 6, 16, 8, tzinfo=UTC)
    assert set(messages["native_author"]) == {"Ann"}
    assert messages["is_owner"].all()
    assert not messages["is_public"].any()
    assert messages["community"].to_list() == ["pics"] * 3 + [None]
    assert set(names["name"]) == {"Ann"}


@pytest.mark.parametrize(
    ("name", "account"), [("export_zoe_20240101.zip", "zoe"), ("export_a_b_20240101.zip", "a_b"), ("mine.zip", "mine")]
)
def test_without_statistics_the_file_names_the_account(tmp_path, name, account):
    messages, *_ = read(request(tmp_path / name, comments=COMMENTS + comment()))
    assert messages["native_author"].to_list() == [account]


def test_no_ip_reaches_any_row(tmp_path):
    """C13: columns that are not needed are listed and nothing of them is read."""
    messages, names, _ = read(request(tmp_path / "a.zip", comments=COMMENTS + comment()))
    listed = {name for kind in NOT_READ["reddit_request_csv"].values() for name in kind}
    assert IP not in repr(messages.rows()) + repr(names.rows())
    header = set(COMMENTS.strip().split(","))
    assert "ip" in header - set(reddit.NEEDED["comments.csv"]) <= listed


def test_bad_rows_are_located_and_good_rows_kept(tmp_path):
    bad = "only,three,fields\n"
    text = COMMENTS + comment(id="c1") + bad + comment(id="") + comment(id="c4", link="nowhere").replace(
        "/r/pics/comments/abc/title/c1/", "elsewhere"
    ) + comment(id="c5")  # fmt: skip
    messages, _, rejected = read(request(tmp_path / "a.zip", comments=text))
    assert messages["raw_location"].to_list() == [2, 6]
    assert sorted((r.location, r.reason) for r in rejected) == [
        (3, "wrong_number_of_fields"), (4, "missing_field"), (5, "missing_field"),
    ]  # fmt: skip


def test_a_file_that_is_no_text_halfway_keeps_its_first_half(tmp_path):
    text = (COMMENTS + "".join(comment(id=f"c{i}") for i in range(500))).encode()
    messages, _, rejected = read(request(tmp_path / "a.zip", comments=text + b"\xff\xfe\xfd" * 10_000))
    assert messages.height > 400
    assert [r.reason for r in rejected] == ["wrong_number_of_fields"]
    assert rejected[0].location == messages.height + 2


def test_a_zip_cut_in_the_middle_is_one_rejected_record(tmp_path):
    file = request(tmp_path / "a.zip", comments=COMMENTS + comment())
    file.path.write_bytes(file.path.read_bytes()[:-30])
    assert detect(file) is None
    [batch] = reddit.read_zip(file)
    assert [r.reason for r in batch.rejected] == ["broken_archive"]


def test_a_damaged_member_is_located_and_the_other_member_read(tmp_path):
    file = request(tmp_path / "a.zip", comments=COMMENTS + comment("x" * 500), posts=POSTS)
    data = bytearray(file.path.read_bytes())
    data[data.index(b"xxxx")] = ord("y")  # stored, so that only the checksum tells
    file.path.write_bytes(data)
    _, _, rejected = read(file)
    assert [(r.member, r.reason) for r in rejected] == [("comments.csv", "truncated")]


def test_bare_files_share_an_account_and_their_companions_are_known(tmp_path):
    folder = tmp_path / "zoe"
    folder.mkdir()
    (folder / "comments.csv").write_text(COMMENTS + comment())
    (folder / "posts.csv").write_text(POSTS + f"p1,/x,2023-06-15 14:30:00 UTC,,pics,0,Title,{LINK},\n")
    (folder / "ip_logs.csv").write_text("date,ip\n")
    files = [RawFile(path, f"zoe/{path.name}", "f" * 64) for path in sorted(folder.iterdir())]
    rows = {file.name: read(file)[0] for file in files}
    assert {name: frame["native_author"].to_list() for name, frame in rows.items()} == {
        "zoe/comments.csv": ["zoe"], "zoe/ip_logs.csv": [], "zoe/posts.csv": ["zoe"],
    }  # fmt: skip
    (folder / "statistics.csv").write_text("statistic,value\naccount name,Real_Name\n")
    assert read(files[0])[0]["native_author"].to_list() == ["Real_Name"]


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="set USER_EMBEDDINGS_REAL_DATA")
def test_real_files_have_their_counts():
    """C1: four comments and four posts of one account."""
    parts = [read(RawFile(REAL / n, n, "")) for n in ("gdpr.potluck.comments.csv", "gdpr.potluck.posts.csv")]
    assert [messages.height for messages, *_ in parts] == [4, 4]
    assert {a for messages, *_ in parts for a in messages["native_author"]} == {"gdpr.potluck"}
    assert not any(rejected for *_, rejected in parts)
