"""Invented people: names, accounts, ways of writing, interests, opinions and circumstances."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from user_embeddings_dagster.samples.bank import LANGUAGES, foreign, phrases, topics

# Display names that break naive masking: regex characters, no word boundaries, common words.
HOSTILE_NAMES = (
    ("R.J. (the *real* one) [$]+", ""),
    ("王小明", ""),
    ("Will", ""),
    ("May", "Day"),
    ("Sunny", ""),
    ("Анна", "Ким"),
    ("ليلى", ""),
    ("\\d{3}^x|y", ""),
    ("José-María", "O'Neill"),
    ("Ⓜark", ""),
    ("Hope", ""),
    ("A", ""),
)
_HANDLE_WORDS = (
    "moss",
    "ember",
    "quartz",
    "falcon",
    "biscuit",
    "harbor",
    "velvet",
    "cobalt",
    "pickle",
    "lantern",
    "otter",
    "tundra",
    "maple",
    "static",
    "comet",
    "gravel",
    "noodle",
    "willow",
    "copper",
    "drizzle",
    "badger",
    "juniper",
    "pixel",
    "anchor",
    "thimble",
    "saffron",
    "walrus",
    "cinder",
    "marble",
    "rustle",
    "kettle",
    "sprocket",
)
_EMOJI = ("🙂", "😂", "🎉", "👍", "😅", "🙏", "🔥", "❤️", "🤔", "👀", "💪", "🤷‍♀️", "😭", "✨", "🫠", "👨‍👩‍👧")


@dataclass(frozen=True)
class Style:
    """How a person writes; rates are probabilities per message unless said otherwise."""

    lower: bool
    end_stop: float
    typos: float  # per word
    emoji: float
    emojis: tuple[str, ...]
    slang: bool
    british: bool
    hedge: float
    filler: float
    greet: float
    length: float  # sentences per message, about
    gap: str  # between sentences
    exclaims: bool
    splits: bool  # sends sentences as separate chat messages


@dataclass(frozen=True)
class Person:
    """One invented person, contributor or bystander."""

    number: int
    first: str
    last: str
    handle: str
    wallet: str
    telegram_id: int
    chatgpt_id: str
    language: str | None
    style: Style
    interests: tuple[str, ...]
    stances: dict[str, int] = field(hash=False, compare=False)  # dispute → 0 for, 1 against
    life: dict[str, str] = field(hash=False, compare=False)
    evening: float  # the hour, UTC, at which the person is most active
    platforms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Display name."""
        return f"{self.first} {self.last}".strip()


def _style(rng: Random) -> Style:
    return Style(
        lower=rng.random() < 0.3,
        end_stop=rng.choice((0.15, 0.6, 0.95, 1.0)),
        typos=rng.choice((0, 0, 0, 0.004, 0.012, 0.025)),
        emoji=rng.choice((0, 0, 0.05, 0.15, 0.4)),
        emojis=tuple(rng.sample(_EMOJI, 3)),
        slang=rng.random() < 0.2,
        british=rng.random() < 0.45,
        hedge=rng.choice((0, 0.05, 0.12, 0.22)),
        filler=rng.choice((0, 0.05, 0.12, 0.2)),
        greet=rng.choice((0, 0.1, 0.5)),
        length=rng.choice((1.2, 1.6, 2.0, 2.2, 2.8, 3.2)),
        gap=rng.choice((" ",) * 8 + ("  ", "\n\n", "... ", "\n")),
        exclaims=rng.random() < 0.2,
        splits=rng.random() < 0.35,
    )


def _handle(rng: Random, first: str, number: int) -> str:
    one, two = rng.sample(_HANDLE_WORDS, 2)
    plain = first.lower() if first.isascii() and first.isalpha() else one
    shapes = (
        f"{one}_{two}",
        f"{one.title()}{two.title()}{rng.randint(1, 99)}",
        f"{plain}{rng.randint(70, 2009)}",
        f"{plain}_{two}",
        f"the{one}{two}",
        f"{two}-{one}",
        f"{one}{rng.randint(100, 9999)}",
        f"not_{plain}_again",
        f"{two.title()}Of{one.title()}",
    )
    return f"{rng.choice(shapes)}{number % 97}"[:20]


def _life(rng: Random) -> dict[str, str]:
    bank = phrases()
    return {
        "job": rng.choice(bank["jobs"]),
        "city": rng.choice(bank["cities"]),
        "household": rng.choice(bank["households"]),
    }


def person(rng: Random, number: int, platforms: tuple[str, ...] = (), hostile: bool = False) -> Person:
    """Person `number`; the same generator state gives the same person."""
    bank = phrases()
    language = rng.choice(LANGUAGES) if rng.random() < 0.34 else None
    covered = sorted(foreign(language)) if language else []
    names = sorted(topics())
    first = bank["first_names"][number % len(bank["first_names"])]
    last = rng.choice(bank["last_names"]) if rng.random() < 0.75 else ""
    if hostile:
        first, last = HOSTILE_NAMES[number // 4 % len(HOSTILE_NAMES)]
    interests = rng.sample(covered, min(2, len(covered)))
    interests += rng.sample([n for n in names if n not in interests], 2 - len(interests))
    return Person(
        number,
        first,
        last,
        handle=first.lower()
        if hostile and first.isascii() and first.isalpha() and last == "" and len(first) > 2 and platforms
        else _handle(rng, first, number),
        wallet="0x" + f"{rng.getrandbits(160):040x}",
        telegram_id=rng.randrange(10**8, 7 * 10**9),
        chatgpt_id="user-" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789", k=24)),
        language=language,
        style=_style(rng),
        interests=tuple(interests),
        stances={d: rng.randrange(2) for n in names for d in topics()[n].disputes},
        life=_life(rng),
        evening=rng.choice((7.5, 12.5, 18.5, 20.0, 21.0, 22.5)) + rng.uniform(-1, 1),
        platforms=platforms,
    )


_PAIRS = {3: ("reddit", "chatgpt"), 9: ("telegram", "chatgpt"), 16: ("reddit", "telegram")}
_SINGLES = ("telegram", "reddit", "chatgpt")


def contributors(rng: Random, count: int) -> list[Person]:
    """`count` contributors; three in twenty contribute to two DataDAOs, the rest to one."""
    return [
        person(rng, n, _PAIRS.get(n % 20, (_SINGLES[n % 3],)), hostile=n < 4 * len(HOSTILE_NAMES) and n % 4 == 0)
        for n in range(count)
    ]


def bystanders(rng: Random, count: int, start: int) -> list[Person]:
    """People who talk to contributors but contribute nothing themselves."""
    return [person(rng, n, hostile=n % 29 == 0) for n in range(start, start + count)]


def sharing(rng: Random, people: Sequence[Person], topic: str, count: int) -> list[Person]:
    """`count` of `people`: those with an interest in `topic` first, others only when they do not suffice."""
    keen = [p for p in people if topic in p.interests]
    rest = [p for p in people if topic not in p.interests]
    chosen = rng.sample(keen, min(count, len(keen)))
    return chosen + rng.sample(rest, min(count - len(chosen), len(rest)))
