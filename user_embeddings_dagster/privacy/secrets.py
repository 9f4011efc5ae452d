"""Secrets: private keys, seed phrases, API keys, tokens, passwords, wallet addresses.

`SECRETS` have a form of their own and are looked for first; `RANDOM` is what looks like chance and is left when
addresses and numbers are gone.
"""

import re

from user_embeddings_dagster.privacy import checksums
from user_embeddings_dagster.privacy.key_forms import GATE, PATTERN, PREFILTER
from user_embeddings_dagster.privacy.kinds import LEFT, RIGHT, Kind, together, typed

_BASE58 = "[1-9A-HJ-NP-Za-km-z]"
_BECH32 = "[ac-hj-np-z02-9]"
_LONG_RUN = "[A-Za-z0-9]{26}"
_RUN = "[A-Za-z0-9]{16}"  # what `checksums.is_random` asks for
_AWS = re.compile("(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z2-7]{16}")
_SECRET_NAMES = (
    r"api[_ -]?key|secret(?:[_ -]?(?:access)?[_ -]?key)?|(?:access|auth|refresh|bearer|session)[_ -]?token|token"
    r"|passw(?:or)?d|pwd|passphrase|pin(?: ?code)?|private[_ -]?key|client[_ -]?secret"
)
PASSED = r"\s*[\"']?(?P<value>[^\s\"',;]{3,}[^\s\"',;.!?)\]}>])"


def is_secret(text: str) -> bool:
    """A digit or a sign among letters: no ordinary word."""
    mixed = any(c.isdigit() for c in text) or not text.isalnum()
    return mixed and any(c.isalnum() for c in text)


def _is_issued(text: str) -> bool:
    """A digit, or capitals among small letters: `live_streaming_enabled` is no key. Some AWS ids have no digit."""
    return any(c.isdigit() for c in text) or not (text.islower() or text.isupper()) or bool(_AWS.fullmatch(text))


class _SeedPhrases(Kind):
    """A run of words may hold more than one."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each phrase in `text`, in order."""
        found = ((match.start(), checksums.seed_phrase_spans(match[0])) for match in self.pattern.finditer(text))
        return [(at + start, at + end) for at, spans in found for start, end in spans]


SECRETS = (
    *together(
        typed(
            "PRIVATE_KEY",
            "-----BEGIN",
            r"-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(?:-----END [A-Z0-9 ]+-----|\Z)",
        ),
        typed("TOKEN", "eyJ", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]+){0,3}"),
        typed("API_KEY", PREFILTER, rf"(?<![A-Za-z0-9])(?:{PATTERN})(?<!\.)(?![A-Za-z0-9])", _is_issued, gate=GATE),
        typed("SECRET", r"-u\s", r"\bcurl\b[^\n]{0,200}? -u\s+[\"']?[^\s:\"']{1,64}:(?P<value>[^\s\"']{3,})"),
        typed("TOKEN", r"(?i:bearer|basic)\s", r"(?i)\b(?:bearer|basic)\s+(?P<value>[\w.~+/=-]{16,})", is_secret),
    ),
    typed(
        "SECRET",
        r"(?i)(?:key|secret|token|pass(?:e|phrase|w(?:or)?[dt])?|pwd|pin(?: ?code)?)[\"']?\s*(?:[:=]|is|est)",
        # no "is" after the short one: "second pass is x86-64"
        rf"(?i)(?<![A-Za-z])(?:(?:{_SECRET_NAMES}|passwort)[\"']?\s*(?:[:=]|\bist?\b)|pass(?:e|wort)?[\"']?\s*[:=]|passe\s+est\b){PASSED}",
        is_secret,
    ),
    typed(  # apart: one Rust expression for both takes three times as long. ASCII flags know no case of "ль"
        "SECRET",
        r"(?i)(?:pw|contrase[nñ]a|senha|пароль)[\"']?\s*[:=]",
        rf"(?i)(?<![A-Za-z])(?:pw|contrase[nñÑ]a|senha|[пП]ароль|ПАРОЛЬ)[\"']?\s*[:=]{PASSED}",
        is_secret,
        gate=r"[wWaAьЬ][\"']?\s*[:=]",
    ),
    _SeedPhrases(
        "SEED_PHRASE",
        r"(?:[A-Za-z]{3,8}[\s,;|:-]+(?:[0-9]{1,2}[\s.):|-]+)?){11}[A-Za-z]{3,8}",
        re.compile(r"(?:\b[A-Za-z]{3,8}\b[\s,;|:-]+(?:\d{1,2}[\s.):|-]+)?){11,}\b[A-Za-z]{3,8}\b", re.ASCII),
    ),
    typed("PRIVATE_KEY", r"\[\s*[0-9]{1,3}\s*,\s*[0-9]", r"\[\s*(?:\d{1,3}\s*,\s*){63}\d{1,3}\s*\]"),
    typed(
        "WALLET",
        "[bcerstBCERST]1[0-9a-zA-Z]{11}",
        rf"(?i){LEFT}(?:(?:bc|tb|ltc)1{_BECH32}{{11,87}}|(?:addr|addr_test|stake|cosmos)1{_BECH32}{{38,103}}){RIGHT}",
    ),
    typed("PRIVATE_KEY", r"[0-9a-fA-F]{64}", rf"{LEFT}(?:0x)?[0-9a-fA-F]{{64}}{RIGHT}", gate=_LONG_RUN),
    typed("PRIVATE_KEY", "[xyztuv]prv", rf"{LEFT}[xyztuv]prv{_BASE58}{{90,120}}{RIGHT}", gate=_LONG_RUN),
    typed(
        "PRIVATE_KEY",
        rf"{_BASE58}{{51}}",
        rf"{LEFT}(?:[5KLc9]{_BASE58}{{50,51}}|{_BASE58}{{86,88}}){RIGHT}",
        checksums.is_mixed_token,
        gate=_LONG_RUN,
    ),
    typed("WALLET", "0x[0-9a-fA-F]{40}", rf"{LEFT}0x[0-9a-fA-F]{{40}}{RIGHT}", gate=_LONG_RUN),
    typed(
        "WALLET",
        f"[13]{_BASE58}{{25}}",
        rf"{LEFT}[13]{_BASE58}{{25,34}}{RIGHT}",
        checksums.is_mixed_token,
        gate=_LONG_RUN,
    ),
    typed("WALLET", f"{_BASE58}{{26}}", rf"{LEFT}{_BASE58}{{26,35}}{RIGHT}", checksums.is_base58check, gate=_LONG_RUN),
    typed("WALLET", f"{_BASE58}{{32}}", rf"{LEFT}{_BASE58}{{32,44}}{RIGHT}", checksums.is_base58_key, gate=_LONG_RUN),
)


def _is_short_secret(text: str) -> bool:
    return checksums.is_random(text, least=12)


RANDOM = (
    typed(  # a short one, after a name such as "dropboxToken" and an operator of some notation
        "SECRET",
        r"(?i)(?:token|secret|key|passw(?:or)?d)[\"'\\]*\s*(?:[<>?+.:=]*[=:>]|[(,|])",
        r"(?i)(?:token|secret|key|passw(?:or)?d)[\"'\\]*\s*(?:[<>?+.:=]*[=:>]|[(,|])[\\\"'`\s=|>]{0,6}"
        r"(?P<value>[A-Za-z0-9_.~+/=-]{12,200}(?<!\.))(?![\w@])",
        _is_short_secret,
    ),
    typed(
        "SECRET",
        r"[=:>,|][`\"'\s=\\|>]{0,6}[A-Za-z0-9_~.+/=-]{16}",
        r"(?<!commit)(?<!sha1)(?<!sha256)(?<!sha512)(?<!md5)(?<!hash)(?:=>|\|\||[=:>,])[`\"'\s=\\|>]{0,6}"
        r"(?<![\w~.+/-])(?P<value>[A-Za-z0-9_~.+/-][A-Za-z0-9_~.+/=-]{15,200}(?<!\.))(?![\w@])",
        checksums.is_random,
        gate=_RUN,
    ),
    typed(
        "SECRET",
        r"[A-Za-z0-9_+=-]{24}",
        r"(?<![\w/.:%@~+&=#-])[A-Za-z0-9_+=-]{24,200}(?![\w/@:]|\.\w)",
        lambda text: checksums.is_mixed_token(text) and checksums.is_random(text),
        gate=_RUN,
    ),
)
