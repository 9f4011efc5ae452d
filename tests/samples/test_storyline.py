"""People's stories can be learnt: the next conversation follows from the earlier ones, popularity does not tell it."""

from collections import Counter
from random import Random

import pytest

from user_embeddings_dagster.samples.bank import topics
from user_embeddings_dagster.samples.people import contributors, person
from user_embeddings_dagster.samples.storyline import DAY, START, Session, storyline

LENGTH = 20


@pytest.fixture(scope="module")
def stories() -> list[list[Session]]:
    return [storyline(Random(f"story {n}"), person(Random(f"who {n}"), n), LENGTH) for n in range(120)]


def hits(stories: list[list[Session]], guess) -> float:
    """Share of sessions, from the fifth on, that `guess(earlier sessions)` (five candidates) holds."""
    found = [(s.topic, s.stage) in guess(story[:i]) for story in stories for i, s in enumerate(story) if i >= 5]
    return sum(found) / len(found)


def next_stages(earlier: list[Session]) -> list[tuple[str, int]]:
    """The stages after the ones that each live topic reached last, the latest topics first."""
    reached = {s.topic: s.stage for s in earlier if not s.mentor}
    return [(topic, stage + step) for topic, stage in list(reached.items())[-3:] for step in (1, 0)][:5]


def test_arc_order_beats_popularity(stories):
    popular = [pair for pair, _ in Counter((s.topic, s.stage) for story in stories for s in story).most_common(5)]
    assert hits(stories, next_stages) > 0.45
    assert hits(stories, lambda _earlier: popular) < 0.1


def test_a_story_out_of_order_tells_less(stories):
    """The broken twin: with a person's sessions shuffled, the stage reached last no longer tells the next."""
    shuffled = [Random(str(i)).sample(story, len(story)) for i, story in enumerate(stories)]
    assert hits(shuffled, next_stages) < 0.6 * hits(stories, next_stages)


def test_a_topic_awakens_its_successor(stories):
    """Reaching the third stage of a topic is often followed by the first stage of the topic named as next."""
    bank, followed, chances = topics(), 0, 0
    for story in stories:
        begun = {s.topic for s in story[:1]}
        for i, s in enumerate(story):
            if s.stage == 2 and not s.mentor and bank[s.topic].next and bank[s.topic].next[0] not in begun:
                chances += 1
                followed += any(t.topic == bank[s.topic].next[0] for t in story[i + 1 : i + 8])
            begun.add(s.topic)
    assert followed / chances > 0.4


def test_time_rises_within_the_months_and_has_a_rhythm(stories):
    hours: Counter[int] = Counter()
    for story in stories:
        times = [s.at for s in story]
        assert times == sorted(times) and len(set(times)) == len(times)
        assert times[0] >= START and times[-1] < START + 280 * DAY
        hours.update(t % DAY // 3600 for t in times)
    night, evening = sum(hours[h] for h in range(2, 6)), sum(hours[h] for h in range(18, 22))
    assert evening > 3 * night


def test_people_keep_their_opinions_and_interests():
    one, same = person(Random("x"), 5), person(Random("x"), 5)
    assert one == same and one.stances == same.stances
    assert {len(p.platforms) for p in contributors(Random("x"), 40)} == {1, 2}
