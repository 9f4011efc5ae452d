"""Who meets whom: sessions of one platform become shared threads with several participants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from user_embeddings_dagster.samples.dialogue import Dialogue, Thread
from user_embeddings_dagster.samples.people import Person
from user_embeddings_dagster.samples.storyline import DAY, Session


@dataclass
class Scene:
    """Sessions that share a thread; the first one's person opens it."""

    place: str
    sessions: list[Session]


@dataclass(frozen=True)
class Manners:
    """How conversations go on a platform: waits in seconds, bystanders' replies, asker's returns."""

    chat: bool
    join: float  # probability of joining an open thread instead of opening one
    window: int  # how long a thread stays open for joining
    wait: tuple[int, int]  # between turns
    replies: tuple[int, ...]  # bystanders' turns, drawn evenly
    returns: float  # probability that the asker answers a reply
    foreign_share: float


FORUM = Manners(False, 0.75, 12 * DAY, (400, 30_000), (0, 1, 1, 2, 2, 3, 4), 0.28, 0.6)
CHAT = Manners(True, 0.75, 12 * DAY, (15, 600), (0, 1, 1, 2, 3), 0.45, 0.6)


def scenes(
    rng: Random, sessions: Sequence[Session], manners: Manners, place_of: Callable[[Session], str]
) -> list[Scene]:
    """Group sessions into scenes. A joining session moves to just after the thread's opening.

    A person joins threads on the stage they are at or the one just behind them, never twice, and never earlier
    than their own previous session.
    """
    found: list[Scene] = []
    open_by_topic: dict[str, list[Scene]] = {}
    latest: dict[int, int] = {}
    for session in sorted(sessions, key=lambda s: (s.at, s.person.number)):
        known = open_by_topic.setdefault(session.topic, [])
        fits = [
            scene
            for scene in known[-6:]
            if session.at - scene.sessions[0].at < manners.window
            and scene.sessions[0].stage in (session.stage, session.stage - 1)
            and scene.sessions[0].at + 30_000 > latest.get(session.person.number, 0)
            and all(session.person is not other.person for other in scene.sessions)
            and len(scene.sessions) < 5
        ]
        if fits and rng.random() < manners.join:
            scene = rng.choice(fits)
            session.at = max(scene.sessions[0].at, latest.get(session.person.number, 0)) + rng.randrange(300, 9_000)
            scene.sessions.append(session)
        else:
            scene = Scene(place_of(session), [session])
            known.append(scene)
            found.append(scene)
        latest[session.person.number] = session.at
    return found


def play(rng: Random, dialogue: Dialogue, scene: Scene, manners: Manners, bystanders: Sequence[Person]) -> Thread:
    """The thread of `scene`: opening, the participants' turns, bystanders' turns and the asker's returns."""
    first = scene.sessions[0]
    asker = rng.choice(bystanders) if first.mentor else first.person
    opening = Session(asker, first.topic, first.stage, first.at - rng.randrange(200, 3_000), False)
    opening = opening if first.mentor else first
    shared = all(s.person.language == opening.person.language for s in scene.sessions)
    thread = dialogue.open(opening, scene.place, manners.foreign_share if shared else 0.0, manners.chat)
    people = [p for p in bystanders if p is not asker]
    entries = [(s.at, s.person, s.mentor) for s in scene.sessions if s.person is not asker]
    at = first.at
    extra = rng.choice(manners.replies) + (len(scene.sessions) == 1)
    for helper in rng.sample(people, min(extra, len(people))):
        at += rng.randrange(*manners.wait)
        entries.append((at, helper, rng.random() < 0.5))
    cast = [*people[:6], *(s.person for s in scene.sessions)]
    for when, person, mentor in sorted(entries, key=lambda e: (e[0], e[1].number)):
        turn = dialogue.reply(thread, person, when, mentor, manners.chat, cast)
        if rng.random() < manners.returns:
            back = turn.at + rng.randrange(*manners.wait)
            dialogue.reply(thread, asker, back, False, manners.chat, cast)
            if rng.random() < 0.2:
                dialogue.reply(thread, person, back + rng.randrange(*manners.wait), mentor, manners.chat, cast)
        if manners.chat and rng.random() < 0.12:
            dialogue.small_talk(thread, rng.choice(cast), turn.at + rng.randrange(*manners.wait))
    thread.turns[0].marks.add("opening")
    return thread
