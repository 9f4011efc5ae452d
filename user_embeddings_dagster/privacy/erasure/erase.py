"""Erasure of one contributor from everything below the data root, and the proof of it (C15).

    tombstone → raw exports → tables → vectors → memories → checkpoints named → leftovers → cache and key → scan

Killed at any point, it is resumed by running it again. No run of the platform may be under way, and no asset executes
meanwhile (assets.exclusion). The others' rows
keep their values; chunks of others in which the person speaks are removed and cut again, without them, by the next
materialisation.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from user_embeddings_dagster.keys import content_id, keyed_id, load_or_create_key
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.privacy.access.log import AccessLog
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.erasure import evidence, stores
from user_embeddings_dagster.privacy.erasure.journal import SUFFIX, Journal, load, save
from user_embeddings_dagster.privacy.lineage import descendants
from user_embeddings_dagster.privacy.tombstones import Tombstones, erasure_id
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage import durability
from user_embeddings_dagster.storage.durability import read_json, write_json
from user_embeddings_dagster.storage.models import Models

NOT_COVERED = (
    "what others wrote about the person, and the same words in raw files of others; the person's names in it are "
    "replaced where they share a raw file with them",
    "the numbers of chats, which on Telegram are those of the people in them, and ids of messages replied to",
    "records that could not be read (rejected_records) in raw files that others contributed",
    "weights of the checkpoints named: they are marked, and replaced when they are trained again",
    "blocks that the disk has freed, copies outside of the data root, and what a Redis server keeps on its disk; of "
    "these copies, language-model answers and sealed exports of their own are unreadable without the destroyed key",
    "in backups made before: their records in exports that many people share, sealed under the DataDAO's key "
    "(restoring cuts them out; make a new backup, and destroy the old ones and older copies of the key store)",
)


Executing = Literal["refuse", "wait", "beside"]
"""What to do about assets that execute; whatever it is, those that start later wait, if none did before."""


class ErasureRunning(Exception):
    """Another process is erasing."""


class AssetsExecuting(Exception):
    """Assets execute that write what is to be removed."""


@dataclass(frozen=True)
class Receipt:
    """What an erasure removed and what the scans before and after it found, by store; names nobody.

    `person`: pseudonym (privacy.tombstones), of those in `people`. `checkpoints`: versions trained on them.
    """

    person: str
    people: list[str]
    removed: dict[str, int]
    hits_before: dict[str, int]
    hits_after: dict[str, int]
    undecoded: dict[str, int]
    canaries: int
    files: int
    evidence_hash: str
    checkpoints: list[str]
    told: list[str] = field(default_factory=list)
    not_covered: tuple[str, ...] = NOT_COVERED

    @property
    def clean(self) -> bool:
        """Nothing of the person was found, and every file could be read."""
        return not self.hits_after and not self.undecoded


def receipts(layout: Layout) -> list[Receipt]:
    """Of every finished erasure, by person."""
    return [read_json(path, Receipt) for path in sorted(layout.erasures.glob("*.json"))]


def pending(layout: Layout) -> list[frozenset[str]]:
    """The people (user_ids) of erasures that were begun and not finished."""
    with ContributorKeys.of(layout) as keys:
        journals = [load(path, _journal_key(keys)) for path in sorted(layout.erasures.glob(f"*{SUFFIX}"))]
    return [frozenset(journal.users) for journal in journals if journal is not None]


def erase(
    layout: Layout,
    users: frozenset[str],
    announce: Callable[[str], None] = lambda line: None,
    executing: Executing = "refuse",
) -> Receipt:
    """Erase the person with these user_ids (erasure.identity); done again it finds nothing more and says so.

    Raises ErasureRunning, AssetsExecuting, ValueError without any user_id.
    """
    if not users:
        raise ValueError("nobody to erase")
    key = load_or_create_key(layout.key)
    with undisturbed(layout, executing), ContributorKeys.of(layout) as keys:
        return _Erasure(layout, key, keys, users, announce).run()


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Nobody else erases or purges meanwhile. Raises ErasureRunning."""
    layout.erasures.mkdir(parents=True, exist_ok=True)
    with (layout.erasures / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ErasureRunning("another process is erasing or purging: wait for it") from None
        yield


@contextmanager
def undisturbed(layout: Layout, executing: Executing) -> Iterator[None]:
    """Alone, and no asset executes meanwhile. Raises ErasureRunning, AssetsExecuting."""
    with alone(layout), ExitStack() as held:
        try:
            held.enter_context(durability.alone(layout.root, wait=executing == "wait"))
        except BlockingIOError:
            if executing == "refuse":
                raise AssetsExecuting(
                    "assets of the platform are executing: wait for them or end them, or go on with --force, and what "
                    "they write meanwhile may stay behind"
                ) from None
        yield


def _journal_key(keys: ContributorKeys) -> bytes:
    return keys.derived("erasure journal")


class _Erasure:
    """One erasure, begun or resumed."""

    def __init__(
        self, layout: Layout, key: bytes, keys: ContributorKeys, users: frozenset[str], announce: Callable[[str], None]
    ) -> None:
        self._layout, self._key, self._keys, self._announce = layout, key, keys, announce
        self._path, self._journal = self._begun(users)
        self._erased = frozenset(erasure_id(key, user) for user in self._journal.users)
        self._told: list[str] = []

    def _begun(self, users: frozenset[str]) -> tuple[Path, Journal]:
        """The journal of this person that a killed process left, or a new one."""
        for path in sorted(self._layout.erasures.glob(f"*{SUFFIX}")):
            journal = load(path, _journal_key(self._keys))
            if journal is not None and users & set(journal.users):
                journal.users = sorted(users | set(journal.users))
                return path, journal
        path = self._layout.erasures / f"{erasure_id(self._key, min(users))}{SUFFIX}"
        return path, Journal(sorted(users))

    def run(self) -> Receipt:
        """Every step, in order; the journal is saved between them."""
        self._step(
            "looking for them in every store", lambda: stores.plan(self._journal, self._layout, self._key, self._keys)
        )
        if self._journal.hits_before is None:
            self._step("scanning before", self._scan_before)
        tombstones = Tombstones.load(self._layout.erased, self._key).with_users(self._journal.users)
        self._step("tombstone", lambda: tombstones.save(self._layout.erased))
        names = ErasedNames.load(self._layout.erased_names, self._key).with_names(self._journal.names)
        names.save(self._layout.erased_names)
        self._step("raw exports", self._erase_landing)
        for name, erase_store in (
            ("tables", stores.erase_tables),
            ("vectors", stores.erase_vectors),
            ("memories", stores.erase_memories),
            ("leftovers", stores.remove_leftovers),
        ):
            self._step(name, lambda erase_store=erase_store: erase_store(self._journal, self._layout))
        self._step("access", lambda: stores.erase_access(self._journal, self._layout, self._key))
        self._step("checkpoints", self._taint)
        self._step("cache and key", self._erase_answers)
        self._announce("scanning after")
        receipt = self._receipt(*evidence.hits(self._layout, self._journal, self._keys))
        write_json(self._layout.erasures / f"{receipt.person}.json", asdict(receipt))
        AccessLog.of(self._layout).append(
            "erase", "clean" if receipt.clean else "unclean", person=receipt.person, subject=receipt.evidence_hash
        )
        self._path.unlink(missing_ok=True)
        return receipt

    def _step(self, name: str, step: Callable[[], object]) -> None:
        self._announce(name)
        step()
        save(self._journal, self._path, _journal_key(self._keys))

    def _scan_before(self) -> None:
        evidence.gather(self._journal, self._layout, self._key, self._keys)
        self._journal.hits_before = evidence.hits(self._layout, self._journal, self._keys)[0]

    def _erase_landing(self) -> None:
        self._told = stores.erase_landing(self._journal, self._layout, self._key, self._keys)

    def _taint(self) -> None:
        named = descendants(Models(self._layout.models), self._erased)
        for folder, people in named:
            folder.taint(people)

    def _erase_answers(self) -> None:
        """Answers about the person and about chunks of others in which they speak; the person's key."""
        held = any([self._keys.existing(user) is not None for user in self._journal.users])
        self._journal.count("keys", int(held))
        with open_cache(self._layout.language_model_cache_url, self._keys) as cache:
            removed = sum(cache.erase(user) for user in self._journal.users)
            removed += sum(cache.forget(companion) for companion in self._journal.companions)
        self._journal.count("cache", removed)

    def _receipt(self, after: dict[str, int], undecoded: dict[str, int], files: int) -> Receipt:
        journal = self._journal
        before, removed, people = dict(journal.hits_before or {}), dict(journal.removed), {*self._erased}
        person = self._path.stem
        for earlier in receipts(self._layout):
            if people & set(earlier.people):  # run again: nothing was left to be counted
                person, people = earlier.person, people | set(earlier.people)
                before = {name: max(before.get(name, 0), n) for name, n in (before | earlier.hits_before).items()}
                removed = {
                    name: removed.get(name, 0) + earlier.removed.get(name, 0) for name in {**earlier.removed, **removed}
                }
        models = Models(self._layout.models)
        checkpoints = [
            folder.root.relative_to(models.root).as_posix() for folder in models.versions() if folder.tainted & people
        ]
        removed["models"] = len(checkpoints)
        texts = [canary if isinstance(canary, str) else canary.hex() for canary in journal.canaries]
        looked_for = [keyed_id(self._key, "canary", text) for text in texts]
        evidence_hash = content_id(json.dumps([sorted(looked_for), before, after, undecoded, files], sort_keys=True))
        return Receipt(
            person, sorted(people), removed, before, after, undecoded, len(looked_for), files, evidence_hash,
            checkpoints, self._told,
        )  # fmt: skip
