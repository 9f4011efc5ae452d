"""Marked turns written out for one SUBJECT: SUBJECT, `<P1>`, `<P2>`, … in order of first appearance (C9)."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.conversations.thread import Thread, Window
from user_embeddings_dagster.privacy.masking import ANY_MARK, NAME_MARK
from user_embeddings_dagster.privacy.normalise import UNSPACED
from user_embeddings_dagster.privacy.pii import kind_placeholders

SUBJECT = "SUBJECT"
ASSISTANT = "ASSISTANT"
CUT = " …"
_KINDS = kind_placeholders()


@dataclass(frozen=True)
class Turns:
    """A window's turns before they are rendered: who speaks, marked text, marks of people in it."""

    places: list[int]
    speakers: list[str]
    texts: list[str]
    names: list[list[str]]
    n_marks: int


@dataclass(frozen=True)
class Rendered:
    """A window as one SUBJECT's chunk: speaker and text of each turn."""

    speakers: list[str]
    texts: list[str]

    @property
    def text(self) -> str:
        """The turns as 'SPEAKER: text' lines."""
        return "\n".join(map("{}: {}".format, self.speakers, self.texts))


def collect_turns(thread: Thread, window: Window, config: ChunkConfig) -> Turns:
    """The turns of `window`, context cut to its limit and members to `max_turn_tokens`."""
    limits = [window.limits.get(place, config.max_turn_tokens) for place in window.turns]
    texts = [shortened(thread.texts[place], most) for place, most in zip(window.turns, limits, strict=True)]
    speakers = [_speaker(thread, place) for place in window.turns]
    names = [NAME_MARK.findall(text) for text in texts]
    return Turns(window.turns, speakers, texts, names, sum(len(ANY_MARK.findall(text)) for text in texts))


def _speaker(thread: Thread, place: int) -> str:
    if thread.roles[place] == "assistant":
        return ASSISTANT
    return thread.authors[place] or thread.ids[place]  # an unknown author is a person of their own


def render(turns: Turns, subject: str, people: Mapping[str, frozenset[str]]) -> Rendered:
    """The chunk in which `subject` (author id) is SUBJECT; `people` says who each mark may stand for."""
    present = set(turns.speakers)
    labels = {subject: SUBJECT, ASSISTANT: ASSISTANT}
    written: dict[int, str] = dict(_KINDS)
    n_people = 0
    for speaker, names in zip(turns.speakers, turns.names, strict=True):
        persons = [speaker, *(_person(mark, people[mark], present) for mark in names)]
        for person in persons:
            if person not in labels:
                n_people += 1
                labels[person] = f"<P{n_people}>"
        written.update((ord(mark), labels[person]) for mark, person in zip(names, persons[1:], strict=True))
    texts = [text.translate(written) for text in turns.texts]
    return Rendered([labels[speaker] for speaker in turns.speakers], texts)


def _person(mark: str, candidates: frozenset[str], present: set[str]) -> str:
    """Whom a name means: its bearer; of several, the one who speaks here, else somebody unknown."""
    if len(candidates) == 1:
        return next(iter(candidates))
    speaking: Sequence[str] = [person for person in candidates if person in present]
    return speaking[0] if len(speaking) == 1 else mark


def shortened(text: str, tokens: int) -> str:
    """The start of `text`, about `tokens` long, cut between words.

    Never inside a word, half of which may be a name; a mark is one character and is not split.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= 4 * tokens:
        return text
    kept = raw[: 4 * tokens].decode("utf-8", "ignore")
    head, space, _ = kept.rpartition(" ")
    if space:
        return head + CUT
    while kept and _is_of_word(kept[-1]):
        kept = kept[:-1]
    return kept + CUT


def _is_of_word(character: str) -> bool:
    """A letter or digit of a script with spaces, or a mark on one, as in an é of two characters."""
    return not UNSPACED.match(character) and (character.isalnum() or unicodedata.category(character).startswith("M"))
