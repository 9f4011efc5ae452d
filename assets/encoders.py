"""The two trained encoders: each hands off to a torch job through Dagster Pipes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import dagster as dg
import polars as pl
from pydantic import Field

from assets.config import AssetConfig
from assets.embeddings import refuse_stale_vectors
from assets.partitions import dimensions
from assets.policies import GPU, ML, MODELS_FRESH, RETRY
from assets.readable_models import readable
from assets.reporting import check_result, domain_specs, plot
from resources.store import Store
from resources.text_encoder import TextEncoderResource
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.evaluation.plots import loss_curve
from user_embeddings_dagster.mining.pairs import sequences, training_pairs, with_negatives
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.privacy.lineage import subjects_of, trained_on
from user_embeddings_dagster.quality.domain import finite_weights, loss_fell, may_be_read
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.storage.models import ModelFolder

OWN, RELABELLED = "own", "relabelled"
CHECKS = {
    "loss_fell": "The validation loss (the training loss, without validation users) fell over the training.",
    "finite_weights": "Every trained weight is finite.",
}


class ItemEncoderConfig(AssetConfig):
    """Hyperparameters of the LoRA; `steps` of `batch_size` pairs, learning rate and temperature of InfoNCE.

    `validations` in the steps, evenly: the weights of the best are kept, and two without a better one stop it.
    `top_layers`: adapters in the last so many layers alone (None: in all): twice as fast a step, but worth less after
    the same number of steps (docs/encoders.md). `cache_layers` then runs the layers below in half precision, once per
    text if that stays within `cache_mb` on disk while it trains. `pairs`: a chunk's positive is its "own" summary, or
    the one that relabelled_pairs chose ("relabelled", which also adds the hard negative chosen there and leaves out
    the chunks that are not there).
    """

    steps: int = Field(default=12, ge=1)
    validations: int = Field(default=2, ge=1)
    batch_size: int = Field(default=64, ge=2)  # of one pair there is nothing to tell it from
    learning_rate: float = Field(default=1e-3, gt=0)
    temperature: float = Field(default=0.05, gt=0)
    rank: int = Field(default=8, ge=1)
    top_layers: int | None = Field(default=None, ge=1)
    cache_layers: bool = True
    cache_mb: int = Field(default=4096, ge=0)
    negatives: int = Field(default=2, ge=0)
    seed: int = Field(default=0, ge=0)
    pairs: Literal["own", "relabelled"] = OWN


class SequenceEncoderConfig(AssetConfig):
    """Hyperparameters of the sequence encoder; the dimension is the partition.

    `mixer`: "recurrence" (gated linear) or "attention" over the last `window` chunks. `truncation`: the q of the
    generalised InfoNCE; 0 is InfoNCE itself. `dp_noise` above 0 trains with user-level differential privacy
    (docs/trust.md): it needs `negatives` "own" or "public" instead of "batch", and `public_datadaos`, whose users it
    does not protect.
    """

    steps: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    temperature: float = Field(default=0.05, gt=0)
    truncation: float = Field(default=0.5, ge=0, le=1)
    mixer: Literal["recurrence", "attention"] = "recurrence"
    window: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    negatives: Literal["batch", "own", "public"] = "batch"
    public_datadaos: list[str] = []  # noqa: RUF012 - pydantic copies it
    dp_noise: float = Field(default=0.0, ge=0)
    dp_clip: float = Field(default=1.0, gt=0)
    dp_delta: float = Field(default=1e-5, gt=0, lt=1)
    dp_sampling_rate: float = Field(default=0.05, gt=0, le=1)
    dp_secret: bool = True


def train(
    context: dg.AssetExecutionContext,
    store: Store,
    jobs: TrainingJobs,
    job: str,
    encoder: str,
    folder: ModelFolder,
    write_inputs: Callable[[ModelFolder], None],
    environment: AbstractContextManager[Mapping[str, str]] | None = None,
) -> dg.MaterializeResult:
    """Run a job unless this very version is already there, promote its result, report and check it.

    `environment` is entered while the job runs, and yields variables for it.
    """
    if not (reused := folder.complete):
        write_inputs(folder)
        with environment or nullcontext({}) as variables:
            jobs.run(context, job, folder.inputs, folder.output, variables)
    folder.remove_leftovers()
    weights = finite_weights(folder.output)
    if not weights.passed:
        raise dg.Failure(f"{encoder}: weights that are not finite; not promoted", metadata=dict(weights.metrics))
    store.models.promote(encoder, folder.root.name)
    record, metrics = folder.record(), folder.metrics()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(record["data_version"][:32]),
        metadata={**record["metadata"], "reused": reused, "loss_curve": plot(loss_curve(metrics))},
        check_results=[
            check_result(loss_fell(losses_of(metrics)), job),
            check_result(weights, job),
        ],
    )


def losses_of(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """Validation losses from before the first step on; the training's own without validation users."""
    validation = [line[name] for line in metrics for name in ("start_valid_loss", "valid_loss") if name in line]
    return validation if len(validation) > 1 else [line["loss"] for line in metrics]


def note_trained_on(store: Store, folder: ModelFolder, snapshot: pl.DataFrame) -> None:
    """Write down beside a model who speaks in the chunks that it is trained and validated on, and whose they are."""
    used = snapshot.filter(pl.col("split") != "test")
    if used.is_empty():
        raise dg.Failure("nobody who has consented to `train` has chunks to train on", allow_retries=False)
    folder.note_contributors(trained_on(store.lake, store.key, used["chunk_id"]))
    folder.note_subjects(subjects_of(store.key, used))


def check_specs(asset: str, partitions: dg.PartitionsDefinition | None = None) -> list[dg.AssetCheckSpec]:
    """Checks of a trained encoder."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, partitions_def=partitions)
        for name, text in CHECKS.items()
    ]


def item_training(
    store: Store, text_encoder: TextEncoderResource, config: ItemEncoderConfig, encoder: str = "item_encoder"
) -> tuple[ModelFolder, Callable[[ModelFolder], None]]:
    """Where a training of the item encoder belongs, and what writes its inputs there."""
    lake = store.lake
    snapshot = consented_snapshot(lake)
    inputs = [snapshot_version(snapshot), lake.path("hard_negatives").stem]
    # Validation summaries have no hard negatives, and a base named by its folder may hold other weights.
    inputs += [store.lance.content_hash(name, "summary_embeddings") for name in sorted(set(snapshot["datadao"]))]
    inputs.append(text_encoder.load().version)
    if config.pairs == RELABELLED:
        inputs.append(lake.path("relabelled_pairs").stem)
    # The job sees by its pairs whether they were relabelled.
    settings = {
        **config.model_dump(exclude={"pairs"}),
        "base": text_encoder.base,
        "max_tokens": text_encoder.max_tokens,
    }
    wanted = fingerprint("item_encoder", versions.ITEM_ENCODER, inputs, settings)

    def write_inputs(folder: ModelFolder) -> None:
        relabelled = lake.read("relabelled_pairs") if config.pairs == RELABELLED else None
        note_trained_on(store, folder, snapshot)
        pairs = training_pairs(snapshot, lake, store.lance)
        folder.write_inputs(settings, pairs=with_negatives(pairs, lake.read("hard_negatives"), relabelled))

    return store.models.folder(encoder, wanted), write_inputs


@dg.asset(
    deps=[
        "training_snapshot",
        "consent_ledger",
        "hard_negatives",
        "relabelled_pairs",
        "masked_chunks",
        "chunk_embeddings",
        "summary_embeddings",
    ],
    group_name="training",
    owners=ML,
    kinds={"torch", "peft"},
    code_version=versions.ITEM_ENCODER,
    check_specs=[*check_specs("item_encoder"), *domain_specs("item_encoder", may_be_read, blocking=(may_be_read,))],
    freshness_policy=MODELS_FRESH,
    retry_policy=RETRY,
    pool=GPU,
)
def item_encoder(
    context: dg.AssetExecutionContext,
    config: ItemEncoderConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per training: LoRA weights on the frozen text encoder, so that a chunk lands on its summary.

    InfoNCE (van den Oord et al. 2018, eq. 4) of chunk vectors against frozen, precomputed summary vectors, with
    in-batch and mined hard negatives. Test users take no part.
    """
    folder, write_inputs = item_training(store, text_encoder, config)
    trained = train(context, store, training_jobs, "item_encoder", "item_encoder", folder, write_inputs)
    return trained._replace(check_results=[*(trained.check_results or []), readable(store, "item_encoder")])


@dg.asset(
    partitions_def=dimensions,
    deps=[
        "training_snapshot",
        dg.AssetDep("consent_ledger", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("item_embeddings", partition_mapping=dg.AllPartitionMapping()),  # of every DataDAO
        dg.AssetDep("chunk_embeddings", partition_mapping=dg.AllPartitionMapping()),
    ],
    group_name="training",
    owners=ML,
    kinds={"torch"},
    code_version=versions.SEQUENCE_ENCODER,
    check_specs=[
        *check_specs("sequence_encoder", dimensions),
        *domain_specs("sequence_encoder", may_be_read, blocking=(may_be_read,)),
    ],
    freshness_policy=MODELS_FRESH,
    retry_policy=RETRY,
    pool=GPU,
)
def sequence_encoder(
    context: dg.AssetExecutionContext,
    config: SequenceEncoderConfig,
    store: Store,
    text_encoder: TextEncoderResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per dimension of the user state: a causal recurrence or transformer over a user's item embeddings.

    Trained with Contrastive Predictive Coding's InfoNCE (van den Oord et al. 2018, section 2.3) to tell a user's
    next chunk from others'; a projector maps the state to the item space. A backfill over the partitions is the
    dimension sweep.
    """
    lake, dimension = store.lake, context.partition_key
    snapshot = consented_snapshot(lake)
    names = snapshot["datadao"].unique().sort().to_list()
    refuse_stale_vectors(store, text_encoder, names)
    tables = ("item_embeddings", "chunk_embeddings")
    vectors = {name: [store.lance.content_hash(name, table) for table in tables] for name in names}
    settings = {**config.model_dump(), "dimension": int(dimension)}
    inputs = [snapshot_version(snapshot), vectors]
    wanted = fingerprint("sequence_encoder", versions.SEQUENCE_ENCODER, inputs, settings)

    def write_inputs(folder: ModelFolder) -> None:
        note_trained_on(store, folder, snapshot)
        folder.write_inputs(settings, sequences=sequences(snapshot, store.lance))

    encoder = f"sequence_encoder/{dimension}"
    folder = store.models.folder(encoder, wanted)
    folder.note_basis(store.models.current("item_encoder").record()["data_version"])
    trained = train(context, store, training_jobs, "sequence_encoder", encoder, folder, write_inputs)
    return trained._replace(check_results=[*(trained.check_results or []), readable(store, "sequence_encoder")])
