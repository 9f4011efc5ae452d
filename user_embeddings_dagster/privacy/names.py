"""The names of a thread's participants: their variants, and which are too ordinary to mask everywhere."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from user_embeddings_dagster.privacy.given_parts import given_part
from user_embeddings_dagster.privacy.normalise import APOSTROPHES, UNSPACED, UNSPACED_RANGES, fold_name, written_out
from user_embeddings_dagster.privacy.persons import lone_names

# Between "问" and "Alice" a word ends, although both are letters; signs of those scripts ("฿", "・") are in no word.
TOKEN = re.compile(rf"[^\W_{UNSPACED_RANGES}]+|(?:(?!\W)[{UNSPACED_RANGES}])+")
_PART = re.compile(rf"[^\W_]+(?:['{APOSTROPHES}][^\W_]+)*")
_SUFFIX = re.compile(r"(?<=\w)\s*(?:[\[({|].*)$")
_MIN_LETTERS = 3  # shorter names are words of some language
_MIN_UNSPACED = 2  # a single Chinese character is a word
_MIN_JOINED = 6  # "John Smith" is also looked for as "johnsmith"

# Words of grammar: somebody called "the" or "you" would otherwise empty every text. Words that are also first
# names (will, may, per) are not here: they are masked.
FUNCTION_WORDS = frozenset(
    fold_name(
        """
a about above after again all also always am an and another any anybody anyone anything are around
as at away back be because been before being between both but by can cannot cant come could did didn
do does doesn doing don done dont down each else even ever every everyone everything few find for
from further get gets getting give go goes going gone gonna good got had has hasn have haven having
he her here hers herself hey hi him himself his how however i if in instead into is isn it its
itself just keep know last least less let like ll look looks made make makes many me mean might mine
more most much must my myself need neither never new next no nobody none nope nor not nothing now of
off often ok okay on once one only onto or other others our ours out over own people please put
quite rather re really right said same say says see seems shall she should since so some somebody
someone something sometimes soon still such sure take tell than thank thanks that the their theirs
them then there these they thing things think this those though three through thus to today together
too try two under until up upon us use used user using ve very want wants was wasn way we well went
were what whatever when where whether which while who whoever whole whom whose why with within
without won work works would yeah yep yes yet you your yours yourself aber alle als auch auf aus bei
bin bis bist das dass dem den der des dich die dir doch du ein eine einen er es fur hab habe hat
hier ich ihr im ist ja kann kein man mich mir mit nach nein nicht noch nur oder schon sein sich sie
sind so um und uns von war was wenn wer wie wir wird zu zum zur al como con cuando de del donde el
ella en era es esta este esto hay la las le lo los mas mi muy no nos para pero por porque que quien
se ser si sin sobre son su te tu un una uno y ya yo au aux avec bien c'est ce ces cette comme dans
des donc du elle est et etait il ils je la le les leur lui mais meme mes moi mon ne nous ou oui par
pas plus pour qu quand qui sa sans ses si son sont sur te toi ton tout tres un une vous che chi ci
come con cosa da della di e gli ho il io la le lei lo ma mi molto nel non piu quando questo se sei
si solo sono su ti tu un una com da das do dos ela ele em esta eu foi isso ja mais mas me meu muito
na nao nas no nos o os ou para pela por que se sem sim so sua tem um uma voce bir biz bu cok da daha
de degil diye en gibi hem icin ile ise ki mi mu ne nasil o onu sen siz su ve veya ya yok а без бы
был была были было быть в вам вас весь во вот все всего вы где да даже для до его ее если есть еще
ещё же за и из или им их как какой ко когда кто ли меня мне можно мой мы на надо нас не него нет ни
но ну о об он она они от очень по под при про с сам себя со так там тебя то тоже только ты у уже что
чтобы чем это этот я
"""
    ).split()
)


@dataclass(frozen=True)
class Name:
    """One variant of a name: its folded tokens, the text between them, and whether it is too ordinary.

    `part`: the given name in an unspaced one, which counts only where `given_parts.is_meant`.
    """

    tokens: tuple[str, ...]
    separators: tuple[str, ...]
    ambiguous: bool
    unspaced: str = ""
    part: bool = False


def is_ambiguous(name: str) -> bool:
    """At most two letters or digits (one where words are not spaced), or nothing but words of grammar."""
    tokens = TOKEN.findall(fold_name(name))
    letters = "".join(tokens)
    least = _MIN_UNSPACED if UNSPACED.search(letters) else _MIN_LETTERS
    return len(letters) < least or all(token in FUNCTION_WORDS for token in tokens)


def variants(name: str, name_kind: str) -> Iterable[Name]:
    """The forms in which canonical `name` is looked for.

    The name without surrounding punctuation and without what stands in brackets or after "|" ("ann[m]", "bob|away"),
    its words joined ("John Smith" and "john_smith": "johnsmith") and, of a display name, each of its words that is not
    too ordinary, also without apostrophes: people call each other by one of them. All of it also with the umlauts
    written out ("Mueller"). Of an unspaced Chinese or Korean name also the given name.
    """
    words = _words(name) if name_kind == "display_name" else []
    alone = [word for word in words if not is_ambiguous(word)]
    yield from _forms(name, alone)
    if written_out(name) != name and not is_ambiguous(name):
        yield from _forms(written_out(name), map(written_out, alone))
    given = given_part(name) if name_kind == "display_name" else None
    if given is not None:
        yield Name((given,), (), False, given, part=True)


def _words(name: str) -> list[str]:
    """The words of a name of several: what stands between white space, and the names between other signs.

    Of "Ann-Lee" both parts are names, of "ann.lee" those that are listed; "companion_cube" and "data-fan" have none.
    """
    words, parts = name.split(), [part for part in _PART.findall(name) if not part.isdigit()]
    if len(parts) < 2 or parts == words:
        parts = []
    elif not all(part[0].isupper() and not part.isupper() for part in parts):
        parts = [part for part in parts if fold_name(part) in lone_names()]
    return [*(words if len(words) > 1 else ()), *parts]


def _forms(name: str, alone: Iterable[str]) -> Iterable[Name]:
    folded = fold_name(name)
    yield from _variant(folded)
    bare = _SUFFIX.sub("", folded)
    if bare != folded and not is_ambiguous(bare):
        yield from _variant(bare)
    tokens = TOKEN.findall(folded)
    if len(tokens) < 2:
        return
    joined = "".join(tokens)
    if len(joined) >= (_MIN_UNSPACED if UNSPACED.search(joined) else _MIN_JOINED):
        yield from _variant(joined)
    for word in map(fold_name, alone):
        yield from _variant(word)
        if "'" in word and len(joined := "".join(TOKEN.findall(word))) >= _MIN_JOINED:
            yield from _variant(joined)


def _variant(folded: str) -> Iterable[Name]:
    places = [match.span() for match in TOKEN.finditer(folded)]
    if not places:
        return
    tokens = tuple(folded[start:end] for start, end in places)
    gaps = tuple(folded[left[1] : right[0]] for left, right in pairwise(places))
    core = folded[places[0][0] : places[-1][1]]
    yield Name(tokens, gaps, is_ambiguous(core), core if UNSPACED.search(core) else "")
