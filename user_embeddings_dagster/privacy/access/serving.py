"""Which user embeddings their owners had removed, and the lock under which a DataDAO's rows change."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.access.whitelist import Whitelist
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import make_folder


def not_removed(layout: Layout, datadao: str, users: pl.Series) -> pl.Series:
    """The user_ids without those whose owner had the embedding removed."""
    if not layout.access_whitelist.exists():
        return users
    with Whitelist(layout.access_whitelist) as whitelist:
        removed = whitelist.removed(datadao)
    key = load_or_create_key(layout.key)
    return users.filter([erasure_id(key, user) not in removed for user in users]) if removed else users


@contextmanager
def rows_locked(layout: Layout, datadao: str) -> Iterator[None]:
    """Nobody else changes the DataDAO's user embeddings meanwhile: a run that began before a removal would undo it."""
    make_folder(layout.access)
    with (layout.access / f".{datadao}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
