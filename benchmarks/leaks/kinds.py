"""The kinds of canaries, written by their public specifications and not by the platform's patterns (C10, C12).

A canary is a value as somebody may write it, the sentence it stands in, and its needles: what must not be found,
whole or in part (the e-mail, its local part, its domain; a telephone number as written and as digits alone).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase, digits

from benchmarks.leaks import makers as m
from benchmarks.leaks import values as v
from benchmarks.leaks.makers import HEX, Made

SHORTEST = 8  # bytes of a needle
RARE_WORD = re.compile("(?:[qxzjvkw][aeiou]){4,}")  # values.word makes them
_PLAIN = (
    "you can have {} if that helps", "I noted {} yesterday", "here: {}", "it was {}, and it worked", "what about {}?",
    "they sent me {} this morning", "take this one ({}) instead", "{} is what I was given", "so in short: {}.",
    "I typed \"{}\" and pressed enter",
)  # fmt: skip
_BEARER = ("Authorization: Bearer {}", "send it with the header authorization: bearer {}", "Bearer {} works")
_CALL = ("call me on {}", "my number: {}", "{} is my new number", "ring {} after six", "whatsapp {} please")
_PEOPLE = (
    "ask {} about it",
    "I met {} at the market",
    "{}, what do you think?",
    "that was the idea of {}.",
    "thanks {}",
)


@dataclass(frozen=True)
class Canary:
    """`written` is the value as planted alone, `sentence` as it is said; none of `needles` may be found.

    The first `wholes` needles are the value; the others are parts of it.
    """

    kind: str
    written: str
    sentence: str
    needles: tuple[str, ...]
    wholes: int = 1
    whole_words: bool = False  # fragments are runs of three words, for words that are ordinary by themselves

    @property
    def alone(self) -> str:
        """What a field holds that has room for one value; the sentence where the value alone could be anything."""
        return self.sentence if self.kind in ("id_passport", "password", "bearer_token") else self.written


# Kind: what makes a value of it, and the sentences that it stands in.
KINDS: dict[str, tuple[Callable[[Random], Made], tuple[str, ...]]] = {
    "email": (m.mail, _PLAIN),
    "email_obfuscated": (m.mail_obfuscated, _PLAIN),
    "email_full_width": (m.mail_full_width, _PLAIN),
    "email_zero_width": (m.mail_zero_width, _PLAIN),
    "phone_us": (m.phone("+1 (ndd) ndd-dddd", "+1-ndd-ndd-dddd", "(ndd) ndd-dddd", "ndd-ndd-dddd"), _CALL),
    "phone_uk": (m.phone("+44 20 7ddd dddd", "+44 7ddd dddddd", "07ddd dddddd"), _CALL),
    "phone_de": (m.phone("+49 30 ndddddd", "+49 151 nddddddd", "0151 nddddddd", "0049 30 ndddddd"), _CALL),
    "phone_fr": (m.phone("+33 6 dd dd dd dd", "06 dd dd dd dd", "06.dd.dd.dd.dd"), _CALL),
    "phone_in": (m.phone("+91 98ddd ddddd", "+91-98dddddddd"), _CALL),
    "phone_br": (m.phone("+55 11 9dddd-dddd", "(11) 9dddd-dddd"), _CALL),
    "phone_jp": (m.phone("+81 90-nddd-dddd", "090-nddd-dddd"), _CALL),
    "phone_ru": (m.phone("+7 (912) ndd-dd-dd", "8 912 ndd-dd-dd", "+7912ddddddd"), _CALL),
    "url_user": (m.url_path, _PLAIN),
    "url_query": (m.url_query, _PLAIN),
    "ipv4": (m.ipv4, _PLAIN),
    "ipv6": (m.ipv6, _PLAIN),
    "mac": (m.mac, _PLAIN),
    "card": (m.plain(v.card), _PLAIN),
    "card_grouped": (m.card_grouped, _PLAIN),
    "iban": (m.plain(v.iban), _PLAIN),
    "iban_spaced": (m.iban_spaced, _PLAIN),
    "id_us_ssn": (m.ssn, _PLAIN),
    "id_uk_nino": (m.nino, _PLAIN),
    "id_es_dni": (m.plain(v.dni), _PLAIN),
    "id_br_cpf": (m.plain(v.cpf), _PLAIN),
    "id_it_codice_fiscale": (m.codice_fiscale, _PLAIN),
    "id_in_aadhaar": (m.aadhaar, _PLAIN),
    "id_tr_tckn": (m.plain(v.tckn), _PLAIN),
    "id_passport": (m.passport, ("my passport number is {}", "passport no. {}", "passport: {}")),
    "coordinates_decimal": (m.decimal, _PLAIN),
    "coordinates_degrees": (m.sexagesimal, _PLAIN),
    "wallet_btc": (m.plain(lambda draw: v.checked58(b"\0" + draw.randbytes(20))), _PLAIN),
    "wallet_btc_bech32": (m.bech32, _PLAIN),
    "wallet_eth": (m.prefixed("0x", 40, HEX), _PLAIN),
    "wallet_sol": (m.plain(lambda draw: v.base58(draw.randbytes(32))), _PLAIN),
    "key_eth": (m.eth_key, _PLAIN),
    "key_btc_wif": (m.plain(lambda draw: v.checked58(b"\x80" + draw.randbytes(32) + b"\x01")), _PLAIN),
    "key_sol": (m.plain(lambda draw: v.base58(draw.randbytes(64))), _PLAIN),
    "key_sol_array": (m.sol_array, _PLAIN),
    "seed_phrase": (m.seed, _PLAIN),
    "api_key_aws": (m.prefixed("AKIA", 16, ascii_uppercase + "234567"), _PLAIN),
    "api_key_github": (m.prefixed("ghp_", 36), _PLAIN),
    "api_key_gitlab": (m.prefixed("glpat-", 20), _PLAIN),
    "api_key_slack": (m.slack, _PLAIN),
    "api_key_stripe": (m.prefixed("sk_live_", 24), _PLAIN),
    "api_key_openai": (m.prefixed("sk-proj-", 48), _PLAIN),
    "api_key_anthropic": (m.prefixed("sk-ant-api03-", 93), _PLAIN),
    "api_key_google": (m.prefixed("AIza", 35), _PLAIN),
    "api_key_huggingface": (m.prefixed("hf_", 34), _PLAIN),
    "api_key_sendgrid": (m.sendgrid, _PLAIN),
    "api_key_twilio": (m.prefixed("SK", 32, HEX), _PLAIN),
    "api_key_npm": (m.prefixed("npm_", 36), _PLAIN),
    "api_key_pypi": (m.prefixed("pypi-AgEIcHlwaS5vcmc", 100), _PLAIN),
    "api_key_shopify": (m.prefixed("shpat_", 32, HEX), _PLAIN),
    "api_key_telegram_bot": (m.telegram_bot, _PLAIN),
    "api_key_discord": (m.discord, _PLAIN),
    "bearer_token": (m.bearer, _BEARER),
    "jwt": (m.jwt, _PLAIN),
    "pem": (m.pem, ("this is the key:\n{}\nkeep it", "{}")),
    "password": (m.password, ("the password is {}", "password: {}", "my pwd={}")),
    "telegram_handle": (m.handle, _PLAIN),
    "telegram_id": (m.prefixed("user", 10, digits[1:]), _PLAIN),
    "reddit_handle": (m.reddit_handle, _PLAIN),
    "home_folder": (m.home, _PLAIN),
}  # fmt: skip
# Names of the people in a thread: planted as names, then said by others. The platform's names, not patterns, mask them.
NAMES = ("name_handle", "name_display", "name_first", "name_unspaced", "name_accented")


def canaries(
    draw: Random, each: int, kinds: Iterable[str] = tuple(KINDS), taken: set[str] | None = None
) -> Iterator[Canary]:
    """`each` canaries of each kind, none of them like what is `taken`, which grows by them."""
    taken = set() if taken is None else taken
    for kind in kinds:
        make, sentences = KINDS[kind]
        for place in range(each):
            sentence = sentences[place % len(sentences)]
            yield apart(lambda make=make, kind=kind, sentence=sentence: canary(kind, *make(draw), sentence), taken)


def canary(kind: str, value: str, parts: Iterable[str], sentence: str) -> Canary:
    """A canary of a value with distinctive parts; what is too short to tell is no needle."""
    plain = unicodedata.normalize("NFKC", "".join(c for c in value if unicodedata.category(c) != "Cf"))
    wholes = tuple(dict.fromkeys((value, plain)))
    if min(len(whole.encode()) for whole in wholes) < SHORTEST:
        raise ValueError(f"a canary of kind {kind} is too short to be found")
    more = (part for part in dict.fromkeys(parts) if part not in wholes and len(part.encode()) >= SHORTEST)
    return Canary(kind, value, sentence.format(value), (*wholes, *more), len(wholes), kind == "seed_phrase")


def apart(draw: Callable[[], Canary], taken: set[str]) -> Canary:
    """A canary of which nothing in `taken` is a needle, nor a made-up word of one: a hit tells which of them it is."""
    while True:
        one = draw()
        needles = [needle.casefold() for needle in one.needles]
        own = {*needles, *(word for needle in needles for word in RARE_WORD.findall(needle))}
        if taken.isdisjoint(own):
            taken |= own
            return one


_HAN = "鑫淼焱垚犇骉羴猋贔晶磊森淼"
_RARE_HAN = "龘靐齉齾爩鱻麤龗灪龖厵滟爨癵籱饢驫鲡鹂鸾"


def named(draw: Random, kind: str) -> Canary:
    """A name of a person who takes part, and a sentence that says it."""
    match kind:
        case "name_handle":
            value = f"{v.word(draw)}_{v.digits(draw, 2)}"
        case "name_display":
            value = f"{v.word(draw, 8).title()} {v.word(draw).title()}"
        case "name_first":
            value = v.word(draw, 9).title()
        case "name_unspaced":
            value = draw.choice(_HAN) + "".join(draw.sample(_RARE_HAN, 3))
        case _:
            value = v.word(draw, 10).title().replace("a", "á").replace("u", "ü").replace("o", "ø").replace("e", "é")
    form = draw.choice(_PEOPLE)
    if kind == "name_unspaced":
        form = draw.choice(("我问{}吧", "{}说得对", "ask {} about it"))
    return canary(kind, value, (), form)
