"""Neutral questions: right or wrong whoever asks, so that a user embedding must not change how they are answered.

Generated from a seed; nobody's words are in them. Question i of a kind is the same however many are asked for.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

OPTIONS = 4
WORDS = (
    "red", "blue", "green", "black", "white", "left", "right", "up", "down", "open", "close", "start", "stop", "file",
    "line", "word", "list", "type", "name", "code", "time", "case", "test", "user", "data", "page", "text", "point",
)  # fmt: skip
KINDS_OF_THING = ("box", "key", "card", "ball", "lamp", "chair", "stone", "cup", "coin", "rope", "brick", "bell")
PLACES = ("A", "B", "C", "D", "E", "F")
SERIES = (
    tuple("abcdefghijklmnopqrstuvwxyz"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    tuple(str(n) for n in range(1, 31)),
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"),
)
VERBS = (
    ("go", "went", "gone", "going"), ("see", "saw", "seen", "seeing"), ("take", "took", "taken", "taking"),
    ("do", "did", "done", "doing"), ("give", "gave", "given", "giving"), ("write", "wrote", "written", "writing"),
    ("know", "knew", "known", "knowing"), ("break", "broke", "broken", "breaking"), ("eat", "ate", "eaten", "eating"),
)  # fmt: skip
BEFORE_A_VERB = (
    ("I want to", 0), ("you have to", 0), ("we need to", 0), ("it will", 0), ("they can", 0), ("you should", 0),
    ("we have never", 2), ("I haven't", 2), ("they had already", 2),
    ("I am", 3), ("they are", 3), ("we are still", 3),
)  # fmt: skip

Drawn = tuple[str, str, Sequence[str]]
"""Question, its answer, three wrong answers."""


def _arithmetic(rng: np.random.Generator) -> Drawn:
    a, b = sorted(rng.integers(2, 13, size=2).tolist(), reverse=True)
    sign, result = (("+", a + b), ("-", a - b), ("*", a * b))[rng.integers(3)]
    near = [result + step for step in (-10, -3, -2, -1, 1, 2, 3, 10) if result + step >= 0]
    return f"{a} {sign} {b} =", str(result), [str(n) for n in rng.choice(near, OPTIONS - 1, replace=False)]


def _logic(rng: np.random.Generator) -> Drawn:
    """One of: modus ponens, transitivity, exclusion."""
    first, second, third, other, another = rng.choice(KINDS_OF_THING, 5, replace=False).tolist()
    form = rng.integers(3)
    if form == 0:
        opened, *others = rng.choice(WORDS[:5], OPTIONS, replace=False).tolist()
        return f"Every {first} is {opened}. This is a {first}. So this is", opened, others
    if form == 1:
        text = f"The {first} is in the {second}. The {second} is in the {third}. So the {first} is also in the"
        return text, third, [first, other, another]
    text = f"It is the {first} or the {second} or the {third}. It is not the {first}. It is not the {third}. It is the"
    return text, second, [first, third, other]


def _ordering(rng: np.random.Generator) -> Drawn:
    """One of: what comes next in a known series, the largest of some numbers, who is last in a line."""
    form = rng.integers(3)
    if form == 0:
        series = SERIES[rng.integers(len(SERIES))]
        begin = int(rng.integers(len(series) - 4))
        others = [word for word in series if word not in series[begin : begin + 5]] or list(series[begin : begin + 4])
        wrong = [*rng.choice(others, min(2, len(others)), replace=False).tolist(), *series[begin : begin + 4]]
        return " ".join(series[begin : begin + 4]), series[begin + 4], wrong[: OPTIONS - 1]
    if form == 1:
        numbers = rng.choice(np.arange(10, 100), OPTIONS, replace=False).tolist()
        largest = max(numbers)
        text = f"Of {numbers[0]}, {numbers[1]}, {numbers[2]} and {numbers[3]} the largest is"
        return text, str(largest), [str(n) for n in numbers if n != largest]
    a, b, c, d = rng.choice(PLACES, OPTIONS, replace=False).tolist()
    pairs = [f"{a} is before {b}.", f"{b} is before {c}.", f"{c} is before {d}."]
    return f"{' '.join(rng.permutation(pairs))} The last one is", d, [a, b, c]


def _repetition(rng: np.random.Generator) -> Drawn:
    """What comes next where three or four words repeat."""
    words = rng.choice(WORDS, OPTIONS, replace=False).tolist()
    repeated = words[: int(rng.integers(3, 5))]
    shown = [repeated[i % len(repeated)] for i in range(2 * len(repeated) + int(rng.integers(len(repeated))))]
    answer = repeated[len(shown) % len(repeated)]
    return " ".join(shown), answer, [word for word in words if word != answer]


def _grammar(rng: np.random.Generator) -> Drawn:
    """Which form of a verb follows, as the minimal pairs of Warstadt et al. 2020 (arXiv:1912.00582)."""
    (text, form), verb = BEFORE_A_VERB[rng.integers(len(BEFORE_A_VERB))], VERBS[rng.integers(len(VERBS))]
    return text, verb[form], [other for other in verb if other != verb[form]]


KINDS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "arithmetic": _arithmetic,
    "logic": _logic,
    "ordering": _ordering,
    "repetition": _repetition,
    "grammar": _grammar,
}


def neutral_questions(per_kind: int, seed: int) -> pl.DataFrame:
    """`per_kind` questions of each kind: kind, question, options (4, each different), answer (its 0-based place).

    Answers stand in each of the four places equally often. Raises ValueError where a kind has not so many questions.
    """
    rows = [
        (kind, question, options, place)
        for number, kind in enumerate(KINDS)
        for question, options, place in _of_kind(KINDS[kind], per_kind, np.random.default_rng((seed, number)))
    ]
    schema = {"kind": pl.String, "question": pl.String, "options": pl.List(pl.String), "answer": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def _of_kind(
    draw: Callable[[np.random.Generator], Drawn], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, list[str], int]]:
    seen = set[tuple[str, str]]()
    for _ in range(50 * count):
        if len(seen) == count:
            return
        question, answer, wrong = draw(rng)
        if (question, answer) not in seen:
            place = len(seen) % OPTIONS
            seen.add((question, answer))
            yield question, [*wrong[:place], answer, *wrong[place:]], place
    if len(seen) < count:
        raise ValueError(f"there are only {len(seen)} different questions of a kind, not {count}")
