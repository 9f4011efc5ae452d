"""Telephone numbers as people write them, told from dates and amounts by how the digits are grouped."""

import re

_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ·](?:0?[1-9]|1[0-2])[-./ ·](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./ ·](?:0?[1-9]|[12]\d|3[01])[-./ ·](?:19|20)\d\d"
)
_BRAZILIAN = re.compile(r"(?:55[ -])?[1-9]{2}[ .-]9\d{4}[ .-]\d{4}")  # a mobile: area code, then a 9
_EXTENSION = re.compile(r"\s*(?:x|ext\.?|#)\s*\d{1,6}$", re.IGNORECASE)


def is_date(text: str) -> bool:
    """The text starts with a calendar date."""
    return bool(_DATE.match(text))


def is_phone(text: str) -> bool:
    """International (E.164, 7 to 15 digits), North American, or national with trunk zero or area code."""
    number = _EXTENSION.sub("", text)
    extended = number != text
    digits = re.sub(r"\D", "", number)
    parts = re.findall(r"\d+", number)
    groups = [len(part) for part in parts]
    if is_date(number) or len(set(digits)) == 1 or 2 * len(set(parts)) <= len(parts):  # "10 10 10 20" counts
        return False
    if "+" in number or number.startswith("tel:"):
        return 7 <= len(digits) <= 15
    if digits.startswith("00"):
        return 10 <= len(digits) <= 16 and digits[2] != "0"
    if "(" in number and ")" in number:
        return 8 <= len(digits) <= 13
    if len(groups) == 1:
        return extended or _is_bare(digits)
    return _is_grouped(number, digits, groups)


def _is_bare(digits: str) -> bool:
    """Nine to eleven after a trunk zero; ten of North America (a Unix time starts with 1) or an Italian mobile; eleven
    with country's 1 or a Russian trunk 8 or 7, or a Chinese mobile."""
    if digits[0] == "0":
        return 10 <= len(digits) <= 12 and digits[1] != "0"
    if len(digits) == 10:
        italian = digits[0] == "3" and digits[1:3] != "22"  # 3221225477 and its like are exit codes of Windows
        return italian or (digits[0] in "23456789" and digits[3] in "23456789")
    return len(digits) == 11 and (
        (digits[0] == "1" and (digits[1] in "3456789" or (digits[1] == "2" and digits[4] in "23456789")))
        or digits[:2] in ("89", "79")
    )


def _is_grouped(number: str, digits: str, groups: list[int]) -> bool:
    if _BRAZILIAN.fullmatch(number):
        return True
    if groups in ([3, 3, 4], [1, 3, 3, 4], [3, 4], [3, 7], [3, 3, 2, 2], [1, 3, 3, 2, 2]):
        return len(digits) > 7 or "-" in number
    separators = set(re.findall(r"[^\d]+", number))
    trunk = digits[0] == "0" and 8 <= len(digits) <= 12 and number.count("/") < 2  # else a time and a date
    even = 8 <= len(digits) <= 12 and len(separators) == 1 and min(groups) >= 2 and max(groups) <= 4
    return (trunk and min(groups) >= 2) or (even and len(groups) >= 3 and separators.isdisjoint("./·•"))
