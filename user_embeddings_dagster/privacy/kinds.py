"""A kind of personal data that has a form of its own: how it is looked for, in one text and in a whole column."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import polars as pl

LEFT = r"(?<![A-Za-z0-9])"
RIGHT = r"(?![A-Za-z0-9])"
LETTERS = r"0-9A-Za-z_\u00C0-\u024F\u0370-\u052F"  # of scripts with spaces between words: Latin, Greek, Cyrillic
# Characters that Rust and Python take alike for letters, digits, spaces and cases (no combining marks, no dotless i).
# The private-use marks of what is masked are among them.
ALIKE = (
    r"\x00-\x84\x86-\u012F\u0132-\u02FF\u0374-\u0482\u2010-\u2027\u2030-\u203E\u2041-\u2053\u20A0-\u20BF\u2190-\u21FF\u3041-\u3096"
    r"\u4E00-\u9FFF\uAC00-\uD7A3\uE000-\uF8FF\U0001F300-\U0001F64F\U0001F680-\U0001F6C5\U000F0000-\U0010FFFD"
)
Span = tuple[int, int]


@dataclass(frozen=True)
class WholeColumn:
    """`pattern` as one Rust replacement: `kept` is what of a match stays, with MARK where the identifier was.

    Only for texts of characters in ALIKE that do not match `unless`; others are left to Python.
    `times`: 2 if a match takes the character after it, which the next match may need before it.
    """

    pattern: str
    kept: str
    unless: str = ""
    times: int = 1

    def exceptions(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` are left to Python."""
        return texts.str.contains(f"[^{ALIKE}]" + (f"|{self.unless}" if self.unless else ""))

    def replaced(self, texts: pl.Series, mark: str) -> pl.Series:
        """`texts` with `mark` for each identifier."""
        for _ in range(self.times):
            texts = texts.str.replace_all(self.pattern, self.kept.replace("MARK", mark))
        return texts


def whole(check: Callable[[str], bool]) -> Callable[[str], Span | None]:
    """The whole match if it passes `check`."""
    return lambda text: (0, len(text)) if check(text) else None


@dataclass(frozen=True)
class Kind:
    """One kind: `span` gives the part of a match that is the identifier, None if it is not one.

    `gate` (shared by neighbours) and `prefilter` are Rust regular expressions (no look-around) that match wherever
    `pattern` does: only the few texts they pick meet `pattern`, a Python one. Word boundaries are left out of them,
    because with one Rust needs several times as long for text that is not ASCII. A group `value` in `pattern` is
    masked alone. `whole_column` needs no Python where that says the same.
    """

    name: str
    prefilter: str
    pattern: re.Pattern[str]
    span: Callable[[str], Span | None] = field(default=whole(bool))
    gate: str = ""
    whole_column: WholeColumn | None = None

    def may_hold(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` are worth `spans`."""
        return texts.str.contains(self.prefilter)

    def spans(self, text: str) -> list[Span]:
        """Start and end of each identifier in `text`, in order."""
        group = "value" if "value" in self.pattern.groupindex else 0
        found = ((match.start(group), self.span(match[group])) for match in self.pattern.finditer(text))
        return [(start + span[0], start + span[1]) for start, span in found if span is not None]


def typed(
    name: str,
    prefilter: str,
    pattern: str,
    check: Callable[[str], bool] = bool,
    *,
    gate: str = "",
    whole_column: WholeColumn | None = None,
    flags: re.RegexFlag = re.ASCII,
) -> Kind:
    """A kind whose matches that pass `check` are identifiers as a whole.

    For `pattern` only ASCII is a letter, a digit or a space: between 看 and "10.1.2.3" a word ends.
    """
    return Kind(name, prefilter, re.compile(pattern, flags), whole(check), gate, whole_column)


def together(*kinds: Kind) -> tuple[Kind, ...]:
    """`kinds` with one gate, where any of their gates or prefilters matches: one scan takes a third of one for each.

    Of some alone, as measured: runs of characters and lists of words each need states that others multiply.
    """
    gate = "|".join(dict.fromkeys(f"(?:{kind.gate or kind.prefilter})" for kind in kinds))
    return tuple(replace(kind, gate=gate) for kind in kinds)
