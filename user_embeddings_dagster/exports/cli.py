"""`user-embeddings real`: links to exports that lie elsewhere, and what is said about consent for them."""

import argparse
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path, PurePosixPath

from user_embeddings_dagster.exports.landing import GRANTS, SLUG, STATEMENT, link
from user_embeddings_dagster.samples.consent import EVERYTHING, statement
from user_embeddings_dagster.settings import Layout


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """The command's options."""
    real = commands.add_parser("real", help="real exports through the whole graph")
    real.add_argument("--exports", type=Path, required=True, help="folder that the patterns are relative to")
    real.add_argument("corpora", nargs="+", metavar="DATADAO=PATTERN", help="e.g. zig=telegram/zig*.zip")
    real.add_argument(
        "--basis", default="public archive", help="on which the people in them may be used, stated in datadao.json"
    )
    return real


def link_exports(options: argparse.Namespace, layout: Layout, say: Callable[[str], None]) -> int:
    """Link what the patterns match; exit status, 2 if something is wrong, and then nothing was linked unless a file is
    in a link's place."""
    try:
        corpora = _matched(options.exports, options.corpora)
        for datadao, (pattern, places) in corpora.items():
            folder = layout.landing / datadao
            for place, path in places.items():
                link(folder, path, place)
            if places:
                _state_basis(folder, options.basis, say)
            say(f"{datadao}: {len(places)} files" if places else f"{datadao}: nothing matches {pattern}, left out")
        if not any(places for _, places in corpora.values()):
            raise ValueError(f"{options.exports}: none of the patterns matches a file")
    except (ValueError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _matched(exports: Path, corpora: list[str]) -> dict[str, tuple[str, dict[str, Path]]]:
    """By DataDAO its patterns, and files by where they are linked. Raises ValueError on what cannot be meant."""
    if not exports.is_dir():
        raise ValueError(f"{exports}: no such folder")
    matched: dict[str, tuple[str, dict[str, Path]]] = {}
    for corpus in corpora:
        name, _, pattern = corpus.partition("=")
        if not SLUG.fullmatch(name) or not pattern:
            raise ValueError(f"{corpus}: expected DATADAO=PATTERN with a name of [a-z0-9_-], but not 'all'")
        parts = PurePosixPath(pattern).parts
        if not parts or PurePosixPath(pattern).is_absolute() or ".." in parts:
            raise ValueError(f"{corpus}: expected a pattern below --exports, {exports}")
        # The folders that the pattern spells out say nothing about a file; those that it matches tell files apart.
        top = exports.joinpath(*takewhile(lambda part: not set("*?[") & set(part), parts[:-1]))
        told, places = matched.setdefault(name, (pattern, {}))
        if told != pattern:
            matched[name] = (f"{told}, {pattern}", places)
        for path in sorted(path for path in exports.glob(pattern) if path.is_file()):
            place = path.relative_to(top).as_posix()
            if any(part.startswith(".") for part in PurePosixPath(place).parts):  # such files are never read
                continue
            if places.setdefault(place, path) != path:
                raise ValueError(
                    f"{name}/{place} would be both {places[place]} and {path}: match both by one pattern, such as "
                    f"'{name}=*/{path.name}', or give each a DATADAO of its own"
                )
    return matched


def _state_basis(folder: Path, basis: str, say: Callable[[str], None]) -> None:
    """A datadao.json for exports that come with no word on consent, said aloud: whose word it is, is the operator's."""
    if (folder / STATEMENT).exists() or (folder / GRANTS).exists():
        say(f"{folder.name}: consent is as {GRANTS} and {STATEMENT} in {folder} have it")
        return
    statement(folder, basis)
    say(f"{folder.name}: YOU STATE in {STATEMENT} that everybody in it may be used ({EVERYTHING}), basis: {basis!r}")
