"""Threads: who opens, who answers whom, and what each turn is about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from user_embeddings_dagster.samples.bank import Stage, Topic, foreign, phrases, topics
from user_embeddings_dagster.samples.grammar import Grammar
from user_embeddings_dagster.samples.people import Person
from user_embeddings_dagster.samples.storyline import Session
from user_embeddings_dagster.samples.voice import Voice, lower_start

_ASKING = ("What about", "And what about", "Any thoughts on", "Do you have an opinion on", "Is there a rule for")


@dataclass
class Turn:
    """One message: `parent` is the index of the turn it answers, `at` and `edited` are Unix seconds."""

    person: Person | None
    text: str
    at: int
    parent: int | None = None
    act: str = "q"
    side: tuple[str, int] | None = None  # the dispute and stance it argues
    media: str | None = None
    edited: int | None = None
    marks: set[str] = field(default_factory=set)


@dataclass
class Thread:
    """A conversation on one stage of one topic, in one place (a subreddit, a chat)."""

    topic: Topic
    stage: Stage
    place: str
    title: str
    language: str | None
    bound: dict[str, str]
    turns: list[Turn]
    used: dict[str, int] = field(default_factory=dict)  # pattern → turn that used it last


class Dialogue:
    """Writes threads sentence by sentence from the content banks."""

    def __init__(self, rng: Random, grammar: Grammar) -> None:
        self.rng = rng
        self.grammar = grammar
        self.voice = Voice(rng, grammar)
        self._halves: dict[int, list[str]] = {}

    def bank_of(self, session: Session, foreign_share: float) -> tuple[Topic, Stage, str | None]:
        """Topic and stage to draw from: the person's own language where its bank covers the stage."""
        topic = topics()[session.topic]
        stage = topic.stages[session.stage]
        language = session.person.language
        other = foreign(language).get(topic.name) if language else None
        if other and self.rng.random() < foreign_share:
            own = [s for s in other.stages if s.key == stage.key]
            if own:
                return other, own[0], language
        return topic, stage, None

    def open(self, session: Session, place: str, foreign_share: float, chat: bool) -> Thread:
        """A thread with its first turn."""
        topic, stage, language = self.bank_of(session, foreign_share)
        bound = self.grammar.bind(topic.slots, f"{session.person.number}:{topic.name}:{language}") | {
            "label": stage.label,
            "sub": place,
        }
        title = self.grammar.say(stage.lines["t"], self._bound(session.person, bound))
        thread = Thread(topic, stage, place, title, language, bound, [])
        text = self._say(thread, session.person, self._opening(thread, session.person, chat))
        thread.turns.append(Turn(session.person, text, session.at))
        return thread

    def reply(self, thread: Thread, person: Person, at: int, mentor: bool, chat: bool, cast: Sequence[Person]) -> Turn:
        """A turn by `person` that takes up an earlier turn of `thread`; appended to it."""
        index = self._parent(thread, person)
        parent = thread.turns[index]
        act, side = self._act(thread, person, parent, mentor)
        lines = self._answer(thread, person, parent, act, side, chat)
        if not thread.language:
            lines = self._dress(thread, person, parent, act, lines, chat, cast)
        text = self._say(thread, person, lines, act in ("a", "side"))
        if not thread.language and parent.person and self.rng.random() < (0.16 if chat else 0.05):
            text = self._addressed(thread, person, parent.person, text)
        if not chat and not thread.language and self.rng.random() < 0.07 and parent.text:
            quote = parent.text.split("\n")[-1].split(". ")[0][:160]
            text = f"> {quote}\n\n{text}"
        turn = Turn(person, text, at, index, act, side)
        thread.turns.append(turn)
        return turn

    def small_talk(self, thread: Thread, person: Person, at: int) -> Turn:
        """A short chat line that answers the last turn."""
        text = self.voice.message(person, [self._phrase("chat_short", person, thread.bound)])
        turn = Turn(person, text, at, len(thread.turns) - 1 if self.rng.random() < 0.4 else None, "chat")
        thread.turns.append(turn)
        return turn

    def _bound(self, person: Person, bound: dict[str, str], other: str = "you", third: str = "") -> dict[str, str]:
        weekday = self.rng.choice(phrases()["weekdays"])
        return bound | person.life | {"weekday": weekday, "other": other, "third": third, "handle": other}

    def _phrase(self, section: str, person: Person, bound: dict[str, str], **names: str) -> str:
        return self.grammar.say(phrases()[section], self._bound(person, bound, **names))

    def line(self, thread: Thread, person: Person, *kinds: str, length: float = 0.0) -> str:
        """A sentence of the first of `kinds` that the stage has, from a pattern new to the thread if there is one.

        "" if this message has used every pattern already.
        """
        every = next((thread.stage.lines[k] for k in kinds if k in thread.stage.lines), thread.stage.lines["q"])
        lines = self._suited(every, length or person.style.length)
        bound = self._bound(person, thread.bound)
        now = len(thread.turns)
        mine = {pattern for pattern, turn in thread.used.items() if turn == now}
        text, joints = "", thread.language is None and kinds[0] in "asdf"
        for patterns, avoid in ((lines, thread.used), (every, thread.used), (every, mine)):
            text = text or self.grammar.say(patterns, bound, avoid, joints)
        if 0 < len(text.split()) < 3 and text.endswith("?") and not thread.language:
            text = f"{self.rng.choice(_ASKING)} {text[:1].lower() + text[1:] if text[1:2].islower() else text}"
        if text:
            thread.used[self.grammar.last] = now
        return text

    def _suited(self, lines: list[str], length: float) -> list[str]:
        """Mostly the longer half of `lines` for people of many words; any of them for people of few."""
        if len(lines) < 3 or length < 1.5 or self.rng.random() < 0.25:
            return lines
        if id(lines) not in self._halves:
            ranked = sorted(lines, key=len)
            middle = len(ranked) // 2
            self._halves[id(lines)] = ranked[middle:]
        return self._halves[id(lines)]

    def _say(self, thread: Thread, person: Person, sentences: list[str], hedged: bool = False) -> str:
        return self.voice.message(person, [s for s in sentences if s], thread.language is not None, hedged)

    def _more(self, person: Person, at: float, chat: bool) -> bool:
        return self.rng.random() < (person.style.length - at) * (0.55 if chat else 0.8)

    def _opening(self, thread: Thread, person: Person, chat: bool) -> list[str]:
        rng = self.rng
        lines = [self.line(thread, person, "q")]
        if rng.random() < 0.25 and "d" in thread.stage.lines:
            lines.insert(0, self.line(thread, person, "d"))
        elif self._more(person, 0.7, chat):
            lines.append(self.line(thread, person, "d", "q"))
        if thread.language:
            return lines
        if "c" in thread.stage.lines and rng.random() < 0.4:
            lines.append(self.line(thread, person, "c"))
        if self._more(person, 1.9, chat):
            lines.append(self.line(thread, person, "d", "u"))
        if rng.random() < 0.2:
            lines.insert(rng.randrange(len(lines) + 1), self._phrase("life", person, thread.bound))
        if not thread.place and not chat:
            if rng.random() < 0.2:
                lines.insert(0, self._phrase("prompt_open", person, thread.bound))
            return lines
        if rng.random() < person.style.greet * 0.5:
            lines.insert(0, self._phrase("ask_open", person, thread.bound))
        if lines[0] and len(lines) > 1 and rng.random() < 0.12 and not lines[0].endswith("?"):
            lines.insert(0, self._phrase("frame_d", person, thread.bound))
        if rng.random() < 0.12:
            lines.append(self._phrase("ask_close", person, thread.bound))
        return lines

    def _parent(self, thread: Thread, person: Person) -> int:
        turns = thread.turns
        others = [i for i, turn in enumerate(turns) if turn.person is not person]
        if not others:
            return 0
        if turns[0].person is person:  # the asker answers the latest who has no answer yet
            answered = {turn.parent for turn in turns if turn.person is person}
            return next((i for i in reversed(others) if i not in answered), others[-1])
        return 0 if self.rng.random() < 0.55 and 0 in others else self.rng.choice(others)

    def _act(self, thread: Thread, person: Person, parent: Turn, mentor: bool) -> tuple[str, tuple[str, int] | None]:
        rng = self.rng
        if parent.side and rng.random() < 0.6:
            return "side", (parent.side[0], person.stances[parent.side[0]])
        if thread.turns[0].person is person:
            return ("d" if parent.act == "u" else "f"), None
        if not thread.language and thread.topic.disputes and rng.random() < 0.14:
            name = rng.choice(sorted(thread.topic.disputes))
            return "side", (name, person.stances[name])
        if parent.act == "u" and parent.person is not person:
            return rng.choice(("a", "a", "s")), None
        return rng.choice(("a", "a", "a", "s") if mentor else ("a", "a", "a", "s", "s", "u")), None

    def _answer(
        self, thread: Thread, person: Person, parent: Turn, act: str, side: tuple[str, int] | None, chat: bool
    ) -> list[str]:
        if side:
            lines = [self.grammar.say(thread.topic.disputes[side[0]][side[1]], self._bound(person, thread.bound))]
            if parent.side and parent.side != side and self.rng.random() < 0.5:
                lines.insert(0, self._phrase("disagree", person, thread.bound, other=self._call(parent)))
            return lines
        lines = [self.line(thread, person, act, "a")]
        if act in "as" and self._more(person, 1.0, chat):
            lines.append(self.line(thread, person, "s" if act == "a" and self.rng.random() < 0.35 else "a"))
        if act == "a" and self._more(person, 2.2, chat):
            lines.append(self.line(thread, person, "a"))
        if act == "f" and self._more(person, 1.9, chat):
            lines.append(self.line(thread, person, "d", "u"))
        return lines

    def _dress(
        self,
        thread: Thread,
        person: Person,
        parent: Turn,
        act: str,
        lines: list[str],
        chat: bool,
        cast: Sequence[Person],
    ) -> list[str]:
        rng, bound, called = self.rng, thread.bound, self._call(parent)
        if act == "f" and rng.random() < 0.35:
            lines.insert(0, self._phrase("thanks", person, bound, other=called))
        elif act in "as" and parent.act in "as" and rng.random() < 0.3:
            section = "agree" if rng.random() < 0.7 else "disagree"
            lines.insert(0, self._phrase(section, person, bound, other=called))
        elif act in "as" and rng.random() < 0.08:
            lines.append(self._phrase("life", person, bound))
        share = 0.3 if person.style.length > 2 else 0.16
        if act in "asdf" and act != "side" and rng.random() < share * (0.6 if chat else 1.0):
            lines.insert(0, self._phrase(f"frame_{act}", person, bound))
        third = [p for p in cast if p is not person and p is not parent.person]
        if chat and third and rng.random() < 0.07:
            lines.append(self._phrase("point_to", person, bound, third=rng.choice(third).first))
        return lines

    def _addressed(self, thread: Thread, person: Person, other: Person, text: str) -> str:
        lead = self._phrase("address", person, thread.bound, other=other.first).replace(
            f"@{other.first}", f"@{other.handle}"
        )
        lead = lead.lower() if person.style.lower and not lead.startswith("@") else lead
        return f"{lead} {lower_start(text)}"

    def _call(self, turn: Turn) -> str:
        return turn.person.first if turn.person else "you"
