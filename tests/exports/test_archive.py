"""Hostile zip archives."""

import io
import stat
import zipfile

import pytest

from user_embeddings_dagster.exports import archive
from user_embeddings_dagster.exports.archive import Archive


def zipped(path, *members: tuple[str | zipfile.ZipInfo, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            out.writestr(name, data)
    return path


def reasons(path) -> list[tuple[int, str]]:
    with Archive(path) as opened:
        return [(r.location, r.reason) for r in opened.rejected]


@pytest.mark.parametrize("name", ["../evil.csv", "/etc/evil.csv", "a/../../evil.csv", "C:/evil.csv", "..\\evil.csv"])
def test_paths_that_leave_the_archive_are_rejected(tmp_path, name):
    path = zipped(tmp_path / "a.zip", ("good.csv", b"ok"), (name, b"evil"))
    assert reasons(path) == [(1, "unsafe_path")]
    with Archive(path) as opened:
        assert [m.name for m in opened.members] == ["good.csv"]


def test_links_are_rejected(tmp_path):
    link = zipfile.ZipInfo("comments.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert reasons(zipped(tmp_path / "a.zip", (link, b"/etc/passwd"))) == [(0, "not_a_regular_file")]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_second_of_two_equal_names_is_rejected(tmp_path):
    path = zipped(tmp_path / "a.zip", ("comments.csv", b"first"), ("comments.csv", b"second"))
    assert reasons(path) == [(1, "duplicate_member")]


def test_encrypted_members_are_rejected(tmp_path):
    path = zipped(tmp_path / "a.zip", ("comments.csv", b"x"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    assert reasons(path) == [(0, "encrypted_member")]


def test_a_bomb_is_rejected_and_a_small_repetitive_file_is_not(tmp_path):
    path = zipped(tmp_path / "a.zip", ("bomb.csv", bytes(40 << 20)), ("small.csv", bytes(1 << 20)))
    assert reasons(path) == [(0, "compression_ratio")]


def test_caps_on_members_and_bytes(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", *((f"{i}.csv", b"x" * 100) for i in range(5)))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    assert reasons(path) == [(3, "too_many_members")]  # and all after it
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 250)
    assert reasons(path) == [(i, "archive_too_large") for i in (2, 3, 4)]
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 99)
    assert {reason for _, reason in reasons(path)} == {"member_too_large"}


def test_a_member_that_lies_about_its_size_gives_no_byte_more(tmp_path):
    path = zipped(tmp_path / "a.zip", ("comments.csv", b"x" * 10_000))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    got = io.BytesIO()
    with Archive(path) as opened, opened.open(opened.members[0]) as stream, pytest.raises(archive.BROKEN):
        while part := stream.read(64):
            got.write(part)
    assert got.tell() <= 100
