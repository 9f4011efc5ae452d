"""C19: sealed files give back what was sealed, from any place, or refuse; without the key they are noise."""

import io
import os
import random
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.privacy import sealed, sealed_format
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed import SealedReader, SealedWriter
from user_embeddings_dagster.privacy.sealed_format import NotOurs, Shredded, Tampered, owner_of, read_header

MASTER, ANN, BEN = bytes(range(32)), "a" * 32, "b" * 32
FRAME = 64
TAG = sealed_format.TAG
CANARY = "canary of Ann: plum pudding 17 on Elm Street"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    with ContributorKeys(tmp_path_factory.mktemp("keys") / "c.sqlite", MASTER) as keys:
        yield keys


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(sealed, "FRAME", FRAME)


def seal(path: Path, content: bytes, keys: ContributorKeys, owner: str = ANN, step: int = 50) -> Path:
    with SealedWriter(path, keys, owner, b"dao/x.zip") as writer:
        for at in range(0, len(content), step):
            writer.write(content[at : at + step])
        writer.commit()
    return path


def read(path: Path, keys: ContributorKeys) -> bytes:
    with SealedReader(path, keys) as reader:
        reader.verify()
        reader.seek(0)
        return reader.read()


SEEKS = st.tuples(st.just("seek"), st.integers(-300, 300), st.sampled_from([0, 1, 2]))
READS = st.tuples(st.sampled_from(["read", "readinto"]), st.integers(-1, 200), st.just(0))


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400), steps=st.lists(SEEKS | READS, max_size=20), buffered=st.booleans())
def test_any_bytes_and_any_way_of_reading_them_are_as_in_memory(tmp_path_factory, keys, content, steps, buffered):
    """C19: the same answers as BytesIO gives, whatever is sought and read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "FRAME", FRAME)
        path = seal(tmp_path_factory.mktemp("any") / "x.sealed", content, keys)
    truth, raw = io.BytesIO(content), SealedReader(path, keys)
    with io.BufferedReader(raw, 32) if buffered else raw as reader:
        for step, n, whence in steps:
            if step == "seek":
                if (whence == 0 and n < 0) or (whence == 2 and len(content) + n < 0) or truth.tell() + n < 0:
                    continue
                assert reader.seek(n, whence) == truth.seek(n, whence)
            elif step == "read":
                assert reader.read(n) == truth.read(n)
            else:
                ours, theirs = bytearray(max(0, n)), bytearray(max(0, n))
                assert reader.readinto(ours) == truth.readinto(theirs) and ours == theirs
            assert reader.tell() == truth.tell()


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 3 * FRAME + 5])
def test_every_size_around_a_frame(tmp_path, keys, small_frames, size):
    content = os.urandom(size)
    path = seal(tmp_path / "x.sealed", content, keys)
    header = read_header(path)
    assert read(path, keys) == content and path.stat().st_size == header.sealed_size
    assert header.frames == max(1, -(-size // FRAME))
    with SealedReader(path, keys) as reader:
        assert reader.name == b"dao/x.zip" and len(reader.sha256) == 64
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 2 * FRAME + 10])
def test_every_byte_that_is_changed_is_refused(tmp_path, keys, small_frames, size):
    """C19: each byte of a file flipped in turn, header and frames: nothing is read from any of them."""
    path = seal(tmp_path / "x.sealed", os.urandom(size), keys)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(Tampered):
                read(path, keys)
    path.write_bytes(whole)
    assert len(read(path, keys)) == size


def frames_of(whole: bytes, start: int) -> list[bytes]:
    return [whole[at : at + FRAME + TAG] for at in range(start, len(whole), FRAME + TAG)]


ATTACKS = {
    "first dropped": lambda f, o: f[1:],
    "middle dropped": lambda f, o: [*f[:1], *f[2:]],
    "last dropped": lambda f, o: f[:-1],
    "swapped": lambda f, o: [f[1], f[0], *f[2:]],
    "doubled": lambda f, o: [f[0], *f],
    "one in place of another": lambda f, o: [f[0], f[0], *f[2:]],
    "last in place of another": lambda f, o: [f[0], f[-1].ljust(len(f[1]), b"\0"), *f[2:]],
    "from another file": lambda f, o: [f[0], o[1], *f[2:]],
    "more behind the end": lambda f, o: [*f, b"more"],
    "cut off in a frame": lambda f, o: [*f[:-1], f[-1][:-1]],
    "all gone": lambda f, o: [],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_frames_that_are_dropped_moved_doubled_or_exchanged_are_refused_by_number(tmp_path, keys, small_frames, attack):
    content = bytes(range(256))
    path, other = seal(tmp_path / "x.sealed", content, keys), seal(tmp_path / "y.sealed", content, keys)
    start, whole = read_header(path).start, path.read_bytes()
    frames = ATTACKS[attack](frames_of(whole, start), frames_of(other.read_bytes(), start))
    path.write_bytes(whole[:start] + b"".join(frames))
    with pytest.raises(Tampered, match=rf"{read_header(path).file_id.hex()}: frame \d of 4 ") as refused:
        read(path, keys)
    assert refused.value.path == path and 1 <= refused.value.frame <= 4


def test_a_twin_that_does_not_number_its_frames_is_caught_by_the_attacks(tmp_path, keys, small_frames, monkeypatch):
    monkeypatch.setattr(sealed, "nonce_of", lambda frame, last: bytes(12))
    monkeypatch.setattr(sealed, "bound_to", lambda file_id, frame, last: file_id)
    path = seal(tmp_path / "x.sealed", bytes(range(256)), keys)
    start, whole = read_header(path).start, path.read_bytes()
    path.write_bytes(whole[:start] + b"".join(ATTACKS["swapped"](frames_of(whole, start), [])))
    with SealedReader(path, keys) as reader:
        reader.verify(hashed=False)
        reader.seek(0)
        assert reader.read(1) == bytes([FRAME]), "swapped frames went unnoticed"
    with pytest.raises(Tampered, match="another hash"):
        read(path, keys)


@pytest.mark.parametrize("part", ["frame_size", "file_id", "key_id", "size", "box", "meta"])
def test_a_header_of_another_file_or_with_other_numbers_is_refused(tmp_path, keys, small_frames, part):
    content = bytes(range(256))
    path, other = seal(tmp_path / "x.sealed", content, keys), seal(tmp_path / "y.sealed", content[:200], keys, BEN)
    ours, theirs, whole = read_header(path), read_header(other), path.read_bytes()
    changed = {"frame_size": FRAME // 2} if part == "frame_size" else {part: getattr(theirs, part)}
    edited = sealed_format.Header(**{**vars(ours), **changed})
    path.write_bytes(edited.fixed + edited.box + edited.meta + whole[ours.start :])
    with pytest.raises(Tampered):
        read(path, keys)
    path.write_bytes(other.read_bytes()[: theirs.start] + whole[ours.start :])
    with pytest.raises(Tampered):
        read(path, keys)


def test_what_was_read_before_a_damaged_frame_was_right_and_no_unproven_byte_is_given_out(tmp_path, keys, small_frames):
    content = bytes(range(256))
    path = seal(tmp_path / "x.sealed", content, keys)
    whole, start = bytearray(path.read_bytes()), read_header(path).start
    whole[start + 2 * (FRAME + TAG) + 5] ^= 1
    path.write_bytes(whole)
    buffer = bytearray(FRAME)
    with SealedReader(path, keys) as reader:
        assert reader.read(2 * FRAME) == content[: 2 * FRAME]
        with pytest.raises(Tampered, match="frame 3 of 4"):
            reader.readinto(buffer)
        assert buffer == bytes(FRAME)
        reader.seek(3 * FRAME)
        assert reader.read() == content[3 * FRAME :]


def test_without_its_key_a_file_is_shredded_and_a_new_key_does_not_bring_it_back(tmp_path, keys):
    path, other = seal(tmp_path / "x.sealed", b"mine", keys, "c" * 32), seal(tmp_path / "y.sealed", b"others", keys)
    keys.destroy("c" * 32)
    with pytest.raises(Shredded):
        SealedReader(path, keys)
    keys.key("c" * 32)
    with pytest.raises(Shredded):
        SealedReader(path, keys)
    assert owner_of(path, keys) == "c" * 32 and read(other, keys) == b"others"


def test_another_platforms_file_is_not_ours(tmp_path, keys):
    with ContributorKeys(tmp_path / "other.sqlite", bytes(32)) as others:
        path = seal(tmp_path / "x.sealed", b"mine", others)
    with pytest.raises(NotOurs):
        SealedReader(path, keys)


def test_nothing_of_content_name_hash_or_owner_is_in_clear_and_the_audit_sees_all_of_it_with_the_keys(tmp_path, keys):
    """C19, with its control: the same scan finds the canary in the clear file, and with the keys in the sealed one."""
    clear = tmp_path / "clear" / "export_annsmith99_2024.zip"
    clear.parent.mkdir()
    with zipfile.ZipFile(clear, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", CANARY * 20)
    with SealedWriter(tmp_path / "sealed" / "1.sealed", keys, ANN, b"dao/export_annsmith99_2024.zip") as writer:
        writer.write(clear.read_bytes())
        sha256 = writer.sha256
        writer.commit()
    wanted = [CANARY, "annsmith99", sha256, ANN]
    assert scan(tmp_path / "clear", wanted[:2]).canaries == set(wanted[:2])
    assert not scan(tmp_path / "sealed", wanted).hits
    found = scan(tmp_path / "sealed", wanted, keys)
    assert found.canaries == set(wanted[:2]) and not found.undecoded
    assert {hit.read_as for hit in found.hits} == {"sealed/zip", "sealed name"}
    keys.destroy(ANN)
    assert not scan(tmp_path / "sealed", wanted, keys).hits


def test_equal_contents_are_sealed_to_different_bytes_of_which_every_value_is_as_frequent(tmp_path, keys):
    content = b"\0" * (1 << 20)
    first, second = (seal(tmp_path / name, content, keys, step=1 << 20).read_bytes() for name in ("x", "y"))
    assert first[200:300] != second[200:300]
    counts = [first.count(bytes([value])) for value in range(256)]
    mean = len(first) / 256
    assert sum((n - mean) ** 2 / mean for n in counts) < 256 + 6 * (2 * 255) ** 0.5  # chi squared, six sigma
    assert content.count(b"\0") == len(content)


def test_libraries_read_archives_and_streams_from_it(tmp_path, keys):
    inner = io.BytesIO()
    rows = random.Random(1).randbytes(3 << 20)
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", rows)
        archive.writestr("b", rows[::-1])
    path = seal(tmp_path / "x.sealed", inner.getvalue(), keys, step=1 << 20)
    with SealedReader(path, keys) as reader, zipfile.ZipFile(reader) as archive:
        assert archive.read("b") == rows[::-1] and archive.read("a") == rows
    packed = seal(tmp_path / "z.sealed", zstandard.compress(rows), keys, step=1 << 20)
    with SealedReader(packed, keys) as reader:
        assert zstandard.ZstdDecompressor().stream_reader(reader).read() == rows


def test_what_was_not_committed_is_not_there(tmp_path, keys):
    with SealedWriter(tmp_path / "x.sealed", keys, ANN, b"n") as writer:
        writer.write(b"half")
        assert [path.suffix for path in tmp_path.iterdir()] == [sealed_format.LEFTOVER]
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_file_gives_out_no_descriptor(tmp_path, keys):
    with (
        SealedReader(seal(tmp_path / "x.sealed", b"mine", keys), keys) as reader,
        pytest.raises(io.UnsupportedOperation),
    ):
        reader.fileno()
