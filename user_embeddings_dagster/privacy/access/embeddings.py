"""A person's own embedding: proved for, read, hidden, removed, granted to others; every step in the log (C17, C18)."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, Self

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.access import tokens
from user_embeddings_dagster.privacy.access.challenges import new_challenge
from user_embeddings_dagster.privacy.access.log import AccessLog, access_keys
from user_embeddings_dagster.privacy.access.proofs import Proofs, Proven, Refused, logged_datadao
from user_embeddings_dagster.privacy.access.serving import rows_locked
from user_embeddings_dagster.privacy.access.signatures import canonical_key
from user_embeddings_dagster.privacy.access.whitelist import ACTIONS, HIDDEN, REMOVED, SERVED, Right, Whitelist
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.user_memories import UserMemories

TABLE = "user_embeddings"


@dataclass(frozen=True)
class UserEmbedding:
    """One row: `vector` [d] and `projected` [D], after `n_chunks` chunks, the last one at `last_chunk_at`."""

    vector: list[float]
    projected: list[float]
    n_chunks: int
    last_chunk_at: datetime
    encoder_version: str


class Absent(Exception):
    """The DataDAO holds no embedding of this user: never made, or removed. Only told to who may know."""


class EmbeddingAccess:
    """Access to the user embeddings of a data root, by proofs and tokens. `clock`: seconds since 1970."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.time) -> None:
        self._layout, self._clock = layout, clock
        self._keys, self._pseudonyms = access_keys(layout), load_or_create_key(layout.key)
        self._root = tokens.root_key(self._keys.tokens)
        self.public_key, self.platform = tokens.public_key(self._root), self._keys.platform
        self.whitelist = Whitelist(layout.access_whitelist)
        self.log = AccessLog(layout.access_log, layout.access_log_head, self._keys, clock)
        self._proofs = Proofs(self._keys, self.whitelist, self.log, self._pseudonyms, clock)
        self._lance = LanceTables(layout.lancedb)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.whitelist.close()

    def enrol(self, user: str, key: str, replace: bool = False) -> bool:
        """Make `key` the owner's, as the platform's operator vouches; False if there is one and it is not to be
        replaced. A replaced key's grants and tokens allow nothing any more."""
        person = erasure_id(self._pseudonyms, user)
        done = self.whitelist.enrol(person, canonical_key(key), replace)
        self.log.append("enrol", "replaced" if done and replace else "done" if done else "refused", person=person)
        return done

    def challenge(
        self, user: str, datadao: str, actions: Iterable[str], details: Mapping[str, str] | None = None
    ) -> str:
        """The text to sign (access.challenges); the same for users that nobody knows. Raises ValueError."""
        challenge = new_challenge(self.platform, user, datadao, actions, details or {}, self._clock())
        return challenge.text(self._keys.challenges)

    def token(self, challenge: str, key: str, signature: bytes, seconds: int = tokens.TOKEN_SECONDS) -> str:
        """A capability token for what a signed challenge names, no longer than the key's grant. Raises Refused."""
        proven = self._proofs.prove(challenge, key, signature, *ACTIONS)
        expires = int(self._clock()) + seconds
        if proven.right.expires is not None:
            expires = min(expires, proven.right.expires)
        asked = proven.challenge
        return tokens.mint(self._root, self.platform, asked.user, asked.datadao, key, asked.actions, expires)

    def grant(self, challenge: str, key: str, signature: bytes) -> None:
        """Let the detail `key` do the detail `actions` until the detail `expires`, seconds since 1970: the owner alone.

        Raises Refused, ValueError.
        """
        proven = self._proofs.prove(challenge, key, signature, "grant")
        details = proven.challenge.details
        other, actions = canonical_key(details.get("key", "")), details.get("actions", "").split()
        expires = int(details.get("expires", "0"))
        if not actions or set(actions) - set(ACTIONS) or expires <= self._clock():
            raise ValueError(f"a grant has details actions ({', '.join(ACTIONS)}) and expires, in the future")
        self.whitelist.grant(proven.person, proven.challenge.datadao, other, actions, expires)
        self._note("grant", proven, "done", ".".join(sorted(set(actions))))

    def revoke(self, challenge: str, key: str, signature: bytes) -> bool:
        """Take back what was granted to the detail `key`, at once and for its tokens too; False if nothing was.

        Raises Refused, ValueError.
        """
        proven = self._proofs.prove(challenge, key, signature, "revoke")
        other = canonical_key(proven.challenge.details.get("key", ""))
        done = self.whitelist.revoke(proven.person, proven.challenge.datadao, other)
        self._note("revoke", proven, "done" if done else "absent")
        return done

    def revoke_token(self, token: str) -> None:
        """Refuse a token, and all that were narrowed from it, from now on: who has it may. Raises Refused."""
        opened = tokens.opened(token, self.public_key)
        if opened is None:
            self._refuse("revoke_token", "", "")
        self.whitelist.revoke_token(opened.revocation_ids[-1], opened.expires, self._clock())
        person = erasure_id(self._pseudonyms, opened.user)
        self.log.append("revoke_token", "done", person=person, datadao=opened.datadao)

    def _note(self, event: str, proven: Proven, outcome: str, subject: str = "") -> None:
        self.log.append(event, outcome, person=proven.person, datadao=proven.challenge.datadao, subject=subject)

    def read(self, token: str, user: str, datadao: str) -> UserEmbedding:
        """The row. Logged before it is given out. Raises Refused (also where it is hidden, to all but its owner),
        Absent."""
        person, right = self._authorised(token, user, datadao, "read")
        if not right.owner and self.whitelist.state(person, datadao) == HIDDEN:
            self._refuse("read", person, datadao)
        found = self._row(user, datadao)
        self.log.append("read", "allowed" if found else "absent", person=person, datadao=datadao)
        if found is None:
            raise Absent(f"{datadao} holds no embedding of this user")
        return found

    def _row(self, user: str, datadao: str) -> UserEmbedding | None:
        if not self._lance.exists(datadao, TABLE):
            return None
        columns = ["vector", "projected", "n_chunks", "last_chunk_at", "version"]
        rows = self._lance.read(datadao, TABLE, columns, [user]).rows()
        return UserEmbedding(*rows[0]) if rows else None

    def serve(self, token: str, user: str, datadao: str, served: bool) -> None:
        """Serve the embedding, or hide it from all but its owner; action "update".

        One that was removed is made again by the next materialisation, if the owner serves it. Raises Refused.
        """
        person, right = self._authorised(token, user, datadao, "update")
        state = SERVED if served else HIDDEN
        if not self.whitelist.set_state(person, datadao, state, right.owner):
            self._refuse("update", person, datadao)
        self.log.append("update", state, person=person, datadao=datadao)

    def remove(self, token: str, user: str, datadao: str) -> bool:
        """Remove the embedding's rows, index entries and memory from the disk, and keep it out of later runs.

        Returns whether there was any. Killed half way it is out of every later run, and done again it finishes.
        Raises Refused.
        """
        person, _ = self._authorised(token, user, datadao, "remove")
        self.whitelist.set_state(person, datadao, REMOVED, True)
        self.log.append("remove", "begun", person=person, datadao=datadao)
        held = False
        with rows_locked(self._layout, datadao):
            for folder in sorted((self._layout.lancedb / datadao).glob(f"{TABLE}*.lance")):
                if self._lance.exists(datadao, folder.stem):
                    held |= user in self._lance.ids(datadao, folder.stem)
                    self._lance.purge(datadao, folder.stem, [user])
            memories = self._layout.user_memories / f"{datadao}.sqlite"
            if memories.exists():
                with UserMemories(memories) as stored:
                    held |= bool(stored.holds([user]))
                    stored.erase([user])
            self.whitelist.forget_salt(person, datadao)
        self.log.append("remove", "done" if held else "absent", person=person, datadao=datadao)
        return held

    def _authorised(self, token: str, user: str, datadao: str, action: str) -> tuple[str, Right]:
        """Pseudonym and right of who may do this with a token, its grant being still there. Raises Refused."""
        now, person = self._clock(), erasure_id(self._pseudonyms, user)
        capability = tokens.allowed(token, self.public_key, self.platform, user, datadao, action, now)
        revoked = capability is None or self.whitelist.revoked(capability.revocation_ids)
        right = self.whitelist.right(person, datadao, capability.key if capability else "", now)
        if revoked or right is None or action not in right.actions:
            self._refuse(action, person, datadao)
        return person, right

    def _refuse(self, action: str, person: str, datadao: str) -> NoReturn:
        self.log.append(action, "refused", person=person, datadao=logged_datadao(datadao))
        raise Refused
