"""Check digits and encodings that tell an identifier from a number that merely looks like one."""

import ipaddress
import re
from functools import cache
from hashlib import sha256
from importlib import resources
from itertools import groupby, pairwise

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SEED_WORDS = 12
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_CARD_GROUPS = re.compile(r"(?=(?:[ -]?\d){13})\d{4,}(?:[ -]\d{4,})*")
_IBAN_COUNTRIES = (  # and how long theirs is (SWIFT's registry, and those that use the form without being in it)
    "AD24 AE23 AL28 AO25 AT20 AZ28 BA20 BE16 BF28 BG22 BH22 BI27 BJ28 BR29 BY28 CF27 CG27 CH21 CI28 CM27 CR22 CV25 "
    "CY28 CZ24 DE22 DJ27 DK18 DO28 DZ26 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GA27 GB22 GE22 GI23 GL18 GQ27 GR27 GT28 "
    "GW25 HN28 HR21 HU28 IE22 IL23 IQ23 IR26 IS26 IT27 JO30 KM27 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MA28 "
    "MC27 MD24 ME22 MG27 MK19 ML28 MN20 MR27 MT31 MU30 MZ25 NE28 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 "
    "RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SN28 SO23 ST25 SV28 TD27 TG28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
# Of those without IBAN.
_BIC_COUNTRIES = "US CA AU NZ JP CN HK TW KR SG IN ID MY TH PH VN ZA NG KE GH MX AR CL CO PE UY"
_VIN_CHARACTERS = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
_VIN_VALUES = "012345678912345678123457923456789"
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_IBAN_SIZES = {country[:2]: int(country[2:]) for country in _IBAN_COUNTRIES.split()}


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def is_card(text: str) -> bool:
    """12 to 19 digits that pass the Luhn check."""
    digits = _digits(text)
    return 12 <= len(digits) <= 19 and any(digits) and is_luhn(digits)


def card_length(text: str) -> int:
    """Leading characters of `text` that form a card number; 0 if none.

    An expiry date or check value behind a number reads as more groups of it: shorter ends are tried too, where the
    groups look like a card's, because one in ten numbers passes the Luhn check.
    """
    if is_card(text):
        return len(text)
    ends = (gap.start() for gap in re.finditer("[ -]", text))
    return max((end for end in ends if _CARD_GROUPS.fullmatch(text, 0, end) and is_card(text[:end])), default=0)


def is_luhn(digits: list[int]) -> bool:
    """The last digit is the check digit of ISO/IEC 7812-1."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def iban_length(text: str) -> int:
    """Leading characters of `text`, spaces included, that form an IBAN (ISO 13616); 0 if none.

    A pattern cannot tell where an IBAN ends and the next word starts; the length of its country's does. One in 97 words
    that are as long would pass: no country's has fewer than ten digits.
    """
    size = _IBAN_SIZES.get(text[:2].upper(), 0)
    places = [place for place, character in enumerate(text) if character not in " -"][:size]
    compact = [text[place] for place in places]
    if not size or len(compact) < size or sum(map(str.isdigit, compact)) < 10:
        return 0
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return places[-1] + 1 if int(number) % 97 == 1 else 0


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
    leading = len(text) - len(text.lstrip("1"))
    return leading + (_base58(text).bit_length() + 7) // 8 == 32


def is_base58check(text: str) -> bool:
    """Base58 of 25 bytes, the last four a check of the others: an address as Litecoin, Dogecoin and Tron write it."""
    number = _base58(text)
    if number.bit_length() > 200:
        return False
    raw = number.to_bytes(25)
    return sha256(sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def _base58(text: str) -> int:
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    return number


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


def is_vin(text: str) -> bool:
    """Vehicle identification number (49 CFR 565.15): the ninth of 17 characters is the check digit, modulo 11.

    One in eleven numbers would pass: letters stand in every one.
    """
    values = [int(_VIN_VALUES[_VIN_CHARACTERS.index(character)]) for character in text]
    total = sum(value * weight for value, weight in zip(values, _VIN_WEIGHTS, strict=True))
    return text[8] == "0123456789X"[total % 11] and sum(map(str.isalpha, text)) >= 3


def is_bic(text: str) -> bool:
    """A business identifier code (ISO 9362): letters 5 and 6 are a country's."""
    return text[4:6] in _IBAN_SIZES or text[4:6] in _BIC_COUNTRIES.split()


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


def seed_phrase_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each run of at least twelve BIP-39 words in `text`, in order."""
    words = re.finditer(r"[A-Za-z]+", text)
    runs = [list(run) for known, run in groupby(words, lambda word: word[0].lower() in seed_words()) if known]
    return [(run[0].start(), run[-1].end()) for run in runs if len(run) >= _SEED_WORDS]
