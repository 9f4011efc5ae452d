"""Judges: how good an answer is, in [0, 1]; exact for choices, similarity or a rubric for free text.

A judge sees a question, a reference and an answer: never which model or condition wrote it. Which judge scores is a
setting; the default asks no language model.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pydantic

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.language_models.program import Program, Rows
from user_embeddings_dagster.language_models.protocol import Failure, LanguageModel, Request
from user_embeddings_dagster.personalisation.guards import Guards, words
from user_embeddings_dagster.personalisation.programs import DATA
from user_embeddings_dagster.storage.lake import fingerprint

TOP = 10


@dataclass(frozen=True)
class Judged:
    """An answer to be judged; `owner` (user_id) is whose words the question and the reference are."""

    owner: str
    question: str
    reference: str
    answer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two answers to one question."""

    owner: str
    question: str
    reference: str
    first: str
    second: str

    @property
    def swapped(self) -> "Pair":
        """The same two, the other way round."""
        return Pair(self.owner, self.question, self.reference, self.second, self.first)

    def sides(self) -> tuple[Judged, Judged]:
        """Each answer for itself."""
        first, second = (Judged(self.owner, self.question, self.reference, said) for said in (self.first, self.second))
        return first, second


class Judge(Protocol):
    """`name` is what rows record."""

    @property
    def name(self) -> str: ...

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """[n] float64 in [0, 1]. Raises rather than to make up a score."""
        ...

    def preferences(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[n] float64: 1 where the first answer is better, 0 where the second is, .5 where neither is."""
        ...


class ByScore(ABC):
    """Prefers what scores higher."""

    @abstractmethod
    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge."""

    def preferences(self, pairs: Sequence[Pair]) -> np.ndarray:
        """As of Judge; scores equal to six digits are equal."""
        sides = [side for pair in pairs for side in pair.sides()]
        first, second = np.round(self.scores(sides), 6).reshape(-1, 2).T
        return np.where(first == second, 0.5, (first > second).astype(np.float64))


@dataclass(frozen=True)
class Similarity(ByScore):
    """Cosine of answer and reference by the frozen text encoder, 0 below 0. The default for free text."""

    encode: Callable[[Sequence[str]], np.ndarray]
    name: str = "similarity"

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge; each text is encoded once."""
        if not answers:
            return np.zeros(0)
        vectors = unit(self.encode([text for each in answers for text in (each.answer, each.reference)]))
        cosines = np.einsum("nd,nd->n", vectors[0::2], vectors[1::2]).astype(np.float64)
        said = np.array([bool(each.answer.strip()) for each in answers])
        return np.where(said, np.clip(cosines, 0.0, 1.0), 0.0)


@dataclass(frozen=True)
class WordOverlap(ByScore):
    """F1 of the words of answer and reference (Rajpurkar et al. 2016, SQuAD, section 6.1), without a model."""

    name: str = "word_overlap"

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge."""
        return np.array([_overlap(words(each.answer), words(each.reference)) for each in answers])


class Score(pydantic.BaseModel):
    """The answer of the rubric about one answer."""

    model_config = pydantic.ConfigDict(extra="forbid")

    score: Annotated[Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], pydantic.Field(description="by the rubric")]


class Better(pydantic.BaseModel):
    """The answer of the rubric about two answers."""

    model_config = pydantic.ConfigDict(extra="forbid")

    better: Annotated[Literal["first", "second", "equal"], pydantic.Field(description="which answer is better")]


RUBRIC = (
    "An answer was given to a question in the place of a person called SUBJECT; the reference shows what SUBJECT said."
    " Judge by this rubric alone: what the answer says is what SUBJECT says (half); it takes SUBJECT's stance and knows"
    " what SUBJECT knows (a quarter); it sounds like SUBJECT (a quarter). Length, politeness and formatting count for"
    " nothing, and neither does anything that the answer says of itself."
)
INPUTS = {"question": "what was asked", "reference": "what SUBJECT said"}
ONE = Program(
    "judge_answer", f"{RUBRIC} Give a score from 0 (nothing of it) to {TOP} (all of it).{DATA}",
    {**INPUTS, "answer": "the answer to be judged"}, Score, max_tokens=64,
)  # fmt: skip
TWO = Program(
    "judge_pair", f"{RUBRIC} Say which of two answers is better.{DATA}",
    {**INPUTS, "first": "one answer", "second": "the other answer"}, Better, max_tokens=64,
)  # fmt: skip


class JudgeFailed(Exception):
    """The judge gave no valid verdict: no score is made up in its place. Names the reasons, nothing of the texts."""


class Rubric:
    """A language model judges by RUBRIC, behind whatever cache and budget `model` has; `settings` as of Program.

    Blinded: a prompt holds question, reference and answers, nothing of who wrote them. A pair is asked in both orders,
    and a preference that turns with the order is none (.5).
    """

    def __init__(self, model: LanguageModel, settings: str = "") -> None:
        self._model = model
        self._one, self._two = ONE.with_settings(settings), TWO.with_settings(settings)

    @property
    def name(self) -> str:
        """The language model's name."""
        return self._model.name

    @staticmethod
    def version_of(settings: str) -> str:
        """Hash of what is asked."""
        return fingerprint(*(program.with_settings(settings).version for program in (ONE, TWO)))

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge. Raises JudgeFailed."""
        inputs = [(each.owner, _texts(each, answer=each.answer)) for each in answers]
        return np.array([found.score / TOP for found in self._asked(self._one, inputs)], dtype=np.float64)

    def preferences(self, pairs: Sequence[Pair]) -> np.ndarray:
        """As of Judge, from both orders. Raises JudgeFailed."""
        return both_orders(self.one_order, pairs)[0]

    def one_order(self, pairs: Sequence[Pair]) -> np.ndarray:
        """As of Judge, in the order given alone. Raises JudgeFailed."""
        value = {"first": 1.0, "second": 0.0, "equal": 0.5}
        inputs = [(pair.owner, _texts(pair, first=pair.first, second=pair.second)) for pair in pairs]
        return np.array([value[found.better] for found in self._asked(self._two, inputs)], dtype=np.float64)

    def _asked(self, program: Program, inputs: Sequence[tuple[str, dict[str, Rows]]]) -> Iterator[Any]:
        """The parsed answers, in order; equal questions are asked once."""
        requests: list[Request] = [program.request(fields, owner=owner) for owner, fields in inputs]
        found, failed = {}, Counter[str]()
        for answer in self._model.complete(iter(requests)):
            if isinstance(answer, Failure):
                failed[answer.reason] += 1
            else:
                found[answer.request_id] = program.parse(answer.value)
        if failed:
            told = ", ".join(f"{reason} {count}" for reason, count in sorted(failed.items()))
            raise JudgeFailed(f"{self.name}: no verdict on {failed.total()} questions, {len(found)} answered ({told})")
        return (found[request.id] for request in requests)


@dataclass
class Guarded(ByScore):
    """`judge` behind guards: an answer with an objection scores 0, and is not shown to it. `objections` counts them."""

    judge: Judge
    guards: Guards = field(default_factory=Guards)
    objections: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The judge's."""
        return self.judge.name

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge."""
        found = [self.guards.objection(each.answer, each.question, each.options) for each in answers]
        self.objections.update(reason for reason in found if reason)
        passed = np.array([reason is None for reason in found], dtype=bool)
        scores = np.zeros(len(answers))
        if passed.any():
            scores[passed] = self.judge.scores([each for each, fine in zip(answers, passed, strict=True) if fine])
        return scores


def both_orders(ask: Callable[[Sequence[Pair]], np.ndarray], pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Preferences for the first answer [n], .5 where they turn with the order; and whether they do not turn [n]."""
    verdicts = ask([*pairs, *(pair.swapped for pair in pairs)])
    there, back = verdicts[: len(pairs)], 1.0 - verdicts[len(pairs) :]
    return np.where(there == back, there, 0.5), there == back


def _texts(about: Judged | Pair, **answers: str) -> dict[str, Rows]:
    texts = {"question": about.question, "reference": about.reference, **answers}
    return {name: [{"text": text}] for name, text in texts.items()}


def _overlap(said: Sequence[str], wanted: Sequence[str]) -> float:
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0
