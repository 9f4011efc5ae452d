"""Proofs that must not succeed, each a kind: forged, replayed, stolen, malleated (F6).

An attempt is true if anything was allowed.
"""

import random
import string
from collections.abc import Callable

from eth_keys.constants import SECPK1_N

from benchmarks.access_world import DATADAOS, Signer, World
from user_embeddings_dagster.privacy.access.challenges import Challenge
from user_embeddings_dagster.privacy.access.embeddings import Absent
from user_embeddings_dagster.privacy.access.proofs import Refused
from user_embeddings_dagster.privacy.access.whitelist import ACTIONS

Attack = Callable[[World, random.Random], bool]
ATTACKS: dict[str, Attack] = {}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def attack(function: Attack) -> Attack:
    """Add a kind, named as its function."""
    ATTACKS[function.__name__.strip("_").replace("_", " ")] = function
    return function


def allowed(act: Callable[..., object], *arguments: object) -> bool:
    """Whether it was not refused."""
    try:
        act(*arguments)
    except Refused:
        return False
    except (Absent, ValueError):  # past the proof
        return True
    return True


def two(world: World, rng: random.Random) -> tuple[str, str]:
    """Two different users."""
    one, other = rng.sample(world.users, 2)
    return one, other


def flipped(data: bytes, rng: random.Random) -> bytes:
    """With one bit changed."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@attack
def _signature_with_a_bit_flipped(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    text, key, signature = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    return allowed(world.access.token, text, key, flipped(signature, rng))


@attack
def _signature_of_another_length(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    text, key, signature = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    wrong = signature[: rng.randrange(len(signature))] if rng.random() < 0.5 else signature + rng.randbytes(1)
    return allowed(world.access.token, text, key, wrong)


@attack
def _malleated_signature(world: World, rng: random.Random) -> bool:
    """The other s, the other spelling of v, s above the order: valid for a lax verifier, without the private key."""
    user = rng.choice(world.users)
    text, key, signature = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    if world.owners[user].wallet:
        s, v = int.from_bytes(signature[32:64], "big"), signature[64]
        mirrored = signature[:32] + (SECPK1_N - s).to_bytes(32, "big") + bytes([55 - v])
        wrong = rng.choice([mirrored, signature[:64] + bytes([v - 27]), signature[:64] + bytes([v + 8])])
    else:
        s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
        wrong = signature[:32] + s.to_bytes(32, "little")
    return allowed(world.access.token, text, key, wrong)


@attack
def _challenge_that_the_holder_changed(world: World, rng: random.Random) -> bool:
    """A key holder signs a text of their own making: another user, DataDAO, action, time, or any letter."""
    mine, other = two(world, rng)
    app = world.apps[mine]
    text = world.access.challenge(mine, DATADAOS[0], ["read"])
    expires = text.split("expires: ")[1].split("\n")[0]
    place = rng.randrange(len(text))
    changed = rng.choice([
        text.replace(mine, other), text.replace("alpha", "beta"), text.replace("actions: read", "actions: remove"),
        text.replace(expires, str(int(expires) + 10**6)), text + "\n",
        text[:place] + rng.choice(string.printable.replace(text[place], "")) + text[place + 1 :],
    ])  # fmt: skip
    return allowed(world.access.token, changed, app.key, app.sign(changed))


@attack
def _replayed_proof(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    proof = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    world.access.token(*proof)
    return allowed(world.access.token, *proof)


@attack
def _replayed_after_a_refusal(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    text, key, signature = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    allowed(world.access.token, text, world.apps[user].key, signature)
    return allowed(world.access.token, text, key, signature)


@attack
def _expired_challenge(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    proof = world.proof(user, DATADAOS[0], "read", by=world.owners[user])
    with world.clock.later(rng.choice([300, 301, 10**4, 10**8])):
        return allowed(world.access.token, *proof)


@attack
def _key_of_another_user(world: World, rng: random.Random) -> bool:
    mine, other = two(world, rng)
    return allowed(world.access.token, *world.proof(other, DATADAOS[0], "read", by=world.owners[mine]))


@attack
def _signature_of_another_under_the_owners_name(world: World, rng: random.Random) -> bool:
    mine, other = two(world, rng)
    text, _, signature = world.proof(other, DATADAOS[0], "read", by=world.owners[mine])
    return allowed(world.access.token, text, world.owners[other].key, signature)


@attack
def _unknown_user(world: World, rng: random.Random) -> bool:
    user = rng.randbytes(16).hex()
    return allowed(world.access.token, *world.proof(user, DATADAOS[0], "read", by=Signer(rng.random() < 0.2)))


@attack
def _granted_key_beyond_its_actions(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    wanted = rng.choice([("update",), ("remove",), ("read", "remove"), ACTIONS])
    return allowed(world.access.token, *world.proof(user, DATADAOS[0], *wanted, by=world.apps[user]))


@attack
def _granted_key_in_another_datadao(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    return allowed(world.access.token, *world.proof(user, DATADAOS[1], "read", by=world.apps[user]))


@attack
def _granted_key_after_its_expiry(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    with world.clock.later(86_400 + rng.randrange(10)):
        return allowed(world.access.token, *world.proof(user, DATADAOS[0], "read", by=world.apps[user]))


@attack
def _granted_key_after_its_revocation(world: World, rng: random.Random) -> bool:
    user, app = rng.choice(world.users), Signer()
    world.grant(user, app, "read")
    token = world.token(user, "read", by=app)
    proof = world.proof(user, DATADAOS[0], "read", by=app)
    world.access.revoke(*world.proof(user, DATADAOS[0], "revoke", by=world.owners[user], key=app.key))
    return allowed(world.access.token, *proof) or allowed(world.access.read, token, user, DATADAOS[0])


@attack
def _granted_key_that_grants(world: World, rng: random.Random) -> bool:
    user, app, friend = rng.choice(world.users), Signer(), Signer()
    world.grant(user, app, " ".join(ACTIONS))
    details = {"key": friend.key, "actions": "read", "expires": str(int(world.clock()) + 1000)}
    return allowed(world.access.grant, *world.proof(user, DATADAOS[0], "grant", by=app, **details))


@attack
def _challenge_of_one_purpose_for_another(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    owner = world.owners[user]
    if rng.random() < 0.5:
        return allowed(world.access.token, *world.proof(user, DATADAOS[0], "grant", by=owner, key=owner.key))
    return allowed(world.access.grant, *world.proof(user, DATADAOS[0], "read", by=owner, key=owner.key))


@attack
def _challenge_of_another_platform(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    owner = world.owners[user]
    foreign = Challenge("ab" * 32, user, DATADAOS[0], ("read",), {}, rng.randbytes(16).hex(), int(world.clock()) + 100)
    text = foreign.text(rng.randbytes(32))
    return allowed(world.access.token, text, owner.key, owner.sign(text))
