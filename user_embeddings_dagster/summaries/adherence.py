"""How well a summarising program's answers keep the numbered constraints, on examples (C24).

The score of an answer is the share of the constraints S1 to S9 that it keeps (`summaries.constraints`); an answer
that is not the JSON that was asked for scores 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from user_embeddings_dagster.language_models.program import Program, Rows
from user_embeddings_dagster.language_models.protocol import TRANSIENT, Answer, Failure, LanguageModel
from user_embeddings_dagster.summaries.chunk_words import ChunkWords
from user_embeddings_dagster.summaries.constraints import SUMMARY_RULES, adherence, summary_violations

KEPT = "All rules are kept."


class ModelUnavailable(Exception):
    """The model gave no answer for a reason that may pass with time: that says nothing of the program."""


@dataclass(frozen=True)
class Example:
    """One chunk: the program's inputs, the contributor (user_id), and the words that constraints look at."""

    inputs: Mapping[str, Rows]
    owner: str
    words: ChunkWords


@dataclass(frozen=True)
class Scored:
    """An answer with its score in [0, 1], the numbers of the violated constraints, and the feedback for a model."""

    example: Example
    output: Any
    score: float
    violated: tuple[int, ...]
    feedback: str


class Adherence:
    """Asks `model` and scores its answers; an answer is asked for once and then remembered."""

    def __init__(self, model: LanguageModel, remembered: dict[str, Answer] | None = None) -> None:
        self._model = model
        self._remembered = {} if remembered is None else remembered

    def by(self, model: LanguageModel) -> "Adherence":
        """The same memory with another model (such as another budget) to ask."""
        return Adherence(model, self._remembered)

    def scored(self, program: Program, examples: Sequence[Example]) -> list[Scored]:
        """Scores of the answers of `program` to `examples`, in order.

        Raises ModelUnavailable, and what the model raises; answers given until then are remembered.
        """
        requests = [program.request(example.inputs, example.owner) for example in examples]
        unknown = {request.id: request for request in requests if request.id not in self._remembered}
        unavailable = None
        for answer in self._model.complete(unknown.values()):
            if isinstance(answer, Failure) and answer.reason in TRANSIENT:
                unavailable = answer.reason
            else:
                self._remembered[answer.request_id] = answer
        if unavailable:
            raise ModelUnavailable(f"{self._model.name}: {unavailable}")
        answers = [self._remembered[request.id] for request in requests]
        return [_scored(program, *pair) for pair in zip(examples, answers, strict=True)]


def _scored(program: Program, example: Example, answer: Answer) -> Scored:
    if isinstance(answer, Failure):
        return Scored(example, "", 0.0, (), f"No valid answer: {answer.reason}")
    try:
        output = program.parse(answer.value)
    except ValueError as error:
        return Scored(example, answer.value, 0.0, (), f"No valid answer: {error}")
    violations = summary_violations(output.summary, example.words)
    feedback = "\n".join(violation.feedback for violation in violations) or KEPT
    numbers = tuple(violation.number for violation in violations)
    return Scored(example, answer.value, adherence(violations, SUMMARY_RULES), numbers, feedback)
