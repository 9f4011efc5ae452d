"""Whether a user's embedding changes how neutral questions are answered, beside an adapter of the user's own (C47)."""

import dagster as dg
import numpy as np
import polars as pl
from pydantic import Field

from assets.efficiency import note_nobody, personalised_folders, with_job
from assets.measured import Measured
from assets.personalised_decoder import HISTORIES, PERSONALISED, history_hashes, said
from assets.policies import GPU
from assets.reporting import domain_specs
from assets.scoring import EvaluationConfig, record, score_asset, shown
from resources.store import Store
from resources.training_jobs import TrainingJobs
from training import versions
from user_embeddings_dagster.evaluation import plots
from user_embeddings_dagster.evaluation.ranking import sampled
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.personalisation.reasoning import ADAPTER, BARE, EMBEDDING, bias_scores, reasoning_unbiased
from user_embeddings_dagster.privacy.consent.grants import TRAIN
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.storage.lake import fingerprint

ASSET = "reasoning_bias_scores"
UPSTREAM = (PERSONALISED, "base_decoder", "sequence_encoder", *HISTORIES, "masked_chunks")
MIN_CHUNKS = 3


class ReasoningBiasConfig(EvaluationConfig):
    """Embeddings of `users` held-out users answer `questions` of each kind. Of those who have also consented to
    `train`, the `adapter_users` with the longest histories get an adapter of `rank`, trained for `steps` on `rows`
    rows of `length` tokens; it is never stored.
    """

    users: int = Field(default=50, ge=1)
    questions: int = Field(default=20, ge=1)
    adapter_users: int = Field(default=8, ge=1)
    rank: int = Field(default=8, ge=1)
    steps: int = Field(default=12, ge=1)
    rows: int = Field(default=4, ge=1)
    length: int = Field(default=48, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


@score_asset(ASSET, UPSTREAM, domain_specs(ASSET, reasoning_unbiased), group="personalised_llm", pool=GPU)
def reasoning_bias_scores(
    context: dg.AssetExecutionContext, config: ReasoningBiasConfig, store: Store, training_jobs: TrainingJobs
):
    """One row per metric of the answers to neutral questions with held-out users' embeddings, or with their adapters.

    Arithmetic, logic, ordering, repetition, grammar: accuracy against the bare decoder's, its spread over users, the
    KL of the answers; and, so that doing nothing is no merit, what each gains on the user's next chunk.
    """
    lake = store.lake
    everybody = consented_snapshot(lake).filter(split="test")
    snapshot = some_users(everybody, config.users, config.seed)
    if snapshot.is_empty():
        raise dg.Failure(
            f"no held-out user who has consented to `evaluate` has {MIN_CHUNKS} chunks", allow_retries=False
        )
    adapted = with_longest_histories(snapshot, consented_snapshot(lake, TRAIN), config.adapter_users)
    folders, used = personalised_folders(store)
    names = snapshot["datadao"].unique().sort().to_list()
    settings = config.model_dump(exclude={"users"})
    inputs = [snapshot_version(snapshot), snapshot_version(adapted), history_hashes(store, names), used]
    folder = store.models.folder(ASSET, fingerprint(ASSET, versions.REASONING_BIAS, inputs, settings))
    if not (reused := folder.complete):
        note_nobody(folder, used["personalised"])
        histories = sequences(snapshot, store.lance, ("test",))
        folder.write_inputs({**settings, **folders}, sequences=histories, texts=_words(store, adapted))
        training_jobs.run(context, "reasoning_bias", folder.inputs, folder.output)
    folder.remove_leftovers()
    answers, gains = (pl.read_parquet(folder.output / f"{name}.parquet") for name in ("answers", "gains"))
    scope = Scope(ASSET, "all", config.seed, split_hash(everybody))
    scores = bias_scores(answers, gains, scope, used["personalised"])
    drawn = shown(scores).filter(pl.col("model").is_in([BARE, EMBEDDING, ADAPTER]))
    drawn = drawn.with_columns(pl.col("slice").str.strip_prefix("kind="))
    pictures = {
        f"plot_{metric}": plots.grouped_bars(drawn, metric=metric, by="slice", title=title)
        for metric, title in (("accuracy", "Neutral questions answered right"), ("answers_changed", "Answers changed"))
    }
    picture = plots.grouped_bars(drawn, metric="answer_kl", by="slice", title="KL of the answers (nats)")
    result = Measured(scores, reused=reused)
    return with_job(record(store, ASSET, result, picture, [reasoning_unbiased(scores)], pictures), folder)


def some_users(snapshot: pl.DataFrame, users: int, seed: int) -> pl.DataFrame:
    """Rows of a seeded sample of the users who have `MIN_CHUNKS` chunks or more."""
    lengths = snapshot.group_by("datadao", "user_id").len().sort("datadao", "user_id")
    long_enough = lengths.filter(pl.col("len") >= MIN_CHUNKS)
    chosen = long_enough[sampled(np.arange(long_enough.height), users, seed)]
    return snapshot.join(chosen, on=["datadao", "user_id"], how="semi")


def with_longest_histories(snapshot: pl.DataFrame, trainable: pl.DataFrame, users: int) -> pl.DataFrame:
    """Rows of the users with the longest histories among the trainable ones."""
    rows = snapshot.join(trainable, on="chunk_id", how="semi")
    lengths = (
        rows.group_by("datadao", "user_id").len().sort(["len", "datadao", "user_id"], descending=[True, False, False])
    )
    return rows.join(lengths.head(users), on=["datadao", "user_id"], how="semi")


def _words(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """datadao, user_id, position, text: what SUBJECT said in each chunk."""
    nothing = pl.DataFrame(schema={"chunk_id": pl.String, "text": pl.String})
    words = nothing if snapshot.is_empty() else said(store, snapshot)
    return snapshot.join(words, on="chunk_id").select("datadao", "user_id", "position", "text")
