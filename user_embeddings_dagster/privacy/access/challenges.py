"""Challenges: the text that a key holder signs. Bound to platform, user, DataDAO, actions and their details; expiring.

The platform keeps nothing of a challenge that it gives out, and makes one for whatever user_id it is asked: nobody
learns from it who is a contributor. Its seal (HMAC-SHA-256) says later that the platform made it; used up, it is
remembered until it expires.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from user_embeddings_dagster.privacy.access.whitelist import ACTIONS
from user_embeddings_dagster.privacy.erasure.identity import check_user

CHALLENGE_SECONDS = 300
LONGEST = 4096  # characters
_DATADAO = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DETAIL = re.compile(r"[a-z0-9:_ -]{1,200}")
_TITLE = "Access to a user embedding"


@dataclass(frozen=True)
class Challenge:
    """What a signature of the text allows once. `details`: what a grant or revocation is about."""

    platform: str
    user: str
    datadao: str
    actions: tuple[str, ...]
    details: dict[str, str]
    nonce: str
    expires: int

    def text(self, key: bytes) -> str:
        """What is signed: lines that a wallet can show, the last one the seal."""
        body = "\n".join((
            _TITLE, f"platform: {self.platform}", f"user: {self.user}", f"datadao: {self.datadao}",
            f"actions: {' '.join(self.actions)}", f"details: {json.dumps(self.details, sort_keys=True)}",
            f"nonce: {self.nonce}", f"expires: {self.expires}",
        ))  # fmt: skip
        return f"{body}\nseal: {_seal(key, body)}"


def _seal(key: bytes, body: str) -> str:
    return hmac.digest(key, body.encode("utf-8", "surrogatepass"), "sha256").hex()


def new_challenge(
    platform: str, user: str, datadao: str, actions: Iterable[str], details: Mapping[str, str], now: float
) -> Challenge:
    """A fresh one. Raises ValueError on what no user_id, DataDAO, action or detail looks like."""
    wanted = tuple(sorted(set(actions)))
    check_user(user)
    if not _DATADAO.fullmatch(datadao):
        raise ValueError("a DataDAO's name is of a-z, 0-9, _ and -, and begins with none of the last two")
    if wanted not in (("grant",), ("revoke",)) and (not wanted or set(wanted) - set(ACTIONS)):
        raise ValueError(f"actions are grant, revoke, or some of {', '.join(ACTIONS)}")
    if not all(_DETAIL.fullmatch(text) for item in details.items() for text in item):
        raise ValueError(f"details are of the form {_DETAIL.pattern}")
    return Challenge(
        platform, user, datadao, wanted, dict(details), secrets.token_hex(16), int(now) + CHALLENGE_SECONDS
    )


# What is looked at in place of a text that the platform did not make: for the same work.
NONE = Challenge("", "0" * 32, "none", (), {}, "", 0)


def read_challenge(text: str, key: bytes) -> Challenge | None:
    """The challenge of a text that this platform sealed, letter by letter; None for any other text."""
    body, _, seal = text[:LONGEST].rpartition("\nseal: ")
    if not hmac.compare_digest(_seal(key, body).encode(), seal.encode("utf-8", "surrogatepass")):
        return None
    fields = dict(line.split(": ", 1) for line in body.split("\n")[1:])
    return Challenge(
        fields["platform"], fields["user"], fields["datadao"], tuple(fields["actions"].split()),
        json.loads(fields["details"]), fields["nonce"], int(fields["expires"]),
    )  # fmt: skip


def challenge_id(text: str) -> str:
    """By which a challenge is remembered as used up. Of the whole text: a forged one uses no genuine one up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
