# ruff: noqa: E501, SIM905 (patterns are one piece)
"""Addresses on the Internet, and handles: kinds of personal data in the order in which they are looked for.

Earlier kinds win. A whole URL becomes `<URL>`: its host, path and query name people (`alice.dev`, `/u/alice`,
`?email=`), and no list of harmless hosts stays harmless.
"""

import re

from user_embeddings_dagster.privacy.accounts import ACCOUNTS
from user_embeddings_dagster.privacy.kinds import LETTERS, WholeColumn, together, typed
from user_embeddings_dagster.privacy.rare_words import RARE_WORDS

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
_ENCODED_AT = r"(?:@|%40|&#64;|\\u0040)"  # as addresses, pages and JSON write it
_DOT = r"(?:\s{0,2}[(\[{<]\s{0,2}(?:dot|\.)\s{0,2}[)\]}>]\s{0,2}|[\s_]{1,3}dot[\s_]{1,3})"
_ANY_DOT = rf"(?:{_DOT}|\s?\.\s?)"
_LOCAL = rf"[\w.+-]{{1,64}}?(?:{_DOT}[\w.+-]{{1,64}}?){{0,2}}"
_SPELLED = (
    rf"(?i)[(\[{{<]\s*(?:at|@|a t|a)\s*[)\]}}>]|\s@\s|(?:[\s_]at[\s_]{{1,3}}|@\s{{0,2}})"
    rf"(?:[\p{{L}}\p{{N}}]+(?:\s{{0,2}}[(\[{{<]\s{{0,2}}(?:dot|\.)|[\s_]{{1,3}}dot[\s_])|{_MAIL_HOSTS})"
)
_LIBRARIES = re.compile(r"(?i)(?:std|java|javax|asp|vb|ado|socket|sys)\.(?:io|net)")
_TAGS = frozenset(  # words after "@" in code and style sheets that are nobody's handle
    "abstractmethod author asyncio charset classmethod cached_property compileerror compilelog dataclass "
    "deprecated export extends fixture font-face import imports include interface keyframes layer link media "
    "namespace nonnull nullable override overload param params private property protected public return "
    "returns see since staticmethod supports suppresswarnings template test throws todo type typedef wraps "
    "aligncast alignof asynccall atomicload atomicrmw atomicstore bitcast bitoffsetof bitreverse bitsizeof booltoint byteoffsetof "
    "byteswap bytestoslice cdefine cimport cinclude cmpxchgstrong cmpxchgweak cundef embedfile enumfromint enumtoint errorname "
    "errorreturntrace errsetcast fieldparentptr floatcast floatfromint floattoint frameaddress framesize hasdecl hasfield inlinecall "
    "intcast intfromenum intfromptr inttoenum inttofloat inttoptr newstackcall noinlinecall offsetof opaquetype popcount ptrcast "
    "ptrfromint ptrtoint returnaddress setalignstack setcold setevalbranchquota setfloatmode setruntimesafety sizeof slicetobytes "
    "tagname tagtype typeid typeinfo typename typeof unioninit".split()
)
_MEASURE = re.compile(r"(?i)[\d_]+(?:[ap]m|h|hrs?|min|s|k|m|x|st|nd|rd|th|px|dpi|fps|[kmgt]?i?b|[kmg]?hz|v|w|%)?")
_NOBODY = frozenset("user username users root ubuntu admin you your me myuser home shared public guest".split())
_UNTIL = r"[^\s<>\"`]*[^\s<>\"`.,;:!?)\]}'*]"
_CHATS = r"(?:t\.me|telegram\.me|wa\.me|discord\.gg)/"

ADDRESSES = (
    *together(
        typed(
            "URL",
            r"(?i)://|www|\.me/|discord\.gg/|magnet:",
            rf"(?i)(?:\b[a-z][a-z0-9+.-]{{1,12}}://|\bwww\d?\.(?=\w)|(?<![\w-]){_CHATS}|\bmagnet:\?){_UNTIL}",
            whole_column=WholeColumn(
                rf"(?i)(?:(^|[^0-9a-z_])(?:(?:[a-z][a-z0-9+.-]{{1,12}}://|magnet:\?){_UNTIL}|www[0-9]?\.[0-9a-z_](?:{_UNTIL})?)"
                rf"|(^|[^0-9a-z_-]){_CHATS}{_UNTIL})",
                "${1}${2}MARK",
            ),
        ),
        typed(
            "EMAIL",
            rf"{_ENCODED_AT}[^\s@]+[.。]",
            rf"(?:(?<![\w.%+'-])[\w.%+'-]*[\w%+-]|\"[^\"\n]{{1,64}}\"){_ENCODED_AT}[^\W_][\w-]{{0,62}}(?:[.。][\w-]{{0,62}}[^\W_]){{1,8}}",
            flags=re.UNICODE,
        ),
        typed(
            "EMAIL",
            _SPELLED,
            rf"(?i)(?<![\w.])(?:{_LOCAL}{_BRACKET_AT}[\w-]{{1,63}}(?:{_ANY_DOT}[\w-]{{1,63}}){{0,3}}{_ANY_DOT}[^\W\d_]{{2,6}}"
            rf"|{_LOCAL}{_AT}[^\W_]{{1,63}}(?:{_DOT}[^\W_]{{1,63}}){{0,3}}{_DOT}[^\W\d_]{{2,6}}"
            rf"|{_LOCAL}{_AT}(?:{_MAIL_HOSTS}){_ANY_DOT}[^\W\d_]{{2,6}}"
            rf"|{_LOCAL}{_AT}(?:gmail|googlemail|hotmail|protonmail)"
            rf"|[\w.+-]{{1,64}}\s@\s[\w-]{{1,63}}(?:\s?\.\s?[\w-]{{1,63}}){{0,3}}\s?\.\s?(?:{_TLDS}))(?!\w)",
            flags=re.UNICODE,
        ),
        typed(  # in brackets "a" is also an index or a condition of code
            "EMAIL",
            r"[(\[]\s?[aA]\s?[)\]]",
            rf"(?i)(?<![\w.]){_LOCAL}(?:[(\[]a[)\]][\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,3}}\.(?:{_TLDS})"
            rf"|\s?[(\[]\s?a\s?[)\]]\s?(?:{_MAIL_HOSTS}){_ANY_DOT}[^\W\d_]{{2,6}})(?!\w)",
            flags=re.UNICODE,
        ),
        *RARE_WORDS,
    ),
    typed(
        "URL",
        rf"(?i)[a-z0-9-]\.(?:{_TLDS})",
        rf"(?i)(?<![\w@/\\-])(?<![\w-]\.)(?:[a-z0-9][a-z0-9-]*\.){{1,126}}(?:{_TLDS})(?:\.[a-z]{{2}})?(?![\w(-]|\.\w)(?:[:/][^\s<>\"`]*[^\s<>\"`.,;:!?)\]}}'*])?",
        lambda text: not _LIBRARIES.fullmatch(text),
    ),
)

# Looked for after the known names, which say whose handle it is.
HANDLES = (
    typed(
        "HANDLE",
        "@",
        rf"@(?<![\w@/]@)(?P<value>[{LETTERS}]{{2,32}}(?![{LETTERS}(@])(?u:(?!\w))|(?u:\w{{2,32}}(?![\w(@])))",
        lambda text: text.lower() not in _TAGS and not _MEASURE.fullmatch(text),
        whole_column=WholeColumn(
            rf"(^|[^0-9A-Za-z_@/])@[{LETTERS}]{{2,32}}($|[^{LETTERS}(@])",
            "${1}@MARK${2}",
            rf"(?i:@(?:{'|'.join(sorted(_TAGS))})(?:[^{LETTERS}]|$))|@[0-9_]|@[{LETTERS}]*[\p{{L}}\p{{M}}\p{{N}}&&[^{LETTERS}]]",
            times=2,
        ),
    ),
    *together(
        typed(
            "HANDLE",
            r"[rR]_?[0-9]{5}",
            r"(?i)(?<![\w/])user_?\d{5,14}(?!\w)",
        ),
        typed(
            "HANDLE",
            r"[iI][dD](?: [iI][sS])?[\s:=#]{1,3}-?[0-9]",
            r"(?i)\b(?:telegram|tg|discord|user|chat|channel|member|account|my|his|her|their)(?:'s)?[ _-]?(?:user[ _-]?)?id\b"
            r"(?: is)?[\s:=#]{1,3}(?P<value>-?\d{5,20})(?!\w|[.-]\d)",
        ),
        typed("HANDLE", "[uU]/", r"(?i)(?<!\w)/?\bu/(?P<value>[\w-]{3,20})(?![\w-])(?u:(?!\w))"),
        typed(
            "HANDLE",
            r"[A-Za-z0-9_.-]@[A-Za-z0-9]",
            r"(?<![\w@.])(?P<value>[A-Za-z_][\w.-]{1,64})@(?=[A-Za-z0-9])",
            lambda text: text.lower() not in _NOBODY,
        ),
        typed(
            "USER",
            r"[mM][eE]/|[rR][sS][/\\]|[gG][sS]\\",
            r"(?i)(?:/home/|/users/|\b[a-z]:\\(?:users|documents and settings)\\)(?P<value>[\w.-]{2,32})",
            lambda text: text.lower() not in _NOBODY,
        ),
        *ACCOUNTS,
    ),
)
