"""The personalised decoder: a frozen decoder, and what is trained between a user's states and it."""

from pathlib import Path
from typing import Literal

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.encoders import check_specs, note_trained_on, train
from assets.job_judge import JobJudge
from assets.partitions import SERVED_DIMENSION
from assets.policies import GPU, ML, MODELS_FRESH, RETRY
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.model_export.export import decoder_folder
from user_embeddings_dagster.personalisation.decoder_identity import decoder_hash
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.personalisation.tasks import contributions
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.storage.lake import Lake, fingerprint
from user_embeddings_dagster.storage.models import ModelFolder

BASE, SUPERVISED, PERSONALISED = "base_decoder", "supervised_decoder", "personalised_decoder"
HISTORIES = ("item_embeddings", "chunk_embeddings")
NO_TASK = {
    SUPERVISED: "no training user has a task with options, which takes three other training users of its DataDAO who "
    "wrote at the same time",
    PERSONALISED: "no training user has a task",
}


class BaseDecoderConfig(AssetConfig):
    """Sizes and hyperparameters of the decoder; a step reads `batch_size` rows of `length` tokens."""

    vocabulary: int = Field(default=4096, ge=1)
    hidden: int = Field(default=256, ge=1)
    layers: int = Field(default=4, ge=1)
    intermediate: int = Field(default=768, ge=1)
    length: int = Field(default=128, ge=1)
    batch_size: int = Field(default=8, ge=1)
    steps: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    min_users_per_word: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0)


class SupervisedDecoderConfig(AssetConfig):
    """Hyperparameters of the supervised stage (training.supervised_training.Config).

    `preset`: what is trained: "proj", "perceiver", "enc", "lora" or "full"; `injection`: "cross_attention" into
    `injected_layers` layers, or "soft_prompt"; `axes` of a state that are read (None: one for every 12 tasks about what
    SUBJECT writes, 16 to 128); `discriminant`: begin with the linear one, of the size that `valid_tasks` of validation
    users choose; `validations` of them in the steps. `kept_only`: on tasks whose gold the validators agree with alone.
    """

    preset: Literal["proj", "perceiver", "enc", "lora", "full"] = "perceiver"
    injection: Literal["cross_attention", "soft_prompt"] = "cross_attention"
    tokens: int = Field(default=16, ge=1)
    injected_layers: int = Field(default=1, ge=1)
    axes: int | None = Field(default=None, ge=1)
    discriminant: bool = True
    valid_tasks: int = Field(default=256, ge=0)
    validations: int = Field(default=2, ge=1)
    steps: int = Field(default=6, ge=1)
    batch_tasks: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    size_penalty: float = Field(default=3.0, ge=0)
    recall_share: float = Field(default=0.5, ge=0, le=1)
    kept_only: bool = False
    max_tasks: int | None = Field(default=20_000, ge=1)
    seed: int = Field(default=0, ge=0)


class PersonalisedDecoderConfig(AssetConfig):
    """Hyperparameters of the reward stage (training.reward_training.Config).

    `judge` of free-form answers: "similarity" to what SUBJECT said, by the frozen text encoder, "word_overlap", or
    "language_model": the configured model by its rubric, `samples` · `batch_questions` answers a step. Its prompts hold
    question and reference (masked). `voice_answers` are judged at each strength that the voice may begin with (0: 1);
    then answers move it at `voice_rate`, and choices the rest at `learning_rate`.
    """

    judge: Literal["similarity", "word_overlap", "language_model"] = "similarity"
    guards: bool = True
    steps: int = Field(default=4, ge=1)
    samples: int = Field(default=4, ge=2)
    batch_tasks: int = Field(default=16, ge=1)
    batch_questions: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    voice_rate: float = Field(default=2e-3, ge=0)
    kl: float = Field(default=0.05, ge=0)
    choice_kl: float = Field(default=20.0, ge=0)
    voice_answers: int = Field(default=96, ge=0)
    kept_only: bool = False
    max_tasks: int | None = Field(default=20_000, ge=1)
    seed: int = Field(default=0, ge=0)


def decoder_of(store: Store) -> Path:
    """Folder of the decoder that is personalised: USER_EMBEDDINGS_DECODER, or else the promoted base_decoder's."""
    return decoder_folder(store.models)


def history_hashes(store: Store, names: list[str]) -> dict[str, list[str]]:
    """What histories are read from, by DataDAO."""
    return {name: [store.lance.content_hash(name, table) for table in HISTORIES] for name in names}


def training_tasks(lake: Lake, snapshot: pl.DataFrame, kept_only: bool, most: int | None) -> pl.DataFrame:
    """Tasks of training and validation users; of `most` training tasks a sample by their ids, which are hashes."""
    tasks = consented_tasks(lake, snapshot, "train", "valid").sort("task_id")
    if kept_only:
        tasks = tasks.filter(pl.col("status") == "kept")
    return pl.concat([tasks.filter(split="train").head(most or tasks.height), tasks.filter(split="valid")])


@dg.asset(
    deps=["training_snapshot", "consent_ledger", "masked_chunks"],
    group_name="personalised_llm",
    owners=ML,
    kinds={"torch", "transformers"},
    code_version=versions.BASE_DECODER,
    check_specs=check_specs(BASE),
    freshness_policy=MODELS_FRESH,
    retry_policy=RETRY,
    pool=GPU,
)
def base_decoder(
    context: dg.AssetExecutionContext, config: BaseDecoderConfig, store: Store, training_jobs: TrainingJobs
) -> dg.MaterializeResult:
    """One row per training: a small causal decoder with its own tokenizer, trained on training users' masked chunks.

    The stand-in for a large one: a few million weights say little, and its perplexity says how little.
    USER_EMBEDDINGS_DECODER names the folder of any Hugging Face causal LM to be personalised instead.
    """
    lake, snapshot = store.lake, consented_snapshot(store.lake).filter(pl.col("split") != "test")
    names = snapshot["datadao"].unique().sort().to_list()
    settings = config.model_dump()
    inputs = [snapshot_version(snapshot), [lake.path("masked_chunks", name).stem for name in names]]
    folder = store.models.folder(BASE, fingerprint(BASE, versions.BASE_DECODER, inputs, settings))

    def write_inputs(folder: ModelFolder) -> None:
        note_trained_on(store, folder, snapshot)
        of = pl.col("speakers").list.eval(pl.element() == "SUBJECT")
        parts = [
            lake.scan("masked_chunks", name).select("chunk_id", "text", "turns", mine=of).collect() for name in names
        ]
        own = [
            "\n".join(turn for turn, mine in zip(turns, subject, strict=True) if mine)
            for part in parts
            for turns, subject in part.select("turns", "mine").iter_rows()
        ]
        chunks = pl.concat(parts).select("chunk_id", "text").with_columns(own=pl.Series(own, dtype=pl.String))
        rows = snapshot.select("chunk_id", "user_id", "split").join(chunks, on="chunk_id").sort("chunk_id")
        folder.write_inputs(settings, chunks=rows.drop("chunk_id"))

    return train(context, store, training_jobs, BASE, BASE, folder, write_inputs)


@dg.asset(
    deps=["base_decoder", "insight_tasks", "sequence_encoder", *HISTORIES, "training_snapshot", "consent_ledger"],
    group_name="personalised_llm",
    owners=ML,
    kinds={"torch", "transformers"},
    code_version=versions.SUPERVISED_DECODER,
    check_specs=check_specs(SUPERVISED),
    freshness_policy=MODELS_FRESH,
    retry_policy=RETRY,
    pool=GPU,
)
def supervised_decoder(
    context: dg.AssetExecutionContext, config: SupervisedDecoderConfig, store: Store, training_jobs: TrainingJobs
) -> dg.MaterializeResult:
    """One row per training: Perceiver and gated cross-attention from users' states into the frozen decoder (C42).

    Trained on what training users say next, among others' words of the same time and topic.
    """
    return _train_on_tasks(context, config, store, training_jobs, SUPERVISED, versions.SUPERVISED_DECODER)


@dg.asset(
    deps=["supervised_decoder", "insight_tasks", *HISTORIES, "training_snapshot", "consent_ledger"],
    group_name="personalised_llm",
    owners=ML,
    kinds={"torch", "transformers"},
    code_version=versions.PERSONALISED_DECODER,
    check_specs=check_specs(PERSONALISED),
    freshness_policy=MODELS_FRESH,
    retry_policy=RETRY,
    pool=GPU,
)
def personalised_decoder(
    context: dg.AssetExecutionContext,
    config: PersonalisedDecoderConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per training: the supervised decoder after a judge's rewards have moved its adapters (C44).

    Group-relative policy gradient on choices and free-form answers, held to the supervised policy by its KL.
    """
    supervised = store.models.current_on(SUPERVISED, f"sequence_encoder/{SERVED_DIMENSION}")
    judge = JobJudge(config.judge, language_model)
    return _train_on_tasks(
        context, config, store, training_jobs, PERSONALISED, versions.PERSONALISED_DECODER, judge,
        personalised=supervised,
    )  # fmt: skip


def _train_on_tasks(
    context: dg.AssetExecutionContext,
    config: SupervisedDecoderConfig | PersonalisedDecoderConfig,
    store: Store,
    jobs: TrainingJobs,
    name: str,
    version: str,
    judge: JobJudge | None = None,
    **start: ModelFolder,
) -> dg.MaterializeResult:
    """A training on insight tasks and histories; `start`: the models that it goes on from, by their settings' name."""
    snapshot = consented_snapshot(store.lake).filter(pl.col("split") != "test")
    tasks = training_tasks(store.lake, snapshot, config.kept_only, config.max_tasks)
    if tasks.filter(pl.col("split") == "train", (pl.col("answer") >= 0) | (name != SUPERVISED)).is_empty():
        raise dg.Failure(NO_TASK[name], allow_retries=False)
    sequence = store.models.current_on(f"sequence_encoder/{SERVED_DIMENSION}", "item_encoder")
    decoder, models = decoder_of(store), {"sequence_encoder": sequence, **start}
    settings = config.model_dump(exclude={"kept_only", "max_tasks"})
    trained_on = [model.record()["data_version"] for model in models.values()]
    histories = history_hashes(store, snapshot["datadao"].unique().sort().to_list())
    inputs = [snapshot_version(snapshot), histories, tasks_version(tasks), trained_on, decoder_hash(decoder)]
    inputs += judge.made_by if judge else []
    folder = store.models.folder(name, fingerprint(name, version, inputs, settings))
    folder.note_basis(sequence.record()["data_version"])

    def write_inputs(folder: ModelFolder) -> None:
        note_trained_on(store, folder, snapshot)
        folders = {"decoder": str(decoder)} | {model: str(of.output) for model, of in models.items()}
        folder.write_inputs({**settings, **folders}, tasks=tasks, sequences=sequences(snapshot, store.lance))

    environment = judge.serving(context, store, jobs) if judge else None
    return train(context, store, jobs, name, name, folder, write_inputs, environment)


def tasks_version(tasks: pl.DataFrame) -> str:
    """Version of the tasks that a job reads."""
    return fingerprint(tasks.select("task_id", "answer", "reference", "status", "options").write_json())


def said(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """chunk_id, text: what SUBJECT said in each chunk of a snapshot."""
    parts = []
    for name in snapshot["datadao"].unique().sort():
        chunks = store.lake.scan("masked_chunks", name).select("chunk_id", "speakers", "turns")
        mine = chunks.join(snapshot.lazy().select("chunk_id"), on="chunk_id", how="semi").collect()
        parts.append(mine.select("chunk_id").with_columns(text=pl.Series(contributions(mine), dtype=pl.String)))
    return pl.concat(parts).sort("chunk_id")
