# ruff: noqa: E501 (patterns are one piece)
"""Numbers that stand for somebody: accounts, cards, national identity, places, devices, telephones.

In the order in which they are looked for; earlier kinds win.
"""

import re
from collections.abc import Callable

from user_embeddings_dagster.privacy import checksums
from user_embeddings_dagster.privacy.codes import codes
from user_embeddings_dagster.privacy.kinds import LEFT, RIGHT, Kind, typed
from user_embeddings_dagster.privacy.national_ids import national_ids
from user_embeddings_dagster.privacy.phones import is_date, is_phone

_FOUR_DIGITS = r"[0-9](?:[^0-9]*[0-9]){3}"
_SIX_DIGITS = r"[0-9](?:[^0-9]{0,4}[0-9]){5}"
_PLUS_DIGIT = "[23456789CFGHJMPQRVWX]"
_BRACKET_DOT = r"[\[({](?:\.|dot)[\])}]"
_HEX_GROUPS = r"[:.-][0-9a-fA-F]{0,4}[:.-]"
_DOCUMENTS = (
    "ssn|social security|passport|reisepass|national id|identity card|id card|personalausweis|driver'?s? licen[cs]e|driving licen[cs]e"
    "|licen[cs]e|tax id|itin|steuer-?id|nhs|medicare|aadhaar|dea|dni|pesel|vin|chassis|fahrgestellnummer|bank account|account number|routing|sort code"
)


_DEGREES = r"[\"']?\s{0,3}[:=]?\s{0,3}[\"']?([-+]?\d{1,3}[.,]\d{1,15}°?)(?![\w°]|[.,]\d)"
_LATITUDE = rf"(?<![A-Za-z])(?:lat(?:itud(?:e|ine)?)?|breitengrad|[шШ]ирот[аы]){_DEGREES}"
_LONGITUDE = rf"(?<![A-Za-z])(?:lng|lon(?:g(?:itud(?:e|ine)?)?)?|l(?:ä|ae)ngengrad|[дД]олгот[аы]){_DEGREES}"
_AXES_GAP = r"[\"']?[\s,;/&|]{1,4}(?:and |und |y |et )?[\"']?"


def _leading(length: Callable[[str], int]) -> Callable[[str], tuple[int, int] | None]:
    """As much of the match as `length` says, from its start."""
    return lambda text: (0, end) if (end := length(text)) else None


class _Groups(Kind):
    """A match may take in groups of the next number, or begin before the number: the search goes on within it."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each number in `text`, in order."""
        found, at = [], 0
        while match := self.pattern.search(text, at):
            at = match.start() + 1
            if span := self.span(match[0]):
                at = match.start() + span[1]
                found.append((match.start(), at))
        return found


class _Pairs(Kind):
    """A match holds two identifiers: every group that took part is one."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each group in `text`, in order."""
        found = (
            match.span(group) for match in self.pattern.finditer(text) for group in range(1, self.pattern.groups + 1)
        )
        return [span for span in found if span[0] >= 0]


_WIDE_GAP = re.compile(r"[ \u00a0().\-/]{2,3}")


def _phone_span(text: str) -> tuple[int, int] | None:
    opened = text.startswith("(") and text.count("(") > text.count(")")  # the bracket belongs to the sentence
    return (int(opened), len(text)) if is_phone(text[opened:]) else None


class _Phones(Kind):
    """Numbers side by side, or a count before one, are one run of digits that is no number: then its parts are tried."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each number in `text`, in order."""
        found, at = [], 0
        while match := self.pattern.search(text, at):
            at = match.end()
            if span := self.span(match[0]) or _part(match[0]):
                found.append((match.start() + span[0], match.start() + span[1]))
                at = found[-1][1]
        return found


def _part(run: str) -> tuple[int, int] | None:
    """The first number between gaps of two characters or more, such as " (" and ". "; of those from there the longest."""
    gaps = [gap.span() for gap in _WIDE_GAP.finditer(run)]
    starts = [0, *(end - (run[end - 1] == "(") for _, end in gaps)]  # "124. (11) 91234-5678": the bracket is its own
    ends = [*(start for start, _ in gaps), len(run)]
    parts = ((start, end) for place, start in enumerate(starts) for end in reversed(ends[place:])) if gaps else ()
    for start, end in parts:
        if span := _phone_span(run[start:end]):
            return start + span[0], start + span[1]
    return None


NUMBERS = (
    typed(  # Open Location Code in full; of digits alone it would be a sum
        "GEO",
        rf"{_PLUS_DIGIT}{{8}}\+{_PLUS_DIGIT}{{2}}",
        rf"(?<![\w+])[2-9C][2-9CFGHJMPQRV]{_PLUS_DIGIT}{{6}}\+{_PLUS_DIGIT}{{2,3}}(?![\w+])",
        lambda text: not text[:8].isdigit(),
    ),
    typed(
        "MAC",
        r"(?i)(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}",
        r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])",
        gate=_HEX_GROUPS,
    ),
    typed(
        "MAC",
        r"(?i)(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}",
        r"(?i)(?<![\w.])(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}(?!\w|\.\w)",
        lambda t: any(c.isdigit() for c in t),
        gate=_HEX_GROUPS,
    ),
    typed(
        "IP",
        r":[0-9a-fA-F]{0,4}:",
        r"(?<![\w:])(?:[0-9a-fA-F]{1,4}|:):(?:[0-9a-fA-F]{0,4}:){0,6}[0-9a-fA-F]{0,4}(?:%\w+)?(?![\w:])",
        checksums.is_ipv6,
        gate=_HEX_GROUPS,
    ),
    _Groups(
        "IBAN",
        r"[A-Za-z]{2}[0-9]{2}(?:[ A-Za-z-]*[0-9]){8}",
        re.compile(rf"(?i){LEFT}[a-z]{{2}}\d{{2}}(?:[ -]?[0-9a-z]{{1,4}}){{3,10}}", re.ASCII),
        _leading(checksums.iban_length),
        gate=_FOUR_DIGITS,
    ),
    typed(
        "NATIONAL_ID",
        rf"(?i)(?:{_DOCUMENTS})[^a-z]",
        rf"(?i)\b(?:{_DOCUMENTS})(?: (?:no|nr|number|num|code|#))?\.?(?:\s*[:=#]\s*|\s+is\s+|\s+)(?P<value>[A-Z0-9][A-Z0-9-]{{4,16}})(?!\w)",
        lambda text: sum(c.isdigit() for c in text) >= 4,
        gate=_FOUR_DIGITS,
    ),
    typed(  # Medicare beneficiary identifier (CMS): of its eleven characters five to eight are digits
        "NATIONAL_ID",
        "[1-9][A-Z][A-Z0-9][0-9]-?[A-Z][A-Z0-9][0-9]-?[A-Z]{2}[0-9]{2}",
        rf"{LEFT}[1-9][A-Z][A-Z0-9]\d-?[A-Z][A-Z0-9]\d-?[A-Z]{{2}}\d{{2}}{RIGHT}",
        gate=_FOUR_DIGITS,
    ),
    typed(  # Indian PAN
        "NATIONAL_ID",
        "[A-Z]{5}[0-9]{4}[A-Z]",
        rf"{LEFT}[A-Z]{{3}}[ABCFGHLJPT][A-Z]\d{{4}}[A-Z]{RIGHT}",
        gate=_FOUR_DIGITS,
    ),
    *codes(_FOUR_DIGITS),
    typed(
        "NATIONAL_ID",
        "[A-HJ-NPR-Z0-9]{13}[0-9]{4}",
        rf"{LEFT}[A-HJ-NPR-Z0-9]{{13}}[0-9]{{4}}{RIGHT}",
        checksums.is_vin,
        gate=_FOUR_DIGITS,
    ),
    _Pairs(
        "GEO",
        r"(?:(?i-u:lat|lon|lng|grad)[a-zA-Z]{0,7}|от[аы])[\"']?[ \t\n\r\f\v:=]{0,7}[\"']?[-+]?[0-9]{1,3}[.,][0-9]",
        re.compile(rf"(?i){_LATITUDE}{_AXES_GAP}{_LONGITUDE}|{_LONGITUDE}{_AXES_GAP}{_LATITUDE}", re.ASCII),
        gate=_FOUR_DIGITS,
    ),
    typed(
        "GEO",
        r"[0-9]\.[0-9]{3,}",
        r"(?<!\w)(?<!\d\.)[-+]?\d{1,2}\.\d{3,}°?\s*(?:[NS]\b\s*[,;/]?|[,;/])\s*[-+]?\d{1,3}\.\d{3,}(?:°?\s*[EW]\b|°)?(?![\w.]\d)",
        checksums.is_coordinate_pair,
        gate=_FOUR_DIGITS,
    ),
    typed(
        "GEO",
        r"[NS] ?[0-9]{1,2}\.[0-9]{3}",
        r"\b[NS] ?\d{1,2}\.\d{3,}°?[\s,;/]{1,4}[EW] ?\d{1,3}\.\d{3,}°?(?![\w.]\d)",
        checksums.is_coordinate_pair,
        gate=_FOUR_DIGITS,
    ),
    typed(  # one by one, for what stands between them; "lat: 12.345 ms" is a latency
        "GEO",
        r"[tgneTGNE][\"']?\s{0,3}[:=]\s{0,3}[\"']?[-+]?[0-9]{1,3}\.[0-9]{3}",
        r"(?i)(?<![A-Za-z])(?:lat(?:itude)?|lng|lon(?:g(?:itude)?)?)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
        r"(?P<value>[-+]?\d{1,3}\.\d{3,}°?)(?!\w|\.\d|\s?[mun]?s(?:ec)?\b)",
        gate=_FOUR_DIGITS,
    ),
    typed(
        "IP",
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        r"(?<!\w)(?<!\w\.)(?!127\.0\.0\.1\b|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?!\w|\.\d)",
        checksums.is_ipv4,
        gate=_FOUR_DIGITS,
    ),
    typed(  # "defanged", so that no program makes a link of it
        "IP",
        rf"[0-9]{_BRACKET_DOT}[0-9]",
        rf"(?<!\w)(?<!\w\.)(?=[\d.]*{_BRACKET_DOT})\d{{1,3}}(?:(?:\.|{_BRACKET_DOT})\d{{1,3}}){{3}}(?::\d{{1,5}}|/\d{{1,2}})?(?!\w|\.\d)",
        checksums.is_ipv4,
        gate=_FOUR_DIGITS,
    ),
    _Groups(
        "CARD",
        r"(?:[0-9][ -]?){11}[0-9]",
        re.compile(
            r"(?<!\w)(?<!\d\.)(?:[3456]\d(?:[ -]?\d){12,17}|2[2-7](?:[ -]?\d){14}|4(?:[ -]?\d){12}|[56](?:[ -]?\d){11,12}|(?:1800|2131)(?:[ -]?\d){11}|0604(?:[ -]?\d){8})(?!\w|[.-]\d)",
            re.ASCII,
        ),
        _leading(checksums.card_length),
        gate=_SIX_DIGITS,
    ),
    typed(  # other signs stand in fractions and in code too: only between a card's groups
        "CARD",
        "[0-9]{4}[._·•][0-9]{4,6}[._·•][0-9]{4}",
        r"(?<!\w)(?<!\d\.)(?:[2-6]\d{3}([._·•])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3[47]\d\d([._·•])\d{6}\2\d{5})(?!\w|[.·•-]\d)",
        checksums.is_card,
        gate=_SIX_DIGITS,
    ),
    *national_ids(_SIX_DIGITS),
    _Phones(
        "PHONE",
        r"[0-9](?:[ ().\-/·•]{0,3}[0-9]){6}",
        re.compile(
            r"(?<![\w@/#$€£=-])(?<!\d\.)(?:\+\s?|tel:\s*\+?)?\(?\+?\d(?:[ \u00a0().\-/·•]{0,3}\d){6,16}(?:\s*(?:x|ext\.?|#)\s*\d{1,6})?(?!\w|[.\-/:]\d|%)",
            re.ASCII,
        ),
        _phone_span,
        gate=_SIX_DIGITS,
    ),
    typed(
        "PHONE",
        r"(?i)phone|call|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me",
        r"(?i)\b(?:(?:tele)?phone|call(?:ing)?|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me)\b[^\d]{0,24}?"
        r"(?P<value>(?<![\w#$-])(?<!\d\.)\d(?:[ .·•-]?\d){6,12}(?!\w|[.-]\d|%))",
        lambda text: not is_date(text),
        gate=_SIX_DIGITS,
    ),
)
