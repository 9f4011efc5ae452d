"""Capability tokens: Biscuits (https://doc.biscuitsec.org), minted after a proof, narrowed by the holder offline.

The first block, signed by the platform's root key, holds platform, user, DataDAO, the holder's key, actions and expiry.
Who may do what is asked of the first block alone, and blocks that a holder adds may hold the two checks of `narrowed`
and nothing else: a check that joins a dozen facts takes the library minutes, which its limits do not stop.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    Authorizer,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBlockError,
    BiscuitBuilder,
    BiscuitValidationError,
    BlockBuilder,
    Fact,
    KeyPair,
    PrivateKey,
    PublicKey,
    Rule,
)

LONGEST = 8192  # characters
TOKEN_SECONDS = 3600
_PATIENCE = timedelta(seconds=10)  # the library's own millisecond refuses valid tokens on a busy machine
_BLOCKS = 16
_NARROWING = re.compile(
    r'(check if operation\(\$action\), \{"[a-z]+"(, "[a-z]+")*\}\.contains\(\$action\);\n)?'
    r"(check if time\(\$now\), \$now < [0-9TZ:-]+;\n)?"
)
_ROOT = (
    "platform({platform}); user({user}); datadao({datadao}); key({key}); expires({expires});"
    " check if time($now), $now < {expires}"
)
_ASKED = (
    "time({now}); operation({action});"
    " allow if platform({platform}), user({user}), datadao({datadao}), action({action})"
)

_CONTENT = Rule(
    "content($user, $datadao, $key, $expires) <- user($user), datadao($datadao), key($key), expires($expires)"
)


@dataclass(frozen=True)
class Capability:
    """What the first block of a token says, and the ids by which it can be revoked: one a block, the last its own."""

    user: str
    datadao: str
    key: str
    expires: int
    revocation_ids: tuple[str, ...]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def root_key(seed: bytes) -> PrivateKey:
    """The platform's root key of a seed of 32 bytes."""
    return PrivateKey.from_bytes(seed, Algorithm.Ed25519)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def public_key(root: PrivateKey) -> PublicKey:
    """Under which its tokens verify."""
    return KeyPair.from_private_key(root).public_key


def mint(
    root: PrivateKey, platform: str, user: str, datadao: str, key: str, actions: Iterable[str], expires: int
) -> str:
    """A token for the holder of `key`, URL-safe base64."""
    facts = {"platform": platform, "user": user, "datadao": datadao, "key": key, "expires": _time(expires)}
    builder = BiscuitBuilder(_ROOT, facts)
    for action in sorted(set(actions)):
        builder.add_fact(Fact("action({action})", {"action": action}))
    return builder.build(root).to_base64()


def narrowed(token: str, root: PublicKey, actions: Iterable[str] = (), expires: int | None = None) -> str:
    """A token for fewer actions, or a shorter time: made by the holder, without the platform."""
    checks = []
    values: dict[str, object] = {}
    if wanted := set(actions):
        checks.append("check if operation($action), {actions}.contains($action)")
        values["actions"] = wanted
    if expires is not None:
        checks.append("check if time($now), $now < {expires}")
        values["expires"] = _time(expires)
    return Biscuit.from_base64(token, root).append(BlockBuilder("; ".join(checks), values)).to_base64()


def opened(token: str, root: PublicKey) -> Capability | None:
    """A token that the platform signed, whatever it allows; None for anything else.

    A token has one accepted spelling: base64 and encoding are those that the library writes.
    """
    biscuit = _verified(token, root)
    return _content(biscuit, _patient(AuthorizerBuilder("")).build(biscuit)) if biscuit else None


def allowed(
    token: str, root: PublicKey, platform: str, user: str, datadao: str, action: str, now: float
) -> Capability | None:
    """The token's content if it allows the action, None if not, whatever is wrong with it."""
    if (biscuit := _verified(token, root)) is None:
        return None
    asked = {"platform": platform, "user": user, "datadao": datadao, "action": action, "now": _time(now)}
    authorizer = _patient(AuthorizerBuilder(_ASKED, asked)).build(biscuit)
    try:
        authorizer.authorize()
    except AuthorizationError:
        return None
    return _content(biscuit, authorizer)


def _verified(token: str, root: PublicKey) -> Biscuit | None:
    if len(token) > LONGEST:
        return None
    try:
        biscuit = Biscuit.from_base64(token, root)
        added = [biscuit.block_source(block) for block in range(1, biscuit.block_count())]
    except (BiscuitValidationError, BiscuitBlockError, UnicodeEncodeError):
        return None
    narrows = len(added) < _BLOCKS and all(_NARROWING.fullmatch(source) for source in added)
    return biscuit if narrows and biscuit.to_base64() == token else None


def _patient(builder: AuthorizerBuilder) -> AuthorizerBuilder:
    limits = builder.limits()  # pyright: ignore[reportAttributeAccessIssue]
    limits.max_time = _PATIENCE
    builder.set_limits(limits)  # pyright: ignore[reportAttributeAccessIssue]
    return builder


def _content(biscuit: Biscuit, authorizer: Authorizer) -> Capability:
    (first,) = authorizer.query(_CONTENT)
    user, datadao, key, expires = first.terms
    return Capability(user, datadao, key, int(expires.timestamp()), tuple(biscuit.revocation_ids))
