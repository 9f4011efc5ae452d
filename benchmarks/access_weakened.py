"""Verifiers with one check taken out, and the kinds of attack that then succeed: what shows which check stops them."""

import hmac
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from biscuit_auth import Biscuit, BiscuitBlockError, BiscuitValidationError, PublicKey, UnverifiedBiscuit
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from benchmarks.access_attacks import ED25519_ORDER
from user_embeddings_dagster.privacy.access import proofs, signatures, tokens
from user_embeddings_dagster.privacy.access.challenges import Challenge, read_challenge
from user_embeddings_dagster.privacy.access.whitelist import ACTIONS, SERVED, Right, Whitelist

Weakening = Callable[[], AbstractContextManager[Any]]
EVERYTHING = frozenset((*ACTIONS, "grant", "revoke"))
FAR = 2**40


def _lax_verifies(key: str, message: bytes, signature: bytes) -> bool:
    """Any s, any spelling of v: as many libraries do."""
    kind, _, public = key.partition(":")
    if kind == "ed25519":
        s = int.from_bytes(signature[32:], "little") % ED25519_ORDER
        return signatures.verifies(key, message, signature[:32] + s.to_bytes(32, "little"))
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    try:
        found = Signature(vrs=((v - 27) % 8 if v > 1 else v, r, s))
        return found.recover_public_key_from_msg_hash(signatures.personal_hash(message)).to_address() == public
    except (BadSignature, ValidationError):
        return False


class _Anything(str):
    """Equal to every platform's id."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


def _unsealed(text: str, key: bytes) -> Challenge | None:
    """A challenge, whoever wrote it and for whichever platform."""
    body = text.rpartition("\nseal: ")[0]
    seal = hmac.digest(key, body.encode("utf-8", "surrogatepass"), "sha256").hex()
    try:
        found = read_challenge(f"{body}\nseal: {seal}", key)
    except (KeyError, ValueError):
        return None
    return found and replace(found, platform=_Anything())


def _eternal(text: str, key: bytes) -> Challenge | None:
    found = read_challenge(text, key)
    return found and replace(found, expires=FAR)


_right, _prove = Whitelist.right, proofs.Proofs.prove


def _any_key(self: Whitelist, person: str, datadao: str, key: str, now: float) -> Right | None:
    return Right(EVERYTHING, None)


def _eternal_right(self: Whitelist, person: str, datadao: str, key: str, now: float) -> Right | None:
    return _right(self, person, datadao, key, 0)


def _right_everywhere(self: Whitelist, person: str, datadao: str, key: str, now: float) -> Right | None:
    return _right(self, person, "alpha", key, now)


def _right_to_everything(self: Whitelist, person: str, datadao: str, key: str, now: float) -> Right | None:
    found = _right(self, person, datadao, key, now)
    return found and Right(EVERYTHING, found.expires)


def _prove_anything(self: proofs.Proofs, text: str, key: str, signature: bytes, *wanted: str) -> proofs.Proven:
    return _prove(self, text, key, signature, *EVERYTHING)


def _believing(verified: bool) -> Callable[..., tokens.Capability | None]:
    """`tokens.allowed` that believes every block, also of a token whose signatures nobody checked."""

    def allowed(token: str, root: PublicKey, platform: str, user: str, datadao: str, action: str, now: float):
        try:
            biscuit = Biscuit.from_base64(token, root) if verified else UnverifiedBiscuit.from_base64(token)
            said = "\n".join(biscuit.block_source(block) for block in range(biscuit.block_count()))
        except (BiscuitValidationError, BiscuitBlockError, UnicodeEncodeError):
            return None
        asked = (f'user("{user}")', f'datadao("{datadao}")', f'action("{action}")')
        keys = re.findall(r'key\("([^"]+)"\)', said)
        believed = keys and all(fact in said for fact in asked)
        return tokens.Capability(user, datadao, keys[-1], FAR, ()) if believed else None

    return allowed


def _asking(what: str, instead: str = "") -> Weakening:
    """Tokens asked without a condition."""
    return lambda: patch.object(tokens, "_ASKED", tokens._ASKED.replace(what, instead))


def _in(owner: object, name: str, weak: object) -> Weakening:
    return lambda: patch.object(owner, name, weak)


def _any_form(token: str, root: PublicKey) -> Biscuit | None:
    try:
        return Biscuit.from_base64(token, root)
    except (BiscuitValidationError, UnicodeEncodeError):
        return None


def _both(*weakenings: Weakening) -> Weakening:
    def entered() -> ExitStack:
        stack = ExitStack()
        for weakening in weakenings:
            stack.enter_context(weakening())
        return stack

    return entered


WEAKENED: dict[str, tuple[Weakening, tuple[str, ...]]] = {
    "signatures are not checked": (
        _in(proofs, "verifies", lambda key, message, signature: True),
        ("signature with a bit flipped", "signature of another length", "signature of another under the owners name"),
    ),
    "signatures in any form": (_in(proofs, "verifies", _lax_verifies), ("malleated signature",)),
    "challenges are not sealed": (
        _in(proofs, "read_challenge", _unsealed),
        ("challenge that the holder changed", "challenge of another platform"),
    ),
    "challenges are used again": (
        _in(Whitelist, "use", lambda self, challenge, expires, now: True),
        ("replayed proof", "replayed after a refusal"),
    ),
    "challenges do not expire": (_in(proofs, "read_challenge", _eternal), ("expired challenge",)),
    "every key is the owner's": (
        _in(Whitelist, "right", _any_key),
        ("key of another user", "unknown user", "granted key after its revocation", "token of a key that was replaced"),
    ),
    "grants do not expire": (_in(Whitelist, "right", _eternal_right), ("granted key after its expiry",)),
    "grants hold in every DataDAO": (_in(Whitelist, "right", _right_everywhere), ("granted key in another datadao",)),
    "grants allow everything": (
        _in(Whitelist, "right", _right_to_everything),
        ("granted key beyond its actions", "granted key that grants"),
    ),
    "a challenge is good for anything": (
        _in(proofs.Proofs, "prove", _prove_anything),
        ("challenge of one purpose for another",),
    ),
    "hidden is not looked at": (
        _in(Whitelist, "state", lambda self, person, datadao: SERVED),
        ("hidden embedding read by a granted key",),
    ),
    "nothing is revoked": (_in(Whitelist, "revoked", lambda self, revocation_ids: False), ("revoked token",)),
    "tokens do not expire": (_asking("time({now})", "time(1990-01-01T00:00:00Z)"), ("expired token",)),
    "tokens are not asked for the action": (_asking(", action({action})"), ("token for another action",)),
    "tokens are not asked for the DataDAO": (_asking(" datadao({datadao}),"), ("token for another datadao",)),
    "tokens are not asked for the user, keys not again": (
        _both(_asking(" user({user}),"), _in(Whitelist, "right", _any_key)),
        ("token of another user",),
    ),
    "tokens in any form": (
        _in(tokens, "_verified", _any_form),
        ("token spelled otherwise", "token with a check of its holder"),
    ),
    "every block of a token is believed": (
        _in(tokens, "allowed", _believing(verified=True)),
        ("token widened by its holder", "narrowed token for what was given up"),
    ),
    "tokens' signatures are not checked": (
        _in(tokens, "allowed", _believing(verified=False)),
        (
            "token of another root key", "token with a letter changed", "narrowed token without its last block",
        ),
    ),
}  # fmt: skip
