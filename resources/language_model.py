"""The language model that summarises, extracts and ranks: none, a server, or a batch job on the GPU machine."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.language_models.batch_files import BatchModel, batch_key
from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.cached import Cached
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import BudgetSpent, LanguageModel, ModelRefused
from user_embeddings_dagster.settings import language_model_key, language_model_settings

EXTRACTIVE, SERVER, BATCH = "extractive", "openai_compatible", "vllm_batch"
NEEDED = {EXTRACTIVE: (), SERVER: ("name", "base_url"), BATCH: ("name",)}
DAY_SECONDS = 86_400


class LanguageModelResource(dg.ConfigurableResource):
    """Which language model answers; with the default, `kind="extractive"`, none is asked anything.

    `openai_compatible` asks the endpoint at `base_url` (a vLLM server, or any other), at most `concurrency` requests
    at once, with the fields of `extra` (JSON) in each, such as {"chat_template_kwargs": {"enable_thinking": false}};
    `vllm_batch` runs `training.vllm_batch` with the settings `batch` (JSON). `name` is the model as the endpoint or
    vLLM knows it, and what every row records. Prices are US dollars per million tokens. `max_calls` and `max_usd`
    (0: no cap) cap what the answers of one materialisation may have cost; what was answered before is kept. Answers
    are used from the private cache for `cache_days` (0: for ever).
    """

    kind: str = EXTRACTIVE
    name: str = ""
    base_url: str = ""
    concurrency: int = 64
    timeout_seconds: float = 120.0
    patience_seconds: float = 300.0
    max_attempts: int = 5
    usd_prompt: float = 0.0
    usd_cached_prompt: float = 0.0
    usd_completion: float = 0.0
    max_usd: float = 0.0
    max_calls: int = 0
    cache_days: float = 0.0
    extra: str = "{}"
    batch: str = "{}"

    @classmethod
    def from_environment(cls) -> "LanguageModelResource":
        """Fields from USER_EMBEDDINGS_LANGUAGE_MODEL_<FIELD>; what is not set has its default."""
        fields: dict[str, Any] = language_model_settings(set(cls.model_fields))  # pydantic reads the numbers
        return cls(**fields)

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask. Raises ValueError on an unknown kind, or one that lacks its settings."""
        if self.kind not in NEEDED:
            raise ValueError(f"language model of kind {self.kind!r}: expected one of {sorted(NEEDED)}")
        if missing := [field for field in NEEDED[self.kind] if not getattr(self, field)]:
            raise ValueError(f"language model of kind {self.kind!r} needs {missing}")
        return self.kind != EXTRACTIVE

    @contextmanager
    def open(self, context: dg.AssetExecutionContext, store: Store, jobs: TrainingJobs) -> Iterator[LanguageModel]:
        """The configured model behind the private cache and the cap, for one step.

        A refused key or a spent budget raises dagster.Failure without a retry: neither passes with time. What the
        cache did is logged at the end.
        """
        with store.language_model_cache(self.cache_days * DAY_SECONDS or None) as cache:
            try:
                yield self._capped(Cached(self._asked(context, store, jobs), cache))
            except (ModelRefused, BudgetSpent) as error:
                raise dg.Failure(str(error), allow_retries=False) from None
            finally:
                stats = cache.stats
                context.log.info(
                    f"private cache: {stats.hits} hits, {stats.misses} misses ({stats.hit_rate:.0%} hits), "
                    f"{stats.expired} expired, {stats.damaged} damaged, {stats.entries} entries"
                )

    def _capped(self, model: LanguageModel) -> LanguageModel:
        if not (self.max_calls or self.max_usd):
            return model
        attempts = self.max_attempts if self.kind == SERVER else 1
        return Budgeted(model, self.max_calls or None, self.max_usd or None, attempts=attempts)

    def _asked(self, context: dg.AssetExecutionContext, store: Store, jobs: TrainingJobs) -> LanguageModel:
        if not self.configured:
            raise ValueError("no language model is configured")
        if self.kind == SERVER:
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

        def launch(inputs: Path, output: Path, variables: Mapping[str, str]) -> None:
            jobs.run(context, "vllm_batch", inputs, output, variables)

        asset = min(key.to_user_string() for key in context.selected_asset_keys)  # the step may make several
        step = asset, context.partition_key if context.has_partition_key else "all"
        with store.contributor_keys as keys:
            key = batch_key(keys.derived("batch files"))
        return BatchModel(self.name, launch, store.layout.batches.joinpath(*step), key, json.loads(self.batch))
