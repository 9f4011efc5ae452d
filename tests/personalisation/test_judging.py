"""C44: a job asks the judge of the process that started it, and has neither its key nor its cache."""

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import pytest

from user_embeddings_dagster.personalisation.judges import Judged, JudgeFailed, WordOverlap
from user_embeddings_dagster.personalisation.judging import ADDRESS, KEY, AskedJudge, serving

ANSWERS = [
    Judged("u", "what?", "rye and water", said, ("one", "two")) for said in ("rye and water", "wheat", "", "rye \ud83d")
]


@dataclass(frozen=True)
class Broken(WordOverlap):
    """Has no verdict."""

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        raise ConnectionError("of rye and water")


def asked(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AskedJudge:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return AskedJudge()


def _in_a_job(variables: dict[str, str], found: "multiprocessing.Queue[list[float]]") -> None:
    os.environ |= variables
    found.put(AskedJudge().scores(ANSWERS).tolist())


def test_another_process_gets_the_scores_of_the_judge() -> None:
    spawned = multiprocessing.get_context("spawn")
    found = spawned.Queue()
    with serving(WordOverlap()) as variables:
        process = spawned.Process(target=_in_a_job, args=(variables, found))
        process.start()
        scores = found.get(timeout=60)
        process.join()
    assert scores == WordOverlap().scores(ANSWERS).tolist() and scores[0] == 1.0 and scores[1] == 0.0


def test_several_ask_one_after_the_other_and_the_name_is_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(WordOverlap()) as variables:
        for _ in range(3):
            judge = asked(variables, monkeypatch)
            assert judge.name == "word_overlap" and len(judge.scores([])) == 0
            assert judge.scores(ANSWERS[:2]).tolist() == [1.0, 0.0]
            judge._connection.close()


def test_a_judge_that_fails_fails_both_sides_and_the_job_sees_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError), serving(Broken()) as variables:
        judge = asked(variables, monkeypatch)
        with pytest.raises(JudgeFailed, match=r"word_overlap: ConnectionError$"):
            judge.scores(ANSWERS)
        judge._connection.close()
        raise RuntimeError("the job exited with code 1")


def test_what_the_job_does_wrong_stays_its_own() -> None:
    with pytest.raises(RuntimeError, match="its own"), serving(WordOverlap()):
        raise RuntimeError("its own")


def test_who_does_not_know_the_key_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(WordOverlap()) as variables:
        with pytest.raises(AuthenticationError):
            Client(variables[ADDRESS], "AF_UNIX", b"another")
        judge = asked(variables, monkeypatch)
        assert judge.scores(ANSWERS[:1]).tolist() == [1.0]
        judge._connection.close()
    assert not Path(variables[ADDRESS]).exists()


def test_without_a_judge_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(ValueError, match=f"{ADDRESS} and {KEY} are not set"):
        AskedJudge()
