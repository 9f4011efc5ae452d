# ruff: noqa: E501 (patterns are one piece)
"""Codes of a few digits that only the words beside them tell from a number: PINs, one-time and access codes."""

from user_embeddings_dagster.privacy.kinds import Kind, typed

_COUNTED = r"(?!\s(?:lines|loc|bytes|times|users|reviews?)\b)"
_DIGITS = rf"(?:[A-Z]{{1,2}}-)?(?:\d{{4,8}}|\d{{3}}[ -]\d{{3}})(?!\w|[.,:/-]\d){_COUNTED}"
# With no sign or word between, only as many digits as such codes mostly have: "OTP 25000" is a release.
_SIX = r"(?=(?:[A-Z]{1,2}-)?\d{3}[ -]?\d{3}(?!\w))"
_IS = rf"(?:\s{{0,2}}(?:[:=#]|\b(?:ist?|est?|é|è)\b)\s{{0,2}}|\s{{1,2}}{_SIX})"
_PIN_IS = r"\s{0,2}(?:[:=#]|\b(?:ist?|est?|é|è)\b)?\s{0,2}"
# What the code opens or proves. "error code", "exit code", "country code" and the like are of machines and places.
_OPENS = (
    r"verif[a-z]{2,12}|security|log-?in|sign-?in|confirm[a-z]{0,6}|access|auth[a-z]{0,12}|activation|one[ -]time|sms|2fa|mfa"
    r"|two[ -]factor|otp|door|gate|entry|alarm|unlock|recovery|backup|pairing|parental"
)
_NAMES = (
    rf"(?:{_OPENS})[ -](?:pass)?code|passcode|otp|totp|2fa|[mp]-?tan|tan(?=\s?[:=])"
    r"|(?:best(?:ä|ae)tigungs|sicherheits|zugangs|freischalt|verifizierungs)code"
    r"|code (?:de |d')?(?:v[ée]rification|confirmation|s[ée]curit[ée]|validation|acc[eè]s)"
    r"|c[oó]digo (?:de )?(?:verifica(?:ci[oó]n|[cç][aã]o)|confirma(?:ci[oó]n|[cç][aã]o)|seguridad|seguran[cç]a|acceso|acesso)"
    r"|[cC]odice (?:di )?(?:verifica|conferma|sicurezza|accesso)|(?:[кК]од|КОД) (?:подтверждения|доступа|безопасности|авторизации|из (?:смс|sms))"
    r"|(?:my|your) code(?=(?:\s?[:=]|\s+is)\s{0,2}(?:[A-Z]-)?\d{3}[ -]?\d{3}(?!\w))"
    r"|验证码|驗證碼|認証コード|인증번호"
)
# Pins of chips have fewer digits.
_PIN = r"(?:pin(?:[ -]?(?:code|nummer|number|no\.?|nr\.?))?(?![a-z])|[пП]ин(?:-?код)?)"


def codes(gate: str) -> tuple[Kind, ...]:
    """The kinds, in texts that match `gate`."""
    return (
        typed(
            "SECRET",
            "(?i)(?:c[oó]d[ei]|otp|2fa|pin|tan|пин|код|验证码|驗證碼|認証コード|인증번호)[^0-9]{0,28}[0-9]{3}",
            rf"(?i)(?<![A-Za-z])(?:(?:{_NAMES}){_IS}|{_PIN}{_PIN_IS}(?=\d{{4}}(?:\d\d)?(?!\w)))(?P<value>{_DIGITS})",
            gate=gate,
        ),
        typed(
            "SECRET",
            " is your ",
            r"(?<![\w.-])(?P<value>(?:[A-Z]-)?\d{4,8}|\d{3}[ -]\d{3}) is your (?:[\w-]{1,20} ){0,4}(?i:code|otp|pin|passcode|password)\b",
            gate=gate,
        ),
    )
