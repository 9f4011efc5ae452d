# ruff: noqa: E501 (patterns are one piece)
"""Accounts elsewhere that a word names ("ig: alice_99", "discord alice#1234"), and those told by their form."""

import re
from dataclasses import replace

from user_embeddings_dagster.privacy.kinds import typed

_WORDS = "discord snap skype telegram steam wechat viber gamertag battle tiktok twitch twitter venmo paypal xbox"


def _cased(words: str) -> str:
    """`words` small and with a capital: Rust looks for literals much faster than for any mixture of cases."""
    return "|".join(form for word in words.split() for form in (word, word.capitalize()))


_NAMES = f"{_cased(_WORDS)}|WeChat|TikTok|PayPal"
_LONG = f"(?:{_NAMES}|[iI]nsta)"
_SHORT = "(?:ig|IG|tg|TG|psn|PSN|icq|ICQ|qq|QQ)"
_CALLED = r"(?i:chat|gram| ?tag|\.?net)?(?:'s)?(?i: (?:id|name|tag|gamertag|handle|user ?name|user|account|acc|nick(?:name)?))?"
_IS = r"(?: ?:| -(?= ))"  # "=" and "is" are of programs: "tg=foo_1", "steam is proton_8"
_GATE = rf"{_NAMES}|[iI]nsta[gGcCtTnN. :']|{_SHORT}(?::| is )|(?:icq|ICQ|qq|QQ)=|7656119|STEAM_"
# A digit or a tag is in it: with an underscore alone it is a variable as well.
_ACCOUNT = r"@?(?:live:)?(?P<value>[A-Za-z](?=[\w.-]*[\d#])[\w.-]{1,30}\w(?:#\d{4,5})?)(?![\w@(#*]|[./:\\-]\w)"
_TOKEN = "[A-Za-z][A-Za-z0-9_.-]*[0-9#]"
# Processors, libraries and releases.
_MACHINE = re.compile(r"(?i)x86_64|lib\w+|[a-z]{1,3}\d{1,4}|.*\d\.\d.*")


def is_account(text: str) -> bool:
    """None of machines."""
    return not _MACHINE.fullmatch(text)


ACCOUNTS = tuple(
    replace(kind, gate=_GATE)
    for kind in (
        typed(  # the token is no ordinary word: a digit or a tag of four digits is in it
            "HANDLE",
            _TOKEN,
            rf"(?<![\w/.@#-])(?:{_LONG}{_CALLED}{_IS}|{_SHORT}:) ?{_ACCOUNT}",
            is_account,
        ),
        typed(
            "HANDLE",
            _TOKEN,
            rf"\b(?i:my|his|her|their|me on) (?:{_LONG}{_CALLED}(?: (?:is|ist|es|est)| ?:)?|{_SHORT} is) {_ACCOUNT}",
            is_account,
        ),
        typed(  # tags, addresses of Skype and numbers of messengers, without a word between
            "HANDLE",
            "#[0-9]{4}|kype:|(?:icq|ICQ|qq|QQ)[:=]",
            r"(?<![\w/.@#-])(?:(?:[dD]iscord|[bB]attle(?i: ?tag|\.?net))\s+(?!(?i:issue|pr|mr|bug|ticket|case)#)(?=[A-Za-z][\w.-]{1,31}#\d{4,5}(?!\w))"
            r"|[sS]kype: ?(?:live:|(?=[A-Za-z-]*[\d._]\w))|(?:icq|ICQ|qq|QQ)[:=] ?(?=\d{5,11}(?!\w|[.-]\d)))"
            r"(?P<value>[\w.][\w.-]{1,31}\w(?:#\d{4,5})?)(?![\w@(]|[:\\/]\w)",
            lambda text: not text.isalpha(),
        ),
        typed(  # a Steam ID in each of its forms: the 64 bits of one begin with these seven digits
            "HANDLE",
            r"7656119[0-9]{10}|STEAM_[0-5]:",
            r"(?<!\w)(?:7656119\d{10}|STEAM_[0-5]:[01]:\d{2,10})(?!\w)",
        ),
    )
)
