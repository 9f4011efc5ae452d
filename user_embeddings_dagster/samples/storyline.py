"""What each person talks about over the months: arcs that advance, triggers from one topic to the next.

A person starts with two interests and works through each arc's stages in order. At the third stage of an arc the
topic that commonly follows it (`Topic.next`) is awakened and comes up about three conversations later. People alternate
between their live interests in a personal pattern, prefer a weekday per topic, and return to finished topics to
help beginners.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from user_embeddings_dagster.samples.bank import topics
from user_embeddings_dagster.samples.people import Person

START = int(datetime(2024, 1, 8, tzinfo=UTC).timestamp())  # a Monday
DAYS = 236  # to the end of August 2024
DAY = 86_400
_TRIGGER_STAGE = 2
_TRIGGER_DELAY = 3
_MAX_LIVE = 3


@dataclass
class Session:
    """One conversation of a person: which stage of which topic, when (Unix seconds), and from what side."""

    person: Person
    topic: str
    stage: int
    at: int
    mentor: bool  # past this stage already: answers rather than asks


def _time_of_day(rng: Random, person: Person) -> int:
    hour = rng.gauss(person.evening, 1.8) if rng.random() < 0.75 else rng.uniform(7, 23)
    return int((hour % 24) * 3600) + rng.randrange(60)


def _plan(rng: Random, person: Person, length: int) -> list[tuple[str, int, bool]]:
    bank = topics()
    live = {name: rng.choice((0, 0, 0, 1, 2)) for name in person.interests}
    pattern = rng.choice(((0,), (0, 1), (0, 0, 1), (0, 1, 1), (0, 0, 1, 1)))
    awake: list[tuple[int, str]] = []
    done: list[str] = []
    plan: list[tuple[str, int, bool]] = []
    while len(plan) < length:
        due = [name for step, name in awake if step <= len(plan)]
        awake = [(step, name) for step, name in awake if step > len(plan)]
        live.update((name, 0) for name in due if name not in live)
        if not live:
            fresh = [n for n in sorted(bank) if n not in done]
            live[rng.choice(fresh or sorted(bank))] = 0
        order = list(live)
        topic = due[0] if due else order[pattern[len(plan) % len(pattern)] % len(order)]
        stage = live[topic]
        plan.append((topic, stage, False))
        if rng.random() < 0.88:
            live[topic] += 1
        if stage == _TRIGGER_STAGE:
            follow = [n for n in bank[topic].next if n in bank and n not in live and n not in done]
            if follow and len(live) + len(awake) < _MAX_LIVE + 1:
                awake.append((len(plan) + _TRIGGER_DELAY - 1, follow[0]))
        if live[topic] >= len(bank[topic].stages):
            del live[topic]
            done.append(topic)
        elif done and rng.random() < 0.1:
            plan.append((done[-1], len(plan) % 2, True))
    return plan[:length]


def storyline(rng: Random, person: Person, length: int) -> list[Session]:
    """`length` sessions of `person` in time order, spread over the months with a weekday and hour rhythm."""
    weekday: dict[str, int] = {}
    first = rng.uniform(0, DAYS * 0.2)
    span = min(DAYS - first - 4, length * rng.uniform(6, 14))
    steps = sorted(rng.uniform(0, span) for _ in range(length))
    sessions: list[Session] = []
    latest = START
    for (topic, stage, mentor), step in zip(_plan(rng, person, length), steps, strict=True):
        day = int(first + step)
        prefer = weekday.setdefault(topic, rng.randrange(7))
        if rng.random() < 0.6:
            day += (prefer - day + 3) % 7 - 3
        at = START + max(day, 0) * DAY + _time_of_day(rng, person)
        latest = max(at, latest + rng.randrange(4_000, 20_000))
        sessions.append(Session(person, topic, stage, latest, mentor))
    return sessions
