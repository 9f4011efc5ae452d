"""Odd names through the whole cut into chunks: does any participant's name stop a DataDAO? (C9)

    python -m benchmarks.odd_names [--names 200000] [--seed 0] [--show]

Names of odd characters (any of Unicode, combining marks, digits, punctuation, scripts without spaces, words of
grammar) stand in sentences as people write them: in other cases and normal forms, with other white space, glued to
words, handles, addresses and numbers, which are masked before and after the names. Every name has a thread of its own
and goes through `build_chunks`; printed is how many threads the check of what remains would have stopped, and, as a
control, how many with a masker that knows nobody. `--show` prints what is left, which is made up and nobody's.
"""

import argparse
import random
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Literal
from unittest import mock

import polars as pl

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.privacy.masking import ThreadNames
from user_embeddings_dagster.privacy.residual import ResidualNameError, residual_chunks
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS

Case = tuple[str, str, str]  # name, kind of name, what another writes
AT_ONCE = 2_000  # threads of one build
_ODD = (
    "\u0345\u037aᾲᾈßıİſﬃΐẖΣς฿・。々〇\u0ece\u0897\U00010d69\U00010d50´`’_-. @:/,|[](){}<>\u2029²Ⅷ①🔥æłŋə\u0301\u200d"
    "\u00a0\t\n"
)
_WORDS = [
    "the", "bob", "will", "Ann", "jo", "Li", "Jörg", "Sarah", "明", "王小明", "天", "ไ", "김", "김민수", "さん", "u",
]  # fmt: skip
_MASKED = [
    "@joe", "u/joe", "a@b.com", "joe@", "10.1.2.3", "www.a.de", "user_12345", "+49 170 1234567", "/home/joe",
    "Dr Okafor",
]  # fmt: skip
_GLUE = [
    "", "", "", " ", " ", "@", "u/", "/u/", "t.me/", "ask ", "問", "吧", "'s", "_", ": ", ", ", "-", "/", ".", "|",
    "\n", "the ", "é",
]  # fmt: skip
_SPACE = [" ", "  ", "   ", "\n", "\t", " \n ", "\u00a0", "\u2029", "_", "."]
_SCRIPTS = [
    (0x20, 0x7F), (0xA0, 0x250), (0x250, 0x530), (0x530, 0x1100), (0xE00, 0xE5B), (0x1100, 0x1200), (0x1E00, 0x2000),
    (0x2000, 0x3000), (0x3000, 0x3400), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xA000, 0xFFFF), (0x10000, 0x1FFFF),
]  # fmt: skip
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_SPELT: list[Callable[[str], str]] = [str, str, str.upper, str.lower, str.casefold, str.title]
_SPELT += [partial(unicodedata.normalize, form) for form in _FORMS]


def cases(seed: int) -> Iterator[Case]:
    """Names and sentences without end, the same for a seed."""
    draw = random.Random(seed)
    while True:
        name = _name(draw)
        kind = draw.choice(["display_name", "display_name", "handle"])
        spelt = [_spelling(draw, name) for _ in range(draw.choice([1, 1, 1, 2]))]
        pieces = [_piece(draw) for _ in range(2)]
        for spelling in spelt:
            pieces += spelling, _piece(draw)
        yield name, kind, "".join(pieces)


def _name(draw: random.Random) -> str:
    return "".join(_part(draw) for _ in range(draw.randint(1, 5)))


def _part(draw: random.Random) -> str:
    chance = draw.random()
    if chance < 0.35:
        return draw.choice(_ODD)
    if chance < 0.7:
        return draw.choice(_WORDS) + draw.choice(["", " ", ""])
    if chance < 0.75:
        return draw.choice(_MASKED)
    character = chr(draw.randrange(*draw.choice(_SCRIPTS)))
    return "?" if "\ud800" <= character <= "\udfff" else character


def _spelling(draw: random.Random, name: str) -> str:
    if draw.random() < 0.1:
        name = draw.choice(name.split() or [name])
    if draw.random() < 0.2:
        name = "".join(draw.choice(_SPACE) if character.isspace() else character for character in name)
    if draw.random() < 0.05:
        place = draw.randint(0, len(name))
        name = name[:place] + draw.choice(_ODD) + name[place:]
    return draw.choice(_SPELT)(name)


def _piece(draw: random.Random) -> str:
    return draw.choice(_GLUE) + (draw.choice(_MASKED) if draw.random() < 0.15 else "") + draw.choice(_GLUE)


def tables(some: list[Case]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """MESSAGES and PARTICIPANTS of one thread a case."""
    when = datetime(2024, 1, 1, tzinfo=UTC)
    messages, people = [], []
    for number, (name, kind, text) in enumerate(some):
        thread = f"{number:032x}"
        of_a, of_b = f"a{number}", f"b{number}"
        people.append({"datadao": "odd", "thread_id": thread, "author_id": of_a, "name": name, "name_kind": kind})
        for place, (author, said) in enumerate(((of_b, text), (of_a, "what is the plan for today, 問吧"))):
            messages.append(
                {
                    "message_id": f"{2 * number + place:032x}", "datadao": "odd", "platform": "telegram",
                    "thread_id": thread, "thread_shape": "linear", "author_id": author, "role": "user",
                    "is_subject": place == 1, "created_at": when, "text": said, "raw_sha256": "0" * 64,
                    "raw_member": "", "raw_location": place,
                }
            )  # fmt: skip
        people.append({**people[-1], "author_id": of_b, "name": f"other {number}"})
    participants = pl.DataFrame(people, schema=PARTICIPANTS.schema)
    return MESSAGES.conform(pl.DataFrame(messages, schema=MESSAGES.schema)), participants


@contextmanager
def _seen(found: list[tuple[str, str]]) -> Iterator[None]:
    """The check of what remains tells thread and text of what it finds."""

    def check(chunks: pl.DataFrame, names: pl.DataFrame, *_: object) -> None:
        held = residual_chunks(chunks, names)
        found.extend(chunks.filter(pl.col("chunk_id").is_in(held)).select("thread_id", "text").iter_rows())
        if held:
            raise ResidualNameError(held)

    with mock.patch("user_embeddings_dagster.conversations.chunks.check_residual_names", check):
        yield


def stopped(some: list[Case], persons: bool = True) -> list[tuple[Case, str]]:
    """Which of the cases the check stops, each with its chunk's text."""
    found: list[tuple[str, str]] = []
    with _seen(found), suppress(ResidualNameError):
        build_chunks(*tables(some), config=ChunkConfig(mask_persons=persons))
    return [(some[int(thread, 16)], text) for thread, text in found]


def main() -> None:
    """Print the figures; exit code 1 if a name stops anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    source, failed = cases(options.seed), 0
    for start in range(0, options.names, AT_ONCE):
        some = [next(source) for _ in range(min(AT_ONCE, options.names - start))]
        if not start:
            with mock.patch.object(ThreadNames, "mask", lambda _, text: text):
                print(f"control: {len(stopped(some))} of {len(some)} names with a masker that knows nobody", flush=True)
        for case, text in stopped(some, persons=bool(start // AT_ONCE % 2)):
            failed += 1
            if options.show:
                print(ascii((*case, text)), flush=True)
    print(f"stopped: {failed} of {options.names} odd names, seed {options.seed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
