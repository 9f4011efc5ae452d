"""National identity numbers whose form alone is too common: each is told from a number by its check digits or date.

Check digits as the issuing authorities publish them; Luhn is ISO/IEC 7812-1, MOD 11,10 is ISO/IEC 7064.
"""

from collections.abc import Callable

from user_embeddings_dagster.privacy.checksums import is_cpf, is_dni, is_luhn, is_tckn
from user_embeddings_dagster.privacy.kinds import LEFT, RIGHT, Kind, typed

_HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def _weighted(digits: list[int], weights: str) -> int:
    return sum(digit * int(weight, 16) for digit, weight in zip(digits, weights, strict=False))


def is_date_of_birth(month: int, day: int) -> bool:
    """Month 1 to 12 and day 1 to 31."""
    return 1 <= month <= 12 and 1 <= day <= 31


def is_personnummer(text: str) -> bool:
    """Swedish: YYMMDD-NNNC, Luhn."""
    digits = _digits(text)[-10:]
    return is_date_of_birth(10 * digits[2] + digits[3], 10 * digits[4] + digits[5]) and is_luhn(digits)


def is_rrn(text: str) -> bool:
    """Korean: YYMMDD-SNNNNNN, S from 1 to 8."""
    digits = _digits(text)
    return is_date_of_birth(10 * digits[2] + digits[3], 10 * digits[4] + digits[5]) and 1 <= digits[6] <= 8


def is_pesel(text: str) -> bool:
    """Polish: YYMMDDNNNNC, the month plus 20 for each later century."""
    digits = _digits(text)
    month = (10 * digits[2] + digits[3]) % 20
    return (
        is_date_of_birth(month, 10 * digits[4] + digits[5])
        and (-_weighted(digits, "1379137913") - digits[10]) % 10 == 0
    )


def is_hetu(text: str) -> bool:
    """Finnish: DDMMYY, a sign for the century, three digits, the check character modulo 31."""
    digits = _digits(text[:-1])
    valid = is_date_of_birth(10 * digits[2] + digits[3], 10 * digits[0] + digits[1])
    return valid and _HETU[int("".join(map(str, digits))) % 31] == text[-1]


def is_za_id(text: str) -> bool:
    """South African: YYMMDD NNNN C A Z, Luhn; C, citizenship, is 0, 1 or 2."""
    digits = _digits(text)
    valid = is_date_of_birth(10 * digits[2] + digits[3], 10 * digits[4] + digits[5])
    return valid and digits[10] <= 2 and digits[11] in (8, 9) and is_luhn(digits)


def is_fin(text: str) -> bool:
    """Singapore's NRIC and FIN: letter, seven digits, check letter."""
    total = _weighted(_digits(text), "2765432") + {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    letters = "JZIHGFEDCBA" if text[0] in "ST" else "KLJNPQRTUWX" if text[0] == "M" else "XWUTRQPNMLK"
    return letters[total % 11] == text[-1]


def is_thai_id(text: str) -> bool:
    """Thai: thirteen digits, modulo 11."""
    digits = _digits(text)
    return (11 - _weighted(digits, "DCBA98765432") % 11) % 10 == digits[12]


def is_steuer_id(text: str) -> bool:
    """German tax number: eleven digits, MOD 11,10; of the first ten one or two digits repeat."""
    digits = _digits(text)
    product = 10
    for digit in digits[:10]:
        product = ((digit + product) % 10 or 10) * 2 % 11
    return len(set(digits[:10])) in (8, 9) and (11 - product) % 10 == digits[10]


def national_ids(gate: str) -> tuple[Kind, ...]:
    """The kinds, in texts that match `gate`."""

    def kind(prefilter: str, pattern: str, check: Callable[[str], bool] = bool) -> Kind:
        return typed("NATIONAL_ID", prefilter, pattern, check, gate=gate)

    return (
        kind(r"[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}", r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])"),
        kind(
            r"[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
            rf"{LEFT}[A-CEGHJ-PR-TW-Z]{{2}} ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{RIGHT}",
        ),
        kind(
            r"[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}",
            rf"{LEFT}[A-Z]{{6}}\d{{2}}[A-EHLMPRST]\d{{2}}[A-Z]\d{{3}}[A-Z]{RIGHT}",
        ),
        kind(r"[XYZ0-9]-?[0-9]{7}-?[A-Z]", rf"{LEFT}[XYZ\d]-?\d{{7}}-?[A-HJ-NP-TV-Z]{RIGHT}", is_dni),
        kind(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", r"(?<!\w)(?<!\d\.)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)", is_cpf),
        kind(
            r"[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}",
            r"(?<![\w-])[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\w-]|\1\d)",
        ),
        kind(
            r"[1-9][0-9]{10}|0[0-9]{10}",
            r"(?<!\w)(?<!\d\.)\d{11}(?!\w|\.\d)",
            lambda text: is_tckn(text) or is_pesel(text) or is_steuer_id(text),
        ),
        kind(r"[0-9]{6}[-+][0-9]{4}", r"(?<![\w-])(?<!\d\.)(?:19|20)?\d{6}[-+]\d{4}(?![\w-])", is_personnummer),
        kind(r"[0-9]{6}-[1-8][0-9]{6}", r"(?<![\w-])(?<!\d\.)\d{6}-[1-8]\d{6}(?![\w-])", is_rrn),
        kind(
            r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]",
            rf"(?<![\w-])(?<!\d\.)\d{{6}}[-+A-FU-Y]\d{{3}}[{_HETU}](?!\w)",
            is_hetu,
        ),
        kind("[0-9]{10}[0-2][89][0-9]", r"(?<!\w)(?<!\d\.)\d{10}[0-2][89]\d(?!\w|\.\d)", is_za_id),
        kind("[STFGM][0-9]{7}[A-Z]", rf"{LEFT}[STFGM]\d{{7}}[A-Z]{RIGHT}", is_fin),
        kind(
            "[0-9][ -][0-9]{4}[ -][0-9]{5}[ -][0-9]{2}[ -][0-9]",
            r"(?<![\w-])\d([ -])\d{4}\1\d{5}\1\d{2}\1\d(?![\w-])",
            is_thai_id,
        ),
    )
