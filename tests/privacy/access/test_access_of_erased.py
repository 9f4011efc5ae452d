"""C15, C17, C18: an erased person's keys, grants and salts are gone and found nowhere, and the log still verifies."""

import pytest

from benchmarks.access_world import DATADAOS, World
from user_embeddings_dagster.privacy.access.anchors import new_anchor
from user_embeddings_dagster.privacy.access.proofs import Refused
from user_embeddings_dagster.privacy.access.report import as_table
from user_embeddings_dagster.privacy.access.verification import verify
from user_embeddings_dagster.privacy.erasure.erase import erase


@pytest.fixture
def world(tmp_path) -> World:
    found = World(tmp_path / "data", 3)
    found.layout.landing.mkdir()
    new_anchor(found.layout, DATADAOS)  # which makes the salts
    return found


def test_erasure_removes_what_access_keeps_of_a_person_and_breaks_no_chain(world):
    user, other = world.users[:2]
    token, others = world.token(user, "read"), world.token(other, "read")
    proof = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    before = verify(world.access.log)
    receipt = erase(world.layout, frozenset({user}))
    assert receipt.hits_before["access"] >= 4  # two keys and two salts
    assert receipt.removed["access"] == 4  # owner's key, a grant, salts of two DataDAOs
    assert receipt.clean and not receipt.hits_after
    after = verify(world.access.log)
    assert after.verified and after.count == before.count + 1
    last = as_table(world.layout)[0].row(-1, named=True)
    assert (last["event"], last["outcome"], last["person"]) == ("erase", "clean", receipt.person)
    for refused in (lambda: world.access.read(token, user, DATADAOS[0]), lambda: world.access.token(*proof)):
        with pytest.raises(Refused):
            refused()
    world.access.read(others, other, DATADAOS[0])
    assert world.access.whitelist.holds([receipt.person]) == 0


def test_a_key_that_others_grant_to_as_well_is_no_trace_of_the_person(world):
    """An app that two people let read is still the other's grant after one of them is erased."""
    user, other = world.users[:2]
    app = world.apps[user]
    world.grant(other, app, "read")
    receipt = erase(world.layout, frozenset({user}))
    assert receipt.clean
    world.access.read(world.token(other, "read", by=app), other, DATADAOS[0])
