"""Check digits and encodings that tell an identifier from a number that merely looks like one."""

import ipaddress
import re
from functools import cache
from importlib import resources
from itertools import pairwise

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SEED_WORDS = 12
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def is_card(text: str) -> bool:
    """12 to 19 digits that pass the Luhn check."""
    digits = _digits(text)
    return 12 <= len(digits) <= 19 and any(digits) and is_luhn(digits)


def is_luhn(digits: list[int]) -> bool:
    """The last digit is the check digit of ISO/IEC 7812-1."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def iban_length(text: str) -> int:
    """Leading characters of `text`, spaces included, that form an IBAN (ISO 13616); 0 if none.

    A pattern cannot tell where an IBAN ends and the next word starts, so that shorter ends are tried too.
    """
    for end in range(len(text), 14, -1):
        if text[end - 1] in " -":
            continue
        compact = re.sub(r"[ -]", "", text[:end]).upper()
        if 15 <= len(compact) <= 34:
            number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
            if int(number) % 97 == 1:
                return end
    return 0


def is_ipv6(text: str) -> bool:
    """An IPv6 address (RFC 4291) other than loopback, not a clock time or a `std::path`."""
    try:
        address = ipaddress.IPv6Address(text.split("%")[0])
    except ValueError:
        return False
    return sum(character.isalnum() for character in text) >= 3 and not address.is_loopback


def is_ipv4(text: str) -> bool:
    """Four octets, each up to 255."""
    return all(int(octet) < 256 for octet in re.findall(r"\d+", text)[:4])


def is_base58_key(text: str) -> bool:
    """Base58 of exactly 32 bytes (an Ed25519 public key, as Solana writes it), mixed case, with digits."""
    if text.islower() or text.isupper() or not any(c.isdigit() for c in text):
        return False
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    leading = len(text) - len(text.lstrip("1"))
    return leading + (number.bit_length() + 7) // 8 == 32


def is_mixed_token(text: str) -> bool:
    """Upper case, lower case and digits together: random base58, not a word."""
    return any(c.isdigit() for c in text) and any(c.isupper() for c in text) and any(c.islower() for c in text)


def is_random(text: str, least: int = 16) -> bool:
    """A run of at least `least` letters and digits that change places as often as chance would have it.

    Words, versions, dates, file names and identifiers in code keep their digits together.
    """
    run = max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="")
    changes = sum(a.isdigit() != b.isdigit() for a, b in pairwise(run))
    return len(run) >= least and changes >= max(least / 4, len(run) / 8) and len(set(run)) >= least / 2


def is_coordinate_pair(text: str) -> bool:
    """Latitude within 90 and longitude within 180 degrees."""
    latitude, longitude = (float(number) for number in re.findall(r"[-+]?\d+\.\d+", text)[:2])
    return abs(latitude) <= 90 and abs(longitude) <= 180


def is_dni(text: str) -> bool:
    """Spanish DNI or NIE: the letter is the number modulo 23."""
    compact = re.sub(r"[ .-]", "", text).upper()
    number = compact[:-1].translate(str.maketrans("XYZ", "012"))
    return compact[-1] == _DNI_LETTERS[int(number) % 23]


def is_cpf(text: str) -> bool:
    """Brazilian CPF: two check digits modulo 11."""
    digits = _digits(text)
    for size in (9, 10):
        total = sum(digit * weight for digit, weight in zip(digits, range(size + 1, 1, -1), strict=False))
        if total * 10 % 11 % 10 != digits[size]:
            return False
    return True


def is_tckn(text: str) -> bool:
    """Turkish identity number: eleven digits, the last two are checks."""
    digits = _digits(text)
    tenth = (sum(digits[0:9:2]) * 7 - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and digits[9] == tenth and sum(digits[:10]) % 10 == digits[10]


@cache
def seed_words() -> frozenset[str]:
    """The 2,048 English words of BIP-39 (github.com/bitcoin/bips, MIT)."""
    return frozenset(resources.files(__package__ or __name__).joinpath("bip39_english.txt").read_text().split())


def seed_phrase_span(text: str) -> tuple[int, int] | None:
    """Start and end of the longest run of at least twelve BIP-39 words in `text`, None if there is none."""
    best: tuple[int, int, int] | None = None
    run = start = 0
    for word in re.finditer(r"[A-Za-z]+", text):
        if word.group().lower() not in seed_words():
            run = 0
            continue
        start = start if run else word.start()
        run += 1
        if run >= _SEED_WORDS and (best is None or run > best[2]):
            best = (start, word.end(), run)
    return best and best[:2]
