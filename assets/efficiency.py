"""What answering about a user costs: their history in the prompt, or their user embedding (C46)."""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from assets.measured import Measured
from assets.partitions import SERVED_DIMENSION
from assets.personalised_decoder import HISTORIES, PERSONALISED, decoder_of, history_hashes
from assets.policies import GPU
from assets.reporting import domain_specs
from assets.scoring import EvaluationConfig, record, score_asset
from resources.store import Store
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.personalisation import efficiency
from user_embeddings_dagster.personalisation.decoder_identity import decoder_hash
from user_embeddings_dagster.personalisation.efficiency import LARGER, embedding_saves, longest_histories
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.storage.lake import Lake, fingerprint
from user_embeddings_dagster.storage.models import ModelFolder

ASSET = "efficiency_scores"
UPSTREAM = (PERSONALISED, "base_decoder", "sequence_encoder", *HISTORIES, "chunk_summaries")
ITEMS = (50, 100, 200, 1000)


class EfficiencyConfig(EvaluationConfig):
    """Of each of up to 1000 items the first `item_tokens` tokens of its summary stand in the prompt (few, so that the
    job takes half a minute; whole summaries cost more, which is counted beside). Seconds are medians of `repeats` turns
    in which `new_tokens` are written.
    """

    item_tokens: int = Field(default=8, ge=1)
    repeats: int = Field(default=3, ge=1)
    new_tokens: int = Field(default=8, ge=1)


def personalised_folders(store: Store, **more: str) -> tuple[dict[str, str], dict[str, str]]:
    """Folders of decoder, personalised decoder and sequence encoder as a job's config names them; their versions.

    `more` are other models trained on the sequence encoder, by the name that the job's config gives them.
    """
    sequence, decoder = f"sequence_encoder/{SERVED_DIMENSION}", decoder_of(store)
    found: dict[str, ModelFolder] = {
        name: store.models.current_on(model, sequence) for name, model in {"personalised": PERSONALISED, **more}.items()
    }
    found["sequence_encoder"] = store.models.current_on(sequence, "item_encoder")
    folders = {"decoder": str(decoder), **{name: str(folder.output) for name, folder in found.items()}}
    of = {name: folder.record()["data_version"] for name, folder in found.items()}
    return folders, {"decoder": decoder_hash(decoder), **of}


@score_asset(ASSET, UPSTREAM, domain_specs(ASSET, embedding_saves), group="personalised_llm", pool=GPU)
def efficiency_scores(
    context: dg.AssetExecutionContext, config: EfficiencyConfig, store: Store, training_jobs: TrainingJobs
):
    """One row per metric of a way to ask about a user with 50 to 1000 items: tokens, FLOPs, seconds, bytes, and ratios.

    The items of held-out users in the prompt against their states through Perceiver and injection, on the same decoder.
    User embeddings are kept up to date elsewhere: beside, with one advance of the sequence encoder on the way.
    """
    lake = store.lake
    everybody = consented_snapshot(lake).filter(split="test")
    snapshot = longest_histories(everybody, max(ITEMS))
    if snapshot.is_empty():
        raise dg.Failure("no held-out user has consented to `evaluate`", allow_retries=False)
    folders, used = personalised_folders(store)
    names = snapshot["datadao"].unique().sort().to_list()
    texts = {name: lake.path("chunk_summaries", name).stem for name in names}
    settings: dict[str, Any] = {**config.model_dump(), "items": ITEMS, "larger": LARGER}
    inputs = [snapshot_version(snapshot), history_hashes(store, names), texts, used]
    folder = store.models.folder(ASSET, fingerprint(ASSET, versions.EFFICIENCY, inputs, settings))
    if not (reused := folder.complete):
        note_nobody(folder, used["personalised"])
        items = sequences(snapshot, store.lance, ("test",)).join(_summaries(lake, names), on="chunk_id")
        folder.write_inputs({**settings, **folders}, items=items)
        training_jobs.run(context, "efficiency", folder.inputs, folder.output)
    folder.remove_leftovers()
    costs = pl.read_parquet(folder.output / "costs.parquet")
    scope = Scope(ASSET, "all", config.seed, split_hash(everybody))
    scores = efficiency.efficiency_scores(costs, scope, used["personalised"])
    picture = plots.score_lines(
        efficiency.ratios(costs), metric="ratio", slices={f"items={n}": str(n) for n in ITEMS},
        title="What a history in the prompt costs, in embeddings", xlabel="items of history", logarithmic=True,
    )  # fmt: skip
    result = Measured(scores, reused=reused)
    return with_job(record(store, ASSET, result, picture, [embedding_saves(scores)]), folder)


def note_nobody(folder: ModelFolder, basis: str) -> None:
    """Write down that a result holds figures alone, of a version that it rests on: it is trained on nobody's words."""
    folder.note_contributors([])
    folder.note_subjects({})
    folder.note_basis(basis)


def with_job(result: dg.MaterializeResult, folder: ModelFolder) -> dg.MaterializeResult:
    """A result with what its job reported."""
    return result._replace(metadata={**(result.metadata or {}), **folder.record()["metadata"]})


def _summaries(lake: Lake, names: list[str]) -> pl.DataFrame:
    return pl.concat([lake.scan("chunk_summaries", name).select("chunk_id", "text") for name in names]).collect()
