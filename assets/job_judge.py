"""The judge of a training or evaluation job: its own, or the configured language model by its rubric."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from resources.language_model import LANGUAGE_MODEL, SERVER, LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.personalisation.judges import Rubric
from user_embeddings_dagster.personalisation.judging import serving


class JobJudge:
    """`name` is what rows record, `made_by` what a result depends on beside the setting.

    Raises dagster.Failure without the model that it needs, and for a model in a batch job: a judge is asked at every
    step.
    """

    def __init__(self, setting: str, language_model: LanguageModelResource) -> None:
        self._model = language_model
        self._asks = language_model.is_chosen("judge", setting)
        if self._asks and language_model.kind != SERVER:
            raise dg.Failure(f"judge {LANGUAGE_MODEL!r} needs a language model of kind {SERVER!r}", allow_retries=False)
        self.name = language_model.name if self._asks else setting
        settings = language_model.answer_settings
        self.made_by = [self.name, Rubric.version_of(settings)] if self._asks else []

    @contextmanager
    def serving(
        self, context: dg.AssetExecutionContext, store: Store, training_jobs: TrainingJobs
    ) -> Iterator[Mapping[str, str]]:
        """Environment of the job, which asks the model through this process: behind the private cache and the cap."""
        if not self._asks:
            yield {}
            return
        with (
            self._model.open(context, store, training_jobs) as model,
            serving(Rubric(model, self._model.answer_settings)) as variables,
        ):
            yield variables
