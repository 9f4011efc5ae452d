"""Expansion of sentence patterns, without repeating a sentence while another is left."""

import re
from collections.abc import Collection
from random import Random

_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"(\b[Aa] )?<([^<>\s]+)>")
_RANGE = re.compile(r"(\d+)-(\d+)\Z")
_STRAY = re.compile(r",? +(?=[?,])|,(?=\?)| +(?=\.(?:\s|$))")
_AFTER_STOP = re.compile(r"\.~ (.)")
# Words that do not open a sentence of their own: what comes before them keeps its comma.
_TIED = re.compile(
    r"(?:\.~|;| -) (?=(?:so|since|as|because|when|but|and|or|then|which|until|like|with|without|in|on|at|by|for|from|"
    r"under|over|to|nor|before|after|while|where|though|yet|if|of|not|no|even|only|too|plus|all)\b)"
)
_JOINT = re.compile(r"\}, \{")
_JOINTS = (", ", ", ", ", ", ".~ ", ".~ ", ".~ ", "; ", " - ", ", ")
_ATTEMPTS = 12


class Grammar:
    """Draws patterns from shuffled bags and expands them; remembers every sentence it has given out."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._bags: dict[int, list[str]] = {}
        self._given: set[str] = set()
        self.last = ""  # the pattern of the sentence given out last

    def draw(self, patterns: list[str]) -> str:
        """One of `patterns`; each comes up once before any comes up again."""
        bag = self._bags.setdefault(id(patterns), [])
        if not bag:
            bag.extend(patterns)
            self.rng.shuffle(bag)
        return bag.pop()

    @staticmethod
    def bind(slots: dict[str, list[str]], owner: str) -> dict[str, str]:
        """One value per slot for everything that `owner` tells, and another under the slot's name followed by 2."""
        rng, bound = Random(f"slots:{owner}"), {}
        for name, values in slots.items():
            first, second = rng.sample(values, 2) if len(values) > 1 else values * 2
            bound |= {name: first, f"{name}2": second}
        return bound

    def expand(self, pattern: str, bound: dict[str, str]) -> str:
        """`pattern` with alternatives chosen and slots filled. Raises KeyError for an unknown slot."""
        while match := _ALTERNATIVES.search(pattern):
            choice = self.rng.choice(match[1].split("|"))
            pattern = pattern[: match.start()] + choice + pattern[match.end() :]
        text = _SLOT.sub(lambda match: self._fill(match, bound), pattern)
        text = _STRAY.sub("", re.sub(r"(?<=\S)[ \t]{2,}", " ", text)).strip()
        text = _TIED.sub(", ", text)
        text = _AFTER_STOP.sub(lambda match: ". " + match[1].upper(), text).replace(".~", "")
        return text if text.startswith(("http", "`")) else text[:1].upper() + text[1:]

    def vary(self, pattern: str) -> str:
        """`pattern` with the comma between two groups of alternatives turned into other joints, here and there."""
        return _JOINT.sub(lambda _: "}" + self.rng.choice(_JOINTS) + "{", pattern)

    def _fill(self, match: re.Match[str], bound: dict[str, str]) -> str:
        article, name = match[1] or "", match[2]
        if span := _RANGE.match(name):
            return article + str(self.rng.randint(int(span[1]), int(span[2])))
        value = bound[name]
        if article and value[:1] in "aeiouAEIO":
            article = article[:1] + "n "
        return article + value

    def say(self, patterns: list[str], bound: dict[str, str], avoid: Collection[str] = (), joints: bool = False) -> str:
        """A sentence from `patterns` that was not given out before, as far as the patterns allow.

        Patterns in `avoid` are passed over; "" if there is no other. `joints`: vary how its halves are joined.
        """
        if avoid and all(pattern in avoid for pattern in patterns):
            return ""
        text = ""
        for _ in range(_ATTEMPTS):
            pattern = self.draw(patterns)
            if pattern in avoid:
                continue
            self.last = pattern
            text = self.expand(self.vary(pattern) if joints else pattern, bound)
            if text not in self._given:
                break
        self._given.add(text)
        return text
