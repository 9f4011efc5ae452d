"""C17: a person's embedding is read, hidden and removed by who proves a key that may, and by nobody else (F6)."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from benchmarks import access as benchmark
from benchmarks.access_attacks import ATTACKS, allowed
from benchmarks.access_token_attacks import held
from benchmarks.access_weakened import WEAKENED
from benchmarks.access_world import DATADAOS, Signer, World, rows
from user_embeddings_dagster.privacy.access import signatures, tokens
from user_embeddings_dagster.privacy.access.challenges import challenge_id
from user_embeddings_dagster.privacy.access.embeddings import TABLE, Absent
from user_embeddings_dagster.privacy.access.proofs import Refused
from user_embeddings_dagster.privacy.access.serving import not_removed
from user_embeddings_dagster.privacy.access.verification import verify
from user_embeddings_dagster.privacy.access.whitelist import REMOVED, Whitelist
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.user_memories import UserMemories

ALPHA, BETA = DATADAOS


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("shared") / "data", 3)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path / "data", 2)


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_attack_is_accepted(shared, kind):
    """C17, F6: of every kind some; 10,000 by `python -m benchmarks.access`."""
    rng = random.Random(kind)
    assert sum(ATTACKS[kind](shared, rng) for _ in range(8)) == 0


def test_valid_proofs_and_tokens_are_all_accepted_and_each_step_is_in_an_intact_log(shared):
    assert benchmark.valid(shared, 24) == 24
    assert verify(shared.access.log).verified


def test_every_attack_is_stopped_by_a_check_that_a_weakened_verifier_lacks():
    """Positive control of F6: each kind is named by one of them at least."""
    assert {kind for _, kinds in WEAKENED.values() for kind in kinds} == set(ATTACKS)


@pytest.mark.parametrize("weakening", WEAKENED)
def test_a_weakened_verifier_accepts(shared, tmp_path, weakening):
    """Positive control of F6."""
    shutil.copytree(shared.layout.root, tmp_path / "data")
    entered, kinds = WEAKENED[weakening]
    world = World.__new__(World)
    world.__dict__ |= {**shared.__dict__, "held": {}}
    world.access = shared.access.__class__(shared.layout.__class__(tmp_path / "data"), shared.clock)
    with entered():
        for kind in kinds:
            rng = random.Random(1)
            assert any(ATTACKS[kind](world, rng) for _ in range(30)), kind


def test_only_owners_and_grants_pass_in_a_matrix_of_users(tmp_path):
    """F6: every user against every other's embedding."""
    passed, should = benchmark.matrix(tmp_path / "data", 6)
    assert passed == should and len(should) == 9


def test_a_refusal_tells_nothing_of_what_was_wrong(world):
    """C17: one message, whatever was wrong, and no cause behind it."""
    user, stranger = world.users[0], Signer()
    owner = world.owners[user]
    proof = world.proof(user, ALPHA, "read", by=owner)
    world.access.token(*proof)
    attempts = {
        "replayed": proof,
        "unknown user": world.proof("0" * 32, ALPHA, "read", by=stranger),
        "wrong key": world.proof(user, ALPHA, "read", by=stranger),
        "no key": (world.access.challenge(user, ALPHA, ["read"]), "nobody", b""),
        "no challenge": ("?\ud800", owner.key, b""),
    }
    told = set()
    for text, key, signature in attempts.values():
        with pytest.raises(Refused) as refusal:
            world.access.token(text, key, signature)
        told.add((repr(refusal.value), refusal.value.__cause__))
    with pytest.raises(Refused) as refusal:
        world.access.read("no token", user, ALPHA)
    assert told == {(repr(refusal.value), None)} == {("Refused('refused')", None)}


def test_a_challenge_for_somebody_unknown_looks_like_any_other(world):
    known, unknown = (world.access.challenge(user, ALPHA, ["read"]).split("\n") for user in (world.users[0], "0" * 32))
    assert [line.split(": ")[0] for line in known] == [line.split(": ")[0] for line in unknown]
    assert not world.access.whitelist.holds(["0" * 32])


def test_of_many_processes_one_uses_a_challenge_up(tmp_path):
    """C17: nonces are consumed atomically across processes."""
    code = (
        "import sys; from pathlib import Path; from user_embeddings_dagster.privacy.access.whitelist import Whitelist\n"
        "with Whitelist(Path(sys.argv[1])) as w: print([n for n in range(40) if w.use(str(n), 10**10, 0)])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w.sqlite")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [number for process in processes for number in json.loads(process.communicate(timeout=60)[0])]
    assert sorted(won) == list(range(40))


def test_a_challenge_stays_used_after_its_expiry_when_a_clock_is_set_back(world):
    with Whitelist(world.layout.access_whitelist) as whitelist:
        used = challenge_id("x")
        assert whitelist.use(used, 100, 50)
        whitelist.use("another", 10**6, 5000)
        assert not whitelist.use(used, 100, 50)


def test_ed25519_keys_of_small_order_are_no_keys():
    """Under them anybody's signature holds: shown, then refused."""
    identity = "ed25519:" + (1).to_bytes(32, "little").hex()
    forged = (1).to_bytes(32, "little") + bytes(32)
    assert signatures.verifies(identity, b"anything", forged) and signatures.verifies(identity, b"else", forged)
    for y in (
        0,
        1,
        signatures._P - 1,
        signatures._P,
        signatures._P + 1,
        signatures._Y8,
        signatures._P - signatures._Y8,
    ):
        for sign in (0, 2**255):
            with pytest.raises(ValueError, match="small order"):
                signatures.canonical_key("ed25519:" + (y + sign).to_bytes(32, "little").hex())


def test_wallet_signatures_are_those_of_personal_sign():
    """ERC-191: the address, message and signature that web3's documentation of `Accounts.sign` prints."""
    message = b"Some data"
    signature = bytes.fromhex(
        "b91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
        "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a029" + "1c"
    )
    assert signatures.recovered_address(message, signature) == "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23"


def test_a_token_is_narrowed_offline_and_never_widened(world):
    """C17: with the public key alone; what was given up stays given up, what was kept still works."""
    user = world.users[0]
    token = world.token(user, "read", "update", "remove")
    narrow = tokens.narrowed(token, world.access.public_key, ["read", "update"], int(world.clock()) + 100)
    narrower = tokens.narrowed(narrow, world.access.public_key, ["update", "remove"])
    world.access.read(narrow, user, ALPHA)
    world.access.serve(narrower, user, ALPHA, True)
    for refused in (
        lambda: world.access.remove(narrow, user, ALPHA),
        lambda: world.access.remove(narrower, user, ALPHA),
        lambda: world.access.read(narrower, user, ALPHA),
    ):
        with pytest.raises(Refused):
            refused()
    with world.clock.later(100), pytest.raises(Refused):
        world.access.read(narrow, user, ALPHA)


def test_a_token_lives_no_longer_than_the_grant_of_its_key(world):
    user, app = world.users[0], Signer()
    world.grant(user, app, "read", seconds=60)
    token = world.token(user, "read", by=app)
    world.access.read(token, user, ALPHA)
    with world.clock.later(60), pytest.raises(Refused):
        world.access.read(token, user, ALPHA)


def test_what_is_read_is_the_row(world):
    user = world.users[1]
    found = world.access.read(held(world, user), user, ALPHA)
    row = rows(world.users).filter(id=user).row(0, named=True)
    assert (found.vector, found.projected) == (row["vector"], row["projected"])
    assert (found.n_chunks, found.last_chunk_at, found.encoder_version) == (2, row["last_chunk_at"], "v")


def test_a_hidden_embedding_is_the_owners_alone(world):
    user = world.users[0]
    mine, app = world.token(user, "read", "update"), held(world, user, app=True)
    world.access.serve(mine, user, ALPHA, False)
    world.access.read(mine, user, ALPHA)
    with pytest.raises(Refused):
        world.access.read(app, user, ALPHA)
    world.access.serve(mine, user, ALPHA, True)
    world.access.read(app, user, ALPHA)


def test_a_removed_embedding_is_gone_from_the_disk_and_stays_out(world):
    """C17: no byte of vector or memory is left in the DataDAO; the other's row and the other DataDAO stay."""
    user, other = world.users
    lance, folder = LanceTables(world.layout.lancedb), world.layout.lancedb / ALPHA
    lance.ensure_indices(ALPHA, TABLE, index_rows=2)
    row = rows(world.users).filter(id=user)
    starts = [np.asarray(row[name][0], np.float32)[:6].tobytes() for name in ("vector", "projected")]
    memory = world.layout.user_memories / f"{ALPHA}.sqlite"
    with UserMemories(memory) as memories:
        stored = memories.read([user])[1][0].tobytes()
    canaries = [user, *starts, stored]
    assert scan(folder, canaries).canaries == {user, *starts}
    assert scan(memory.parent, canaries).canaries == {user, stored}
    token = world.token(user, "read", "remove", "update")
    assert world.access.remove(token, user, ALPHA)
    assert not scan(folder, canaries).hits
    with UserMemories(memory) as memories:
        assert memories.users() == [other]
    assert lance.ids(ALPHA, TABLE) == [other] and user in lance.ids(BETA, TABLE)
    with pytest.raises(Absent):
        world.access.read(token, user, ALPHA)
    users = pl.Series(world.users)
    assert not_removed(world.layout, ALPHA, users).to_list() == [other]
    assert not_removed(world.layout, BETA, users).to_list() == world.users
    world.access.serve(token, user, ALPHA, True)
    assert not_removed(world.layout, ALPHA, users).to_list() == world.users


def test_who_was_granted_update_does_not_bring_back_what_the_owner_removed(world):
    user, app = world.users[0], Signer()
    world.grant(user, app, "update")
    given = world.token(user, "update", by=app)
    world.access.remove(world.token(user, "remove"), user, ALPHA)
    for served in (True, False):
        with pytest.raises(Refused):
            world.access.serve(given, user, ALPHA, served)
    person = next(iter(world.access.whitelist.removed(ALPHA)))
    assert world.access.whitelist.state(person, ALPHA) == REMOVED


def test_a_second_key_is_enrolled_only_in_place_of_the_first(world):
    user, thief = world.users[0], Signer()
    assert not world.access.enrol(user, thief.key)
    assert not allowed(world.access.token, *world.proof(user, ALPHA, "read", by=thief))


@pytest.mark.parametrize(
    "changed",
    [{"actions": "read everything"}, {"actions": ""}, {"expires": "1"}, {"key": "somebody"}],
)
def test_a_grant_that_says_nothing_clear_grants_nothing(world, changed):
    user, app = world.users[0], Signer()
    details = {"key": app.key, "actions": "read", "expires": str(int(world.clock()) + 100)} | changed
    details = {name: text for name, text in details.items() if text}
    with pytest.raises(ValueError):
        world.access.grant(*world.proof(user, ALPHA, "grant", by=world.owners[user], **details))
    assert not allowed(world.access.token, *world.proof(user, ALPHA, "read", by=app))


def test_keys_of_the_platform_are_its_operators_alone(world):
    for path in (world.layout.access_key, world.layout.access_whitelist):
        assert path.stat().st_mode & 0o077 == 0


def test_refusals_take_as_long_whatever_was_wrong(world):
    """No oracle by time: medians within a factor of two, on a machine that is not still."""
    times = benchmark.refusal_times(world, 15)
    assert max(times.values()) < 2 * min(times.values()), times
