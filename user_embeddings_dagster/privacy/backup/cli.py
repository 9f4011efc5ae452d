"""`user-embeddings seal | backup | restore`: encryption of the raw exports, backups of them, and the way back."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from user_embeddings_dagster.exports.build import contributor_links
from user_embeddings_dagster.exports.landing import LINKS, datadao_folders, raw_paths
from user_embeddings_dagster.exports.opening import sealed_reader
from user_embeddings_dagster.exports.sealing import seal_folder
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.backup.key_store import WARNING, copy_keys
from user_embeddings_dagster.privacy.backup.restore import DAMAGED, MISSING, restore
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.erase import ErasureRunning, alone
from user_embeddings_dagster.privacy.sealed_format import Shredded, Tampered, is_sealed
from user_embeddings_dagster.settings import Layout, sealing


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands."""
    seal = commands.add_parser("seal", help="encrypt the raw exports that lie in clear, each under its owner's key")
    seal.add_argument("--check", action="store_true", help="read every sealed file to its end instead, and say which "
                      "is damaged")  # fmt: skip
    backup = commands.add_parser("backup", help="write a backup that opens only with the key store, which is not in it")
    backup.add_argument("target", type=Path, help="new or empty folder")
    backup.add_argument("--keys", action="store_true", help="copy the key store instead: it opens every backup")
    restoring = commands.add_parser("restore", help="restore what is not there, without who was erased since")
    restoring.add_argument("source", type=Path)


def run(options: argparse.Namespace, layout: Layout) -> int:
    """Run one of the commands; returns the exit status."""
    commands: dict[str, Callable[[argparse.Namespace, Layout], int]] = {
        "seal": _check if getattr(options, "check", False) else _seal,
        "backup": _back_up,
        "restore": _restore,
    }
    try:
        return commands[options.command](options, layout)
    except (ValueError, OSError, ErasureRunning, Tampered) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _seal(_: argparse.Namespace, layout: Layout) -> int:
    key = load_or_create_key(layout.key)
    with alone(layout), ContributorKeys.of(layout) as keys:
        for folder in datadao_folders(layout.landing):
            done = seal_folder(folder, key, keys, contributor_links(folder / LINKS))
            left = "".join(f", {n} left in clear ({reason})" for reason, n in done.left.items())
            sys.stdout.write(f"{folder.name}: {done.sealed} files sealed{left}\n")
    automatic = "on: new exports are sealed once they have been read" if sealing() else "off"
    sys.stdout.write(f"USER_EMBEDDINGS_SEAL is {automatic}\n")
    return 0


def _check(_: argparse.Namespace, layout: Layout) -> int:
    damaged = 0
    with ContributorKeys.of(layout) as keys:
        for folder in datadao_folders(layout.landing):
            counts: Counter[str] = Counter()
            for path in raw_paths(folder):
                try:
                    if is_sealed(path):
                        with sealed_reader(path, keys) as reader:
                            reader.verify()
                    counts["intact" if is_sealed(path) else "in clear"] += 1
                except Shredded:
                    counts["shredded"] += 1
                except Tampered as error:
                    counts["damaged"] += 1
                    sys.stdout.write(f"{path}: {error}\n")
            damaged += counts["damaged"]
            told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            sys.stdout.write(f"{folder.name}: {told or 'empty'}\n")
    return 1 if damaged else 0


def _back_up(options: argparse.Namespace, layout: Layout) -> int:
    if options.keys:
        n = copy_keys(layout, options.target)
        sys.stdout.write(f"{n} files of the key store are in {options.target}\n")
        sys.stderr.write(f"WARNING. {WARNING}\n")
        return 0
    told = back_up(layout, options.target, _say)
    sys.stdout.write(f"{told}\nThe key store is not in it: `backup --keys` copies it, to another place.\n")
    return 1 if told.details else 0


def _restore(options: argparse.Namespace, layout: Layout) -> int:
    told = restore(layout, options.source, _say)
    sys.stdout.write(f"{told}\nNext: materialise the DataDAOs; tables are computed again from the exports.\n")
    return 1 if told.counts.get(DAMAGED) or told.counts.get(MISSING) else 0


def _say(message: str) -> None:
    sys.stderr.write(f"== {message}\n")
