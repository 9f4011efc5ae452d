# ruff: noqa: E501 (tables of values)
"""Labelled messages of our own making: every kind of identifier in chat sentences, benign ones, planted participants.

The people who wrote these wrote the rules too, so their scores flatter: they show that nothing broke. What is worth
believing is measured on data that others labelled (`evaluation.pii.read_presidio`, `read_conll`). Values are made up;
check digits are right where a kind has them.
"""

import base64
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from user_embeddings_dagster.evaluation.pii import LabelledText, labelled
from user_embeddings_dagster.privacy.checksums import seed_words

NAME = "OWN_MADE"
_B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_B32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_ALNUM = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_FIRST = (
    "Sarah",
    "Kevin",
    "Laura",
    "Miguel",
    "Hannah",
    "Dmitri",
    "Ingrid",
    "Tobias",
    "Yolanda",
    "Rashid",
)
_LAST = (
    "Whitfield",
    "Kowalczyk",
    "Barnes",
    "Okafor",
    "Lindqvist",
    "Ferrara",
    "Nakamura",
    "Doyle",
    "Castellano",
    "Petrov",
)
_WORDS = (
    "maple",
    "harbor",
    "velvet",
    "cobalt",
    "lantern",
    "pixel",
    "thunder",
    "saffron",
    "meadow",
    "orbit",
)
_BEFORE = ("", "ok so it's ", "hey, use ", "sent to ", "lol mine was (", "first line\n", "ask him: ", "не знаю, ")
_AFTER = ("", " thanks", ", right?", ". bye", "!!", ")", "\nlast line", " 🙂")
BENIGN = (
    "I think 3.14 is close enough, see you at 12:30 on Friday", "version 1.2.3 broke the build again, rolled back to 1.1.9",
    "that costs 1,299.99 and ships in 3-5 days", "will you be there in may? mark the date", "the chase was long but worth it",
    "Look at this, the bill is 40 euros", "we moved to Paris last summer", "I love Java and Python but not Perl",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 fixes it", "uuid 123e4567-e89b-12d3-a456-426614174000 is only an example",
    "10 to 15 people, 2 cars and 1 dog", "std::vector<int> grows, see main.rs and foo.py", "Yes! No? Maybe. Thanks a lot",
    "the ratio is 16:9 at 1920x1080", "in 2019 it was 5% and in 2020 12%", "meet me at noon, dot the i and cross the t",
    "linux-image-6.1.0-18-amd64 will not boot", "Happy New Year everyone", "Can I get the recipe? It was delicious",
    "God I hope so", "March was cold, April was worse, August is hot", "error 0x80070057 at line 4096", "C++17 vs C++20, that is it",
)  # fmt: skip
_ISSUERS = (("AKIA", string.ascii_uppercase + "234567", 16), ("ghp_", _ALNUM, 36), ("sk-proj-", _ALNUM, 48),
            ("xoxb-", string.digits, 24), ("AIza", _ALNUM, 35), ("glpat-", _ALNUM, 20), ("hf_", string.ascii_letters, 34),
            ("sk_live_", _ALNUM, 24), ("npm_", _ALNUM, 36), ("SK", _HEX, 32), ("dop_v1_", _HEX, 64), ("lin_api_", _ALNUM, 40),
            ("shpat_", _HEX, 32), ("hvs.", _ALNUM, 90), ("dapi", _HEX, 32), ("pypi-", _ALNUM, 60))  # fmt: skip


def _pick(draw: random.Random, alphabet: str, size: int) -> str:
    return "".join(draw.choices(alphabet, k=size))


def _mixed(draw: random.Random, alphabet: str, size: int) -> str:
    """Random characters with a digit, a capital and a small letter among them."""
    text = list(_pick(draw, alphabet, size))
    for place, kind in zip(draw.sample(range(1, size), 6), ("23456789", "ABCDEF", "abcdef") * 2, strict=True):
        text[place] = draw.choice(kind)
    return "".join(text)


def _user(draw: random.Random) -> str:
    return draw.choice(_WORDS) + draw.choice((".", "_", "")) + draw.choice(_WORDS) + draw.choice(("", "7", "88"))


def _email(draw: random.Random) -> str:
    return f"{_user(draw)}@{draw.choice(_WORDS)}.{draw.choice(('com', 'org', 'co.uk', 'example', 'de'))}"


def _spelled_email(draw: random.Random) -> str:
    at = draw.choice((" at ", " (at) ", "[at]", " AT "))
    return f"{draw.choice(_WORDS)}{at}{draw.choice(('gmail', 'protonmail', 'outlook'))}{draw.choice((' dot ', ' [dot] '))}com"


def _wide_email(draw: random.Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in _email(draw).replace("_", "x"))


def _split_email(draw: random.Random) -> str:
    return "\u200b".join(_email(draw).partition("@"))


def _phone(draw: random.Random) -> str:
    area, middle, last = (draw.randint(*ends) for ends in ((201, 989), (201, 989), (1000, 9999)))
    forms = (
        f"+1 {area} {middle} {last}",
        f"({area}) {middle}-{last}",
        f"{area}-{middle}-{last}",
        f"+44 20 7{middle} {last}",
    )
    return draw.choice((*forms, f"+49 30 {middle}{last}", f"0{draw.randint(30, 89)} {middle} {last}"))


def _luhn(draw: random.Random) -> str:
    digits = [4, *(draw.randrange(10) for _ in range(14))]
    total = sum(sum(divmod(2 * d, 10)) if place % 2 == 0 else d for place, d in enumerate(digits))
    text = "".join(map(str, (*digits, -total % 10)))
    return draw.choice(
        (text, " ".join(text[i : i + 4] for i in range(0, 16, 4)), "-".join(text[i : i + 4] for i in range(0, 16, 4)))
    )


def _iban(draw: random.Random) -> str:
    account = _pick(draw, string.digits, 18)
    check = 98 - int(account + "131400") % 97  # D = 13, E = 14
    text = f"DE{check:02d}{account}"
    return draw.choice((text, " ".join(text[i : i + 4] for i in range(0, 22, 4))))


def _ipv6(draw: random.Random) -> str:
    return "2001:db8:" + ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(6))


def _solana(draw: random.Random) -> str:
    number, text = int.from_bytes(bytes([draw.randrange(1, 256), *draw.randbytes(31)])), ""
    while number:
        number, rest = divmod(number, 58)
        text = _B58[rest] + text
    return text


def _pem(draw: random.Random) -> str:
    kind, body = draw.choice(("RSA ", "EC ", "OPENSSH ", "")), base64.b64encode(draw.randbytes(96)).decode()
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body[:64]}\n{body[64:]}\n-----END {kind}PRIVATE KEY-----"


def _jwt(draw: random.Random) -> str:
    parts = (
        base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        for text in ('{"alg":"HS256"}', f'{{"sub":"{draw.random()}"}}')
    )
    return ".".join((*parts, _pick(draw, _ALNUM + "_-", 42) + "x"))


def _key(draw: random.Random) -> str:
    literal, alphabet, size = draw.choice(_ISSUERS)
    return literal + _pick(draw, alphabet, size)


MAKERS: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "email": ("EMAIL", _email),
    "email, spelled": ("EMAIL", _spelled_email),
    "email, full width": ("EMAIL", _wide_email),
    "email, zero width": ("EMAIL", _split_email),
    "phone": ("PHONE", _phone),
    "link": ("URL", lambda d: f"https://{d.choice(_WORDS)}.dev/u/{_user(d)}?ref={d.randrange(999)}"),
    "bare host": ("URL", lambda d: f"{d.choice(_WORDS)}{d.choice(_WORDS)}.{d.choice(('com', 'io', 'xyz'))}"),
    "t.me": ("URL", lambda d: f"t.me/{d.choice(_WORDS)}_{d.choice(_WORDS)}"),
    "IPv4": ("IP", lambda d: ".".join(str(d.randint(11, 250)) for _ in range(4))),
    "IPv6": ("IP", _ipv6),
    "MAC": ("MAC", lambda d: d.choice(":-").join(f"{d.randrange(256):02x}" for _ in range(6))),
    "card": ("CARD", _luhn),
    "IBAN": ("IBAN", _iban),
    "SSN": ("NATIONAL_ID", lambda d: f"{d.randint(100, 665)}-{d.randint(10, 99)}-{d.randint(1000, 9999)}"),
    "coordinates": ("GEO", lambda d: f"{d.uniform(-89, 89):.5f}, {d.uniform(-179, 179):.5f}"),
    "Bitcoin": ("WALLET", lambda d: "1" + _mixed(d, _B58, 33)),
    "Bitcoin, bech32": ("WALLET", lambda d: "bc1q" + _pick(d, _B32, 38)),
    "Ethereum": ("WALLET", lambda d: "0x" + _pick(d, _HEX, 40)),
    "Solana": ("WALLET", _solana),
    "private key, hex": ("PRIVATE_KEY", lambda d: d.choice(("", "0x")) + _pick(d, _HEX, 64)),
    "private key, WIF": ("PRIVATE_KEY", lambda d: d.choice("KL") + _mixed(d, _B58, 51)),
    "private key, PEM": ("PRIVATE_KEY", _pem),
    "seed phrase": ("SEED_PHRASE", lambda d: " ".join(d.choices(sorted(seed_words()), k=d.choice((12, 24))))),
    "API key": ("API_KEY", _key),
    "JWT": ("TOKEN", _jwt),
    "assigned secret": ("SECRET", lambda d: f"{_mixed(d, _ALNUM, 32)}"),
    "@handle": ("HANDLE", lambda d: d.choice(_WORDS) + "_" + d.choice(_WORDS) + d.choice(("", "42"))),
    "u/handle": ("HANDLE", lambda d: d.choice(_WORDS) + d.choice("_-") + d.choice(_WORDS)),
    "Telegram user": ("HANDLE", lambda d: f"user{d.randint(10**7, 10**10)}"),
    "person": ("PERSON", lambda d: d.choice((d.choice(_FIRST), f"{d.choice(_FIRST)} {d.choice(_LAST)}"))),
}
_SIGNS = {"@handle": "@", "u/handle": "u/", "assigned secret": "acme_token = "}


def own_messages(per_kind: int = 32, seed: int = 0) -> list[LabelledText]:
    """`per_kind` messages of every kind in `MAKERS`, entity "kind (maker)", and the benign sentences."""
    draw, texts = random.Random(seed), []
    for name, (kind, make) in MAKERS.items():
        for number in range(per_kind):
            before = _BEFORE[number % len(_BEFORE)] + _SIGNS.get(name, "")
            after = _AFTER[(number // len(_BEFORE)) % len(_AFTER)]
            text = labelled([(before, None), (make(draw), f"{kind} ({name})"), (after, None)], f"{name} {number}")
            if text is None:
                raise ValueError(f"a message of kind {name!r} changes its parts in canonical form")
            texts.append(text)
    return texts + [
        text for number, line in enumerate(BENIGN) if (text := labelled([(line, None)], f"benign {number}"))
    ]


@dataclass(frozen=True)
class PlantedName:
    """A participant's name as somebody writes it in `text`, between `before` and `after`."""

    participant: str
    form: str
    before: str
    written: str
    after: str

    @property
    def text(self) -> str:
        """The whole message."""
        return self.before + self.written + self.after


PARTICIPANTS = (
    ("p1", "Zoë Hölderlin", "display_name"), ("p1", "zoe_hoel", "handle"), ("p2", "王小明", "display_name"),
    ("p3", "Mark Ferreira", "display_name"), ("p3", "dark_lantern99", "handle"), ("p4", "Ирина Волкова", "display_name"),
    ("p5", "김민수", "display_name"), ("p6", "O'Shaughnessy", "display_name"), ("p7", "user4815162342", "handle"),
)  # fmt: skip


def planted_names() -> Iterator[PlantedName]:
    """Every participant's name in every form in which people write it."""
    for participant, name, kind in PARTICIPANTS:
        spaced = any(c.isascii() for c in name) or "\u0400" <= name[0] <= "\u04ff"
        forms = {
            "plain": name,
            "upper": name.upper(),
            "lower": name.lower(),
            "zero width": name[:1] + "\u200b" + name[1:],
        }
        if kind == "display_name" and " " in name:
            forms |= {"first name": name.split()[0], "last name": name.split()[1], "joined": name.replace(" ", "")}
        for form, written in forms.items():
            yield PlantedName(participant, form, "did you ask ", written, " about it?")
            yield PlantedName(participant, f"{form}, among Chinese characters", "问", written, "吧")
            if spaced:
                yield PlantedName(participant, f"{form}, possessive", "that is ", written, "'s bike")
                yield PlantedName(participant, f"{form}, in quotes", '"', written, '", they said')
        if kind == "handle":
            for form, sign in {"at": "@", "reddit": "u/", "reddit, slash": "/u/"}.items():
                yield PlantedName(participant, form, f"thanks {sign}", name, " for this")
            yield PlantedName(participant, "t.me", "write to t.me/", name, " please")
    yield PlantedName("p1", "without diacritics", "and ", "Zoe Holderlin", " left")
    yield PlantedName("p1", "decomposed", "and ", "Zoe\u0308", " left")
