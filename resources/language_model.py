"""The language model that summarises, extracts and ranks: none, a server, or a batch job on the GPU machine."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import dagster as dg
import msgspec
import pydantic
from pydantic import Field

from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.language_models.batch_files import BatchModel, batch_key
from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.cached import WAITING, Cached
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import BudgetSpent, LanguageModel, ModelRefused
from user_embeddings_dagster.privacy.retention.windows import windows
from user_embeddings_dagster.settings import (
    language_model_key,
    language_model_settings,
    language_model_variable,
    retention_setting,
)
from user_embeddings_dagster.summaries.asking import TooManyFailures

if TYPE_CHECKING:
    from training.vllm_batch import Settings

EXTRACTIVE, SERVER, BATCH = "extractive", "openai_compatible", "vllm_batch"
LANGUAGE_MODEL = "language_model"
"""What a ranker, validator or judge is set to for the configured model to be asked."""
NEEDED = {EXTRACTIVE: (), SERVER: ("name", "base_url"), BATCH: ("name",)}
DAY_SECONDS = 86_400
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NO_VLLM = "vllm_batch needs vLLM in the environment of this platform: pip install -e '.[vllm]'"


class WrongSetting(dg.Failure, ValueError):
    """Settings with which no model can be asked: the step fails once, and says which. Names no value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


class LanguageModelResource(dg.ConfigurableResource):
    """Which language model answers; with the default, `kind="extractive"`, none is asked anything.

    `openai_compatible` asks the endpoint at `base_url` (a vLLM server, or any other), at most `concurrency` requests
    at once, with the fields of `extra` (JSON) in each, such as {"chat_template_kwargs": {"enable_thinking": false}};
    `vllm_batch` runs `training.vllm_batch` with the settings `batch` (JSON). `name` is the model as the endpoint or
    vLLM knows it, and what every row records. Prices are US dollars per million tokens. `max_calls` and `max_usd`
    (0: no cap; money needs prices, which a batch job has not) cap what one step pays: what the private cache
    answers, for `cache_days` (0: until a purge), costs nothing. A batch job below a cap of calls that is less than
    `max_attempts` for every request loads its model several times.

    The pool `llm` does not know of the pool `gpu`: where a batch job shares its GPU with training, set
    `concurrency.runs.max_concurrent_runs: 1` in dagster.yaml and run with the in-process executor, or lower
    `gpu_memory_utilization` in `batch`.

    `problem` is what is wrong with the environment; with it nothing is asked.
    """

    kind: str = EXTRACTIVE
    name: str = ""
    base_url: str = ""
    concurrency: Count = 64
    timeout_seconds: Positive = 120.0
    patience_seconds: NotNegative = 300.0
    max_attempts: Count = 5
    usd_prompt: NotNegative = 0.0
    usd_cached_prompt: NotNegative = 0.0
    usd_completion: NotNegative = 0.0
    max_usd: NotNegative = 0.0
    max_calls: Annotated[int, Field(ge=0)] = 0
    cache_days: NotNegative = 0.0
    extra: str = "{}"
    batch: str = "{}"
    problem: str = ""

    @pydantic.field_validator("extra", "batch")
    @classmethod
    def _object(cls, text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("expected a JSON object, found no JSON") from None
        if not isinstance(value, dict):
            raise ValueError("expected a JSON object")
        return text

    @pydantic.field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            whole = False
        if url and not whole:
            raise ValueError("expected http(s)://host[:port]/path")
        return url

    @classmethod
    def from_environment(cls) -> "LanguageModelResource":
        """Fields from USER_EMBEDDINGS_LANGUAGE_MODEL_<FIELD>; what is not set has its default.

        Never raises, so that the code location loads: what cannot be used becomes the `problem`, which `configured`
        raises where a model would be asked.
        """
        names = {language_model_variable(field): field for field in cls.model_fields if field != "problem"}
        found = language_model_settings()
        fields: dict[str, Any] = {names[name]: value for name, value in found.items() if name in names}
        problems = [f"{name}: no such setting" for name in found if name not in names]
        resource = cls()
        try:
            resource = cls(**fields)  # pydantic reads the numbers
        except pydantic.ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)
            problems += [f"{language_model_variable(str(each['loc'][0]))}: {each['msg']}" for each in wrong]
        return cls(problem="; ".join(problems)) if problems else resource

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask. Raises WrongSetting."""
        if self.problem:
            raise WrongSetting(self.problem)
        if self.kind not in NEEDED:
            raise WrongSetting(f"{_named('kind')}: {self.kind!r}, expected one of {sorted(NEEDED)}")
        if missing := [_named(field) for field in NEEDED[self.kind] if not getattr(self, field)]:
            raise WrongSetting(f"language model of kind {self.kind!r} needs {', '.join(missing)}")
        if self.max_usd and self.kind == BATCH:
            raise WrongSetting(f"{_named('max_usd')}: a batch job has no prices, cap it by {_named('max_calls')}")
        if self.max_usd and self.kind == SERVER and not self.priced:
            prices = ", ".join(_named(field) for field in ("usd_prompt", "usd_completion"))
            raise WrongSetting(f"{_named('max_usd')}: money cannot be capped without prices, set {prices}")
        if self.kind == BATCH:
            _ = self._batch_settings
        return self.kind != EXTRACTIVE

    @property
    def priced(self) -> bool:
        """Whether what answers cost in money is known."""
        return self.kind == SERVER and any((self.usd_prompt, self.usd_cached_prompt, self.usd_completion))

    def is_chosen(self, setting: str, value: str) -> bool:
        """Whether the `setting` is to ask this model: its `value` is LANGUAGE_MODEL.

        Raises dagster.Failure where no model is configured.
        """
        if value == LANGUAGE_MODEL and not self.configured:
            raise dg.Failure(f"{setting}: no language model is configured", allow_retries=False)
        return value == LANGUAGE_MODEL

    @property
    def answer_settings(self) -> str:
        """Canonical JSON of the settings that shape answers, beside model name and program; "" if there are none."""
        shaping: dict[str, Any] = {}
        if self.kind == SERVER:
            shaping = json.loads(self.extra)
        elif self.kind == BATCH:
            given = json.loads(self.batch)
            shaping = {name: given[name] for name in ("chat_template_kwargs", "dtype", "model") if given.get(name)}
        return json.dumps(shaping, sort_keys=True, separators=(",", ":")) if shaping else ""

    @contextmanager
    def open(self, context: dg.AssetExecutionContext, store: Store, jobs: TrainingJobs) -> Iterator[LanguageModel]:
        """The configured model behind the private cache and the cap, for one step.

        The cap counts what the cache does not know. A refused key, a spent budget or a wrong setting raises
        dagster.Failure without a retry: none passes with time. Too many failures are retried if they may pass. What the
        cache did is logged at the end.
        """
        try:
            days = windows(retention_setting())["language_model_cache"]
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        kept = None if days is None else days * DAY_SECONDS
        with store.language_model_cache(self.cache_days * DAY_SECONDS or None, kept) as cache:
            try:
                waiting = None if self.kind == BATCH else WAITING  # a batch job loads its model each time it is asked
                yield Cached(self._capped(self._asked(context, store, jobs)), cache, waiting)
            except (ModelRefused, BudgetSpent) as error:
                raise dg.Failure(str(error), allow_retries=False) from None
            except TooManyFailures as error:
                raise dg.Failure(str(error), allow_retries=error.passing) from None
            finally:
                stats = cache.stats
                context.log.info(
                    f"private cache: {stats.hits} hits, {stats.misses} misses ({stats.hit_rate:.0%} hits), "
                    f"{stats.expired} expired, {stats.damaged} damaged, {stats.entries} entries"
                )

    def _capped(self, model: LanguageModel) -> LanguageModel:
        if not (self.max_calls or self.max_usd):
            return model
        attempts = self.max_attempts if self.kind == SERVER else self._batch_settings.max_attempts
        return Budgeted(model, self.max_calls or None, self.max_usd or None, attempts=attempts)

    def _asked(self, context: dg.AssetExecutionContext, store: Store, jobs: TrainingJobs) -> LanguageModel:
        if not self.configured:
            raise ValueError("no language model is configured")
        return self._server() if self.kind == SERVER else self._batch_job(context, store, jobs)

    def _server(self) -> OpenAICompatible:
        try:
            return OpenAICompatible(
                self.name,
                self.base_url,
                language_model_key(),
                concurrency=self.concurrency,
                timeout_seconds=self.timeout_seconds,
                patience_seconds=self.patience_seconds,
                max_attempts=self.max_attempts,
                usd_per_million=(self.usd_prompt, self.usd_cached_prompt, self.usd_completion),
                extra=json.loads(self.extra),
            )
        except ValueError as error:
            raise WrongSetting(f"{_named('base_url')} or {language_model_variable('key')}: {error}") from None

    def _batch_job(self, context: dg.AssetExecutionContext, store: Store, jobs: TrainingJobs) -> BatchModel:
        if find_spec("vllm") is None:
            raise dg.Failure(NO_VLLM, allow_retries=False)

        def launch(inputs: Path, output: Path, variables: Mapping[str, str]) -> None:
            jobs.run(context, "vllm_batch", inputs, output, variables)

        # One folder whichever of a step's assets were asked for: another selection goes on with the same batch.
        step = context.op_execution_context.op_def.name, context.partition_key if context.has_partition_key else "all"
        with store.contributor_keys as keys:
            key = batch_key(keys.derived("batch files"))
        return BatchModel(self.name, launch, store.layout.batches.joinpath(*step), key, json.loads(self.batch))

    @property
    def _batch_settings(self) -> "Settings":
        """`batch` as the job will read it. Raises WrongSetting."""
        from training.vllm_batch import Settings

        try:
            return msgspec.convert({"model": self.name, **json.loads(self.batch)}, Settings, strict=False)
        except msgspec.ValidationError as error:
            raise WrongSetting(f"{_named('batch')}: {error}") from None


def _named(field: str) -> str:
    return f"{field} ({language_model_variable(field)})"
