"""C18: whatever is done to the log of accesses is found and named; what a kill leaves is not taken for it (F6)."""

import os
import random
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from benchmarks import access as benchmark
from benchmarks.access_log_tampering import every_tampering, random_tampering, rechained, verified, written
from benchmarks.access_world import DATADAOS, World
from user_embeddings_dagster.privacy.access.anchors import commitment, new_anchor, read_anchor
from user_embeddings_dagster.privacy.access.log import AccessLog, LogDamaged, access_keys
from user_embeddings_dagster.privacy.access.report import as_table, chain_intact
from user_embeddings_dagster.privacy.access.verification import verify, verify_bytes
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.schema import ACCESS_LOG
from user_embeddings_dagster.settings import Layout

SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two logs of one platform."""
    folder = tmp_path_factory.mktemp("logs")
    return written(folder, 6, 1, SECRET), written(folder, 6, 2, SECRET)


@pytest.fixture
def log(tmp_path) -> AccessLog:
    found = AccessLog.of(Layout(tmp_path / "data"))
    for _ in range(4):
        found.append("read", "allowed", person="ab" * 16, datadao="alpha")
    return found


def test_every_tampering_of_a_small_log_is_found_and_its_first_bad_entry_named(logs):
    """C18, F6: exhaustive. Positive control: verifiers that look at less miss some."""
    log, other = logs
    made, missed, blind = benchmark.tamper(log, every_tampering(log, other))
    assert made.total() > 10_000 and not missed and all(blind.values()), (made, missed, blind)
    assert verified(log, log.data).verified


def test_a_sample_of_tamperings_of_a_larger_log(tmp_path):
    """F6: 10,000 on a log of 400 entries by `python -m benchmarks.access`."""
    log, other = (written(tmp_path, 60, seed, SECRET) for seed in (1, 2))
    rng = random.Random(0)
    made, missed, _ = benchmark.tamper(log, (random_tampering(log, other, rng) for _ in range(400)))
    assert made.total() > 390 and not missed


def test_the_log_of_another_platform_is_not_ours(logs, tmp_path):
    """Swap of two logs: of two platforms, each with its own head."""
    log, foreign = logs[0], written(tmp_path, 6, 3, bytes(32))
    assert verified(foreign, foreign.data).verified
    assert verified(log, foreign.data).first_bad == 0
    mine = AccessLog(tmp_path / "3.jsonl", tmp_path / "3.head", log.keys)
    assert "not signed by this platform" in verify(mine).reason


def test_without_the_secret_an_auditor_still_finds_what_was_chained_anew(logs):
    """The chain and the signed head need the public key alone."""
    log = logs[0]
    for number in range(len(log.lines)):
        lines = rechained(log, number).splitlines(keepends=True)
        assert not verify_bytes(lines, b"", log.head, None).verified
    assert verify_bytes(log.lines, b"", log.head, None).verified


def test_what_a_kill_leaves_of_an_entry_is_told_from_tampering_and_mended(log):
    """C18: at every byte of the last entry, with the head not yet written; the next append goes on."""
    data, before = log.path.read_bytes(), log.head_path.read_bytes()
    log.append("remove", "begun")
    last = log.path.read_bytes()[len(data) :]
    for cut in range(len(last) + 1):
        log.path.write_bytes(data + last[:cut])
        log.head_path.write_bytes(before)
        found = verify(log)
        whole = cut == len(last)
        assert found.verified and found.count == 4 + whole and found.torn == (0 if whole else cut), found
        if cut % 40 and not whole:
            continue
        log.append("remove", "done")
        after = verify(log)
        assert after.verified and after.count == 5 + whole and after.torn == 0, after


def test_more_than_one_kill_can_leave_is_tampering(log):
    data, before = log.path.read_bytes(), log.head_path.read_bytes()
    log.append("read", "allowed")
    log.append("read", "allowed")
    log.head_path.write_bytes(before)
    assert (verify(log).verified, verify(log).first_bad) == (False, 5)
    with pytest.raises(LogDamaged):
        log.append("read", "allowed")
    log.path.write_bytes(data + b"planted\n")
    assert (verify(log).verified, verify(log).first_bad) == (False, 4)


@pytest.mark.parametrize("damage", ["log cut", "log gone", "head gone", "head changed", "both gone"])
def test_nothing_is_done_that_cannot_be_logged(tmp_path, damage):
    """C18: with a log that is not what its head says no access is given."""
    world = World(tmp_path / "data", 2)
    user = world.users[0]
    token = world.token(user, "read")
    head, path = world.layout.access_log_head, world.layout.access_log
    if damage == "log cut":
        path.write_bytes(path.read_bytes()[:-1])
    if damage in ("log gone", "both gone"):
        path.unlink()
    if damage in ("head gone", "both gone"):
        head.unlink()
    if damage == "head changed":
        head.write_text(head.read_text().replace('"count": ', '"count": 1'))
    assert not verify(world.access.log).verified
    with pytest.raises(LogDamaged):
        world.access.read(token, user, DATADAOS[0])
    assert not chain_intact(as_table(world.layout)[1]).passed


def test_writers_killed_and_writing_at_once_leave_one_chain(tmp_path):
    """C18: four processes, one killed in the middle of it, again and again; every entry that was told is there."""
    layout = Layout(tmp_path / "data")
    access_keys(layout)
    code = (
        "import sys; from pathlib import Path; from user_embeddings_dagster.settings import Layout\n"
        "from user_embeddings_dagster.privacy.access.log import AccessLog\n"
        "log = AccessLog.of(Layout(Path(sys.argv[1])))\n"
        "for n in range(int(sys.argv[2])): print(log.append('read', 'allowed').number, flush=True)"
    )
    rng, told = random.Random(0), list[int]()
    steady = [_writer(code, layout, 60) for _ in range(2)]
    for _ in range(4):
        victim = _writer(code, layout, 10**6)
        assert victim.stdout
        told.append(int(victim.stdout.readline()))
        time.sleep(rng.random() * 0.1)
        victim.send_signal(signal.SIGKILL)
        told += [int(line) for line in victim.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    for writer in steady:
        told += [int(line) for line in writer.communicate(timeout=60)[0].split()]
    found = verify(AccessLog.of(layout))
    assert found.verified, found
    assert len(set(told)) == len(told) and set(told) <= set(range(found.count)) and found.count <= len(told) + 4


def _writer(code: str, layout: Layout, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(layout.root), str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.parametrize(
    "field",
    [{"person": "somebody@example.org"}, {"event": "Read it"}, {"subject": "free text"}, {"datadao": "../x"}],
)
def test_the_log_holds_no_free_text(log, field):
    """C18: what could name somebody does not get in; erasure has nothing to take out."""
    with pytest.raises(ValueError, match="form"):
        log.append(**{"event": "read", "outcome": "allowed", **field})
    assert verify(log).count == 4


def test_an_anchor_finds_a_log_that_was_set_back_or_written_anew(log):
    """C18: log and head replaced together by an older pair fit each other; a head kept elsewhere tells."""
    old = log.path.read_bytes(), log.head_path.read_bytes()
    log.append("erase", "clean")
    kept = log.head()
    assert verify(log, [kept]).verified
    log.append("read", "allowed")
    assert verify(log, [kept]).verified
    log.path.write_bytes(old[0])
    log.head_path.write_bytes(old[1])
    assert verify(log).verified
    found = verify(log, [kept])
    assert (found.verified, found.first_bad) == (False, 4)
    log.append("read", "refused")  # whoever has the keys goes on from there
    log.append("read", "refused")
    found = verify(log, [kept])
    assert (found.verified, found.first_bad) == (False, 4) and "anchored" in found.reason
    forged = msgspec.structs.replace(kept, hash="0" * 64)
    assert not verify(log, [forged]).verified


def test_an_anchor_holds_hashes_alone_and_means_nothing_without_its_salts(tmp_path):
    """C18: permanence for hashes, never for content."""
    world = World(tmp_path / "data", 3)
    anchor = new_anchor(world.layout, DATADAOS)
    text = anchor.to_json()
    assert read_anchor(text) == anchor and len(text) < 2000
    assert verify(world.access.log, [anchor.head]).verified
    assert not any(user in text or owner.key.split(":")[1] in text for user, owner in world.owners.items())
    user, key = world.users[0], bytes.fromhex(world.layout.key.read_text())
    person = erasure_id(key, user)
    row = world.access.read(world.token(user, "read"), user, "alpha")
    shown = commitment(world.access.whitelist.salt(person, "alpha"), row)
    assert shown in anchor.commitments["alpha"] and shown not in anchor.commitments["beta"]
    assert new_anchor(world.layout, DATADAOS).commitments == anchor.commitments
    world.access.whitelist.forget([person])
    again = commitment(world.access.whitelist.salt(person, "alpha"), row)
    assert again not in anchor.commitments["alpha"]


def test_the_log_as_a_table_ends_before_the_first_bad_entry(tmp_path):
    world = World(tmp_path / "data", 2)
    frame, found = as_table(world.layout)
    assert found.verified and frame.height == found.count == verify(world.access.log).count
    assert ACCESS_LOG.conform(frame).equals(frame) and frame["number"].to_list() == list(range(frame.height))
    assert chain_intact(found).metrics == {"entries": float(frame.height), "torn_bytes": 0.0}
    data = bytearray(world.layout.access_log.read_bytes())
    data[data.index(b'"number":3') + 40] ^= 1
    world.layout.access_log.write_bytes(data)
    frame, found = as_table(world.layout)
    assert (frame.height, found.first_bad) == (3, 3) and not chain_intact(found).passed


def test_a_platform_without_any_access_has_an_empty_intact_log(tmp_path):
    frame, found = as_table(Layout(tmp_path))
    assert frame.is_empty() and found.verified and not list(tmp_path.iterdir())
