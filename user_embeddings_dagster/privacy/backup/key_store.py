"""A copy of the key store, which is never part of a backup: together with one, it opens everything."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from user_embeddings_dagster.privacy.backup.contents import LIST, check_target
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import sync

WARNING = """\
This copy opens every sealed file and every backup. Keep it apart from them, offline, and readable to nobody else.
A copy made before an erasure still holds the erased contributor's key: destroy every older copy when somebody is
erased, and make a new one. To restore it, copy its files to the folder keys/ of an empty data root."""


def copy_keys(layout: Layout, target: Path) -> int:
    """Copy the key store into a new or empty folder of its own, mode 0700; how many files.

    Raises ValueError if the folder holds anything, is a file, or is inside of a backup or the data root, or if there is
    no key.
    """
    files = sorted(path for path in layout.master_key.parent.glob("*") if path.is_file())
    if not files:
        raise ValueError(f"{layout.master_key.parent}: no key store there")
    check_target(target)
    target = target.resolve()
    if target.is_relative_to(layout.root.resolve()) or any(
        (folder / LIST).exists() for folder in (target, *target.parents)
    ):
        raise ValueError(f"{target}: keys are kept apart from the data and from backups")
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o700)
    for path in files:
        copy = target / path.name
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if path == layout.contributor_keys:
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as into:
                source.backup(into)
        else:
            shutil.copyfile(path, copy)
        sync(copy)
    sync(target)
    return len(files)
