"""Content banks: hand-written sentence patterns per topic and stage, read from text files beside this module.

A topic file is line-based. Header lines: `topic`, `sub` (subreddits), `group` (chat names), `next` (topic that often
follows), `slot name = a | b | c`. `dispute name` opens a matter people disagree on, with `+` and `-` lines.
`stage key: label` opens a stage of the topic's arc, `stage key` adds to it; its lines start with a kind:

    t title   q question or opener   d detail given by the asker   u further question
    a advice  s story of one who has been there   f what the asker reports back   c code

Patterns hold alternatives `{a|b}`, slots `<name>` (bound for a whole thread; `<name2>` differs from `<name>`)
and number ranges `<3-9>`.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

KINDS = "tqdasfuc"
LANGUAGES = ("ar", "de", "es", "fr", "hi", "pt", "ru", "zh")


@dataclass(frozen=True)
class Stage:
    """One step of a topic's arc: what people ask, answer and report there."""

    key: str
    label: str
    lines: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Topic:
    """A topic: its communities, vocabulary, ordered stages and matters of dispute (name → for, against)."""

    name: str
    subs: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    slots: dict[str, list[str]] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    disputes: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)


def _words(text: str, separator: str | None = None) -> list[str]:
    return [word.strip() for word in text.split(separator) if word.strip()]


def parse_topic(text: str, source: str) -> Topic:
    """The topic written in `text`. Raises ValueError naming `source` and the line that is not understood."""
    topic = Topic(text.split(maxsplit=2)[1])
    side: tuple[list[str], list[str]] = ([], [])
    stage: Stage | None = None
    for number, line in enumerate(text.splitlines(), 1):
        head, _, rest = line.partition(" ")
        rest = rest.replace("\\n", "\n").strip()
        match head:
            case "" | "#" | "topic":
                pass
            case "sub":
                topic.subs.extend(_words(rest))
            case "group":
                topic.groups.extend(_words(rest, "|"))
            case "next":
                topic.next.extend(_words(rest))
            case "slot":
                name, _, values = rest.partition("=")
                topic.slots[name.strip()] = _words(values, "|")
            case "dispute":
                side = topic.disputes.setdefault(rest, ([], []))
            case "+" | "-":
                side[head == "-"].append(rest)
            case "stage":
                key, _, label = rest.partition(":")
                known = [s for s in topic.stages if s.key == key.strip()]
                stage = known[0] if known else Stage(key.strip(), label.strip())
                topic.stages.extend([] if known else [stage])
            case kind if kind in KINDS and stage:
                stage.lines.setdefault(kind, []).append(rest)
            case _:
                raise ValueError(f"{source}:{number}: not a line of a content bank")
    return topic


@cache
def topics() -> dict[str, Topic]:
    """Every shipped topic by name, in the order of the names."""
    folder = files("user_embeddings_dagster.samples") / "content" / "topics"
    paths = sorted((p for p in folder.iterdir() if p.name.endswith(".txt")), key=lambda p: p.name)
    found = [parse_topic(path.read_text("utf-8"), path.name) for path in paths]
    return {topic.name: topic for topic in found}


@cache
def foreign(language: str) -> dict[str, Topic]:
    """The topics that the bank of `language` covers, in that language."""
    path = files("user_embeddings_dagster.samples") / "content" / "languages" / f"{language}.txt"
    parts = ("\n" + path.read_text("utf-8")).split("\ntopic ")[1:]
    found = [parse_topic("topic " + part, path.name) for part in parts]
    return {topic.name: topic for topic in found}


@cache
def phrases() -> dict[str, list[str]]:
    """Turns of phrase that fit any topic, by section: hedges, greetings, thanks, agreement, life, pii, …"""
    text = (files("user_embeddings_dagster.samples") / "content" / "phrases.txt").read_text("utf-8")
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            lines = sections.setdefault(line[1:-1], [])
        elif line.strip():
            lines.append(line.replace("\\n", "\n"))
    return sections
