"""Names of people who are not in the chat, by lists and capitals: no model, no download (C10).

A capitalised given name, alone or with the capitalised words after it ("Sarah", "John P. Doe"), a capitalised word
after a title ("Dr Okafor"), or a given name in any case after words of introduction ("my name is sarah"). Given names
that more often mean something else ("Will", "Paris", "May") count only before a common surname. A given name that is
not listed, a surname alone, and a name in lower case that nothing introduces are not found: the asset
`masking_scores` says how often.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

import polars as pl

from user_embeddings_dagster.privacy.normalise import fold
from user_embeddings_dagster.privacy.patterns import Kind

_CAPITAL = "[A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĖĘĚĞĢĪĮİĶĹĻĽŁŃŅŇŌŐŒŔŘŚŞŠŢŤŪŮŰŲŸŹŻŽȘȚ]"
_WORD = rf"{_CAPITAL}[^\W\d_]*(?:['’-][^\W\d_]+)*"
_RUN = rf"(?<![\w@/.<$#'’-]){_WORD}(?:\.?[ \t]{_WORD})*(?![\w@(])"
_TITLES = "mr|mrs|ms|dr|prof|professor|sir|mister|madam|aunt|uncle|grandma|grandpa|sgt|capt|rev"
_KIN = (
    "friend|brother|sister|mother|father|mom|mum|dad|son|daughter|wife|husband|boyfriend|girlfriend|cousin|uncle|aunt"
    "|boss|coworker|co-worker|colleague|roommate|flatmate|neighbo[u]?r|teacher|doctor|ex|partner|fiancee?|bro|sis"
)
# Capitalised words that begin sentences or titles and so stand after a name without belonging to it.
_NOT_SURNAMES = frozenset(
    fold(
        """
a about after all also am an and any are as at be because been but by can can't could day did do does don't
for from get go going good got had happy has have he her here his how i i'd i'll i'm i've if in is it it's its
just like lol me my new no not of oh ok on one or our out please rt said say says she should so than thank
thanks that that's the their them then there they this to too u up via was we well were what when where which
who why will with would yeah yes you your
"""
    ).split()
)
_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’][sS]$")
_MAX_FOLLOWING = 2  # a middle name or initial, and a surname


def _listed(name: str) -> frozenset[str]:
    return frozenset(resources.files(__package__ or __name__).joinpath(name).read_text().split())


@cache
def given_names() -> frozenset[str]:
    """5,200 given names: borne by 0.004 % or more of one sex (US Census 1990, public domain; or listed for two
    countries by Faker, MIT), folded."""
    return _listed("given_names.txt")


@cache
def surnames() -> frozenset[str]:
    """The 1,500 most frequent surnames (US Census 1990, public domain), in lower case."""
    return _listed("surnames.txt")


@cache
def ordinary_names() -> frozenset[str]:
    """Given names and surnames that in chat are mostly words, places, months or products."""
    return _listed("ordinary_names.txt")


@cache
def _capitalised() -> list[str]:
    return sorted({case(name) for name in given_names() for case in (str.title, str.upper)})


class _Runs(Kind):
    """Names within runs of capitalised words; texts without a listed name are left out by an automaton."""

    def may_hold(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` have a listed name or a letter with an accent in it."""
        return texts.str.contains_any(_capitalised()) | texts.str.contains("[À-ɏ]")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each name in `text`, in order."""
        return [
            (match.start() + start, match.start() + end)
            for match in self.pattern.finditer(text)
            for start, end in _spans_in(match.group())
        ]


def _spans_in(run: str) -> Iterator[tuple[int, int]]:
    """Names in a run of capitalised words: a given name and up to two words after it."""
    words = _words(run)
    place = 0
    while place < len(words):
        start, _, word = words[place]
        if word not in given_names() or (word in ordinary_names() and not _has_surname(words, place)):
            place += 1
            continue
        last = place
        while last + 1 < len(words) and last - place < _MAX_FOLLOWING and _may_follow(run, words[last + 1]):
            last += 1
        yield start, _without_possessive(run, words[last][0], words[last][1])
        place = last + 1


def _words(text: str) -> list[tuple[int, int, str]]:
    """Start, end and folded form without "'s" of each word."""
    return [(match.start(), match.end(), _bare(match.group())) for match in _TOKEN.finditer(text)]


def _may_follow(run: str, word: tuple[int, int, str]) -> bool:
    """An initial, or a word that begins no sentence."""
    start, end, bare = word
    return bare not in _NOT_SURNAMES or (end - start == 1 and run.startswith(".", end))


def _titled(text: str) -> tuple[int, int] | None:
    """One or two words after a title."""
    words = _words(text)
    if not words or words[0][2] in _NOT_SURNAMES:
        return None
    last = 1 if len(words) > 1 and words[1][2] not in _NOT_SURNAMES else 0
    return 0, _without_possessive(text, words[last][0], words[last][1])


def _introduced(text: str) -> tuple[int, int] | None:
    """The given name at the start of `text` (any case), with a surname after it."""
    words = _words(text)
    if not words or words[0][2] not in given_names() or words[0][2] in ordinary_names():
        return None
    last = 1 if len(words) > 1 and words[1][2] in surnames() and words[1][2] not in ordinary_names() else 0
    return 0, _without_possessive(text, words[last][0], words[last][1])


def _has_surname(words: list[tuple[int, int, str]], place: int) -> bool:
    return place + 1 < len(words) and words[place + 1][2] in surnames()


def _bare(word: str) -> str:
    return _POSSESSIVE.sub("", fold(word))


def _without_possessive(text: str, start: int, end: int) -> int:
    return end - 2 * bool(_POSSESSIVE.search(text[start:end]))


PERSONS = (
    Kind(
        "PERSON",
        rf"(?i)\b(?:{_TITLES})\b",
        re.compile(rf"\b(?i:{_TITLES})\b\.?[ \t](?P<value>{_WORD}(?:[ \t]{_WORD})?)"),
        _titled,
    ),
    _Runs("PERSON", r"\p{Lu}", re.compile(_RUN)),
    Kind(
        "PERSON",
        rf"(?i)\b(?:my (?:{_KIN})|my name|name's|named|i am|i'm|call me)\b",
        re.compile(
            rf"(?i)\b(?:my (?:{_KIN})(?:'s name is)?|my name(?: is|'s)|name's|named|i am|i'm|call me)[ \t]"
            r"(?P<value>[^\W\d_]+(?:['’-][^\W\d_]+)*(?:[ \t][^\W\d_]+(?:['’-][^\W\d_]+)*)?)"
        ),
        _introduced,
    ),
)
