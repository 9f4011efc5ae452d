"""Whose keys may do what: owners, what they granted, what is used up or revoked, and how embeddings are served (C17).

One SQLite file: whole after a kill, one writer at a time. People are pseudonyms (privacy.tombstones). Rollback journal
and `secure_delete`: a removed row leaves no bytes in the file.
"""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from user_embeddings_dagster.storage.durability import make_folder
from user_embeddings_dagster.storage.sqlite import BUSY_SECONDS, rollback_journal

ACTIONS = ("read", "remove", "update")  # what a key can be granted; granting and revoking is the owner's alone
SERVED, HIDDEN, REMOVED = "served", "hidden", "removed"
_SALT_BYTES = 32
_KEPT_SECONDS = 86_400  # after its expiry a challenge or token stays used or revoked: clocks are set back
_TABLES = (
    "owners (person TEXT PRIMARY KEY, key TEXT NOT NULL)",
    "grants (person TEXT, datadao TEXT, key TEXT, actions TEXT NOT NULL, expires INTEGER NOT NULL,"
    " PRIMARY KEY (person, datadao, key))",
    "states (person TEXT, datadao TEXT, state TEXT NOT NULL, PRIMARY KEY (person, datadao))",
    "salts (person TEXT, datadao TEXT, salt BLOB NOT NULL, PRIMARY KEY (person, datadao))",
    "used (challenge TEXT PRIMARY KEY, expires INTEGER NOT NULL)",
    "revoked (token TEXT PRIMARY KEY, expires INTEGER NOT NULL)",
)
_OF_PEOPLE = ("owners", "grants", "states", "salts")


@dataclass(frozen=True)
class Right:
    """What a key may do with somebody's embedding. `expires`: seconds since 1970; None for the owner's key."""

    actions: frozenset[str]
    expires: int | None

    @property
    def owner(self) -> bool:
        """Whether it is the owner's key."""
        return self.expires is None


class Whitelist:
    """The file, made on first use. Times are whole seconds since 1970."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None)
        rollback_journal(self._connection, path)
        for pragma in ("synchronous = EXTRA", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        for table in _TABLES:
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table} WITHOUT ROWID")

    def _rows(self, statement: str, *values: str | int | bytes) -> list[tuple]:
        return self._connection.execute(statement, values).fetchall()

    def enrol(self, person: str, key: str, replace: bool = False) -> bool:
        """Make `key` the owner's; False if there is one already. `replace` it: every grant goes with the old key."""
        if not replace:
            return bool(self._rows("INSERT OR IGNORE INTO owners VALUES (?, ?) RETURNING 1", person, key))
        with self._connection:
            self._rows("BEGIN IMMEDIATE")
            self._rows("DELETE FROM grants WHERE person = ?", person)
            self._rows("REPLACE INTO owners VALUES (?, ?)", person, key)
        return True

    def grant(self, person: str, datadao: str, key: str, actions: Iterable[str], expires: int) -> None:
        """Let another key act on the person's embedding of one DataDAO, in place of what it was granted before."""
        scope = " ".join(sorted(set(actions)))
        self._rows("REPLACE INTO grants VALUES (?, ?, ?, ?, ?)", person, datadao, key, scope, expires)

    def revoke(self, person: str, datadao: str, key: str) -> bool:
        """Take a grant back; False if there was none."""
        statement = "DELETE FROM grants WHERE person = ? AND datadao = ? AND key = ? RETURNING 1"
        return bool(self._rows(statement, person, datadao, key))

    def right(self, person: str, datadao: str, key: str, now: float) -> Right | None:
        """What the key may do now, None if nothing. Both tables are always asked."""
        owns = self._rows("SELECT 1 FROM owners WHERE person = ? AND key = ?", person, key)
        granted = self._rows(
            "SELECT actions, expires FROM grants WHERE person = ? AND datadao = ? AND key = ?", person, datadao, key
        )
        if owns:
            return Right(frozenset((*ACTIONS, "grant", "revoke")), None)
        live = [Right(frozenset(actions.split()), expires) for actions, expires in granted if now < expires]
        return live[0] if live else None

    def use(self, challenge: str, expires: int, now: float) -> bool:
        """Use a challenge up; False if it was before, by whatever process. Those long expired are forgotten."""
        self._rows("DELETE FROM used WHERE expires < ?", int(now) - _KEPT_SECONDS)
        return bool(self._rows("INSERT OR IGNORE INTO used VALUES (?, ?) RETURNING 1", challenge, expires))

    def revoke_token(self, revocation_id: str, expires: int, now: float) -> None:
        """Refuse a token and all made from it, until it would have expired."""
        self._rows("DELETE FROM revoked WHERE expires < ?", int(now) - _KEPT_SECONDS)
        self._rows("REPLACE INTO revoked VALUES (?, ?)", revocation_id, expires)

    def revoked(self, revocation_ids: Iterable[str]) -> bool:
        """Whether any of a token's ids is revoked."""
        return any([self._rows("SELECT 1 FROM revoked WHERE token = ?", name) for name in revocation_ids])

    def state(self, person: str, datadao: str) -> str:
        """How the person's embedding is served: SERVED, HIDDEN (to all but its owner) or REMOVED."""
        found = self._rows("SELECT state FROM states WHERE person = ? AND datadao = ?", person, datadao)
        return found[0][0] if found else SERVED

    def set_state(self, person: str, datadao: str, state: str, owner: bool) -> bool:
        """Say how it is served from now on; False where somebody but the owner would bring back what was removed."""
        with self._connection:
            self._rows("BEGIN IMMEDIATE")
            if not owner and self.state(person, datadao) == REMOVED:
                return state == REMOVED
            self._rows("REPLACE INTO states VALUES (?, ?, ?)", person, datadao, state)
        return True

    def removed(self, datadao: str) -> frozenset[str]:
        """People who had their embedding removed."""
        return frozenset(
            person for (person,) in self._rows(
                "SELECT person FROM states WHERE datadao = ? AND state = ?", datadao, REMOVED
            )
        )  # fmt: skip

    def salt(self, person: str, datadao: str) -> bytes:
        """Of the commitments to the person's embedding; made on first use, the same until they are forgotten."""
        made = "INSERT INTO salts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET salt = salts.salt RETURNING salt"
        return self._rows(made, person, datadao, os.urandom(_SALT_BYTES))[0][0]

    def forget_salt(self, person: str, datadao: str) -> None:
        """Make the commitments to an embedding mean nothing any more."""
        self._rows("DELETE FROM salts WHERE person = ? AND datadao = ?", person, datadao)

    def holds(self, people: Iterable[str]) -> int:
        """Rows about these people."""
        return sum(
            self._rows(f"SELECT count(*) FROM {table} WHERE person = ?", person)[0][0]
            for person in set(people)
            for table in _OF_PEOPLE
        )

    def evidence(self, people: Iterable[str]) -> tuple[set[str], set[bytes]]:
        """Public parts of the keys that only these people own or grant to, and the salts of their commitments."""
        mine, keys, salts = set(people), dict[str, set[str]](), set()
        for person, key in self._rows("SELECT person, key FROM owners UNION SELECT person, key FROM grants"):
            keys.setdefault(key.partition(":")[2], set()).add(person)
        for person in mine:
            salts |= {salt for (salt,) in self._rows("SELECT salt FROM salts WHERE person = ?", person)}
        return {key for key, known in keys.items() if known <= mine}, salts

    def forget(self, people: Iterable[str]) -> None:
        """Remove every row about these people: their keys, grants, states, salts."""
        with self._connection:
            self._rows("BEGIN IMMEDIATE")
            for person in people:
                for table in _OF_PEOPLE:
                    self._rows(f"DELETE FROM {table} WHERE person = ?", person)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
