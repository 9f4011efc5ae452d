"""What a free-form answer must be before a judge's score of it counts.

A judge can be gamed: by length, by repetition, by handing back what it was given, by speaking to it ("give this 10 of
10"). An answer with an objection scores 0, whatever the judge thinks of it, so that no reward is left in any of these.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EMPTY, TOO_LONG, REPEATS, COPIES, NAMES_OPTION, ADDRESSES_JUDGE = (
    "empty", "too_long", "repeats", "copies_question", "names_option", "addresses_judge",
)  # fmt: skip
OBJECTIONS = (EMPTY, TOO_LONG, REPEATS, COPIES, NAMES_OPTION, ADDRESSES_JUDGE)
MAX_TOKENS = 120
RUN = 4
"""Words of a run that is looked for in the question."""
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_LETTERS = re.compile(r"(.{1,6}?)\1{7,}", re.DOTALL)  # "hahahahahahahahaha", "!!!!!!!!!"
_OPTION = re.compile(
    r"\W*(?:(?:the\s+)?(?:answer|option|choice)\W*(?:is\W*)?)?[\(\[]?(?:[a-d]|[0-4])\W*", re.IGNORECASE
)
_JUDGE = re.compile(
    r"\b(?:score|rate|grade|mark|give|award|rank)\w*\b.{0,40}?(?:\b(?:10|100|ten|full|maximum|max|highest|perfect|top|1\.0)\b)"
    r"|\b(?:10|100|ten)\s*(?:/|out\s+of)\s*(?:10|100|ten)\b"
    r"|\bperfect\s+(?:score|answer|match)\b"
    r"|\b(?:ignore|disregard|forget|override)\b.{0,30}\b(?:instruction|rubric|prompt|previous|above|criteria)"
    r"|\b(?:you\s+are|dear|as\s+(?:a|the))\s+(?:the\s+|an?\s+)?(?:judge|grader|evaluator|assessor|rater)\b"
    r"|\b(?:this|the\s+above)\s+(?:answer|response)\s+(?:is|deserves|should|must|matches)\b"
    r"|\bidentical\s+to\s+the\s+reference\b|\bsystem\s+prompt\b|<\|im_start|\[/?INST\]|\[\[\s*##",
    re.IGNORECASE | re.DOTALL,
)


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _WORD.findall(text.casefold())


def count_words(text: str) -> int:
    """Length by words: for who has no tokenizer."""
    return len(words(text))


@dataclass(frozen=True)
class Guards:
    """The guards in order; `length` counts what `max_tokens` bounds (a tokenizer's tokens, or words)."""

    max_tokens: int = MAX_TOKENS
    length: Callable[[str], int] = count_words

    def objection(self, answer: str, question: str = "", options: Sequence[str] = ()) -> str | None:
        """Why the answer must not be judged (one of OBJECTIONS), or None."""
        said = words(answer)
        if not said:
            return EMPTY
        if self.length(answer) > self.max_tokens:
            return TOO_LONG
        if _OPTION.fullmatch(answer.strip()):
            return NAMES_OPTION
        if _JUDGE.search(answer):
            return ADDRESSES_JUDGE
        if _repeats(said) or _LETTERS.search(answer):
            return REPEATS
        if any(_copied(said, words(shown)) for shown in (question, *options)):
            return COPIES
        return None


def _repeats(said: Sequence[str]) -> bool:
    """A word RUN times in a row, or fewer than two thirds of the runs of three words (of ten or more) distinct."""
    if any(len(set(said[i : i + RUN])) == 1 for i in range(len(said) - RUN + 1)):
        return True
    runs = Counter(zip(said, said[1:], said[2:], strict=False))
    return runs.total() >= 8 and len(runs) < 2 / 3 * runs.total()


def _copied(said: Sequence[str], shown: Sequence[str]) -> bool:
    """Whether half of the answer's runs of RUN words stand in a text that it was shown; all of it, if it is shorter."""
    length = min(RUN, len(said))
    if length < 3:
        return False
    known = {tuple(shown[i : i + length]) for i in range(len(shown) - length + 1)}
    runs = [tuple(said[i : i + length]) for i in range(len(said) - length + 1)]
    return sum(run in known for run in runs) >= len(runs) / 2
