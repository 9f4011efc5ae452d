"""A person's voice: sentences of the banks joined and coloured the way this person writes."""

import re
from functools import cache
from random import Random

from user_embeddings_dagster.samples.bank import phrases, topics
from user_embeddings_dagster.samples.grammar import Grammar
from user_embeddings_dagster.samples.people import Person

_SLANG = {
    "because": "cuz",
    "really": "rly",
    "you": "u",
    "probably": "prob",
    "thanks": "thx",
    "though": "tho",
    "people": "ppl",
    "going to": "gonna",
    "want to": "wanna",
    "don't know": "dunno",
    "something": "smth",
    "about": "abt",
}
_BRITISH = {
    "color": "colour",
    "favorite": "favourite",
    "flavor": "flavour",
    "center": "centre",
    "mom": "mum",
    "apartment": "flat",
    "organize": "organise",
    "realize": "realise",
    "neighbor": "neighbour",
    "gray": "grey",
    "aluminum": "aluminium",
}
_SKIP = re.compile(r"`|https?://|^>|\|")


def _swap(text: str, table: dict[str, str], rng: Random, rate: float) -> str:
    for plain, other in table.items():
        if plain in text and rng.random() < rate:
            text = re.sub(rf"\b{plain}\b", other, text)
    return text


def _typo(word: str, rng: Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    match rng.randrange(4):
        case 0:
            return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        case 1:
            return word[:place] + word[place + 1 :]
        case 2:
            return word[:place] + word[place] + word[place:]
        case _:
            return word[:-1] if word.endswith("g") else word.replace("'", "")


@cache
def _common_words() -> frozenset[str]:
    """Words that the banks write in lower case: safe to lower at a sentence's start."""
    lines = [line for bank in phrases().values() for line in bank]
    for topic in topics().values():
        lines += [line for stage in topic.stages for bank in stage.lines.values() for line in bank]
    return frozenset(word for line in lines for word in re.findall(r"(?<![\w<`])[a-z][a-z']*", line))


def lower_start(text: str) -> str:
    """`text` to follow other words: its first letter lowered, unless the first word is a name or `I`."""
    head = re.match(r"[A-Z][a-z']*\b", text)
    common = head and head[0] not in ("I", "I'm", "I've", "I'd", "I'll") and head[0].lower() in _common_words()
    return text[:1].lower() + text[1:] if common else text


class Voice:
    """Joins sentences into one message in the voice of `person`."""

    def __init__(self, rng: Random, grammar: Grammar) -> None:
        self.rng = rng
        self.grammar = grammar

    def message(self, person: Person, sentences: list[str], plain: bool = False, hedged: bool = False) -> str:
        """`sentences` as one message.

        `plain`: another language, left as it is. `hedged`: advice or opinion, which people soften.
        """
        style, rng = person.style, self.rng
        if not plain and hedged:
            place = rng.randrange(len(sentences))
            if not _SKIP.search(sentences[place]):
                sentences = [*sentences[:place], self._lead_in(person, sentences[place]), *sentences[place + 1 :]]
        text = self._join(sentences, style.gap)
        if plain or _SKIP.search(text):
            return text
        if style.british:
            text = _swap(text, _BRITISH, rng, 1.0)
        if style.slang:
            text = _swap(text, _SLANG, rng, 0.6)
        if style.typos:
            words = re.split(r"(\s+)", text)
            text = "".join(
                _typo(w, rng) if len(w) > 4 and w.isascii() and w[1:].islower() and rng.random() < style.typos else w
                for w in words
            )
        if style.lower:
            text = text.lower()
        if text.endswith(".") and not text.endswith("..") and rng.random() > style.end_stop:
            text = text[:-1] + ("!" if style.exclaims and rng.random() < 0.4 else "")
        if rng.random() < style.emoji:
            text = f"{text} {rng.choice(style.emojis) * rng.choice((1, 1, 1, 2, 3))}"
        return text

    def _join(self, sentences: list[str], gap: str) -> str:
        parts = [part for part in sentences if part]
        text = parts[0]
        for part in parts[1:]:
            block = part.startswith(("```", ">")) or "\n" in part
            joint = "\n\n" if block or text.endswith("```") or (text.startswith(">") and "\n\n" not in text) else gap
            if joint == "... ":
                text = text.removesuffix(".")
                joint = " " if text.endswith(("?", "!")) else joint
            text += joint + part
        return text

    def _lead_in(self, person: Person, text: str) -> str:
        style, rng, bank = person.style, self.rng, phrases()
        if rng.random() < style.hedge and not text.endswith("?"):
            return f"{rng.choice(bank['hedge']).capitalize()} {lower_start(text)}".replace("Imo ", "Imo, ")
        if rng.random() < style.filler:
            word = rng.choice(bank["filler"])
            if (
                text.endswith(".")
                and word in ("honestly", "tbh", "to be fair", "not gonna lie", "in fairness")
                and rng.random() < 0.4
            ):
                return f"{text[:-1]}, {word}."
            return f"{word[:1].upper()}{word[1:]}, {lower_start(text)}"
        return text
