"""Jobs: everything for one DataDAO, training, evaluation."""

import dagster as dg

from assets.partitions import SERVED_DIMENSION

DATADAO_STAGES = ("ingestion", "conversations", "embeddings")

MASKED = dg.AssetSelection.assets("masked_chunks")
LEAKAGE = dg.AssetSelection.assets(
    "membership_inference_scores", "embedding_inversion_scores", "cross_user_retrieval_scores"
)
LEDGER = dg.AssetSelection.assets("consent_ledger")

prepare_datadao = dg.define_asset_job(
    "prepare_datadao",
    selection=dg.AssetSelection.groups(*DATADAO_STAGES) - dg.AssetSelection.assets("raw_exports") | LEDGER,
    description="One DataDAO, from its raw exports to base embeddings: needs no trained encoder.",
)
mask_datadao = dg.define_asset_job(
    "mask_datadao",
    selection=dg.AssetSelection.groups("ingestion") - dg.AssetSelection.assets("raw_exports") | MASKED | LEDGER,
    description="One DataDAO, from its raw exports to masked chunks: what a refinement of the summary program needs.",
)
summarise_datadao = dg.define_asset_job(
    "summarise_datadao",
    selection=dg.AssetSelection.groups("conversations", "embeddings") - MASKED,
    description="One DataDAO, from its masked chunks to summaries, KOAIs and base embeddings.",
)
refine_summary_program = dg.define_asset_job(
    "refine_summary_program",
    selection=dg.AssetSelection.assets("summary_program"),
    description="Refine the program that asks the language model for summaries; without a model, say so.",
)
train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets("training_snapshot", "hard_negatives", "relabelled_pairs", "item_encoder"),
    description="Freeze the training snapshot, mine hard negatives, rank candidates, train the item encoder.",
)
embed_items = dg.define_asset_job(
    "embed_items",
    selection=dg.AssetSelection.assets("item_embeddings"),
    description="One DataDAO's chunks through the current item encoder.",
)
train_sequence_encoder = dg.define_asset_job(
    "train_sequence_encoder",
    selection=dg.AssetSelection.assets("sequence_encoder"),
    description="Train the sequence encoder at one dimension; a backfill over its partitions is the sweep.",
)
datadao = dg.define_asset_job(
    "datadao",
    selection=dg.AssetSelection.groups(*DATADAO_STAGES, "users") - dg.AssetSelection.assets("raw_exports") | LEDGER,
    description="Everything for one DataDAO with the current encoders, from raw exports to user embeddings.",
)
embed_users = dg.define_asset_job(
    "embed_users",
    selection=dg.AssetSelection.assets("user_embeddings"),
    description="One DataDAO's user embeddings from the current encoders.",
)
ask_datadao = dg.define_asset_job(
    "ask_datadao",
    selection=dg.AssetSelection.assets("insight_tasks"),
    description="One DataDAO's insight tasks: questions about its users' future chunks, and who agrees on the answers.",
)
personalise = dg.define_asset_job(
    "personalise",
    selection=dg.AssetSelection.assets("base_decoder", "supervised_decoder", "personalised_decoder"),
    description="Train the small decoder, and what makes it speak for a user: supervised, then by a judge's reward.",
)
evaluate_personalised = dg.define_asset_job(
    "evaluate_personalised",
    selection=dg.AssetSelection.assets(
        "personalization_scores", "efficiency_scores", "reasoning_bias_scores", "judge_agreement_scores"
    ),
    description="What knowing the user is worth to the decoder, what it costs, and whether it bends neutral answers.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.groups("evaluation") | LEAKAGE,
    description="Every score, the DataDAO comparison, what the vectors give away, and the data funnel.",
)
ablate_negatives = dg.define_asset_job(
    "ablate_negatives",
    selection=dg.AssetSelection.assets("negative_ablation_scores"),
    description="Train the item encoder with each kind of pairs and negatives, several seeds each, and compare them.",
)
expose_canaries = dg.define_asset_job(
    "expose_canaries",
    selection=dg.AssetSelection.assets("canary_exposure_scores"),
    description="Train a sequence encoder on made-up histories among others and see which of them it gives away.",
)

purge = dg.define_asset_job(
    "purge",
    selection=dg.AssetSelection.assets("retention_purges"),
    description="Remove what is past its retention window from every stage. Refused while other runs are under way.",
)
audit = dg.define_asset_job(
    "audit",
    selection=dg.AssetSelection.assets("access_log", "erasures"),
    description="Verify the access log, finish erasures that were killed half way, and table both.",
)

JOBS = [
    prepare_datadao,
    mask_datadao,
    summarise_datadao,
    refine_summary_program,
    train,
    embed_items,
    train_sequence_encoder,
    datadao,
    embed_users,
    ask_datadao,
    personalise,
    evaluate_personalised,
    evaluate,
    ablate_negatives,
    expose_canaries,
    purge,
    audit,
]


@dg.schedule(name="train_sequence_weekly", job=train_sequence_encoder, cron_schedule="0 6 * * 0")
def train_sequence_weekly() -> dg.RunRequest:
    """The served sequence encoder, hours after the item encoder: automation embeds the items in between."""
    return dg.RunRequest(partition_key=SERVED_DIMENSION)


# Off until an operator turns them on: training costs a GPU, and what is purged is gone.
SCHEDULES = [
    dg.ScheduleDefinition(name="audit_daily", job=audit, cron_schedule="30 1 * * *"),
    dg.ScheduleDefinition(name="purge_daily", job=purge, cron_schedule="30 2 * * *"),
    dg.ScheduleDefinition(name="train_weekly", job=train, cron_schedule="0 3 * * 0"),
    train_sequence_weekly,
    dg.ScheduleDefinition(name="evaluate_weekly", job=evaluate, cron_schedule="0 9 * * 0"),
]
