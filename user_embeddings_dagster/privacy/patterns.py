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

from user_embeddings_dagster.privacy import checksums
from user_embeddings_dagster.privacy.phones import is_date, is_phone

_LEFT = r"(?<![A-Za-z0-9])"
_RIGHT = r"(?![A-Za-z0-9])"
_BASE58 = "[1-9A-HJ-NP-Za-km-z]"
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
_NOBODY = frozenset("user username users root ubuntu admin you your me myuser home shared public guest".split())


def _whole(check: Callable[[str], bool]) -> Callable[[str], tuple[int, int] | None]:
    return lambda text: (0, len(text)) if check(text) else None


def _iban_span(text: str) -> tuple[int, int] | None:
    end = checksums.iban_length(text)
    return (0, end) if end else None


def _phone_span(text: str) -> tuple[int, int] | None:
    opened = text.startswith("(") and text.count("(") > text.count(")")  # the bracket belongs to the sentence
    return (int(opened), len(text)) if is_phone(text[opened:]) else None


def _is_secret(text: str) -> bool:
    mixed = any(c.isdigit() for c in text) or not text.isalnum()
    return mixed and any(c.isalnum() for c in text)


@dataclass(frozen=True)
class Kind:
    """One kind: `span` gives the part of a match that is the identifier, None if it is not one."""

    name: str
    prefilter: str
    pattern: re.Pattern[str]
    span: Callable[[str], tuple[int, int] | None] = field(default=_whole(bool))


def _kind(name: str, prefilter: str, pattern: str, check: Callable[[str], bool] = bool, flags: int = 0) -> Kind:
    return Kind(name, prefilter, re.compile(pattern, flags), _whole(check))


_KEY_PREFIXES = (
    r"A(?:KIA|SIA|ROA|IDA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}"
    r"|xapp-[\w-]{10,}|[srp]k_(?:live|test)_\w{10,}|whsec_\w{16,}|sk-[\w-]{20,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
    r"|npm_\w{30,}|pypi-[\w-]{16,}|hf_\w{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|(?:AC|SK)[0-9a-f]{32}|dop_v1_[0-9a-f]{32,}"
    r"|EAA[0-9A-Za-z]{30,}|sq0\w{3}-[\w-]{20,}|key-[0-9a-f]{32}|\d{8,10}:[\w-]{35}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
    r"|[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}|lin_api_\w{30,}|r8_\w{30,}|gsk_\w{30,}|nvapi-[\w-]{30,}|vercel_\w{20,}"
)
_SECRET_NAMES = (
    r"api[_ -]?key|secret(?:[_ -]?(?:access)?[_ -]?key)?|(?:access|auth|refresh|bearer|session)[_ -]?token|token"
    r"|passw(?:or)?d|pwd|passphrase|pin(?: ?code)?|private[_ -]?key|client[_ -]?secret"
)

SECRETS = (
    _kind(
        "PRIVATE_KEY",
        "-----BEGIN",
        r"-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(?:-----END [A-Z0-9 ]+-----|\Z)",
    ),
    _kind("TOKEN", "eyJ", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]+){0,3}"),
    _kind(
        "API_KEY",
        r"_\w{10}|-[\w-]{10}|A(?:KIA|SIA|ROA|IDA)|AIza|ya29|SG\.|EAA|:[\w-]{35}|(?:AC|SK)[0-9a-f]{32}|\.[\w-]{27}",
        rf"(?<![A-Za-z0-9])(?:{_KEY_PREFIXES})(?![A-Za-z0-9])",
    ),
    _kind("TOKEN", "(?i)bearer|basic ", r"(?i)\b(?:bearer|basic)\s+(?P<value>[\w.~+/=-]{16,})", _is_secret),
    _kind(
        "SECRET",
        r"(?i)key|secret|token|passw|pwd|passphrase|\bpin\b",
        rf"(?i)(?<![A-Za-z])(?:{_SECRET_NAMES})[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?(?P<value>[^\s\"',;]{{4,}})",
        _is_secret,
    ),
    Kind(
        "SEED_PHRASE",
        r"(?:\b[A-Za-z]{3,8}\b[\s,;.\d)]+){11}[A-Za-z]{3,8}\b",
        re.compile(r"(?:\b[A-Za-z]{3,8}\b[\s,;]+(?:\d{1,2}[.)]\s*)?){11,}\b[A-Za-z]{3,8}\b"),
        checksums.seed_phrase_span,
    ),
    _kind("PRIVATE_KEY", r"[0-9a-fA-F]{64}", rf"{_LEFT}(?:0x)?[0-9a-fA-F]{{64}}{_RIGHT}"),
    _kind("PRIVATE_KEY", "[xyz]prv", rf"{_LEFT}[xyztuv]prv{_BASE58}{{90,120}}{_RIGHT}"),
    _kind(
        "PRIVATE_KEY",
        rf"{_BASE58}{{51}}",
        rf"{_LEFT}(?:[5KLc9]{_BASE58}{{50,51}}|{_BASE58}{{86,88}}){_RIGHT}",
        checksums.is_mixed_token,
    ),
    _kind("PRIVATE_KEY", r"(?:\d{1,3},\s*){63}\d", r"\[\s*(?:\d{1,3}\s*,\s*){63}\d{1,3}\s*\]"),
    _kind("WALLET", "0x[0-9a-fA-F]{40}", rf"{_LEFT}0x[0-9a-fA-F]{{40}}{_RIGHT}"),
    _kind(
        "WALLET",
        "(?i)(?:bc|tb|ltc)1[0-9a-z]{11}",
        rf"(?i){_LEFT}(?:bc|tb|ltc)1[ac-hj-np-z02-9]{{11,87}}{_RIGHT}",
    ),
    _kind("WALLET", f"[13]{_BASE58}{{25}}", rf"{_LEFT}[13]{_BASE58}{{25,34}}{_RIGHT}", checksums.is_mixed_token),
    _kind("WALLET", f"{_BASE58}{{32}}", rf"{_LEFT}{_BASE58}{{32,44}}{_RIGHT}", checksums.is_base58_key),
)

ADDRESSES = (
    _kind(
        "URL",
        r"(?i)://|www\.|\bt(?:elegram)?\.me/|wa\.me/|discord\.gg/|magnet:",
        r"(?i)(?:\b[a-z][a-z0-9+.-]{1,12}://|\bwww\d?\.(?=\w)|(?<![\w.-])(?:t\.me|telegram\.me|wa\.me|discord\.gg)/|\bmagnet:\?)"
        r"[^\s<>\"`]*[^\s<>\"`.,;:!?)\]}'*]",
    ),
    _kind("EMAIL", "@", r"(?<![\w.%+'-])[\w.%+'-]*[\w%+-]@[^\W_][\w-]{0,62}(?:[.。][\w-]{0,62}[^\W_]){1,8}"),
    _kind(
        "EMAIL",
        r"(?i)[(\[{<]\s*(?:at|@|a t)\s*[)\]}>]|[\s_]at[\s_]|@",
        rf"(?i)(?<![\w.])(?:{_LOCAL}{_BRACKET_AT}[\w-]{{1,63}}(?:{_ANY_DOT}[\w-]{{1,63}}){{0,3}}{_ANY_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}[^\W_]{{1,63}}(?:{_DOT}[^\W_]{{1,63}}){{0,3}}{_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}(?:{_MAIL_HOSTS}){_ANY_DOT}[^\W\d_]{{2,6}}"
        rf"|{_LOCAL}{_AT}(?:gmail|googlemail|hotmail|protonmail)"
        rf"|[\w.+-]{{1,64}}\s@\s[\w-]{{1,63}}(?:\s?\.\s?[\w-]{{1,63}}){{0,3}}\s?\.\s?(?:{_TLDS}))(?!\w)",
    ),
    _kind(
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
        re.compile(rf"(?i){_LEFT}[a-z]{{2}}\d{{2}}[0-9a-z]{{11,30}}{_RIGHT}"),
        _iban_span,
    ),
    Kind(
        "IBAN",
        r"[A-Z]{2}\d{2}[ -]?[A-Z0-9]{2}",
        re.compile(rf"{_LEFT}[A-Z]{{2}}\d{{2}}{_GROUPED}"),
        _iban_span,
    ),
    _kind(
        "CARD",
        r"(?:\d[ -]?){11}\d",
        r"(?<![\w.])(?:[3456]\d(?:[ -]?\d){12,17}|2[2-7](?:[ -]?\d){14}|4(?:[ -]?\d){12}|[56](?:[ -]?\d){11,12}|(?:1800|2131)(?:[ -]?\d){11}|0604(?:[ -]?\d){8})(?!\w|[.-]\d)",
        checksums.is_card,
    ),
    _kind("NATIONAL_ID", r"\d{3}[- ]\d{2}[- ]\d{4}", r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])"),
    _kind(
        "NATIONAL_ID",
        r"(?i)ssn|social security|passport|national id|driver|tax id|licen[cs]e n",
        r"(?i)\b(?:ssn|social security|passport|national id|driver'?s? licen[cs]e|tax id|licen[cs]e)(?: (?:no|number|num|#))?\.?(?:\s*[:=#]\s*|\s+is\s+|\s+)"
        r"(?P<value>[A-Z0-9][A-Z0-9-]{4,14})(?!\w)",
        lambda text: sum(c.isdigit() for c in text) >= 4,
    ),
    _kind(
        "NATIONAL_ID",
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        rf"{_LEFT}[A-CEGHJ-PR-TW-Z]{{2}} ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{_RIGHT}",
    ),
    _kind(
        "NATIONAL_ID",
        r"[A-Z]{6}\d{2}[A-Z]\d{2}",
        rf"{_LEFT}[A-Z]{{6}}\d{{2}}[A-EHLMPRST]\d{{2}}[A-Z]\d{{3}}[A-Z]{_RIGHT}",
    ),
    _kind(
        "NATIONAL_ID",
        r"[XYZ\d]-?\d{7}-?[A-Z]",
        rf"{_LEFT}[XYZ\d]-?\d{{7}}-?[A-HJ-NP-TV-Z]{_RIGHT}",
        checksums.is_dni,
    ),
    _kind(
        "NATIONAL_ID",
        r"\d{3}\.\d{3}\.\d{3}-\d{2}",
        r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)",
        checksums.is_cpf,
    ),
    _kind(
        "NATIONAL_ID",
        r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}",
        r"(?<![\w-])[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\w-]|\1\d)",
    ),
    _kind("NATIONAL_ID", r"[1-9]\d{10}", r"(?<![\w.])[1-9]\d{10}(?!\w|\.\d)", checksums.is_tckn),
    _kind(
        "GEO",
        r"\d\.\d{3,}",
        r"(?<![\w.])[-+]?\d{1,2}\.\d{3,}°?\s*(?:[NS]\b\s*[,;/]?|[,;/])\s*[-+]?\d{1,3}\.\d{3,}(?:°?\s*[EW]\b|°)?(?![\w.]\d)",
        checksums.is_coordinate_pair,
    ),
    _kind(
        "GEO",
        "°",
        r"\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b"
        r"(?:[\s,;/]*\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b)?",
    ),
    _kind(
        "MAC",
        r"(?i)(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}",
        r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])",
    ),
    _kind(
        "MAC",
        r"(?i)(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}",
        r"(?i)(?<![\w.])(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}(?!\w|\.\w)",
        lambda t: any(c.isdigit() for c in t),
    ),
    _kind(
        "IP",
        r"\d\.\d{1,3}\.\d{1,3}\.\d",
        r"(?<![\w.])(?!127\.0\.0\.1\b|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?!\w|\.\d)",
        checksums.is_ipv4,
    ),
    _kind(
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
    _kind(
        "PHONE",
        r"(?i)phone|call|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me",
        r"(?i)\b(?:(?:tele)?phone|call(?:ing)?|tel|mobile|cell|fax|number|dial|reach|whatsapp|text me)\b[^\d\n]{0,24}?"
        r"(?P<value>(?<![\w.#$-])\d(?:[ .-]?\d){6,12}(?!\w|[.-]\d|%))",
        lambda text: not is_date(text),
    ),
)

# Looked for after the known names, which say whose handle it is.
HANDLES = (
    _kind(
        "HANDLE",
        "@",
        r"(?<![\w@/.])@(?P<value>[^\W\d_][\w]{2,31})(?![\w(@])",
        lambda text: text.lower() not in _TAGS,
    ),
    _kind("HANDLE", r"(?i)\bu/", r"(?i)(?<![\w.])/?\bu/(?P<value>[\w-]{3,20})(?![\w-])"),
    _kind(
        "HANDLE",
        r"\w@\w",
        r"(?<![\w@.])(?P<value>[A-Za-z_][\w.-]*)@(?=[A-Za-z0-9])",
        lambda text: text.lower() not in _NOBODY,
    ),
    _kind(
        "USER",
        r"(?i)home/|users[/\\]",
        r"(?i)(?:/home/|/users/|\b[a-z]:\\(?:users|documents and settings)\\)(?P<value>[\w.-]{2,32})",
        lambda text: text.lower() not in _NOBODY,
    ),
)
