"""Valid identifiers and secrets at random, with their check digits: what canaries are made of."""

import base64
import hashlib
import json
import string
from functools import cache
from random import Random

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
ALPHANUMERIC = string.ascii_letters + string.digits
RARE = "qxzjvkw"
_VOWELS = "aeiou"
_IBANS = {"DE": "18d", "GB": "4u14d", "FR": "10d11x2d", "NL": "4u10d", "ES": "20d", "PL": "24d"}


def word(draw: Random, length: int = 10, consonants: str = RARE) -> str:
    """A word that is none; of rare letters, no five of them in a row are part of any other text."""
    return "".join(draw.choice(consonants if place % 2 == 0 else _VOWELS) for place in range(length))


def text(draw: Random, alphabet: str, length: int) -> str:
    """So many characters of an alphabet."""
    return "".join(draw.choices(alphabet, k=length))


def digits(draw: Random, length: int, first: str = "123456789") -> str:
    """A number of so many digits."""
    return draw.choice(first) + text(draw, string.digits, length - 1)


def luhn(payload: str) -> str:
    """`payload` with its check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(payload)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return payload + str(-total % 10)


def card(draw: Random) -> str:
    """Visa, Mastercard or American Express."""
    prefix, length = draw.choice((("4", 16), ("5" + draw.choice("12345"), 16), ("3" + draw.choice("47"), 15)))
    return luhn(prefix + text(draw, string.digits, length - len(prefix) - 1))


def iban(draw: Random) -> str:
    """An account of one of six countries (ISO 13616)."""
    country = draw.choice(sorted(_IBANS))
    body, shape = "", _IBANS[country]
    while shape:
        size = shape[: len(shape) - len(shape.lstrip(string.digits))]
        alphabet = {"d": string.digits, "u": string.ascii_uppercase, "x": string.digits}[shape[len(size)]]
        body, shape = body + text(draw, alphabet, int(size)), shape[len(size) + 1 :]
    number = "".join(str(int(character, 36)) for character in body + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{body}"


def spaced(value: str, size: int = 4) -> str:
    """In groups, as people write long numbers."""
    return " ".join(value[start : start + size] for start in range(0, len(value), size))


def dni(draw: Random) -> str:
    """Spanish identity number."""
    number = digits(draw, 8)
    return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def cpf(draw: Random) -> str:
    """Brazilian taxpayer number."""
    body = digits(draw, 9)
    for size in (10, 11):
        total = sum(int(digit) * weight for digit, weight in zip(body, range(size, 1, -1), strict=True))
        body += str(total * 10 % 11 % 10)
    return f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"


def tckn(draw: Random) -> str:
    """Turkish identity number."""
    body = digits(draw, 9)
    odd, even = (sum(map(int, body[start::2])) for start in (0, 1))
    body += str((odd * 7 - even) % 10)
    return body + str(sum(map(int, body)) % 10)


def base58(raw: bytes) -> str:
    """Bitcoin's base58."""
    number, encoded = int.from_bytes(raw, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        encoded = BASE58[rest] + encoded
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + encoded


def checked58(raw: bytes) -> str:
    """Base58 with Bitcoin's checksum."""
    return base58(raw + hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4])


def url_base64(raw: bytes) -> str:
    """Base64 for URLs without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def jwt(draw: Random) -> str:
    """A signed token."""
    head, claims = {"alg": "HS256", "typ": "JWT"}, {"sub": digits(draw, 12), "iat": int(digits(draw, 10, "1"))}
    return ".".join(
        (*(url_base64(json.dumps(part).encode()) for part in (head, claims)), url_base64(draw.randbytes(32)))
    )


def pem(draw: Random) -> str:
    """A private key of no algorithm, in RFC 7468's form."""
    lines = base64.b64encode(draw.randbytes(144)).decode()
    kind = draw.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"))
    body = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


@cache
def seed_words() -> tuple[str, ...]:
    """BIP-39's English words."""
    from importlib import resources

    folder = resources.files("user_embeddings_dagster.privacy")
    return tuple(folder.joinpath("bip39_english.txt").read_text().split())
