"""C44: the judge of a job is a language model by setting, behind the private cache and the cap of this process."""

from pathlib import Path

import dagster as dg
import pytest
from asset_contexts import asset_context

from assets.job_judge import JobJudge
from benchmarks.fault_server import MODEL, FaultServer
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.personalisation.judges import Judged, JudgeFailed
from user_embeddings_dagster.personalisation.judging import AskedJudge

ANSWERS = [Judged(f"user {i % 3}", f"what of {i}?", f"rye and {i}", f"wheat and {i}") for i in range(12)]


def model(server: FaultServer, **fields) -> LanguageModelResource:
    return LanguageModelResource(kind="openai_compatible", name=MODEL, base_url=server.url, **fields)


def asked(judge: JobJudge, store: Store, monkeypatch: pytest.MonkeyPatch, answers: list[Judged]) -> list[float]:
    with asset_context() as context, judge.serving(context, store, TrainingJobs()) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        job = AskedJudge()
        try:
            return job.scores(answers).tolist()
        finally:
            job._connection.close()


def test_a_job_asks_the_model_once_for_each_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rubric, 0 to 1; what was asked before comes from the cache, in the job's next run too."""
    store = Store(data=str(tmp_path))
    with FaultServer() as server:
        judge = JobJudge("language_model", model(server))
        assert judge.name == MODEL and judge.made_by[0] == MODEL
        first = asked(judge, store, monkeypatch, ANSWERS)
        assert len(first) == len(ANSWERS) and all(round(10 * score) / 10 == score for score in first)
        assert 0 <= min(first) < max(first) <= 1
        assert sum(server.stats().asked.values()) == len(ANSWERS)
        assert asked(judge, store, monkeypatch, ANSWERS[::-1]) == first[::-1]
        assert sum(server.stats().asked.values()) == len(ANSWERS)


def test_a_spent_budget_ends_the_step_without_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        judge = JobJudge("language_model", model(server, max_calls=5, max_attempts=1))
        with pytest.raises(dg.Failure) as failed:
            asked(judge, Store(data=str(tmp_path)), monkeypatch, ANSWERS)
    assert not failed.value.allow_retries and not isinstance(failed.value, JudgeFailed)


def test_a_judge_of_the_job_itself_asks_nobody(tmp_path: Path) -> None:
    for setting in ("similarity", "word_overlap"):
        judge = JobJudge(setting, LanguageModelResource())
        assert (judge.name, judge.made_by) == (setting, [])
        store = Store(data=str(tmp_path))
        with asset_context() as context, judge.serving(context, store, TrainingJobs()) as variables:
            assert variables == {}


@pytest.mark.parametrize(
    ("setting", "resource"),
    [
        ("language_model", LanguageModelResource()),
        ("language_model", LanguageModelResource(kind="vllm_batch", name="some-model")),
    ],
)
def test_what_cannot_judge_is_refused_before_anything_runs(setting: str, resource: LanguageModelResource) -> None:
    with pytest.raises(dg.Failure, match="judge") as failed:
        JobJudge(setting, resource)
    assert not failed.value.allow_retries
