"""Attack proofs, tokens and the log of accesses; who passes in a matrix of users; what a check costs (F6, C17, C18).

    python -m benchmarks.access [--attempts 10000] [--users 12] [--entries 400]

Prints by kind how many attempts were made and accepted (none may be), the same for valid ones (all must be), for
verifiers with one check taken out (some must be), for every tampering of a small log and a sample of a large one.
"""

import argparse
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

from benchmarks import access_token_attacks  # noqa: F401  (its kinds join ATTACKS)
from benchmarks.access_attacks import ATTACKS, allowed
from benchmarks.access_log_tampering import BLIND, Written, every_tampering, first_difference, random_tampering, written
from benchmarks.access_log_tampering import verified as log_verified
from benchmarks.access_weakened import WEAKENED
from benchmarks.access_world import DATADAOS, Signer, World
from user_embeddings_dagster.privacy.access import signatures, tokens
from user_embeddings_dagster.privacy.access.verification import verify


def attack(world: World, attempts: int, rng: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Attempts and accepted ones by kind, the kinds in turn."""
    made, accepted, kinds = Counter[str](), Counter[str](), list(ATTACKS)
    for number in range(attempts):
        kind = kinds[number % len(kinds)]
        made[kind] += 1
        accepted[kind] += ATTACKS[kind](world, rng)
    return made, +accepted


def valid(world: World, attempts: int) -> int:
    """How many of as many honest proofs, tokens, narrowed tokens and reads of owner and app were allowed."""
    passed = 0
    for number in range(attempts):
        user = world.users[number % len(world.users)]
        by = world.owners[user] if number % 2 else world.apps[user]
        token = tokens.narrowed(
            world.token(user, "read", by=by), world.access.public_key, ["read"], int(world.clock()) + 60
        )
        passed += allowed(world.access.read, token, user, DATADAOS[0])
    return passed


def weakened(folder: Path, attempts: int, rng: random.Random) -> dict[str, Counter[str]]:
    """Accepted attempts by kind, for each verifier with one check taken out."""
    found = {}
    for number, (name, (weakening, kinds)) in enumerate(WEAKENED.items()):
        world, counts = World(folder / str(number), 2), Counter[str]()
        with weakening():
            for kind in kinds:
                counts[kind] = sum(ATTACKS[kind](world, rng) for _ in range(attempts))
        found[name] = counts
    return found


def matrix(folder: Path, n: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """(who, whose): the pairs of users that pass with a proof or a token of their own, and those that should."""
    world = World(folder, n)
    should = {(i, i) for i in range(n)} | {(i, (i * 5 + 1) % n) for i in range(0, n, 2)}
    for i, j in should:
        if i != j:
            world.grant(world.users[j], world.owners[world.users[i]], "read")
    mine = {user: world.token(user, "read") for user in world.users}
    passed = set()
    for (i, who), (j, whose) in product(enumerate(world.users), repeat=2):
        proof = world.proof(whose, DATADAOS[0], "read", by=world.owners[who])
        if allowed(world.access.token, *proof) or allowed(world.access.read, mine[who], whose, DATADAOS[0]):
            passed.add((i, j))
    return passed, should


def tamper(
    log: Written, tamperings: Iterable[tuple[str, bytes]]
) -> tuple[Counter[str], Counter[str], Counter[str]]:  # fmt: skip
    """Tamperings by kind; those not found, or not named by the first entry that differs; what BLIND miss of a tenth."""
    made, missed, blind = Counter[str](), Counter[str](), Counter[str]()
    for kind, data in tamperings:
        if data == log.data:
            continue
        made[kind] += 1
        result = log_verified(log, data)
        missed[kind] += result.verified or result.first_bad != first_difference(log, data)
        if made.total() % 10 == 0 or len(log.lines) < 10:
            for name, verifier in BLIND.items():
                blind[name] += verifier(log, data).verified
    return made, +missed, blind


def rate(act: Callable[[], object], seconds: float = 0.5) -> float:
    """Times a second of processor time."""
    begin, n = time.process_time(), 0
    while time.process_time() - begin < seconds:
        act()
        n += 1
    return n / (time.process_time() - begin)


def rates(world: World) -> dict[str, float]:
    """What each check costs, in one run."""
    text, ed25519, wallet = "a challenge's text " * 20, Signer(), Signer(wallet=True)
    by_key, by_wallet = ed25519.sign(text), wallet.sign(text)
    user = world.users[0]
    token, root, now = world.token(user, "read"), world.access.public_key, world.clock()
    asked = world.access.platform, user, DATADAOS[0], "read", now
    return {
        "Ed25519 signature": rate(lambda: signatures.verifies(ed25519.key, text.encode(), by_key)),
        "wallet signature": rate(lambda: signatures.verifies(wallet.key, text.encode(), by_wallet)),
        "token": rate(lambda: tokens.allowed(token, root, *asked)),
        "whole read by token": rate(lambda: world.access.read(token, user, DATADAOS[0])),
        "log entry": rate(lambda: world.access.log.append("read", "allowed")),
    }


def refusal_times(world: World, repeats: int) -> dict[str, float]:
    """Median processor time of a refusal, seconds, by what was wrong; of Ed25519 proofs."""
    user, stranger = world.users[0], Signer()
    owner = world.owners[user]
    assert not owner.wallet
    kinds: dict[str, Callable[[], tuple[str, str, bytes]]] = {
        "unknown user": lambda: world.proof(secrets.token_hex(16), DATADAOS[0], "read", by=stranger),
        "wrong key": lambda: world.proof(user, DATADAOS[0], "read", by=stranger),
        "wrong DataDAO": lambda: world.proof(user, "gamma", "read", by=world.apps[user]),
        "wrong signature": lambda: (*world.proof(user, DATADAOS[0], "read", by=owner)[:2], bytes(63) + b"\1"),
        "not sealed": lambda: (text := world.access.challenge(user, DATADAOS[0], ["read"])[:-1] + "x", owner.key,
                               owner.sign(text)),
    }  # fmt: skip
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, make in kinds.items():
            proof = make()
            begin = time.process_time()
            assert not allowed(world.access.token, *proof)
            times[kind].append(time.process_time() - begin)
    return {kind: statistics.median(taken) for kind, taken in times.items()}


def main() -> int:
    """Run everything and print; 1 if anything that must not be was accepted, or missed, or the reverse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--entries", type=int, default=400, help="of the large log")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, wrong = random.Random(options.seed), 0
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="access-", dir=shared if shared.is_dir() else None) as name:
        folder = Path(name)
        world = World(folder / "world")
        honest = max(100, options.attempts // 50)
        passed = valid(world, honest)
        made, accepted = attack(world, options.attempts, rng)
        for kind, n in made.items():
            print(f"{n:6,} {accepted[kind]:6,} accepted  {kind}")
        passed += valid(world, honest)
        chain = verify(world.access.log)
        print(f"{made.total():,} attacks of {len(made)} kinds, {accepted.total()} accepted")
        print(f"{2 * honest:,} valid proofs and tokens, {passed:,} accepted; log {chain}")
        wrong += accepted.total() + (passed != 2 * honest) + (not chain.verified)
        for weak, counts in weakened(folder, 20, rng).items():
            print(f"weakened: {weak}: " + ", ".join(f"{kind} {n} of 20" for kind, n in counts.items()))
            wrong += not all(counts.values())
        found, should = matrix(folder / "matrix", options.users)
        print(f"{options.users} × {options.users} users: {len(found)} pairs pass, {len(should)} own or granted")
        wrong += found != should
        for n, sample in ((8, 0), (options.entries, options.attempts)):
            secret = secrets.token_bytes(32)
            log, other = written(folder / f"{n}", n, 1, secret), written(folder / f"{n}", n, 2, secret)
            changed = (random_tampering(log, other, rng) for _ in range(sample))
            made, missed, blind = tamper(log, changed if sample else every_tampering(log, other))
            print(f"log of {n} entries, {made.total():,} tamperings {dict(made)}: {missed.total()} missed or misnamed")
            print(f"  verifiers that look at less miss: {dict(blind)}")
            wrong += missed.total() + (not log_verified(log, log.data).verified) + (not all(blind.values()))
        figures = rates(world)
        for what, n in figures.items():
            print(f"{n:9,.0f} a second  {what} ({n / figures['wallet signature']:.1f} times a wallet signature)")
        times = refusal_times(world, 60)
        slowest = max(times.values()) / min(times.values())
        told = ", ".join(f"{kind} {taken * 1e3:.2f} ms" for kind, taken in times.items())
        print(f"refusals: {told}; slowest against fastest {slowest:.2f}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
