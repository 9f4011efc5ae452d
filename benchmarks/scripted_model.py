"""A language model whose adherence depends on its instructions in a known way, so that the best ones are known.

Asked for a summary, it breaks exactly the constraints that the instructions do not ask it to keep: six rules, each
kept where a clause with its meaning stands in the instructions, whatever its wording. Harmful clauses break a rule
even so; some rules and harms show in some chunks only. Instructions with all six clauses and no harmful one score 1.

Asked for better instructions, it edits the current ones as an unreliable writer does: mostly it adds a clause for a
rule that the feedback names, but often one that is useless or harmful, sometimes it drops one, sometimes it quotes
a chunk. It never hands over the best instructions.
"""

import json
import random
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from user_embeddings_dagster.language_models.protocol import Answer, Completion, Request, Usage
from user_embeddings_dagster.summaries.adherence import Example
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.subject import chunk_inputs

START = "Summarise what SUBJECT contributed."
USD_PER_CALL = 0.001

# Number of the constraint → its meaning, and wordings of a clause that has it.
RULES: dict[int, tuple[re.Pattern[str], tuple[str, ...]]] = {
    1: (
        re.compile("third person", re.I),
        ("Speak of SUBJECT in the third person.", "Let SUBJECT act, in the third person, at the start."),
    ),
    2: (
        re.compile("self-contained|on its own", re.I),
        ("Let the text stand on its own.", "Every sentence is self-contained: none starts with 'it' or 'this'."),
    ),
    3: (re.compile("own words|paraphrase", re.I), ("Use your own words.", "Paraphrase all that is said.")),
    6: (re.compile("60 words|one short", re.I), ("Use at most 60 words.", "Write one short paragraph.")),
    7: (
        re.compile("generalise|no (?:prices|numbers)", re.I),
        ("Generalise specifics such as amounts.", "Give no prices or other numbers."),
    ),
    8: (
        re.compile("the reader", re.I),
        ("Describe; never turn to the reader.", "Give no advice to the reader."),
    ),
}
# Clauses that break a constraint; the last one only in chunks of few turns, and then the whole summary is lost.
HARMFUL: dict[str, int] = {
    "Quote the most striking passage.": 3,
    "Mention every price and date exactly.": 7,
    "Close with a piece of advice.": 8,
    "Go into every detail at length.": 6,
    "Leave out talks that are not worth a summary.": 9,
}
USELESS = ("Be polite.", "Write in British English.", "Think step by step.", "Keep a neutral tone.", "Avoid jargon.")
_PLANTS = ("fern", "cactus", "orchid", "palm", "ivy", "basil", "bonsai", "lily")
_PLACES = ("kitchen", "hallway", "bathroom", "office", "bedroom", "cellar")


def examples(n_contributors: int, chunks_each: int, seed: int) -> list[Example]:
    """Chunks of `n_contributors`: half name a price, a third have few turns."""
    rng = random.Random(seed)
    made = []
    for contributor in range(n_contributors):
        for _ in range(chunks_each):
            speakers, turns = _chunk(rng)
            made.append(
                Example(chunk_inputs(speakers, turns), f"{seed:04x}{contributor:028x}", chunk_words(speakers, turns))
            )
    return made


def _chunk(rng: random.Random) -> tuple[list[str], list[str]]:
    plant, place, tag = rng.choice(_PLANTS), rng.choice(_PLACES), rng.randrange(10_000)
    price = f" and I paid ${rng.randrange(100, 900)} for it" if rng.random() < 0.5 else ""
    first = f"The leaves of my {plant} are turning yellow and brown in the {place} since a while{price}."
    long = [("<P1>", f"How often do you give it water? Shelf {tag}."), ("SUBJECT", f"The {plant} gets water weekly.")]
    talk = [("SUBJECT", first), *(long if rng.random() < 2 / 3 else [("<P1>", f"Shelf {tag}.")])]
    return [speaker for speaker, _ in talk], [text for _, text in talk]


@dataclass(frozen=True)
class Script:
    """Which constraints instructions break."""

    instructions: str

    def breaks(self, number: int) -> bool:
        """Whether the constraint is broken: no clause asks for it, or a harmful clause asks for the opposite."""
        missing = number in RULES and not RULES[number][0].search(self.instructions)
        return missing or any(broken == number and text in self.instructions for text, broken in HARMFUL.items())

    @property
    def best(self) -> bool:
        """Whether no constraint is broken in any chunk."""
        return not any(self.breaks(number) for number in (*RULES, 9))

    def summary(self, rows: Sequence[dict[str, Any]]) -> str:
        """The summary of a chunk of `examples`."""
        said = rows[0]["text"]
        plant, place = re.findall(r"my (\w+)|in the (\w+)", said)[0][0], re.findall(r"in the (\w+)", said)[0]
        if self.breaks(9) and len(rows) < 3:
            return ""
        parts = [f"SUBJECT describes a {plant} with leaves turning yellow, kept in the {place}."]
        if self.breaks(1):
            parts[0] = parts[0].replace("SUBJECT describes", "Describes")
        if self.breaks(2):
            parts.append(f"It stands in the {place}.")
        if self.breaks(3):
            parts.append(f"SUBJECT says the leaves of the {plant} are turning yellow and brown in the {place}.")
        if self.breaks(6):
            parts += [f"SUBJECT describes more of the {plant} and of the {place}, at length."] * 6
        if self.breaks(7) and (price := re.search(r"\$\d+", said)):
            parts.append(f"SUBJECT paid {price[0]} for the {plant}.")
        if self.breaks(8):
            parts.append(f"SUBJECT thinks you should give the {plant} more water.")
        return " ".join(parts)


def edited(instructions: str, broken: Sequence[int], quote: str, rng: random.Random) -> str:
    """An unreliable writer's next version; `broken` are the constraints that the feedback names."""
    clauses = [START, *instructions.removeprefix(START).strip().split("\n")]
    clauses = [clause for clause in clauses if clause]
    known = [number for number in broken if number in RULES]
    draw = rng.random()
    if draw < 0.5 and known:
        clauses.append(rng.choice(RULES[rng.choice(known)][1]))
    elif draw < 0.7:
        clauses.append(rng.choice(USELESS))
    elif draw < 0.95:
        clauses.append(rng.choice(list(HARMFUL)))
    else:
        clauses.append(f"An example: {quote}")
    if rng.random() < 0.25:
        clauses.append(rng.choice(list(HARMFUL)))
    if rng.random() < 0.3 and len(clauses) > 2:
        clauses.pop(rng.randrange(1, len(clauses)))
    return "\n".join(dict.fromkeys(clauses))


class ScriptedModel:
    """Answers summaries and reflections; counts what it was asked."""

    name = "scripted"

    def __init__(self) -> None:
        self.summaries = self.reflections = 0
        self.owners: list[str] = []  # of the reflections
        self._lock = threading.Lock()

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer each, in order; a call costs USD_PER_CALL."""
        for request in requests:
            value = self._summary(request) if "summary" in request.schema["properties"] else self._reflection(request)
            usage = Usage(1, sum(len(message.content) for message in request.messages) // 4, 0, 40, USD_PER_CALL)
            yield Completion(request.id, value, usage)

    def _summary(self, request: Request) -> dict[str, str]:
        with self._lock:
            self.summaries += 1
        instructions = request.messages[0].content.split("your objective is:")[1]
        return {"summary": Script(instructions).summary(json.loads(_field(request, "chunk")))}

    def _reflection(self, request: Request) -> dict[str, str]:
        with self._lock:
            self.reflections += 1
            self.owners.append(request.owner)
        shown = _field(request, "examples_with_feedback")
        broken = sorted({int(number) for number in re.findall(r"S(\d): it must", shown)})
        quote = next(iter(re.findall(r"The leaves of my [^\"\\]*", shown)), "")
        rng = random.Random(request.seed)
        return {"new_instruction": edited(_field(request, "current_instruction"), broken, quote, rng)}


def _field(request: Request, name: str) -> str:
    """The value of an input field in DSPy's format."""
    after = request.messages[-1].content.split(f"[[ ## {name} ## ]]\n", 1)[1]
    return re.split(r"\n\n(?:\[\[ ## |Respond with)", after)[0]
