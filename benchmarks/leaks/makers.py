"""What makes a value of each kind: the value as written, and its distinctive parts."""

import re
from collections.abc import Callable, Iterable
from random import Random
from string import ascii_uppercase, digits, hexdigits

from benchmarks.leaks import values as v

HEX = hexdigits[:16]
Made = tuple[str, Iterable[str]]


def email(draw: Random) -> tuple[str, str, str]:
    """Local part, host and top-level domain."""
    return (
        f"{v.word(draw, 9)}{draw.choice(('.', '_', ''))}{v.word(draw, 4)}",
        v.word(draw),
        draw.choice(("com", "org", "de", "io")),
    )


def mail(draw: Random) -> Made:
    """name@host.com."""
    local, host, top = email(draw)
    return f"{local}@{host}.{top}", (local, host)


def mail_obfuscated(draw: Random) -> Made:
    """As people hide it: name (at) host (dot) com."""
    local, host, top = email(draw)
    local = local.replace(".", "")
    form = draw.choice(("{} (at) {} (dot) {}", "{} at {} dot {}", "{}[at]{}[dot]{}", "{} AT {} DOT {}", "{}(at){}.{}"))
    return form.format(local, host, top), (local, host)


def mail_full_width(draw: Random) -> Made:
    """In full-width characters."""
    local, host, top = email(draw)
    plain = f"{local}@{host}.{top}"
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in plain)
    return wide, (plain, local, host)


def mail_zero_width(draw: Random) -> Made:
    """Cut by characters that nobody sees."""
    local, host, top = email(draw)
    plain = f"{local}@{host}.{top}"
    cut = draw.choice(("\u200b", "\u200d", "\u2060", "\u00ad"))
    return cut.join((plain[:4], plain[4:8], plain[8:])), (plain, local, host)


def phone(*forms: str) -> Callable[[Random], Made]:
    """`d` is any digit, `n` one from 2 to 9."""

    def make(draw: Random) -> Made:
        form = draw.choice(forms)
        value = re.sub("[dn]", lambda m: draw.choice(digits if m[0] == "d" else digits[2:]), form)
        return value, (re.sub(r"\D", "", value),)

    return make


def url_path(draw: Random) -> Made:
    """A profile: the path or the host names a person."""
    name = v.word(draw)
    hosts = ("https://www.reddit.com/user/{}", "https://t.me/{}", "https://github.com/{}", "http://instagram.com/{}/",
             "https://{}.medium.com/my-post", "t.me/{}", "www.facebook.com/{}")  # fmt: skip
    return draw.choice(hosts).format(name), (name,)


def url_query(draw: Random) -> Made:
    """A link with a name and a code."""
    host, name, token = v.word(draw), v.word(draw), v.text(draw, v.ALPHANUMERIC, 24)
    return f"https://{host}.net/reset?user={name}&code={token}#top", (host, name, token)


def ipv4(draw: Random) -> Made:
    """Four octets."""
    return ".".join(str(draw.randint(101, 223)) for _ in range(4)), ()


def ipv6(draw: Random) -> Made:
    """Eight groups, or shortened."""
    groups = [f"{draw.randrange(0x1000, 0x10000):x}" for _ in range(draw.choice((8, 5)))]
    if len(groups) == 8:
        return ":".join(groups), ()
    return ":".join(groups[:3]) + "::" + ":".join(groups[3:]), ()


def mac(draw: Random) -> Made:
    """Six octets."""
    return draw.choice(":-").join(v.text(draw, HEX, 2) for _ in range(6)), ()


def card_grouped(draw: Random) -> Made:
    """In groups of four."""
    number = v.card(draw)
    return draw.choice((" ", "-")).join(v.spaced(number).split()), (number,)


def iban_spaced(draw: Random) -> Made:
    """In groups of four."""
    number = v.iban(draw)
    return v.spaced(number), (number,)


def ssn(draw: Random) -> Made:
    """US social security number."""
    area = draw.choice([number for number in range(1, 899) if number != 666])
    return f"{area:03d}-{draw.randint(1, 99):02d}-{draw.randint(1, 9999):04d}", ()


def nino(draw: Random) -> Made:
    """UK national insurance number."""
    value = v.text(draw, "ABCEHJKLMPRSTWXYZ", 2) + v.digits(draw, 6) + draw.choice("ABCD")
    return draw.choice((value, v.spaced(value, 2))), (value,)


def codice_fiscale(draw: Random) -> Made:
    """Italian tax code."""
    u = ascii_uppercase
    value = v.text(draw, u, 6) + v.digits(draw, 2) + draw.choice("ABCDEHLMPRST") + f"{draw.randint(1, 31):02d}"
    return value + draw.choice("ABCDEFGHIL") + v.digits(draw, 3) + draw.choice(u), ()


def aadhaar(draw: Random) -> Made:
    """Indian identity number."""
    value = v.digits(draw, 12, "23456789")
    return v.spaced(value), (value,)


def decimal(draw: Random) -> Made:
    """Latitude and longitude in degrees."""
    latitude, longitude = f"{draw.uniform(-89, 89):.6f}", f"{draw.uniform(-179, 179):.6f}"
    return f"{latitude}, {longitude}", (latitude, longitude)


def sexagesimal(draw: Random) -> Made:
    """In degrees, minutes and seconds."""
    angles = [f"{draw.randint(1, most)}°{draw.randint(0, 59):02d}'{draw.uniform(10, 59):.2f}" for most in (89, 179)]
    return f'{angles[0]}"{draw.choice("NS")} {angles[1]}"{draw.choice("EW")}', angles


def eth_key(draw: Random) -> Made:
    """32 bytes in hexadecimal."""
    key = v.text(draw, HEX, 64)
    return draw.choice(("", "0x")) + key, (key,)


def sol_array(draw: Random) -> Made:
    """A key pair as Solana's tools write it to a file."""
    return "[" + draw.choice((",", ", ")).join(str(draw.randrange(256)) for _ in range(64)) + "]", ()


def seed(draw: Random) -> Made:
    """12 or 24 words of BIP-39."""
    words = draw.sample(v.seed_words(), draw.choice((12, 24)))
    return " ".join(words), (" ".join(words[:6]), " ".join(words[6:12]))


def prefixed(prefix: str, length: int, alphabet: str = v.ALPHANUMERIC) -> Callable[[Random], Made]:
    """A literal and so many random characters: the form of most vendors' keys."""

    def make(draw: Random) -> Made:
        body = v.text(draw, alphabet, length)
        return prefix + body, (body,)

    return make


def slack(draw: Random) -> Made:
    """Slack bot token."""
    return f"xoxb-{v.digits(draw, 12)}-{v.digits(draw, 13)}-{(last := v.text(draw, v.ALPHANUMERIC, 24))}", (last,)


def sendgrid(draw: Random) -> Made:
    """SendGrid API key."""
    first, last = v.url_base64(draw.randbytes(16)), v.url_base64(draw.randbytes(32))
    return f"SG.{first}.{last}", (first, last)


def telegram_bot(draw: Random) -> Made:
    """Telegram bot token."""
    secret = "AA" + v.text(draw, v.ALPHANUMERIC + "_-", 32) + draw.choice(v.ALPHANUMERIC)
    return f"{v.digits(draw, 10)}:{secret}", (secret,)


def discord(draw: Random) -> Made:
    """Discord bot token."""
    parts = (
        v.url_base64(v.digits(draw, 18).encode()),
        v.text(draw, v.ALPHANUMERIC, 6),
        v.text(draw, v.ALPHANUMERIC, 27),
    )
    return ".".join(parts), (parts[0], parts[2])


def bearer(draw: Random) -> Made:
    """An opaque token."""
    return v.text(draw, v.ALPHANUMERIC, 40) + v.digits(draw, 2), ()


def jwt(draw: Random) -> Made:
    """A JSON web token."""
    token = v.jwt(draw)
    return token, token.split(".")[1:]


def pem(draw: Random) -> Made:
    """A private key."""
    key = v.pem(draw)
    return key, key.split("\n")[1:-1]


def passport(draw: Random) -> Made:
    """A letter and eight digits."""
    return draw.choice(ascii_uppercase) + v.digits(draw, 8), ()


def password(draw: Random) -> Made:
    """A word, digits and a mark."""
    return f"{v.word(draw, 8)}{v.digits(draw, 3)}!", ()


def handle(draw: Random) -> Made:
    """@name."""
    name = f"{v.word(draw)}{draw.choice(('', '_' + v.digits(draw, 2)))}"
    return f"@{name}", (name,)


def reddit_handle(draw: Random) -> Made:
    """u/name."""
    name = f"{v.word(draw)}{draw.choice(('', '-' + v.digits(draw, 2)))}"
    return draw.choice(("u/", "/u/")) + name, (name,)


def home(draw: Random) -> Made:
    """A path in somebody's home folder."""
    name = v.word(draw)
    return draw.choice(("/home/{}/notes.txt", "C:\\Users\\{}\\Desktop", "/Users/{}/Documents")).format(name), (name,)


def plain(make: Callable[[Random], str]) -> Callable[[Random], Made]:
    """A value without parts."""
    return lambda draw: (make(draw), ())


def bech32(draw: Random) -> Made:
    """A native SegWit address."""
    return "bc1q" + (body := v.text(draw, v.BECH32, 38)), (body,)
