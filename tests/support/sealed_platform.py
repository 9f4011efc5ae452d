"""A sealed platform as its audit sees it: what to look for, with the keys, and a data root that lost all but these."""

import shutil
from pathlib import Path

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.audit.canaries import Scan, scan
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import evidence, stores
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.settings import Layout


def canaries(layout: Layout, users: frozenset[str]) -> list[str | bytes]:
    """What an erasure looks for."""
    key, journal = load_or_create_key(layout.key), Journal(sorted(users))
    with ContributorKeys.of(layout) as keys:
        stores.plan(journal, layout, key, keys)
        evidence.gather(journal, layout, key, keys)
    return journal.canaries


def empty_with_keys_of(layout: Layout, name: str) -> Layout:
    """A data root after the loss of everything but the key store."""
    new = Layout(layout.root.with_name(name))
    shutil.copytree(layout.key.parent, new.key.parent)
    return new


def looked_at(layout: Layout, folder: Path, wanted: list[str | bytes]) -> Scan:
    with ContributorKeys.of(layout) as keys:
        return scan(folder, wanted, keys)
