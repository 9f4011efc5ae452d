# ruff: noqa: E501 (tables of forms)
"""Identifiers in the categories of others' test suites, made up here: gitleaks' rules, Presidio's recognisers.

`ISSUED`: gitleaks' rules whose secrets say themselves what they are; `NAMED`: those whose secret is any random text
that a name in front gives away, in the notations of `NOTATIONS`; `NUMBERS`: Presidio's recognisers. Values are
random, with right check digits where a kind has them.
"""

import random
import string
from collections.abc import Callable

LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
WORD = ALNUM + "_-"
B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
B64 = ALNUM + "+/"
DIGITS = string.digits
Part = str | tuple[str, int]

ISSUED: dict[str, tuple[Part, ...]] = {
    "1password secret key": ("A3-", (UPPER, 6), "-", (UPPER, 11), "-", (UPPER, 5), "-", (UPPER, 5), "-", (UPPER, 5)),
    "1password service account": ("ops_eyJ", (B64, 250)), "adobe client secret": ("p8e-", (LOWER, 32)),
    "age secret key": ("AGE-SECRET-KEY-1", ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)), "airtable pat": ("pat", (ALNUM, 14), ".", (HEX, 64)),
    "alibaba": ("LTAI", (LOWER, 20)), "anthropic": ("sk-ant-api03-", (WORD, 93), "AA"), "anthropic admin": ("sk-ant-admin01-", (WORD, 93), "AA"),
    "artifactory key": ("AKCp", (ALNUM, 69)), "artifactory reference": ("cmVmd", (ALNUM, 59)), "atlassian": ("ATATT3", (WORD, 186)),
    "authress": ("sc_", (LOWER, 5), ".", (LOWER, 4), ".acc_", (LOWER, 12), ".", (WORD, 40)), "aws": ("AKIA", ("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
    "aws bedrock": ("ABSK", (B64, 110)), "azure ad": ((ALNUM, 3), "8Q~", (WORD, 33)), "clickhouse": ("4b1d", (ALNUM, 38)),
    "clojars": ("CLOJARS_", (LOWER, 60)), "cloudflare origin ca": ("v1.0-", (HEX, 24), "-", (HEX, 146)), "databricks": ("dapi", (HEX, 32)),
    "defined networking": ("dnkey-", (LOWER, 26), "-", (LOWER, 52)), "digitalocean access": ("doo_v1_", (HEX, 64)), "digitalocean pat": ("dop_v1_", (HEX, 64)),
    "digitalocean refresh": ("dor_v1_", (HEX, 64)), "doppler": ("dp.pt.", (ALNUM, 43)), "dropbox short lived": ("sl.", (WORD, 130)),
    "duffel": ("duffel_test_", (WORD, 43)), "dynatrace": ("dt0c01.", (UPPER, 24), ".", (UPPER, 64)), "easypost": ("EZAK", (ALNUM, 54)),
    "easypost test": ("EZTK", (ALNUM, 54)), "facebook access": ((DIGITS, 15), "|", (WORD, 27)), "facebook page": ("EAAM", (ALNUM, 120)),
    "flutterwave": ("FLWSECK_TEST-", (HEX, 32), "-X"), "fly.io": ("fo1_", (WORD, 43)), "fly.io macaroon": ("fm2_", (B64, 120)),
    "frame.io": ("fio-u-", (WORD, 64)), "gcp": ("AIza", (WORD, 35)), "github pat": ("ghp_", (ALNUM, 36)), "github app": ("ghu_", (ALNUM, 36)),
    "github oauth": ("gho_", (ALNUM, 36)), "github refresh": ("ghr_", (ALNUM, 36)), "github fine-grained": ("github_pat_", (ALNUM + "_", 82)),
    "gitlab pat": ("glpat-", (WORD, 20)), "gitlab deploy": ("gldt-", (ALNUM, 20)), "gitlab feed": ("glft-", (ALNUM, 20)),
    "gitlab runner": ("GR1348941", (WORD, 20)), "gitlab trigger": ("glptt-", (HEX, 40)), "gitlab scim": ("glsoat-", (WORD, 20)),
    "gitlab cicd": ("glcbt-", (LOWER, 2), "_", (ALNUM, 20)), "gitlab session": ("_gitlab_session=", (LOWER, 32)),
    "grafana": ("eyJrIjoi", (ALNUM, 80)), "grafana cloud": ("glc_", (ALNUM, 60)), "grafana service account": ("glsa_", (ALNUM, 32), "_", (HEX, 8)),
    "groq": ("gsk_", (ALNUM, 52)), "harness": ("pat.", (ALNUM, 22), ".", (HEX, 24), ".", (ALNUM, 20)), "hashicorp terraform": ((ALNUM, 14), ".atlasv1.", (WORD, 64)),
    "heroku": ("HRKU-AA", (WORD, 58)), "huggingface": ("hf_", (string.ascii_letters, 34)), "huggingface organisation": ("api_org_", (string.ascii_letters, 34)),
    "infracost": ("ico-", (ALNUM, 32)), "intra42": ("s-s4t2ud-", (HEX, 64)), "linear": ("lin_api_", (LOWER, 40)), "lob": ("live_", (HEX, 35)),
    "mailchimp": ((HEX, 32), "-us14"), "mailgun": ("key-", (HEX, 32)), "mailgun public": ("pubkey-", (HEX, 32)), "mailgun signing": ((HEX, 32), "-", (HEX, 8), "-", (HEX, 8)),
    "mapbox": ("pk.", (LOWER, 60), ".", (LOWER, 22)), "maxmind": ((ALNUM, 6), "_", (ALNUM, 29), "_mmk"), "new relic user": ("NRAK-", (UPPER, 27)),
    "new relic browser": ("NRJS-", (HEX, 19)), "new relic insert": ("NRII-", (LOWER, 32)), "notion": ("ntn_", (DIGITS, 11), (ALNUM, 35)), "npm": ("npm_", (LOWER, 36)),
    "octopus": ("API-", (UPPER, 26)), "openai": ("sk-", (ALNUM, 20), "T3BlbkFJ", (ALNUM, 20)), "openai project": ("sk-proj-", (WORD, 74), "T3BlbkFJ", (WORD, 74)),
    "openshift": ("sha256~", (WORD, 43)), "perplexity": ("pplx-", (ALNUM, 48)), "plaid access": ("access-production-", (HEX, 8), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 12)),
    "planetscale": ("pscale_tkn_", (WORD, 32)), "planetscale password": ("pscale_pw_", (WORD, 40)), "postman": ("PMAK-", (HEX, 24), "-", (HEX, 34)), "prefect": ("pnu_", (LOWER, 36)),
    "pulumi": ("pul-", (HEX, 40)), "pypi": ("pypi-AgEIcHlwaS5vcmc", (WORD, 60)), "readme": ("rdme_", (LOWER, 70)), "rubygems": ("rubygems_", (HEX, 48)), "scalingo": ("tk-us-", (WORD, 48)),
    "sendgrid": ("SG.", (WORD, 22), ".", (WORD, 43)), "sendinblue": ("xkeysib-", (HEX, 64), "-", (LOWER, 16)), "sentry organisation": ("sntrys_", (B64, 120)), "sentry user": ("sntryu_", (HEX, 64)),
    "settlemint": ("sm_aat_", (ALNUM, 16)), "shippo": ("shippo_live_", (HEX, 40)), "shopify": ("shpat_", (HEX, 32)), "shopify secret": ("shpss_", (HEX, 32)), "slack bot": ("xoxb-", (DIGITS, 12), "-", (DIGITS, 12), "-", (ALNUM, 24)),
    "slack user": ("xoxp-", (DIGITS, 12), "-", (DIGITS, 12), "-", (DIGITS, 12), "-", (HEX, 32)), "slack app": ("xapp-1-", (UPPER, 11), "-", (DIGITS, 13), "-", (LOWER, 64)), "slack hook": ("https://hooks.slack.com/services/T", (UPPER, 8), "/B", (UPPER, 8), "/", (ALNUM, 24)),
    "sonar": ("squ_", (HEX, 40)), "sourcegraph": ("sgp_", (HEX, 40)), "square": ("sq0atp-", (WORD, 22)), "square access": ("EAAA", (WORD, 60)), "stripe": ("sk_live_", (ALNUM, 24)), "stripe restricted": ("rk_test_", (ALNUM, 50)),
    "telegram bot": ((DIGITS, 10), ":A", (WORD, 34)), "twilio": ("SK", (HEX, 32)), "typeform": ("tfp_", (ALNUM, 59)), "vault": ("hvs.", (WORD, 95)), "vault old": ("s.", (ALNUM, 24)), "vault batch": ("hvb.", (WORD, 150)),
    "yandex iam": ("t1.", (ALNUM, 60), ".", (WORD, 86)), "yandex key": ("AQVN", (WORD, 36)), "yandex aws": ("YC", (WORD, 38)), "jwt": ("eyJ", (ALNUM, 33), ".eyJ", (ALNUM, 50), ".", (WORD, 43)),
    "private key": ("-----BEGIN PRIVATE KEY-----\n", (B64, 64), "\n", (B64, 64), "\n-----END PRIVATE KEY-----"), "pgp private key": ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n", (B64, 64), "\n=", (B64, 4), "\n-----END PGP PRIVATE KEY BLOCK-----"),
    "gocardless": ("live_", (WORD, 40)), "freemius": ("sk_", (ALNUM, 29)), "flutterwave public": ("FLWPUBK_TEST-", (HEX, 32), "-X"), "docker pat": ("dckr_pat_", (WORD, 27)), "nvidia": ("nvapi-", (WORD, 64)), "xai": ("xai-", (ALNUM, 80)), "replicate": ("r8_", (ALNUM, 37)),
    "microsoft teams hook": ("https://acme.webhook.office.com/webhookb2/", (HEX, 32), "@", (HEX, 32), "/IncomingWebhook/", (HEX, 32), "/", (HEX, 32)), "curl user": ("curl -u admin:", (ALNUM, 14), " https://example.com/a"),
    "curl header": ('curl -H "X-Api-Key: ', (ALNUM, 20), '" https://example.com/a'), "connection string": ("postgres://app:", (ALNUM, 12), "@db.example.com:5432/app"),
}  # fmt: skip
NAMED: dict[str, tuple[str, int]] = {
    "adafruit": (LOWER, 32), "adobe": (HEX, 32), "airtable": (LOWER, 17), "algolia": (LOWER, 32), "asana": (LOWER, 32), "beamer": (LOWER, 44),
    "bitbucket": (LOWER, 64), "bittrex": (LOWER, 32), "meraki": (HEX, 40), "cloudflare": (LOWER, 40), "codecov": (LOWER, 32), "cohere": (ALNUM, 40), "coinbase": (LOWER, 64),
    "confluent": (LOWER, 16), "contentful": (LOWER, 43), "datadog": (LOWER, 40), "discord": (HEX, 64), "droneci": (LOWER, 32), "dropbox": (LOWER, 15), "etsy": (LOWER, 24), "fastly": (LOWER, 32),
    "finicity": (HEX, 32), "finnhub": (LOWER, 20), "flickr": (LOWER, 32), "freshbooks": (LOWER, 64), "gitter": (LOWER, 40), "intercom": (LOWER, 60), "jfrog": (LOWER, 73), "kraken": (B64, 85), "launchdarkly": (LOWER, 40),
    "linkedin": (LOWER, 16), "mattermost": (LOWER, 26), "messagebird": (LOWER, 25), "netlify": (LOWER, 43), "nytimes": (LOWER, 32), "okta": (ALNUM, 42), "plaid": (LOWER, 30), "rapidapi": (LOWER, 50), "sendbird": (HEX, 40),
    "sumologic": (LOWER, 64), "travis": (LOWER, 22), "trello": (ALNUM, 32), "twitch": (LOWER, 30), "twitter": (LOWER, 50), "zendesk": (LOWER, 40), "looker": (LOWER, 24), "kucoin": (HEX, 24), "privateai": (LOWER, 32),
}  # fmt: skip
NOTATIONS = (
    '{i}Token="{s}"', "{i}Token = {s}", '{{\n  "{i}_token": "{s}"\n}}', '\\{{ \\"{i}_token\\": \\"{s}\\" \\}}', "<{i}Token>{s}</{i}Token>", "<{i}Token>\n    {s}\n</{i}Token>", "{i}_token: {s}", "{i}_token: '{s}'",
    "{i}_token: |\n  {s}", "{i}_token: >\n  {s}", 'var {i}Token string = "{s}"', '{i}Token := "{s}"', "{i}Token := `{s}`", '${i}Token .= "{s}"', "{i}Token,{s},", '"{i}Token" => "{s}"', '{I}_TOKEN ?= "{s}"', '{I}_TOKEN ::= "{s}"',
    "export {I}_API_KEY={s}", "my {i} api key is {s}, keep it", "the {i} secret: {s}", 'System.setProperty("{I}_TOKEN", "{s}")',
)  # fmt: skip


def issued(name: str, draw: random.Random) -> str:
    """A secret of the rule `name` in ISSUED."""
    return "".join(part if isinstance(part, str) else _pick(draw, *part) for part in ISSUED[name])


def named(name: str, draw: random.Random) -> str:
    """A secret of the rule `name` in NAMED."""
    return _pick(draw, *NAMED[name])


def _pick(draw: random.Random, alphabet: str, size: int) -> str:
    """Random characters, the first and last letters or digits, at least two digits among them (as an issuer's are)."""
    text = draw.choices(alphabet, k=size)
    ends = [c for c in alphabet if c.isalnum()]
    text[0], text[-1] = draw.choice(ends), draw.choice(ends)
    figures = [c for c in alphabet if c.isdigit()]
    if figures and size > 8:
        for place in draw.sample(range(1, size - 1), max(2, size // 6)):
            text[place] = draw.choice(figures)
    return "".join(text)


def _digits(draw: random.Random, size: int) -> str:
    return str(draw.randint(1, 9)) + "".join(draw.choices(DIGITS, k=size - 1))


def _luhn(body: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - place % 2), 10)) for place, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def _card(draw: random.Random) -> str:
    prefix, size = draw.choice(
        (
            ("4", 16),
            ("51", 16),
            ("2221", 16),
            ("37", 15),
            ("36", 14),
            ("6011", 16),
            ("3530", 16),
            ("5018", 16),
            ("62", 16),
        )
    )
    return _luhn(prefix + "".join(draw.choices(DIGITS, k=size - len(prefix) - 1)))


def _iban(draw: random.Random) -> str:
    """An IBAN of one of seven countries (ISO 13616), grouped or not."""
    country, form = draw.choice(
        (
            ("DE", "n" * 18),
            ("GB", "aaaa" + "n" * 14),
            ("FR", "n" * 10 + "c" * 11 + "nn"),
            ("NL", "aaaa" + "n" * 10),
            ("ES", "n" * 20),
            ("IT", "a" + "n" * 22),
            ("MT", "aaaa" + "n" * 5 + "c" * 18),
        )
    )
    body = "".join(draw.choice({"n": DIGITS, "a": string.ascii_uppercase, "c": UPPER}[sign]) for sign in form)
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    text = f"{country}{check:02d}{body}"
    return draw.choice((text, " ".join(text[at : at + 4] for at in range(0, len(text), 4))))


def _weighted(body: str, weights: tuple[int, ...]) -> int:
    return sum(int(d) * w for d, w in zip(body, weights, strict=True))


def _nhs(draw: random.Random) -> str:
    while True:
        body = _digits(draw, 9)
        check = 11 - _weighted(body, tuple(range(10, 1, -1))) % 11
        if check != 10:
            text = body + str(check % 11)
            return draw.choice((f"{text[:3]} {text[3:6]} {text[6:]}", f"{text[:3]}-{text[3:6]}-{text[6:]}"))


def _pesel(draw: random.Random) -> str:
    body = f"{draw.randint(50, 99)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{_digits(draw, 4)}"
    return body + str(-_weighted(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10)


def _hetu(draw: random.Random) -> str:
    birth, serial = f"{draw.randint(1, 28):02d}{draw.randint(1, 12):02d}{draw.randint(50, 99)}", draw.randint(2, 899)
    return f"{birth}-{serial:03d}" + "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(f"{birth}{serial:03d}") % 31]


def _personnummer(draw: random.Random) -> str:
    number = _luhn(f"{draw.randint(50, 99)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{draw.randint(100, 999)}")
    return f"{number[:6]}-{number[6:]}"


def _verhoeff(body: str) -> str:
    """Aadhaar's check digit (Verhoeff 1969): the dihedral group of order ten, by reflections and turns."""

    def times(a: int, b: int) -> int:
        return (
            (a + b) % 5 + 5 * (b >= 5)
            if a < 5 and b < 5
            else ((a + b) % 5 + 5 if a < 5 else (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5)
        )

    turn = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed("".join(body)), start=1):
        value = int(digit)
        for _ in range(place % 8):
            value = turn[value]
        check = times(check, value)
    return body + str(next(d for d in range(10) if times(check, d) == 0))


def _aadhaar(draw: random.Random) -> str:
    text = _verhoeff(str(draw.randint(2, 9)) + "".join(draw.choices(DIGITS, k=10)))
    return draw.choice((f"{text[:4]} {text[4:8]} {text[8:]}", f"{text[:4]}-{text[4:8]}-{text[8:]}"))


def _fin(draw: random.Random) -> str:
    prefix, body = draw.choice("STFG"), "".join(draw.choices(DIGITS, k=7))
    total = _weighted(body, (2, 7, 6, 5, 4, 3, 2)) + 4 * (prefix in "TG")
    return prefix + body + ("JZIHGFEDCBA" if prefix in "ST" else "XWUTRQPNMLK")[total % 11]


def _rrn(draw: random.Random) -> str:
    body = f"{draw.randint(50, 99)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{draw.randint(1, 4)}{''.join(draw.choices(DIGITS, k=5))}"
    check = (11 - _weighted(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10
    return f"{body[:6]}-{body[6:]}{check}"


def _za(draw: random.Random) -> str:
    return _luhn(
        f"{draw.randint(50, 99)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{draw.randint(1000, 9999)}08"
    )


def _thai(draw: random.Random) -> str:
    body = _digits(draw, 12)
    text = body + str((11 - _weighted(body, tuple(range(13, 1, -1))) % 11) % 10)
    return f"{text[0]}-{text[1:5]}-{text[5:10]}-{text[10:12]}-{text[12]}"


def _tfn(draw: random.Random) -> str:
    while True:
        text = _digits(draw, 9)
        if _weighted(text, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0:
            return f"{text[:3]} {text[3:6]} {text[6:]}"


def _sin(draw: random.Random) -> str:
    text = _luhn(str(draw.randint(1, 7)) + "".join(draw.choices(DIGITS, k=7)))
    return draw.choice((f"{text[:3]}-{text[3:6]}-{text[6:]}", f"{text[:3]} {text[3:6]} {text[6:]}"))


def _steuer_id(draw: random.Random) -> str:
    """The German tax number (ISO 7064, MOD 11,10), one digit twice and one not at all."""
    body = draw.sample(DIGITS[1:], 9)
    body.insert(draw.randint(1, 9), body[draw.randrange(9)])
    product = 10
    for digit in body:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return "Steuer-ID " + "".join(body) + str((11 - product) % 10)


def _letters(draw: random.Random, size: int) -> str:
    return _pick(draw, string.ascii_uppercase, size)


NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "CREDIT_CARD": _card, "IBAN_CODE": _iban, "IP_ADDRESS": lambda d: draw_ip(d), "MAC_ADDRESS": lambda d: ":".join(_pick(d, HEX, 2) for _ in range(6)),
    "CRYPTO": lambda d: "bc1q" + _pick(d, "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 38), "EMAIL_ADDRESS": lambda d: f"{_pick(d, LOWER, 7)}@{_letters(d, 6).lower()}.{d.choice(('com', 'co.uk', 'museum', 'xyz'))}",
    "URL": lambda d: d.choice(("https://www.{}.co.il/", "http://{}.io:8080/a?b=c", "{}.com")).format(_letters(d, 7).lower()), "PHONE_NUMBER": lambda d: d.choice(("(415) 555-0{}", "+1 415 555 0{}", "415-555-0{}", "+972 9 762 5{}", "09-7625{}")).format(d.randint(100, 999)),
    "US_SSN": lambda d: f"{d.randint(100, 665)}-{d.randint(10, 99)}-{d.randint(1000, 9999)}", "US_ITIN": lambda d: f"9{d.randint(10, 99)}-{d.choice((70, 75, 88, 90, 94))}-{d.randint(1000, 9999)}",
    "US_PASSPORT": lambda d: f"my passport number is {_digits(d, 9)}", "US_DRIVER_LICENSE": lambda d: f"driver license: {_letters(d, 1)}{_digits(d, 7)}", "US_BANK_NUMBER": lambda d: f"my bank account number is {_digits(d, 10)}",
    "ABA_ROUTING_NUMBER": lambda d: f"routing number {_digits(d, 9)}", "UK_NHS": _nhs, "UK_NINO": lambda d: f"{d.choice('ABCEGHJ')}{d.choice('ABCEGHJ')} {_digits(d, 2)} {_digits(d, 2)} {_digits(d, 2)} {d.choice('ABCD')}",
    "ES_NIF": lambda d: (lambda n: f"{n:08d}" + "TRWAGMYFPDXBNJZSQVHLCKE"[n % 23])(d.randrange(10**7, 10**8)), "ES_NIE": lambda d: (lambda n: f"X{n:07d}" + "TRWAGMYFPDXBNJZSQVHLCKE"[n % 23])(d.randrange(10**6, 10**7)),
    "IT_FISCAL_CODE": lambda d: f"{_letters(d, 6)}{d.randint(40, 99)}{d.choice('ABCDEHLMPRST')}{d.randint(10, 28)}{_letters(d, 1)}{d.randint(100, 999)}{_letters(d, 1)}", "PL_PESEL": _pesel, "FI_PERSONAL_IDENTITY_CODE": _hetu, "SE_PERSONNUMMER": _personnummer,
    "SG_NRIC_FIN": _fin, "KR_RRN": _rrn, "ZA_ID_NUMBER": _za, "TH_TNIN": _thai, "IN_AADHAAR": _aadhaar, "IN_PAN": lambda d: f"{_letters(d, 3)}P{_letters(d, 1)}{d.randint(1000, 9999)}{_letters(d, 1)}", "AU_TFN": _tfn, "CA_SIN": _sin,
    "TR_NATIONAL_ID": lambda d: tckn(d), "DE_TAX_ID": _steuer_id, "BR_CPF": lambda d: cpf(d), "MEDICAL_LICENSE": lambda d: f"DEA number {_letters(d, 2)}{_digits(d, 7)}", "US_MBI": lambda d: f"Medicare {d.randint(1, 9)}EG4-TE{d.randint(1, 9)}-MK{d.randint(10, 99)}",
}  # fmt: skip


def draw_ip(draw: random.Random) -> str:
    """An IPv4 or IPv6 address, compressed or not."""
    v6 = ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(8))
    return draw.choice(
        (
            ".".join(str(draw.randint(1, 254)) for _ in range(4)),
            v6,
            "2001:db8::" + v6[-4:].lstrip(":"),
            f"fe80::{draw.randrange(16, 65536):x}:{draw.randrange(16, 65536):x}",
        )
    )


def tckn(draw: random.Random) -> str:
    """A Turkish identity number."""
    body = [int(d) for d in _digits(draw, 9)]
    body.append((7 * sum(body[0:9:2]) - sum(body[1:8:2])) % 10)
    return "".join(map(str, body)) + str(sum(body) % 10)


def cpf(draw: random.Random) -> str:
    """A Brazilian CPF."""
    body = [int(d) for d in _digits(draw, 9)]
    for size in (9, 10):
        body.append(sum(d * w for d, w in zip(body, range(size + 1, 1, -1), strict=True)) * 10 % 11 % 10)
    text = "".join(map(str, body))
    return f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}"
