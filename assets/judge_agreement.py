"""Judges against the gold, and against each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import dagster as dg
import polars as pl
from pydantic import Field

from assets.measured import measured, stored_inputs
from assets.scoring import EvaluationConfig, record, score_asset, shown
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.mining.pairs import vector_frame
from user_embeddings_dagster.personalisation.agreement import judged, pairs_of, write_agreement
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.personalisation.judges import Judge, Rubric, Similarity, WordOverlap
from user_embeddings_dagster.personalisation.past import Past
from user_embeddings_dagster.privacy.consent.live import consented_snapshot

ASSET, JUDGES_VERSION = "judge_agreement_scores", "2"


class JudgeAgreementConfig(EvaluationConfig):
    """`judge`: "similarity" (of the frozen text encoder; beside it the overlap of words), or "language_model", which
    adds the configured model with its rubric. Its prompts hold the end of one contributor's history and one option of
    another's (masked; its answer is one word). `max_pairs` of each DataDAO are judged, by a model in both orders."""

    judge: Literal["similarity", "language_model"] = "similarity"
    max_pairs: int = Field(default=40, ge=1)


@contextmanager
def judges(
    context: dg.AssetExecutionContext, config: JudgeAgreementConfig, store: Store, text_encoder: TextEncoderResource,
    language_model: LanguageModelResource, training_jobs: TrainingJobs,
) -> Iterator[list[tuple[Judge, str]]]:  # fmt: skip
    """The judges with their versions."""
    encoder = text_encoder.load()
    without: list[tuple[Judge, str]] = [
        (Similarity(encoder.encode), encoder.version),
        (WordOverlap(), JUDGES_VERSION),
    ]
    if not language_model.is_chosen("judge", config.judge):
        yield without
        return
    with language_model.open(context, store, training_jobs) as model:
        settings = language_model.answer_settings
        yield [*without, (Rubric(model, settings), Rubric.version_of(settings))]


@score_asset(ASSET, ["insight_tasks", "masked_chunks", "chunk_embeddings"], group="personalised_llm")
def judge_agreement_scores(
    context: dg.AssetExecutionContext,
    config: JudgeAgreementConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
):
    """One row per metric of a judge, or of two, on pairs of SUBJECT's answer and another's, of test users (C44).

    Accuracy against the gold, consistency when the two change places, Cohen's kappa between judges. The same pairs are
    not judged again by the same judges.
    """
    lake, snapshot = store.lake, consented_snapshot(store.lake).filter(split="test")
    if snapshot.is_empty():
        raise dg.Failure("no held-out user has consented to `evaluate`", allow_retries=False)
    tasks, names = consented_tasks(lake, snapshot, "test"), snapshot["datadao"].unique().sort().to_list()
    with judges(context, config, store, text_encoder, language_model, training_jobs) as chosen:
        versions = [(judge.name, version) for judge, version in chosen]

        def measure() -> pl.DataFrame:
            found = [_judged(store, tasks, snapshot, name, [judge for judge, _ in chosen], config) for name in names]
            sheet = ScoreSheet(Scope(ASSET, "all", config.seed, split_hash(snapshot)))
            write_agreement(sheet, pl.concat(found), versions)
            return sheet.frame()

        result = measured(store, ASSET, [stored_inputs(context, store), config.model_dump(), versions], measure)
    picture = plots.grouped_bars(
        shown(result.scores), metric="pair_accuracy", by="slice", title="Judges: SUBJECT's option against another's"
    )
    return record(store, ASSET, result, picture)


def _judged(
    store: Store, tasks: pl.DataFrame, snapshot: pl.DataFrame, datadao: str, by: Sequence[Judge],
    config: JudgeAgreementConfig,
) -> pl.DataFrame:  # fmt: skip
    """What the judges say of one DataDAO's pairs."""
    mine = snapshot.filter(datadao=datadao)
    chunks = store.lake.scan("masked_chunks", datadao).select("chunk_id", "text")
    chunks = chunks.join(mine.lazy().select("chunk_id"), on="chunk_id", how="semi").collect()
    past = Past.of(mine, chunks, vector_frame(store.lance, "chunk_embeddings", mine))
    pairs, asked = pairs_of(tasks.filter(datadao=datadao), past, config.max_pairs, config.seed)
    return judged(by, pairs, asked)
