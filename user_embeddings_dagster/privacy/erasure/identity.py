"""All the user_ids by which one person is known: of their accounts, and of the contributor these are linked to."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.landing import GRANTS, LINKS, datadao_folders, stands
from user_embeddings_dagster.exports.registry import FORMATS
from user_embeddings_dagster.keys import user_id

_USER_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]+")
_PROFILE = re.compile(r"/?(?:u|user)/([^/]+)/?", re.IGNORECASE)
PLATFORMS = sorted({format.platform for format in FORMATS.values()})


def check_user(user: str, hint: str = "") -> None:
    """Raises ValueError on what can be nobody's user_id."""
    if not _USER_ID.fullmatch(user):
        form = "a user id is 32 hexadecimal digits, as in the column user_id of the tables (author_id of messages)"
        raise ValueError(form + hint)


def of_user(landing: Path, key: bytes, user: str) -> frozenset[str]:
    """A user_id and all others of the same person, by every contributors.csv. Raises ValueError on another form."""
    check_user(user, "; --account takes PLATFORM:NAME")
    return _closure(landing, key, {user})


def account_names(account: str) -> tuple[str, tuple[str, ...]]:
    """Platform and name of `PLATFORM:NAME` as people type it: first the name that exports know, and if another one was
    typed, that as well. Raises ValueError on what can be nobody's account.

    Exports write every author of Telegram with a word before the number (user1, chat1, channel1), so that a bare number
    is a user's. Reddit's names hold no slash, but where a bare file tells no name, the account is its path.
    """
    platform, _, name = (part.strip() for part in account.partition(":"))
    if platform not in PLATFORMS or not name:
        raise ValueError(f"an account is PLATFORM:NAME with a platform of {PLATFORMS}")
    if platform == "telegram" and name.startswith("@"):
        raise ValueError("exports of Telegram know people by number, not by @handle: telegram:user123456789")
    if platform == "telegram" and _NUMBER.fullmatch(name):
        return platform, (f"user{name}", name)
    if platform == "reddit" and (profile := _PROFILE.fullmatch(name)):
        return platform, (profile[1], name)
    return platform, (name,)


def of_account(landing: Path, key: bytes, account: str) -> frozenset[str]:
    """The user_ids of the person behind `platform:account`, however it is read. Raises ValueError on another form."""
    platform, names = account_names(account)
    return _closure(landing, key, {user_id(key, platform, name) for name in names})


def contributors(landing: Path, key: bytes, users: Iterable[str]) -> set[str]:
    """The contributors of any contributors.csv who are this person."""
    wanted = set(users)
    return {contributor for contributor, known in _contributors(landing, key) if known & wanted}


def _closure(landing: Path, key: bytes, users: set[str]) -> frozenset[str]:
    groups = [known for _, known in _contributors(landing, key)]
    while joined := [known for known in groups if known & users and known - users]:
        users = users.union(*joined)
    return frozenset(users)


def _contributors(landing: Path, key: bytes) -> Iterator[tuple[str, set[str]]]:
    """Each contributor with the user_ids of their accounts, linked and not. Raises BadFile as contributor_links does,
    also for a link to what is not there, and where consent.csv is one: a part of the person would be left."""
    for folder in datadao_folders(landing):
        stands(folder / GRANTS)
        links, accounts = contributor_links(folder / LINKS), defaultdict(set)
        for account, contributor in links.items():
            accounts[contributor].add(account)
        for contributor, names in sorted(accounts.items()):
            linked = {user_id(key, "", name, links) for name in names}
            yield contributor, linked | {user_id(key, on, name) for on in PLATFORMS for name in names}
