"""Canonical form of text before anything is masked, and the fold under which names are compared.

Masking works on the canonical form (Unicode NFKC, UAX #15) and writes it: full-width letters, ligatures and
zero-width characters otherwise hide an identifier from every pattern.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import polars as pl

# Format and control characters (zero width, bidi, soft hyphen), private use, unassigned, variation selectors,
# invisible fillers. Line breaks and tabs stay. Stripping U+200D splits joined emoji: accepted. Unassigned is what this
# Python has not heard of yet, too: Polars, whose Unicode is newer, takes some of it for marks or letters, so that the
# check of what remains would find words where masking sees others.
INVISIBLE = (
    rf"[\P{{age={unicodedata.unidata_version.rsplit('.', 1)[0]}}}"
    r"\p{Cf}\p{Co}\p{Cn}\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x84\x86-\x9F"
    r"\u034F\u115F\u1160\u17B4\u17B5\u3164\uFFA0\uFE00-\uFE0F\U000E0100-\U000E01EF]"
)
_WIDE = re.compile(r"\s\s|[^\S ]")  # white space that chunks write as one space
PLAIN = re.compile(r"[\t\n\r -~]*")  # what is canonical as it is, but for labels that a message spells
# Dashes that keyboards, typesetters and language models put into a telephone or card number.
_DASH = "[\u2010-\u2015\u2212]"
_SHORT_DASH = "[\u2010-\u2013\u2212]"  # those that also stand within a word
_DASHED = r"[0-9](?:[ ()./\u2010-\u2015\u2212-]{0,3}[0-9]){6}"
# A message that spells a placeholder or a speaker would forge one.
_FORGED = {r"\bSUBJECT\b": "Subject", r"<(P[0-9]+)>": "($1)"}

# Scripts written without spaces between words: a name there has no boundary to look for.
UNSPACED_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003134f"
)
UNSPACED = re.compile(f"[{UNSPACED_RANGES}]")

# What people type for one another in names, beside diacritics.
APOSTROPHES = "‘’‛′´ʹʻʼʽʾʿꞌ՚׳"
_DASHES = "−˗⁃"  # that Unicode does not count among the dashes
_PLAIN_LETTERS = dict(zip("łøđðıħŧŋə", "loddihtne", strict=True)) | {"æ": "ae", "œ": "oe", "þ": "th"}
# Arabic letters that differ by keyboard, and the stroke that only draws a word out; letters that are drawn, not typed.
_PLAIN_LETTERS |= {"ی": "ي", "ى": "ي", "ک": "ك", "ة": "ه", "ـ": ""}
_PLAIN_LETTERS |= dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True))
_PLAIN_LETTERS |= {chr(first + at): chr(97 + at) for first in (0x1F150, 0x1F170) for at in range(26)}  # 🅐 🅰
_WRITTEN_OUT = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "Å": "Aa", "Ø": "Oe",
})  # fmt: skip


def canonical(texts: pl.Series) -> pl.Series:
    """NFKC without invisible characters, digits of all scripts as 0 to 9, a hyphen in long numbers, no Markdown's
    backslash in handles and addresses; user-typed speaker labels are defused."""
    texts = _where(texts, r"[^\t\n -~]", _composed)
    texts = _where(texts, r"\\[_@]", _unescaped)
    return _where(texts, r"SUBJECT|<P[0-9]", _defused)


def _where(texts: pl.Series, pattern: str, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts` with `change` made to those that match `pattern`: the others are as they should be."""
    places = texts.str.contains(pattern).fill_null(False).arg_true()
    return texts.clone().scatter(places, change(texts.gather(places))) if places.len() else texts


def _composed(texts: pl.Series) -> pl.Series:
    texts = texts.str.replace_all(INVISIBLE, "").str.replace_all("´", "'", literal=True)  # NFKC: a space and an accent
    texts = texts.str.normalize("NFKC").str.replace_all(INVISIBLE, "")
    texts = _where(texts, r"[\p{Nd}--0-9]", lambda held: held.str.replace_many(_digits()))
    return _where(texts, rf"[0-9)] ?{_DASH}", lambda held: _where(held, _DASHED, _hyphenated))


def _hyphenated(texts: pl.Series) -> pl.Series:
    # A dash before or after a number is the sentence's. Twice: a match takes the digit that the next one needs.
    for _ in range(2):
        texts = texts.str.replace_all(rf"([0-9]){_SHORT_DASH}([A-Za-z])", "${1}-${2}")
        texts = texts.str.replace_all(rf"([A-Za-z]){_SHORT_DASH}([0-9])", "${1}-${2}")
        texts = texts.str.replace_all(rf"([0-9)] ?){_DASH}( ?[0-9A-Z(])", "${1}-${2}")
        texts = texts.str.replace_all(rf"([0-9A-Z)] ?){_DASH}( ?[0-9(])", "${1}-${2}")
    return texts


def _unescaped(texts: pl.Series) -> pl.Series:
    # Reddit's editor writes "u/ann_lee" as "u/ann\_lee". Behind a folder of homes stands a user's name, not an escape.
    return texts.str.replace_all(r"(?i)((?:users|settings)\\)|\\+([_@])", "${1}${2}")


def _defused(texts: pl.Series) -> pl.Series:
    for pattern, replacement in _FORGED.items():
        texts = texts.str.replace_all(pattern, replacement)
    return texts


@cache
def _digits() -> dict[str, str]:
    """Each decimal digit of a script of its own (Arabic, Devanagari, …) and the one of 0 to 9 that it stands for."""
    characters = map(chr, range(0x80, sys.maxunicode + 1))
    return {c: str(unicodedata.decimal(c)) for c in characters if unicodedata.decimal(c, None) is not None}


class _Folds(dict[str, str]):
    def __missing__(self, character: str) -> str:
        # Marks go before case does: U+0345 folds to a letter, iota.
        folded = self[character] = unicodedata.normalize("NFC", _unmarked(_unmarked(character).casefold()))
        return folded


def _unmarked(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.category(c).startswith("M"))


class _NameFolds(dict[str, str]):
    def __missing__(self, character: str) -> str:
        folded = self[character] = "".join(map(_plain, _FOLDS[character]))
        return folded


def _plain(character: str) -> str:
    if character in APOSTROPHES:
        return "'"
    if character in _DASHES or unicodedata.category(character) == "Pd":
        return "-"
    return _PLAIN_LETTERS.get(character, character)


_FOLDS = _Folds()
_NAME_FOLDS = _NameFolds()


def fold(text: str) -> str:
    """Case-folded text without diacritics; may differ in length from `text`."""
    return text.lower() if text.isascii() else "".join(map(_FOLDS.__getitem__, text))


def fold_name(text: str) -> str:
    """`fold(text)` with one apostrophe, one dash and "l" for "ł": the form in which names are compared."""
    return text.lower() if text.isascii() else "".join(map(_NAME_FOLDS.__getitem__, text))


def written_out(name: str) -> str:
    """`name` as people write it who have no umlauts: "Mueller" of "Müller", "Haakon" of "Håkon"."""
    return name if name.isascii() else name.translate(_WRITTEN_OUT)


def fold_with_offsets(text: str) -> tuple[str, list[int] | None]:
    """`fold_name(text)` and, per folded character, its index in `text`; None when they are the same."""
    if text.isascii():
        return text.lower(), None
    pieces = [_NAME_FOLDS[character] for character in text]
    offsets = [place for place, piece in enumerate(pieces) for _ in piece]
    return "".join(pieces), offsets


def one_space(text: str) -> tuple[str, Sequence[int]]:
    """`text` with one space for each run of white space, and the place of each of its characters in `text`."""
    if not _WIDE.search(text):
        return text, range(len(text))
    places = [i for i, c in enumerate(text) if not (c.isspace() and i and text[i - 1].isspace())]
    return "".join(" " if text[i].isspace() else text[i] for i in places), places
