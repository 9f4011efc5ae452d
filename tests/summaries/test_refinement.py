"""The refinement finds what is better, keeps to its budget, and takes nothing personal along."""

import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import msgspec
import pytest

from benchmarks import scripted_model
from benchmarks.refinement import control, trial
from benchmarks.scripted_model import HARMFUL, RULES, START, USD_PER_CALL, Script, ScriptedModel, examples
from user_embeddings_dagster.language_models.protocol import (
    Answer,
    Completion,
    Failure,
    ModelRefused,
    Reason,
    Request,
    Usage,
)
from user_embeddings_dagster.summaries import gepa_search
from user_embeddings_dagster.summaries.adherence import Adherence, ModelUnavailable
from user_embeddings_dagster.summaries.gepa_search import SAFEGUARD
from user_embeddings_dagster.summaries.refinement import Refinement, refine
from user_embeddings_dagster.summaries.subject import summarise_subject

PROGRAM = summarise_subject().with_instructions(START)
TRAIN, DEVELOPMENT = examples(8, 3, seed=0), examples(6, 2, seed=1)
BEST = "\n".join([START, *(wordings[0] for _, wordings in RULES.values())])


def refined(model: Any = None, reflection_model: Any = None, **options: Any) -> Refinement:
    model = model or ScriptedModel()
    options = {"max_calls": 400, **options}
    return refine(PROGRAM, TRAIN, DEVELOPMENT, model, reflection_model or model, **options)


class Altered(ScriptedModel):
    """A scripted model whose reflections (or summaries) are replaced by `change(request, answer)`."""

    def __init__(self, change: Callable[[Request, Any], Any], field: str = "new_instruction") -> None:
        super().__init__()
        self.change, self.field = change, field

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            (answer,) = super().complete([request])
            yield self.change(request, answer) if self.field in request.schema["properties"] else answer


def instead(answer: Any, text: str) -> Completion:
    return Completion(answer.request_id, {"new_instruction": text}, answer.usage)


def test_the_scripted_model_breaks_what_its_instructions_leave_out() -> None:
    """The proof's premise: of all 64 sets of clauses, exactly the missing ones show, by the real constraint checks."""
    adherence = Adherence(ScriptedModel())
    some = [example for example in DEVELOPMENT if "$" in example.inputs["chunk"][0]["text"]][:2]
    for wording, kept in enumerate(product((True, False), repeat=len(RULES))):
        chosen = [number for number, keep in zip(RULES, kept, strict=True) if keep]
        clauses = [START, *(RULES[number][1][wording % 2] for number in chosen)]
        missing = tuple(number for number in RULES if number not in chosen)
        for scored in adherence.scored(PROGRAM.with_instructions("\n".join(clauses)), some):
            assert scored.violated == missing
            assert scored.score == pytest.approx(1 - len(missing) / 9)
    for harmful, number in HARMFUL.items():
        harmed = adherence.scored(PROGRAM.with_instructions(f"{BEST}\n{harmful}"), DEVELOPMENT)
        assert {scored.violated for scored in harmed} <= {(), (number,)}
        assert any(scored.violated for scored in harmed)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_optimum_is_found_and_only_because_candidates_are_selected(seed: int) -> None:
    """C24: from the bare instructions to the known best, within the budget; accepting every proposal does not.

    Ten seeds: `python -m benchmarks.refinement`.
    """
    result = trial(seed)
    assert result.best
    assert result.refinement.adopted
    assert result.refinement.before.value == pytest.approx(0.4, abs=0.05)
    assert result.refinement.after.value == 1.0
    assert result.refinement.difference.low is not None
    assert result.refinement.difference.low > 0.5
    assert result.refinement.usage.calls <= 1_000
    assert result.refinement.violations_after == dict.fromkeys(range(1, 10), 0)
    assert result.refinement.violations_before[1] == result.refinement.before.n
    assert control(seed, result.refinement.search.proposed) < 0.9


def test_same_seed_same_result() -> None:
    first, second, other = (refined(seed=seed, max_calls=120) for seed in (3, 3, 4))
    assert first == second
    assert first.program != other.program


@pytest.mark.parametrize("cap", [0, 7, 12, 31, 60, 100])
def test_a_budget_of_calls_is_kept_and_the_best_so_far_returned(cap: int) -> None:
    """C24: never a call more than the cap; cut short at any point there is a result that says so."""
    model = ScriptedModel()
    result = refined(model, max_calls=cap)
    assert model.summaries + model.reflections == result.usage.calls <= cap
    assert (result.stopped_by, result.cut_short) == ("max_calls", True)
    if cap < len(DEVELOPMENT):
        assert (result.adopted, result.before.value, result.program) == (False, None, PROGRAM)
        assert "before the shipped program was scored" in result.reason
    elif cap == 100:
        assert result.adopted
        assert (result.after.value or 0) > (result.before.value or 1)
    else:
        assert result.before.value is not None
        assert result.adopted == (result.program != PROGRAM)


def test_a_budget_of_money_is_kept() -> None:
    model = ScriptedModel()
    result = refined(model, max_calls=None, max_usd=0.1)
    assert result.usage.usd == pytest.approx(USD_PER_CALL * (model.summaries + model.reflections))
    assert result.usage.usd <= 0.1
    assert (result.stopped_by, result.adopted) == ("max_usd", True)


def test_a_run_that_starts_again_gives_the_same_and_pays_nothing() -> None:
    """A killed refinement starts again on the cached answers and ends where it would have ended."""

    class Remembering(ScriptedModel):
        def __init__(self, known: dict[str, Answer]) -> None:
            super().__init__()
            self.known = known

        def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
            for request in requests:
                if request.id not in self.known:
                    (self.known[request.id],) = super().complete([request])
                    yield self.known[request.id]
                else:
                    yield msgspec.structs.replace(self.known[request.id], cached=True)

    known: dict[str, Answer] = {}
    first = refined(Remembering(known), max_calls=100)
    again = refined(Remembering(known), max_calls=100)
    assert (again.program, again.usage, again.search) == (first.program, first.usage, first.search)
    assert (first.paid, again.paid) == (first.usage, Usage())


def test_what_is_no_better_on_other_people_is_not_adopted() -> None:
    """C24: a gain on the training users that the development users do not have is not adopted, and says why."""
    owners = {example.owner for example in DEVELOPMENT}

    def forget(request: Request, answer: Any) -> Any:
        if request.owner not in owners:
            return answer
        chunk = next(
            e.inputs["chunk"]
            for e in DEVELOPMENT
            if PROGRAM.request(e.inputs, e.owner).messages[-1] == request.messages[-1]
        )
        return Completion(answer.request_id, {"summary": Script(START).summary(chunk)}, answer.usage)

    result = refined(Altered(forget, "summary"), ScriptedModel(), max_calls=300)
    assert result.search.score > 0.7
    assert (result.adopted, result.program, result.difference.value) == (False, PROGRAM, 0.0)
    assert result.reason == "the refined program is not better by its paired interval"


def test_nothing_better_found() -> None:
    result = refined(
        reflection_model=Altered(lambda request, answer: instead(answer, f"{START} Be polite.")), max_rounds=20
    )
    assert (result.adopted, result.program, result.stopped_by) == (False, PROGRAM, "max_rounds")
    assert (result.reason, result.cut_short) == ("no better instructions were found", False)
    perfect = refine(PROGRAM.with_instructions(BEST), TRAIN, DEVELOPMENT, model := ScriptedModel(), model, max_calls=99)
    assert (perfect.stopped_by, perfect.adopted, perfect.usage.calls) == ("perfect", False, len(DEVELOPMENT))


def test_too_few_people_for_an_interval() -> None:
    few = [example for example in DEVELOPMENT if example.owner in sorted({e.owner for e in DEVELOPMENT})[:4]]
    result = refine(PROGRAM, TRAIN, few, model := ScriptedModel(), model, max_calls=150)
    assert (result.after.value or 0) > (result.before.value or 1)
    assert (result.adopted, result.reason) == (False, "4 development contributors are too few for an interval")
    with pytest.raises(ValueError, match="8 contributors are in both"):
        refine(PROGRAM, TRAIN, TRAIN, model, model, max_calls=9)
    with pytest.raises(ValueError, match="of 1 contributors"):
        refine(PROGRAM, TRAIN[:1], DEVELOPMENT, model, model, max_calls=9)
    with pytest.raises(ValueError, match="no development"):
        refine(PROGRAM, TRAIN, [], model, model, max_calls=9)


def test_a_reflection_holds_the_text_of_one_training_user() -> None:
    """C26, C27: what a reflection quotes is one contributor's, so that erasing them erases it from the cache."""
    shown: list[tuple[str, str]] = []

    def note(request: Request, answer: Any) -> Any:
        shown.append((request.owner, request.messages[-1].content))
        return answer

    refined(reflection_model=Altered(note), max_calls=150)
    shelves = {number: e.owner for e in [*TRAIN, *DEVELOPMENT] for number in re.findall(r"Shelf (\d+)", str(e.inputs))}
    whose = {(owner, shelves[number]) for owner, prompt in shown for number in re.findall(r"Shelf (\d+)", prompt)}
    assert len(whose) > 3
    assert all(owner == of for owner, of in whose)
    assert not {owner for owner, _ in shown} & {example.owner for example in DEVELOPMENT}


def test_a_model_that_quotes_people_never_gets_it_into_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a writer that adds a good clause and a passage of a chunk to every proposal; without the guard it stays."""
    rng = random.Random(0)

    def quoting(request: Request, answer: Any) -> Any:
        prompt = request.messages[-1].content
        passage = prompt.split("The leaves of my ")[1].split(".")[0]
        clause = rng.choice([wordings[0] for _, wordings in RULES.values()])
        return instead(answer, f"{START} {clause} As in: The leaves of my {passage}.")

    result = refined(reflection_model=Altered(quoting), max_rounds=15)
    assert result.search.thrown_away["verbatim"] == 15
    assert (result.program, result.search.candidates) == (PROGRAM, 1)
    monkeypatch.setattr(gepa_search.Texts, "objection", lambda self, text: None)
    assert "The leaves of my" in refined(reflection_model=Altered(quoting), max_rounds=15).program.instructions


def test_the_safeguard_against_injections_stays_word_for_word() -> None:
    """C26: no proposal can drop the paragraph that says that a chunk is data; the writer never sees it."""
    shipped = summarise_subject()
    (safeguard,) = [part for part in shipped.instructions.split("\n\n") if part.startswith(SAFEGUARD)]
    start = PROGRAM.with_instructions(f"{START}\n\n{safeguard}")
    seen = []

    def note(request: Request, answer: Any) -> Any:
        seen.append(SAFEGUARD in request.messages[-1].content)
        return answer

    result = refine(start, TRAIN, DEVELOPMENT, ScriptedModel(), Altered(note), max_calls=150)
    assert result.adopted
    assert result.program.instructions.endswith(f"\n\n{safeguard}")
    assert not any(seen)


def failing(reason: Reason) -> Callable[[Request, Any], Any]:
    return lambda request, answer: Failure(answer.request_id, reason, "", answer.usage)


def refusing(request: Request, answer: Any) -> Any:
    raise ModelRefused("HTTP 401")


@pytest.mark.parametrize("field", ["new_instruction", "summary"])
def test_errors_of_the_model_are_not_swallowed(field: str) -> None:
    """gepa takes any exception in a proposal for a bad proposal: a refused key and a dead server must end it."""
    with pytest.raises(ModelRefused, match="HTTP 401"):
        refined(Altered(refusing, field))
    with pytest.raises(ModelUnavailable, match="scripted: timeout"):
        refined(Altered(failing("timeout"), field))


def test_reflections_without_a_proposal_are_counted() -> None:
    for change in (failing("truncated"), failing("bad_request"), lambda request, answer: instead(answer, " ")):
        result = refined(reflection_model=Altered(change), max_rounds=5)
        assert (result.search.thrown_away["no_text"], result.search.proposed, result.adopted) == (5, 5, False)


def test_answers_that_are_invalid_score_nothing() -> None:
    """An instruction under which the model writes no valid JSON is the instruction's fault."""
    (scored, *_) = Adherence(Altered(failing("truncated"), "summary")).scored(PROGRAM, DEVELOPMENT)
    assert (scored.score, scored.violated, scored.feedback) == (0.0, (), "No valid answer: truncated")
    broken = Altered(lambda request, answer: Completion(answer.request_id, {"summary": 3}, answer.usage), "summary")
    (scored, *_) = Adherence(broken).scored(PROGRAM, DEVELOPMENT)
    assert scored.score == 0.0
    assert "summary: string_type" in scored.feedback


def test_nothing_is_printed_or_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """C27: neither gepa nor DSPy prints or logs a word of prompts, proposals or answers."""
    with caplog.at_level(logging.DEBUG):
        refined(max_calls=200)
        refined(reflection_model=Altered(failing("truncated")), max_rounds=3)
    printed = "".join(capfd.readouterr()) + caplog.text
    assert not any(word in printed for word in (*scripted_model._PLANTS, "leaves", "Summarise", "SUBJECT", "Traceback"))
