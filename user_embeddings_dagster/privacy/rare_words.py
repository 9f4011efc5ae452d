# ruff: noqa: E501 (patterns are one piece)
"""Kinds that a rare word or sign announces.

Rust finds few short literals much faster than expressions or many of them: the prefilters are ends of words.
"""

import re

from user_embeddings_dagster.privacy import checksums
from user_embeddings_dagster.privacy.kinds import together, typed
from user_embeddings_dagster.privacy.secrets import PASSED, is_secret

# The sign "@" and the dot by the names that people have for them.
_AT = "arroba|arobase|chiocciola|malpa|małpa|собака"
_BRACKET_AT = r"ät\)|ät\]"
_AT_SIGN = rf"(?:\s{{0,2}}[(\[](?:ät|\s?(?:{_AT})\s?)[)\]]\s{{0,2}}|\s(?:{_AT})\s)"
_DOT = "dot|punkt|punto|ponto|point|kropka|точка"
_DOT_SIGN = rf"(?:\.|\s{{0,2}}[(\[]\s?(?:{_DOT}|\.)\s?[)\]]\s{{0,2}}|\s(?:{_DOT})\s)"
_END = "com|net|org|info|edu|es|ru|it|pl|br|pt|fr|de|mx|ar|cl|co|pe|at|ch|se|fi|eu|ua|by|kz"  # the sign is also a dog or a snail
_PASSWORD_IS = "[pP]w is|PW is|[cC]ontraseña es|[sS]enha é|[пП]ароль это"
_WHAT_3_WORDS = "[wW]hat3words|w3w"

RARE_WORDS = (
    typed(
        "EMAIL",
        rf"{_AT}|{_BRACKET_AT}",
        rf"(?<![\w.])[A-Za-z0-9_.+-]{{1,64}}{_AT_SIGN}[A-Za-z0-9-]{{1,63}}(?:{_DOT_SIGN}[A-Za-z0-9-]{{1,63}}){{0,3}}{_DOT_SIGN}(?:{_END})(?!\w)",
        flags=re.UNICODE,
    ),
    *together(
        typed(
            "SECRET",
            "[pP]w is|PW is|ontraseña es|enha é|ароль это",
            rf"(?<![A-Za-z])(?:{_PASSWORD_IS})\s{PASSED}",
            is_secret,
        ),
        typed(
            "GEO",
            "3words|w3w",
            rf"\b(?:{_WHAT_3_WORDS})\b(?: (?:address|code|is|are)){{0,3}}\s{{0,2}}[:=]?\s{{0,2}}/{{0,3}}"
            r"(?P<value>[^\W\d_]{3,24}(?:\.[^\W\d_]{3,24}){2})(?![\w(\[]|\.\w)",
            flags=re.UNICODE,
        ),
        typed(
            "GEO",
            "°",
            r"\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b"
            r"(?:[\s,;/]*\d{1,3}(?:\.\d+)?°\s*(?:\d{1,2}(?:\.\d+)?\s*['′’]\s*)?(?:\d{1,2}(?:\.\d+)?\s*(?:[\"″”]|''|′′)\s*)?[NSEW]\b)?",
        ),
        typed(  # after the word alone: eight capitals are a word, and Swift is a language
            "IBAN",
            "BIC|SWIFT",
            r"\b(?:BIC|SWIFT(?=[ /-](?i:bic|code|no|is)\b| ?[:=#]))(?i:[ /-](?:bic|swift|code|no|is)\b){0,4}[ :=#.-]{1,3}(?P<value>[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?)(?!\w)",
            checksums.is_bic,
        ),
    ),
)
