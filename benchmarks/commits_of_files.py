"""Commits of small files and of the language models' cache, with their readers, for benchmarks.commit_stages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.language_models.batch_files import Answers, batch_key, read_shard, write_shard
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import journal
from user_embeddings_dagster.privacy.tombstones import Tombstones

KEY = bytes(range(32))


def request(number: int) -> Request:
    """A question to a language model."""
    return Request((Message("user", f"question {number}"),), {"type": "object"}, f"user-{number % 2}", "stage/1")


def answers(first: int, last: int) -> Callable[[Path], None]:
    """Put the answers of these numbers into the cache."""

    def put(root: Path) -> None:
        with ContributorKeys(root / "keys.sqlite", KEY) as keys, open_cache(root / "cache.sqlite", keys) as cache:
            for number in range(first, last):
                cache.put("m", request(number), Completion(request(number).id, {"n": number}, Usage(calls=1)))

    return put


def read_answers(root: Path) -> Any:
    """What the cache knows of eight questions."""
    with ContributorKeys(root / "keys.sqlite", KEY) as keys, open_cache(root / "cache.sqlite", keys) as cache:
        found = cache.get("m", [request(number) for number in range(8)])
        assert not cache.stats.damaged or keys.existing("user-0") is None
        return tuple(None if answer is None else answer.value["n"] for answer in found)


def forget_answers(root: Path) -> None:
    """Erase a contributor from the cache."""
    with ContributorKeys(root / "keys.sqlite", KEY) as keys, open_cache(root / "cache.sqlite", keys) as cache:
        cache.erase("user-0")


def grows(state: Any, before: Any, after: Any) -> bool:
    """Entries are put one after another: those that are there are a beginning of all, and right."""
    known = [value for value in state if value is not None]
    return known == [value for value in after if value is not None][: len(known)]


def journal_of(size: int) -> Callable[[Path], None]:
    """Save an erasure journal of that size."""
    noted = journal.Journal(users=[f"u{i}" for i in range(size)], texts=["canary"] * size)
    return lambda root: journal.save(noted, root / "erasures" / "one.journal", KEY)


def read_journal(root: Path) -> Any:
    """Size of the journal, None if there is none."""
    found = journal.load(root / "erasures" / "one.journal", KEY)
    return None if found is None else len(found.users)


def tombstones(size: int) -> Callable[[Path], None]:
    """Write that many tombstones."""
    return lambda root: Tombstones(KEY, frozenset()).with_users(map(str, range(size))).save(root / "keys" / "gone.json")


def shard(size: int) -> Callable[[Path], None]:
    """Write a shard of so many answers."""
    answers = Answers([Completion(request(i).id, {"n": i}, Usage()) for i in range(size)], [], 0.0)
    return lambda root: write_shard(root / "answers" / "00000.bin", answers, batch_key(KEY))


def read_batch(root: Path) -> Any:
    """Answers of the shard, None if there is none."""
    path = root / "answers" / "00000.bin"
    return len(read_shard(path, Answers, batch_key(KEY)).completions) if path.exists() else None


def links(root: Path) -> None:
    """Write a contributors.csv."""
    rows = "".join(f"person-{i},account-{i}\n" for i in range(50))
    (root / "contributors.csv").write_text(f"contributor,account\n{rows}")


def nothing(_: Path) -> None:
    """A state before without any file."""


def platform_key(root: Path) -> Any:
    """Make or read the platform key; its length."""
    return len(load_or_create_key(root / "keys" / "identity.key"))


def read_platform_key(root: Path) -> Any:
    """Length of the platform key, None if there is none."""
    return platform_key(root) if (root / "keys" / "identity.key").exists() else None
