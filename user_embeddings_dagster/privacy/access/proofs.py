"""Proof of a key by a signed challenge: used once, and refused without a word about what was wrong (C17)."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from user_embeddings_dagster.privacy.access.challenges import NONE, Challenge, challenge_id, read_challenge
from user_embeddings_dagster.privacy.access.keys import AccessKeys
from user_embeddings_dagster.privacy.access.log import AccessLog
from user_embeddings_dagster.privacy.access.signatures import NOBODY, canonical_key, verifies
from user_embeddings_dagster.privacy.access.whitelist import Right, Whitelist
from user_embeddings_dagster.privacy.tombstones import erasure_id

_DATADAO = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Refused(Exception):
    """The one answer to every proof and token that does not allow what was asked."""

    def __init__(self) -> None:
        super().__init__("refused")


@dataclass(frozen=True)
class Proven:
    """A challenge that was signed by a key that may do all that it names."""

    challenge: Challenge
    person: str
    key: str
    right: Right


class Proofs:
    """Decides on proofs. `pseudonyms`: key of privacy.tombstones.erasure_id; `clock`: seconds since 1970."""

    def __init__(
        self, keys: AccessKeys, whitelist: Whitelist, log: AccessLog, pseudonyms: bytes, clock: Callable[[], float]
    ) -> None:
        self._seal, self._platform = keys.challenges, keys.platform
        self._whitelist, self._log, self._pseudonyms, self._clock = whitelist, log, pseudonyms, clock

    def prove(self, text: str, key: str, signature: bytes, *wanted: str) -> Proven:
        """The proof of a challenge's text signed by `key`, for some of the `wanted` actions; uses the challenge up.

        Raises Refused. Every step is taken whatever the ones before found: seal, use, right, signature, log entry.
        """
        now = self._clock()
        sealed = read_challenge(text, self._seal)
        challenge = sealed or NONE
        fresh = now < challenge.expires
        unused = self._whitelist.use(challenge_id(text), challenge.expires, now)
        try:
            known = canonical_key(key)
        except ValueError:
            known = NOBODY
        signed = verifies(known, text.encode("utf-8", "surrogatepass"), signature)
        person = erasure_id(self._pseudonyms, challenge.user)
        right = self._whitelist.right(person, challenge.datadao, known, now)
        may = right is not None and {*challenge.actions} <= right.actions and {*challenge.actions} <= {*wanted}
        ours = sealed is not None and challenge.platform == self._platform
        accepted = all((ours, fresh, unused, known == key, signed, may))
        self._log.append(
            "proof", "allowed" if accepted else "refused", person=person if sealed else "",
            datadao=challenge.datadao if sealed else "", subject=".".join(challenge.actions),
        )  # fmt: skip
        if not accepted or right is None:
            raise Refused
        return Proven(challenge, person, known, right)


def logged_datadao(text: str) -> str:
    """A DataDAO as it may stand in the log: nothing in place of what cannot be one."""
    return text if _DATADAO.fullmatch(text) else ""
