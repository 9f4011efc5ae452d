"""What the trained encoders and their vectors give away about people, with chance beside (C21).

Part of `evaluate`, but for the exposure of canaries, which trains an encoder (job `expose_canaries`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import polars as pl
from pydantic import Field

from assets.encoders import note_trained_on
from assets.measured import Measured, measured, stored_inputs
from assets.partitions import SERVED_DIMENSION
from assets.policies import GPU, PRIVACY, RETRY, SCORES_WRITE
from assets.reporting import domain_specs, expectation_specs, table_metadata
from assets.scoring import EvaluationConfig, loaded, record, sequence_outputs, shown
from resources.store import Store
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.leakage.canaries import (
    REPEATS,
    Canaries,
    canary_pool,
    drawn_canaries,
    planted,
    too_few_chunks,
)
from user_embeddings_dagster.evaluation.leakage.checks import (
    filter_holds,
    members_not_named,
    one_insertion_not_exposed,
)
from user_embeddings_dagster.evaluation.leakage.measure import (
    CROSS_USER,
    EXPOSURE,
    INVERSION,
    MEMBERSHIP,
    measure_cross_user,
    measure_exposure,
    measure_inversion,
    measure_membership,
)
from user_embeddings_dagster.evaluation.ranking import sampled
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.privacy.consent.live import snapshot_version
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.schema import SCORES
from user_embeddings_dagster.storage.lake import fingerprint

VECTORS = ("sequence_encoder", "item_embeddings", "chunk_embeddings")


class CanaryConfig(EvaluationConfig):
    """`canaries` of each number of insertions, in a training of `steps` at `dimension` on `users` random people.

    At most half of the training users: canaries are made of the others' chunks.
    """

    canaries: int = Field(default=16, ge=1)
    users: int = Field(default=200, ge=1)
    dimension: int = Field(default=int(SERVED_DIMENSION), ge=1)
    steps: int = Field(default=60, ge=1)


def leakage_asset(
    name: str, deps: Sequence[str], checks: Sequence[Callable[..., CheckOutcome]] = (), pool: str = SCORES_WRITE
):
    """Decorator arguments shared by the leakage assets. `checks` that fail hold nothing back: they are to be seen."""
    return dg.asset(
        name=name,
        deps=[*deps, "consent_ledger"],
        group_name="privacy",
        owners=PRIVACY,
        kinds={"duckdb", "polars"},
        code_version="1",
        metadata=table_metadata(SCORES),
        check_specs=[*expectation_specs("scores", name), *domain_specs(name, *checks)],
        retry_policy=RETRY,
        pool=pool,
    )


@leakage_asset(MEMBERSHIP, [*VECTORS, "masked_chunks", "summary_embeddings"], [members_not_named])
def membership_inference_scores(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per metric of an attack that tells by its loss who an encoder was trained on.

    Training users against as many held-out ones of the same DataDAO and length of history: AUC and true positives at 1%
    false positives, of item encoder and served sequence encoder, beside chance and an encoder that knows nobody.
    """
    version = store.models.current("item_encoder").record()["data_version"]
    outputs = sequence_outputs(store, SERVED_DIMENSION)
    result = measured(
        store, MEMBERSHIP, [stored_inputs(context, store), config.model_dump(), version],
        lambda: measure_membership(store.lake, store.lance, config.seed, version, loaded(outputs)),
    )  # fmt: skip
    picture = plots.grouped_bars(
        shown(result.scores).filter(datadao="all"),
        metric="auc",
        by="slice",
        title="Who was trained on, by the loss (chance: .5)",
    )
    return record(store, MEMBERSHIP, result, picture, [members_not_named(result.scores)])


@leakage_asset(INVERSION, [*VECTORS, "masked_chunks", "summary_embeddings"])
def embedding_inversion_scores(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per metric of reading a held-out text back from its vector: the text among candidates, or its words.

    Of item, summary and frozen vectors and user embeddings. Vectors hold what their texts say: far above chance.
    """
    version = store.models.current("item_encoder").record()["data_version"]
    outputs = sequence_outputs(store, SERVED_DIMENSION)
    result = measured(
        store, INVERSION, [stored_inputs(context, store), config.model_dump(), version],
        lambda: measure_inversion(store.lake, store.lance, config.seed, version, loaded(outputs)),
    )  # fmt: skip
    found = plots.grouped_bars(shown(result.scores), metric="recall@1", by="slice", title="A vector finds its text")
    words = plots.grouped_bars(shown(result.scores), metric="f1", by="slice", title="Words read from a vector")
    return record(store, INVERSION, result, found, pictures={"plot_words": words})


@leakage_asset(CROSS_USER, VECTORS, [filter_holds])
def cross_user_retrieval_scores(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store):
    """One row per metric of a search with one person's vectors that returns another person's items.

    Unfiltered, filtered by user (which must never), and one person found again in another DataDAO.
    """
    version = store.models.current("item_encoder").record()["data_version"]
    outputs = sequence_outputs(store, SERVED_DIMENSION)
    result = measured(
        store, CROSS_USER, [stored_inputs(context, store), config.model_dump(), version],
        lambda: measure_cross_user(store.lake, store.lance, config.seed, version, loaded(outputs)),
    )  # fmt: skip
    picture = plots.grouped_bars(
        shown(result.scores), metric="foreign@10", slice_="item search", title="Others' items among the ten nearest"
    )
    return record(store, CROSS_USER, result, picture, [filter_holds(result.scores)])


@dataclass(frozen=True)
class CanaryTraining:
    """The people a training with canaries is on, and those whose chunks the canaries are made of: never both."""

    trained: pl.DataFrame
    held_back: pl.DataFrame

    @classmethod
    def of(cls, snapshot: pl.DataFrame, config: CanaryConfig) -> "CanaryTraining":
        """Of at most half of the training users of a snapshot, with the validation users; the others are held back."""
        people = snapshot.filter(split="train")["user_id"].unique().sort()
        rows = sampled(np.arange(len(people)), min(config.users, len(people) // 2), config.seed)
        chosen = pl.col("user_id").is_in(people.gather(rows).implode())
        train = pl.col("split") == "train"
        return cls(snapshot.filter((train & chosen) | (pl.col("split") == "valid")), snapshot.filter(train & ~chosen))

    def lacking(self) -> str | None:
        """Why there are too few people for a training with canaries; None where there are enough."""
        if self.trained.filter(split="train").is_empty():
            return "one training user alone: nobody is left to train on beside those whose chunks canaries are made of"
        return too_few_chunks(self.held_back.height)

    def canaries(self, store: Store, config: CanaryConfig) -> tuple[pl.DataFrame, Canaries]:
        """The pool, and the canaries drawn from it."""
        pool = canary_pool(sequences(self.held_back, store.lance, ("train",)), config.seed)
        return pool, drawn_canaries(pool.height, config.canaries, REPEATS, config.seed)


@leakage_asset(EXPOSURE, ["training_snapshot", *VECTORS[1:]], [one_insertion_not_exposed], GPU)
def canary_exposure_scores(
    context: dg.AssetExecutionContext, config: CanaryConfig, store: Store, training_jobs: TrainingJobs
):
    """One row per number of times a made-up history was inserted into a training: its exposure in bits.

    A sequence encoder trained for this alone, never served: can the next chunk of the canary be picked out of thousands
    (Carlini et al. 2019)? Beside it the 1.44 bits that chance has, and canaries that were not inserted.
    """
    from training.sequence_inference import SequenceEncoder  # torch: never at module level of a code location

    inputs = EvaluationInputs.of_users(store.lake, store.lance, config.seed)
    people = CanaryTraining.of(inputs.snapshot, config)
    if reason := people.lacking():
        scores = inputs.omitted(EXPOSURE, "exposure", reason)
        return record(store, EXPOSURE, Measured(scores), _exposure_plot(scores), [one_insertion_not_exposed(scores)])
    pool, canaries = people.canaries(store, config)
    names = inputs.datadaos
    vectors = {n: [store.lance.content_hash(n, t) for t in ("item_embeddings", "chunk_embeddings")] for n in names}
    settings = {"dimension": config.dimension, "steps": config.steps, "seed": config.seed}
    wanted = fingerprint(
        EXPOSURE, versions.SEQUENCE_ENCODER, [snapshot_version(inputs.snapshot), vectors, list(REPEATS)],
        config.model_dump(),
    )  # fmt: skip
    folder = store.models.folder("canary_exposure", wanted)
    if not (reused := folder.complete):
        note_trained_on(store, folder, inputs.snapshot)
        folder.note_basis(store.models.current("item_encoder").record()["data_version"])
        folder.write_inputs(settings, sequences=planted(sequences(people.trained, store.lance), pool, canaries))
        training_jobs.run(context, "sequence_encoder", folder.inputs, folder.output)
    folder.remove_leftovers()
    scores = measure_exposure(inputs, pool, canaries, SequenceEncoder.load(folder.output))
    result = Measured(scores, reused=reused)
    return record(store, EXPOSURE, result, _exposure_plot(scores), [one_insertion_not_exposed(scores)])


def _exposure_plot(scores: pl.DataFrame) -> bytes:
    rows = scores.with_columns(datadao=pl.lit("canaries"))
    return plots.grouped_bars(rows, metric="exposure", by="slice", title="Exposure of canaries (bits)")
