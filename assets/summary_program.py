"""The program by which a language model summarises chunks, refined on training users."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.policies import LLM, ML, RETRY
from assets.readable_models import readable
from assets.reporting import check_result, domain_specs, plot
from resources.language_model import BATCH, LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.privacy.lineage import trained_on
from user_embeddings_dagster.quality.domain import may_be_read
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION
from user_embeddings_dagster.summaries.refined_program import (
    hold_extractive,
    hold_refined,
    hold_shipped,
    not_worse_than_shipped,
    refinement_data,
    violations_plot,
)
from user_embeddings_dagster.summaries.refinement import ARTIFACT, NO_USAGE, VERSION, refine
from user_embeddings_dagster.summaries.subject import summarise_subject

NO_PRICES = "none: no prices are set"
NO_ROUNDS = "a batch job answers one large round, a refinement asks in many small ones: refine with openai_compatible"


class SummaryProgramConfig(AssetConfig):
    """Budget and data of a refinement.

    `max_calls` and `max_usd` (0: no cap) cap what all answers may cost, retries included; money is not capped where
    the language model has no prices, and the metadata say so (`usd_cap`). `examples` chunks, at most
    `chunks_per_user` of each training user; a third of the users measures, the others are refined on.
    """

    max_calls: int = Field(default=3_000, ge=0)
    max_usd: float = Field(default=5.0, ge=0)
    examples: int = Field(default=150, ge=1)
    chunks_per_user: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)

    def limits(self, priced: bool) -> dict[str, Any]:
        """Arguments of `refine`; `priced`: whether the language model has prices."""
        max_usd = self.max_usd if priced else 0
        return {"max_calls": self.max_calls or None, "max_usd": max_usd or None, "seed": self.seed}

    def usd_cap(self, language_model: LanguageModelResource) -> dict[str, float | str]:
        """The cap on money, for metadata; nothing without a language model."""
        if not language_model.configured:
            return {}
        return {"usd_cap": (self.max_usd or "none") if language_model.priced else NO_PRICES}


def violations(metadata: Mapping[str, Any]) -> dict[str, dg.MarkdownMetadataValue]:
    """The plot of the violated constraints, if a refinement was measured."""
    png = violations_plot(metadata)
    return {} if png is None else {"violations": plot(png)}


@dg.asset(
    deps=["masked_chunks", "consent_ledger"],
    group_name="language_models",
    owners=ML,
    kinds={"dspy"},
    code_version=VERSION,
    check_specs=domain_specs(ARTIFACT, not_worse_than_shipped, may_be_read, blocking=(may_be_read,)),
    retry_policy=RETRY,
    pool=LLM,
)
def summary_program(
    context: dg.AssetExecutionContext,
    config: SummaryProgramConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per refinement: the program that asks a language model for summaries, with its score and cost.

    GEPA (Agrawal et al. 2025) rewrites its instructions against the numbered constraints on summaries, within a
    budget of calls and money; what is better on training users it was not refined on is adopted. Without a
    language model it holds the extractive summariser, and nothing is refined.
    """
    shipped, asked, chunks = summarise_subject(), [PROGRAM_VERSION], None
    if language_model.configured:
        chunks = refinement_data(store.lake, store.key, config.examples, config.chunks_per_user)
        shipped = shipped.with_settings(language_model.answer_settings)
        asked = [language_model.kind, language_model.name, shipped.version, chunks.chunk_ids, config.model_dump()]
    folder, paid = store.models.folder(ARTIFACT, fingerprint(ARTIFACT, VERSION, asked)), NO_USAGE
    if not (reused := folder.complete):
        asked_about = pl.Series(chunks.chunk_ids if chunks else [], dtype=pl.String)
        folder.note_contributors(trained_on(store.lake, store.key, asked_about))
        folder.note_subjects(chunks.subjects if chunks else {})
        if chunks is None:
            hold_extractive(folder)
        elif lacking := NO_ROUNDS if language_model.kind == BATCH else chunks.lacking:
            hold_shipped(folder, language_model.name, lacking)
        else:
            limits = {**config.limits(language_model.priced), "attempts": language_model.max_attempts}
            with language_model.open(context, store, training_jobs) as model:
                result = refine(shipped, chunks.train, chunks.development, model, model, **limits)
            # Which settings the model is asked with is for those to say who ask it.
            hold_refined(folder, language_model.name, replace(result, program=result.program.with_settings("")))
            paid = result.paid
    folder.remove_leftovers()
    store.models.promote(ARTIFACT, folder.root.name)
    record, this_run = folder.record(), {"calls_this_run": paid.calls, "usd_this_run": paid.usd}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(record["data_version"]),
        metadata={
            **record["metadata"],
            "reused": reused,
            **this_run,
            **config.usd_cap(language_model),
            **violations(record["metadata"]),
        },
        check_results=[check_result(not_worse_than_shipped(record["metadata"]), ARTIFACT), readable(store, ARTIFACT)],
    )
