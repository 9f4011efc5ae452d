"""Names of people who are not in the chat, by lists and capitals: no model, no download (C10).

A capitalised given name, alone or with the capitalised words after it ("Sarah", "John P. Doe", "Jan van Dyke"), a
surname that is no ordinary word ("Kowalski"), a capitalised word after a title ("Dr Okafor"), or a given name in any
case after words of introduction or greeting ("my name is sarah", "hey kevin"). Names that more often mean something
else ("Will", "Paris", "May", "Ada") count only before a surname. A given name that is not listed, and one in lower
case that nothing introduces, are not found: the asset `masking_scores` says how often. `privacy.ner` finds more, with
a model.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

import polars as pl

from user_embeddings_dagster.privacy.kinds import Kind
from user_embeddings_dagster.privacy.normalise import fold_name

_CAPITALS = "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĖĘĚĞĢĪĮİĶĹĻĽŁŃŅŇŌŐŒŔŘŚŞŠŢŤŪŮŰŲŸŹŻŽȘȚ"
_WORD = rf"[{_CAPITALS}][^\W\d_]*(?:['’-][^\W\d_]+)*"
_PARTICLES = "von|van|der|den|de|del|della|di|da|dos|du|la|le|bin|ibn|al|el|ten|ter|zu"
_GAP = rf"\.?[ \t](?:(?:{_PARTICLES})[ \t]){{0,3}}"
_RUN = rf"[{_CAPITALS}](?<![\w@/.<$#'’-].)[^\W\d_]*(?:['’-][^\W\d_]+)*(?:{_GAP}{_WORD})*(?![\w@(])"
_TITLES = (
    "Mr|Mrs|Ms|Dr|Prof|Professor|Sir|Mister|Madam|Aunt|Auntie|Uncle|Grandma|Grandpa|Sgt|Capt|Rev|Herr|Frau|Mme|Monsieur"
)
_KIN = (
    "friend|brother|sister|mother|father|mom|mum|dad|son|daughter|wife|husband|boyfriend|girlfriend|cousin|uncle|aunt"
    "|boss|coworker|co-worker|colleague|roommate|flatmate|neighbo[u]?r|teacher|doctor|ex|partner|fiancee?|bro|sis"
)
_GREETINGS = (
    "hi|hey|hello|hiya|thx|cheers|happy birthday|happy bday|good night|goodnight|good morning|miss you|love you"
)
# Capitalised words that begin sentences or titles and so stand after a name without belonging to it.
_NOT_SURNAMES = frozenset(
    fold_name(
        """
a about after all also am an and any are as at be because been but by can can't could day did do does don't
for from get go going good got had happy has have he her here his how i i'd i'll i'm i've if in is it it's its
just like lol me my new no not of oh ok on one or our out please rt said say says she should so than thank
thanks that that's the their them then there they this to too u up via was we well were what when where which
who why will with would yeah yes you your
"""
    ).split()
)
# What a person's name before it is the name of.
_NAMED_AFTER = frozenset(
    fold_name(
        """
inc ltd llc corp co company gmbh street road drive avenue terrace lane boulevard blvd suite apt flats lodge creek
cliffs university college school hospital church airport station hotel residence stadium museum orchestra band
county fwy award awards foundation institute toolkit jobs news
"""
    ).split()
)
_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LETTERS = re.compile("[a-z]+")
_POSSESSIVE = ("'s", "’s", "'S", "’S")
_SAINT = re.compile(r"\b(?:[Ss]t|ST|Saint|San|Santa) ?\.?[ \t]$")
_VERSE = re.compile(r"[ \t]\d{1,3}:\d")
_MAX_FOLLOWING = 2  # a middle name or initial, and a surname
_MIN_SHOUTED = 5  # "JASON" may be a name, "ISA" and "LAN" are not


def _listed(name: str) -> frozenset[str]:
    return frozenset(resources.files(__package__ or __name__).joinpath(name).read_text().split())


@cache
def given_names() -> frozenset[str]:
    """5,900 given names: borne by 0.004 % or more of one sex (US Census 1990, public domain; or listed for two
    countries by Faker, MIT), and frequent ones of forty other languages in Latin letters, folded."""
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
def lone_names() -> frozenset[str]:
    """Names that need no second one to be a person's."""
    return (given_names() | surnames()) - ordinary_names()


@cache
def _any_names() -> frozenset[str]:
    return given_names() | surnames()


class _Listed(Kind):
    """A kind with listed names in it: the words that `prefilter` ends in are looked up in one go."""

    def may_hold(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` have, where `prefilter` ends, a name that needs no second one, a given name and a surname,
        or a word that is not ASCII."""
        words = self._words(texts).drop_nulls().with_columns(pl.col("word").str.to_lowercase())
        accented = pl.col("word").str.len_bytes() != pl.col("word").str.len_chars()
        given, family = (words.filter(_among(names))["row"].unique() for names in (given_names(), surnames()))
        rows = (words.filter(_among(lone_names()) | accented)["row"], given.filter(given.is_in(family.implode())))
        return pl.repeat(False, len(texts), eager=True).scatter(pl.concat(rows), True)

    def _words(self, texts: pl.Series) -> pl.DataFrame:
        places = texts.str.contains(self.prefilter).arg_true()
        found = pl.DataFrame({"row": places, "word": texts.gather(places).str.extract_all(self.prefilter)})
        return found.explode("word").with_columns(pl.col("word").str.extract(r"(\p{L}+)$"))


def _among(names: frozenset[str]) -> pl.Expr:
    return pl.col("word").is_in(pl.Series(sorted(names)).implode())


class _Runs(_Listed):
    """Names within runs of capitalised words."""

    def _words(self, texts: pl.Series) -> pl.DataFrame:
        rows = pl.int_range(len(texts), dtype=pl.UInt32, eager=True)
        return pl.DataFrame({"row": rows, "word": texts.str.extract_all(self.prefilter)}).explode("word")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each name in `text`, in order."""
        found = []
        for match in self.pattern.finditer(text):
            run = match.group()
            if run.isascii() and _any_names().isdisjoint(_LETTERS.findall(run.lower())):
                continue
            start = match.start()
            for first, end in _spans_in(run, text[max(0, start - 8) : start]):
                if not _VERSE.match(text, start + end):
                    found.append((start + first, start + end))
        return found


def _spans_in(run: str, before: str = "") -> Iterator[tuple[int, int]]:
    """Names in a run of capitalised words: a name and up to two words after it."""
    words = _words(run)
    place = 0
    while place < len(words):
        start = words[place][0]
        if not _begins_name(run, words, place) or _SAINT.search((before + run[:start])[-8:]):
            place += 1
            continue
        last, following = place, 0
        while following < _MAX_FOLLOWING and (after := _follower(run, words, last)):
            last, following = after, following + 1
        if (last + 1 < len(words) and words[last + 1][2] in _NAMED_AFTER) or words[last][2] in _NAMED_AFTER:
            place = last + 1
            continue
        yield start, _without_possessive(run, words[last][0], words[last][1])
        place = last + 1


def _begins_name(run: str, words: list[tuple[int, int, str]], place: int) -> bool:
    start, end, word = words[place]
    first, _, _ = word.partition("-")
    if (
        word not in lone_names()
        and (first not in given_names() or first in ordinary_names())
        and not (word in given_names() and _has_surname(words, place))
    ):
        return False
    shouted = end - start > 1 and run[start:end].isupper()
    return not shouted or end - start >= _MIN_SHOUTED or _has_surname(words, place)


def _follower(run: str, words: list[tuple[int, int, str]], last: int) -> int | None:
    """Place of the word that goes on with the name whose last word is at `last`, None if it ends there."""
    after = last + 1
    while after < len(words) and run[words[after][0]].islower():  # a particle
        after += 1
    if after == len(words):
        return None
    stopped = run.startswith(".", words[last][1]) and words[last][1] - words[last][0] > 1
    return after if not stopped and _may_follow(run, words[after]) else None


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
    return fold_name(word[:-2] if word.endswith(_POSSESSIVE) else word)


def _without_possessive(text: str, start: int, end: int) -> int:
    return end - 2 * text[start:end].endswith(_POSSESSIVE)


_INTRODUCTIONS = rf"my (?:{_KIN})(?:'s name is)?|my name(?: is|'s)|name's|named|i am|i'm|call me|(?:{_GREETINGS}),?"
PERSONS = (
    Kind(
        "PERSON",
        rf"(?i:{_TITLES})\.?[ \t][{_CAPITALS}]",
        re.compile(rf"\b(?:(?i:{_TITLES})(?<!MS)|MS(?=\.))\b\.?[ \t](?P<value>{_WORD}(?:[ \t]{_WORD})?)"),
        _titled,
    ),
    _Runs("PERSON", rf"[{_CAPITALS}][A-Za-zÀ-ɏ]*", re.compile(_RUN)),
    _Listed(
        "PERSON",
        rf"(?i)(?:{_INTRODUCTIONS})[ \t]\p{{L}}+",
        re.compile(
            rf"(?i)\b(?:{_INTRODUCTIONS})[ \t]"
            r"(?P<value>[^\W\d_]+(?:['’-][^\W\d_]+)*(?:[ \t][^\W\d_]+(?:['’-][^\W\d_]+)*)?)"
        ),
        _introduced,
    ),
)
