# ruff: noqa: E501, SIM905 (patterns are one piece)
"""Kinds of personal data that have a form of their own, in the order in which they are looked for.

Earlier kinds win: a wallet is found before the URL that holds it is taken whole. `prefilter` is a Rust regular
expression (no look-around, a superset of `pattern`) that picks the few texts worth `pattern`, a Python one.
A group `value` in `pattern` is masked alone. A whole URL becomes `<URL>`: its host, path and query name people
(`alice.dev`, `/u/alice`, `?email=`), and no list of harmless hosts stays harmless.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from user_embeddings_dagster.privacy import checksums
from user_embeddings_dagster.privacy.phones import is_date, is_phone

LEFT = r"(?<![A-Za-z0-9])"
RIGHT = r"(?![A-Za-z0-9])"
# Top-level domains under which a bare host is taken for one; file endings (py, rs, sh, md, …) and words
# (in, is, it, so, …) are left out.
_TLDS = (
    "com|org|net|edu|gov|mil|info|biz|io|dev|app|xyz|online|site|shop|club|tv|ai|gg|eu|uk|de|fr|es|nl|ru|ua|cz|sk"
    "|hu|ro|bg|gr|tr|ir|cn|jp|kr|tw|hk|sg|au|nz|ca|br|mx|ar|cl|pe|za|ng|ke|eg|il|ae|sa|pt|ie|ch|dk|se|fi|ee|lv|lt"
    "|pl|co|ph|th|vn|eth"
)
_MAIL_HOSTS = "gmail|googlemail|hotmail|outlook|protonmail|proton|yahoo|icloud|yandex|gmx|aol|live|msn|mail"
# Runs are bounded (RFC 5321: 64 characters) so that no text makes the search quadratic.
_BRACKET_AT = r"\s{0,2}[(\[{<]\s{0,2}(?:at|@|a t)\s{0,2}[)\]}>]\s{0,2}"
_AT = rf"(?:{_BRACKET_AT}|[\s_]{{1,3}}at[\s_]{{1,3}}|\s{{0,2}}@\s{{0,2}})"
_DOT = r"(?:\s{0,2}[(\[{<]\s{0,2}(?:dot|\.)\s{0,2}[)\]}>]\s{0,2}|[\s_]{1,3}dot[\s_]{1,3})"
_ANY_DOT = rf"(?:{_DOT}|\s?\.\s?)"
_LOCAL = rf"[\w.+-]{{1,64}}?(?:{_DOT}[\w.+-]{{1,64}}?){{0,2}}"
_LIBRARIES = re.compile(r"(?i)(?:std|java|javax|asp|vb|ado|socket|sys)\.(?:io|net)")
_TAGS = frozenset(  # words after "@" in code and style sheets that are nobody's handle
    "abstractmethod author asyncio charset classmethod cached_property compileerror compilelog dataclass "
    "deprecated export extends fixture font-face import imports include interface keyframes layer link media "
    "namespace nonnull nullable override overload param params private property protected public return "
    "returns see since staticmethod supports suppresswarnings template test throws todo type typedef wraps".split()
)
_MEASURE = re.compile(r"(?i)[\d_]+(?:[ap]m|h|hrs?|min|s|k|m|x|st|nd|rd|th|px|dpi|fps|[kmgt]?i?b|[kmg]?hz|v|w|%)?")
_NOBODY = frozenset("user username users root ubuntu admin you your me myuser home shared public guest".split())


def _whole(check: Callable[[str], bool]) -> Callable[[str], tuple[int, int] | None]:
    return lambda text: (0, len(text)) if check(text) else None


def _iban_span(text: str) -> tuple[int, int] | None:
    end = checksums.iban_length(text)
    return (0, end) if end else None


def _phone_span(text: str) -> tuple[int, int] | None:
    opened = text.startswith("(") and text.count("(") > text.count(")")  # the bracket belongs to the sentence
    return (int(opened), len(text)) if is_phone(text[opened:]) else None


@dataclass(frozen=True)
class Kind:
    """One kind: `span` gives the part of a match that is the identifier, None if it is not one."""

    name: str
    prefilter: str
    pattern: re.Pattern[str]
    span: Callable[[str], tuple[int, int] | None] = field(default=_whole(bool))

    def may_hold(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` are worth `spans`."""
        return texts.str.contains(self.prefilter)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each identifier in `text`, in order."""
        group = "value" if "value" in self.pattern.groupindex else 0
        found = ((match.start(group), self.span(match[group])) for match in self.pattern.finditer(text))
        return [(start + span[0], start + span[1]) for start, span in found if span is not None]


def typed(name: str, prefilter: str, pattern: str, check: Callable[[str], bool] = bool, flags: int = 0) -> Kind:
    """A kind whose matches that pass `check` are identifiers as a whole."""
    return Kind(name, prefilter, re.compile(pattern, flags), _whole(check))


ADDRESSES = (
    typed(
        "URL",
        r"(?i)://|www\.|\bt(?:elegram)?\.me/|wa\.me/|discord\.gg/|magnet:",
        r"(?i)(?:\b[a-z][a-z0-9+.-]{1,12}://|\bwww\d?\.(?=\w)|(?<![\w.-])(?:t\.me|telegram\.me|wa\.me|discord\.gg)/|\bmagnet:\?)"
        r"[^\s<>\"`]*[^\s<>\"`.,;:!?)\]}'*]",
    ),
    typed(
        "EMAIL",
        r"@[^\W_][\w-]{0,62}[.。]",
        r"(?<![\w.%+'-])[\w.%+'-]*[\w%+-]@[^\W_][\w-]{0,62}(?:[.。][\w-]{0,62}[^\W_]){1,8}",
    ),
    typed(
        "EMAIL",
        rf"(?i)[(\[{{<]\s*(?:at|@|a t)\s*[)\]}}>]|\s@\s|(?:[\s_]at[\s_]{{1,3}}|@\s{{0,2}})"
        rf"(?:[a-z0-9]{{1,63}}(?:\s{{0,2}}[(\[{{<]|[\s_]{{1,3}}dot[\s_])|{_MAIL_HOSTS})",
        rf"(?i)(?<![\w.])(?:{_LOCAL}{_BRACKET_AT}[\w-]{{1,63}}(?:{_ANY_DOT}[\w-]{{1,63}}){{0,3}}{_ANY_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}[^\W_]{{1,63}}(?:{_DOT}[^\W_]{{1,63}}){{0,3}}{_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}(?:{_MAIL_HOSTS}){_ANY_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}(?:gmail|googlemail|hotmail|protonmail)"
        rf"|[\w.+-]{{1,64}}\s@\s[\w-]{{1,63}}(?:\s?\.\s?[\w-]{{1,63}}){{0,3}}\s?\.\s?(?:{_TLDS}))(?!\w)",
    ),
    typed(
        "URL",
        rf"(?i)[\w-]\.(?:{_TLDS})\b",
        rf"(?i)(?<![\w.@/\\-])(?:[a-z0-9][a-z0-9-]*\.)+(?:{_TLDS})(?:\.[a-z]{{2}})?(?![\w(-]|\.\w)(?:[:/][^\s<>\"`]*[^\s<>\"`.,;:!?)\]}}'*])?",
        lambda text: not _LIBRARIES.fullmatch(text),
    ),
)

_GROUPED = r"(?:[ -]?[A-Z0-9]{1,4}){3,10}"
NUMBERS = (
    Kind(
        "IBAN",
        r"(?i)[a-z]{2}\d{2}[0-9a-z]{11}",
        re.compile(rf"(?i){LEFT}[a-z]{{2}}\d{{2}}[0-9a-z]{{11,30}}{RIGHT}"),
        _iban_span,
    ),
    Kind(
        "IBAN",
        r"[A-Z]{2}\d{2}[ -]?[A-Z0-9]{2}",
        re.compile(rf"{LEFT}[A-Z]{{2}}\d{{2}}{_GROUPED}"),
        _iban_span,
    ),
    typed(
        "CARD",
        r"(?:\d[ -]?){11}\d",
        r"(?<![\w.])(?:[3456]\d(?:[ -]?\d){12,17}|2[2-7](?:[ -]?\d){14}|4(?:[ -]?\d){12}|[56](?:[ -]?\d){11,12}|(?:1800|2131)(?:[ -]?\d){11}|0604(?:[ -]?\d){8})(?!\w|[.-]\d)",
        checksums.is_card,
    ),
    typed("NATIONAL_ID", r"\d{3}[- ]\d{2}[- ]\d{4}", r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])"),
    typed(
        "NATIONAL_ID",
        r"(?i)ssn|social security|passport|national id|driver|tax id|licen[cs]e n",
        r"(?i)\b(?:ssn|social security|passport|national id|driver'?s? licen[cs]e|tax id|licen[cs]e)(?: (?:no|number|num|#))?\.?(?:\s*[:=#]\s*|\s+is\s+|\s+)"
        r"(?P<value>[A-Z0-9][A-Z0-9-]{4,14})(?!\w)",
        lambda text: sum(c.isdigit() for c in text) >= 4,
    ),
    typed(
        "NATIONAL_ID",
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        rf"{LEFT}[A-CEGHJ-PR-TW-Z]{{2}} ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{RIGHT}",
    ),
    typed(
        "NATIONAL_ID",
        r"[A-Z]{6}\d{2}[A-Z]\d{2}",
        rf"{LEFT}[A-Z]{{6}}\d{{2}}[A-EHLMPRST]\d{{2}}[A-Z]\d{{3}}[A-Z]{RIGHT}",
    ),
    typed(
        "NATIONAL_ID",
        r"[XYZ\d]-?\d{7}-?[A-Z]",
        rf"{LEFT}[XYZ\d]-?\d{{7}}-?[A-HJ-NP-TV-Z]{RIGHT}",
        checksums.is_dni,
    ),
    typed(
        "NATIONAL_ID",
        r"\d{3}\.\d{3}\.\d{3}-\d{2}",
        r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)",
        checksums.is_cpf,
    ),
    typed(
        "NATIONAL_ID",
        r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}",
        r"(?<![\w-])[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\w-]|\1\d)",
    ),
    typed("NATIONAL_ID", r"[1-9]\d{10}", r"(?<![\w.])[1-9]\d{10}(?!\w|\.\d)", checksums.is_tckn),
    typed(
        "GEO",
        r"\d\.\d{3,}",
        r"(?<![\w.])[-+]?\d{1,2}\.\d{3,}°?\s*(?:[NS]\b\s*[,;/]?|[,;/])\s*[-+]?\d{1,3}\.\d{3,}(?:°?\s*[EW]\b|°)?(?![\w.]\d)",
        checksums.is_coordinate_pair,
    ),
    typed(
        "GEO",
        "°",
        r"\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b"
        r"(?:[\s,;/]*\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b)?",
    ),
    typed(
        "MAC",
        r"(?i)(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}",
        r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])",
    ),
    typed(
        "MAC",
        r"(?i)(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}",
        r"(?i)(?<![\w.])(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}(?!\w|\.\w)",
        lambda t: any(c.isdigit() for c in t),
    ),
    typed(
        "IP",
        r"\d\.\d{1,3}\.\d{1,3}\.\d",
        r"(?<![\w.])(?!127\.0\.0\.1\b|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?!\w|\.\d)",
        checksums.is_ipv4,
    ),
    typed(
        "IP",
        r"[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:",
        r"(?<![\w:])(?:[0-9a-fA-F]{1,4}|:):(?:[0-9a-fA-F]{0,4}:){0,6}[0-9a-fA-F]{0,4}(?:%\w+)?(?![\w:])",
        checksums.is_ipv6,
    ),
    Kind(
        "PHONE",
        r"\d(?:[ ().\-/]{0,3}\d){6}",
        re.compile(
            r"(?<![\w.@/#$€£=-])(?:\+\s?|tel:\s*\+?)?\(?\+?\d(?:[ \u00a0().\-/]{0,3}\d){6,16}(?:\s*(?:x|ext\.?|#)\s*\d{1,6})?(?!\w|[.\-/:]\d|%)"
        ),
        _phone_span,
    ),
    typed(
        "PHONE",
        r"(?i)phone|call|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me",
        r"(?i)\b(?:(?:tele)?phone|call(?:ing)?|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me)\b[^\d]{0,24}?"
        r"(?P<value>(?<![\w.#$-])\d(?:[ .-]?\d){6,12}(?!\w|[.-]\d|%))",
        lambda text: not is_date(text),
    ),
)

# Looked for after the known names, which say whose handle it is.
HANDLES = (
    typed(
        "HANDLE",
        "@",
        r"(?<![\w@/])@(?P<value>\w{2,32})(?![\w(@])",
        lambda text: text.lower() not in _TAGS and not _MEASURE.fullmatch(text),
    ),
    typed(
        "HANDLE",
        r"(?i)user_?\d{5}",
        r"(?i)(?<![\w/])user_?\d{5,14}(?!\w)",
    ),
    typed(
        "HANDLE",
        r"(?i)\bid\b",
        r"(?i)\b(?:telegram|tg|discord|user|chat|channel|member|account|my|his|her|their)(?:'s)?[ _-]?(?:user[ _-]?)?id\b"
        r"(?: is)?[\s:=#]{1,3}(?P<value>-?\d{5,20})(?!\w|[.-]\d)",
    ),
    typed("HANDLE", r"(?i)\bu/", r"(?i)(?<![\w.])/?\bu/(?P<value>[\w-]{3,20})(?![\w-])"),
    typed(
        "HANDLE",
        r"\w@\w",
        r"(?<![\w@.])(?P<value>[A-Za-z_][\w.-]*)@(?=[A-Za-z0-9])",
        lambda text: text.lower() not in _NOBODY,
    ),
    typed(
        "USER",
        r"(?i)home/|users[/\\]",
        r"(?i)(?:/home/|/users/|\b[a-z]:\\(?:users|documents and settings)\\)(?P<value>[\w.-]{2,32})",
        lambda text: text.lower() not in _NOBODY,
    ),
)
