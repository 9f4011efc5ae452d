"""Relabelled pairs: positive and hard negative of each training chunk, chosen by ranking its nearest summaries."""

from typing import Literal

import dagster as dg
from pydantic import Field, ValidationInfo, field_validator

from assets.config import AssetConfig
from assets.policies import LLM, ML, RETRY
from assets.progress import progress_to
from assets.reporting import column_lineage, table_metadata, table_result
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.mining.candidates import rank_candidates
from user_embeddings_dagster.mining.pairs import ranking_texts, training_pairs
from user_embeddings_dagster.mining.rankers import FrozenRanker, ModelRanker, Ranker
from user_embeddings_dagster.mining.relabelling import VERSION, RelabellingResult, relabel
from user_embeddings_dagster.privacy.consent.live import consented_snapshot, snapshot_version
from user_embeddings_dagster.schema import RELABELLED_PAIRS
from user_embeddings_dagster.storage.lake import UNPARTITIONED, fingerprint

FROZEN = "frozen"
LINEAGE = column_lineage(
    chunk_id=("training_snapshot", ["chunk_id"]),
    positive_chunk_id=("summary_embeddings", ["id"]),
    negative_chunk_id=("summary_embeddings", ["id"]),
    own_rank=("chunk_summaries", ["text"]),
)


class RelabelledPairsConfig(AssetConfig):
    """`candidates` summaries are ranked, the chunk's own among them; the negative is the one at `negative_rank`.

    `ranker`: "frozen" (the frozen encoder and a unigram likelihood), or "language_model": a prompt for each training
    chunk, which holds its candidates' summaries, most of them other contributors' (masked; the answer is numbers).
    `margin` as of hard_negatives: what is nearer to the positive, or to the own summary, is no negative.
    """

    ranker: Literal["frozen", "language_model"] = FROZEN
    candidates: int = Field(default=20, ge=2)
    negative_rank: int = Field(default=20, ge=2, validate_default=True)
    margin: float = Field(default=0.95, gt=0, le=1)

    @field_validator("negative_rank")
    @classmethod
    def _is_ranked(cls, rank: int, others: ValidationInfo) -> int:
        if rank > others.data.get("candidates", rank):
            raise ValueError("beyond the candidates")
        return rank


@dg.asset(
    deps=[
        "training_snapshot",
        "consent_ledger",
        "masked_chunks",
        "chunk_summaries",
        "chunk_embeddings",
        "summary_embeddings",
    ],
    group_name="training",
    owners=ML,
    kinds={"lancedb", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(RELABELLED_PAIRS),
    retry_policy=RETRY,
    pool=LLM,
)
def relabelled_pairs(
    context: dg.AssetExecutionContext,
    config: RelabelledPairsConfig,
    store: Store,
    language_model: LanguageModelResource,
    training_jobs: TrainingJobs,
) -> dg.MaterializeResult:
    """One row per training chunk whose positive and hard negative were chosen by ranking its nearest summaries.

    Two rankings, fused by reciprocal ranks (Gecko, Lee et al. 2024, section 3.2). By default they are the
    words' likelihood and the frozen encoder's cosine, by setting a language model's; every row says which in `ranker`.
    Training users only.
    """
    lake = store.lake
    snapshot = consented_snapshot(lake)
    names = snapshot["datadao"].unique().sort().to_list()
    tables = ("chunk_embeddings", "summary_embeddings")
    inputs = {f"{name}/{table}": store.lance.content_hash(name, table) for name in names for table in tables}
    inputs |= {f"{name}/texts": lake.path("chunk_summaries", name).stem for name in names}
    by_model = language_model.is_chosen("ranker", config.ranker)
    program = rank_candidates(config.candidates).with_settings(language_model.answer_settings)
    made_by = (
        [language_model.name, language_model.answer_settings, program.version] if by_model else [FrozenRanker.name]
    )
    wanted = fingerprint(VERSION, made_by, snapshot_version(snapshot), inputs, config.model_dump())
    commit = lake.up_to_date("relabelled_pairs", UNPARTITIONED, wanted)
    reused = commit is not None and not commit.stats.get("to_ask_again")
    if commit is None or not reused:

        def ranked(ranker: Ranker) -> RelabellingResult:
            pairs, texts = training_pairs(snapshot, lake, store.lance), ranking_texts(snapshot, lake)
            return relabel(pairs, texts, ranker, store.lance, **config.model_dump(exclude={"ranker"}))

        if by_model:
            with language_model.open(context, store, training_jobs) as model:
                result = ranked(ModelRanker(model, progress_to(context, "ranking candidates"), program.settings))
        else:
            result = ranked(FrozenRanker())
        commit = lake.commit(RELABELLED_PAIRS, result.pairs, fingerprint=wanted, stats=result.stats)
    return table_result(RELABELLED_PAIRS, commit, reused=reused, lineage=LINEAGE)
