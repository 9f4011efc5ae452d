"""Tokens that must not be accepted, each a kind: changed, stolen, widened, revoked, expired (F6)."""

import base64
import random
import string

from biscuit_auth import Biscuit, BlockBuilder

from benchmarks.access_attacks import allowed, attack, two
from benchmarks.access_world import DATADAOS, Signer, World
from user_embeddings_dagster.privacy.access import tokens
from user_embeddings_dagster.privacy.access.whitelist import ACTIONS


def use(world: World, token: str, user: str, datadao: str, action: str) -> bool:
    """Whether the token allows it."""
    if action == "read":
        return allowed(world.access.read, token, user, datadao)
    if action == "update":
        return allowed(world.access.serve, token, user, datadao, True)
    return allowed(world.access.remove, token, user, datadao)


@attack
def _token_with_a_letter_changed(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token = held(world, user)
    place = rng.randrange(len(token))
    letter = rng.choice((string.ascii_letters + string.digits + "-_=+/ \n\x00é").replace(token[place], ""))
    return use(world, token[:place] + letter + token[place + 1 :], user, DATADAOS[0], "read")


@attack
def _token_spelled_otherwise(world: World, rng: random.Random) -> bool:
    """The same bytes, or bytes that say the same, as another text: to slip past whatever compares texts."""
    user = rng.choice(world.users)
    token = held(world, user)
    raw = base64.urlsafe_b64decode(token)
    unknown = raw + b"\x7a\x01" + rng.randbytes(1)  # protobuf: field 15, which nobody reads
    other = [token.rstrip("="), token + "\n", " " + token, token[: rng.randrange(len(token))]]
    return use(world, rng.choice([*other, base64.urlsafe_b64encode(unknown).decode()]), user, DATADAOS[0], "read")


@attack
def _expired_token(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token = held(world, user)
    with world.clock.later(rng.choice([3600, 3601, 10**5, 10**8])):
        return use(world, token, user, DATADAOS[0], "read")


@attack
def _token_of_another_user(world: World, rng: random.Random) -> bool:
    mine, other = two(world, rng)
    return use(world, held(world, mine), other, DATADAOS[0], "read")


@attack
def _token_for_another_action(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    return use(world, held(world, user), user, DATADAOS[0], rng.choice(["update", "remove"]))


@attack
def _token_for_another_datadao(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    return use(world, held(world, user), user, DATADAOS[1], "read")


_WIDENING = (
    'action("update"); action("remove")', 'user("{other}")', 'datadao("beta")', "action($a) <- operation($a)",
    'user("{other}"); datadao("alpha"); action("read"); key("{key}")', "check if true", "expires(2100-01-01T00:00:00Z)",
)  # fmt: skip


@attack
def _token_widened_by_its_holder(world: World, rng: random.Random) -> bool:
    mine, other = two(world, rng)
    code = rng.choice(_WIDENING).format(other=other, key=world.owners[other].key)
    block = BlockBuilder(code)
    token = Biscuit.from_base64(held(world, mine), world.access.public_key).append(block).to_base64()
    places = [(mine, "alpha", "update"), (other, "alpha", "read"), (mine, "beta", "read")]
    with world.clock.later(3600 if "2100" in code or "true" in code else 0):
        places += [(mine, "alpha", "read")] * bool("2100" in code or "true" in code)
        return any([use(world, token, *place) for place in places])


@attack
def _narrowed_token_for_what_was_given_up(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token = world.token(user, "read", "update")
    if rng.random() < 0.5:
        return use(world, tokens.narrowed(token, world.access.public_key, ["read"]), user, DATADAOS[0], "update")
    short = tokens.narrowed(token, world.access.public_key, expires=int(world.clock()) + 60)
    with world.clock.later(60):
        return use(world, short, user, DATADAOS[0], "read")


@attack
def _narrowed_token_without_its_last_block(world: World, rng: random.Random) -> bool:
    """The first block as it was, under the proof of the narrowed token; or blocks of one token behind another's."""
    mine, other = two(world, rng)
    public = world.access.public_key
    narrow = _fields(tokens.narrowed(held(world, mine), public, ["update"]))
    whole = _fields(held(world, other))
    parts = [part for part in narrow if part[0] >> 3 != 3]
    if rng.random() < 0.5:
        parts = [part for part in whole if part[0] >> 3 == 2] + [part for part in narrow if part[0] >> 3 != 2]
    token = base64.urlsafe_b64encode(b"".join(parts)).decode()
    return any([use(world, token, user, DATADAOS[0], "read") for user in (mine, other)])


def _fields(token: str) -> list[bytes]:
    """The outermost protobuf fields of a token, each with its tag and length."""
    data, fields = base64.urlsafe_b64decode(token), []
    while data:
        length, end = 0, 1
        for shift in range(0, 35, 7):
            length |= (data[end] & 127) << shift
            end += 1
            if data[end - 1] < 128:
                break
        fields.append(data[: end + length])
        data = data[end + length :]
    return fields


@attack
def _token_of_another_root_key(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    root = tokens.root_key(rng.randbytes(32))
    forged = tokens.mint(
        root, world.access.platform, user, DATADAOS[0], world.owners[user].key, ACTIONS, int(world.clock()) + 1000
    )
    return use(world, forged, user, DATADAOS[0], "read")


@attack
def _revoked_token(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token = world.token(user, "read")
    narrow = tokens.narrowed(token, world.access.public_key, ["read"])
    world.access.revoke_token(token)
    return use(world, rng.choice([token, narrow]), user, DATADAOS[0], "read")


@attack
def _token_of_a_key_that_was_replaced(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token = held(world, user)
    world.access.enrol(user, Signer().key, replace=True)
    found = use(world, token, user, DATADAOS[0], "read")
    world.access.enrol(user, world.owners[user].key, replace=True)
    world.grant(user, world.apps[user], "read")
    return found


@attack
def _hidden_embedding_read_by_a_granted_key(world: World, rng: random.Random) -> bool:
    user = rng.choice(world.users)
    token, mine = held(world, user, app=True), world.token(user, "update")
    world.access.serve(mine, user, DATADAOS[0], False)
    found = use(world, token, user, DATADAOS[0], "read")
    world.access.serve(mine, user, DATADAOS[0], True)
    return found


def held(world: World, user: str, app: bool = False) -> str:
    """A token to read, of the owner or their app; made once."""
    kept = world.__dict__.setdefault("held", {})
    if (user, app) not in kept:
        kept[user, app] = world.token(user, "read", by=world.apps[user] if app else None)
    return kept[user, app]


@attack
def _token_with_a_check_of_its_holder(world: World, rng: random.Random) -> bool:
    """A holder's check that joins so many facts that the verifier would be busy for minutes: never evaluated."""
    user = rng.choice(world.users)
    join = ", ".join(f"operation($a{i}), time($b{i}), user($c{i}), action($d{i})" for i in range(30))
    block = BlockBuilder(f"check if {join}")
    token = Biscuit.from_base64(held(world, user), world.access.public_key).append(block).to_base64()
    return use(world, token, user, DATADAOS[0], "read")
