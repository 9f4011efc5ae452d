"""Masked chunks: threads cut into windows, one SUBJECT each, names and identifiers replaced."""

import dagster as dg
from pydantic import Field

from assets.config import AssetConfig
from assets.partitions import datadaos
from assets.policies import EAGER, PRIVACY, RETRY
from assets.progress import progress_to
from assets.reporting import (
    check_result,
    column_lineage,
    domain_specs,
    expectation_results,
    expectation_specs,
    table_metadata,
    table_result,
)
from resources.store import Store
from user_embeddings_dagster.conversations.chunks import VERSION, build_chunks
from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.consent.ledger import subjects_of
from user_embeddings_dagster.privacy.consent.live import Consent, only_consenting_subjects
from user_embeddings_dagster.privacy.ner import model_version
from user_embeddings_dagster.quality.domain import exactly_one_subject
from user_embeddings_dagster.schema import MASKED_CHUNKS
from user_embeddings_dagster.storage.lake import fingerprint

LINEAGE = column_lineage(
    text=("messages", ["text", "created_at", "parent_id"]),
    user_id=("messages", ["author_id"]),
    message_ids=("messages", ["message_id"]),
    community=("messages", ["community"]),
)


class MaskedChunksConfig(AssetConfig):
    """How threads are cut. Times in minutes, sizes in estimated tokens; caps of None are off.

    `mask_persons`: also mask names of people who are not in the chat; participants are masked always.
    `person_model`: folder of a token-classification model that finds more of them, sealed by `seal-model`; off by
    default.
    """

    gap_minutes: int = Field(default=20, ge=0)
    max_tokens: int = Field(default=200, ge=1)
    max_chunks_per_user: int | None = Field(default=None, ge=1)
    min_chunks_per_user: int = Field(default=1, ge=0)
    max_users: int | None = Field(default=None, ge=1)
    mask_persons: bool = True
    person_model: str | None = None


@dg.asset(
    partitions_def=datadaos,
    deps=["messages", "consent_ledger"],
    group_name="conversations",
    owners=PRIVACY,
    kinds={"polars", "parquet"},
    code_version=VERSION,
    metadata=table_metadata(MASKED_CHUNKS),
    check_specs=[
        *expectation_specs("masked_chunks", partitions=datadaos),
        *domain_specs("masked_chunks", exactly_one_subject, blocking=[exactly_one_subject], partitions=datadaos),
    ],
    automation_condition=EAGER,
    retry_policy=RETRY,
)
def masked_chunks(context: dg.AssetExecutionContext, config: MaskedChunksConfig, store: Store) -> dg.MaterializeResult:
    """One row per window of a thread around one SUBJECT's messages, masked.

    The person is `SUBJECT`, everyone else `<P1>`, `<P2>`, …; e-mails, phones, wallets and the like are typed
    placeholders. A name of the thread that survives masking fails the step before anything is written. Only who has
    consented to anything is a SUBJECT; others are context in the threads of those.
    """
    lake, partition = store.lake, context.partition_key
    inputs = lake.same_build(("messages", "participants"), partition)
    subjects = subjects_of(lake.scan("messages", partition))
    users = subjects.filter(subjects.is_in(Consent.of(lake, partition).users(partition).implode()))
    horizons = store.horizons
    wanted = fingerprint(
        VERSION,
        [commit.content_hash for commit in inputs],
        content_id(*users),
        config.model_dump() | {"person_model": model_version(config.person_model)},
        *horizons.version("masked_chunks"),
    )
    commit = lake.up_to_date("masked_chunks", partition, wanted)
    if not (reused := commit is not None):
        result = build_chunks(
            only_consenting_subjects(lake.read("messages", partition), users),
            lake.read("participants", partition),
            config=ChunkConfig(**config.model_dump()),
            progress=progress_to(context, "masking and cutting messages"),
        )
        one_subject = exactly_one_subject(result.chunks)
        if not one_subject.passed:  # before the commit: a blocking check would come too late
            raise dg.Failure("chunks without exactly one SUBJECT; nothing written", metadata=dict(one_subject.metrics))
        kept = result.chunks.filter(~horizons.past("masked_chunks", "ended_at"))
        caps = {"cap_max_chunks_per_user": config.max_chunks_per_user, "cap_max_users": config.max_users}
        counts = {**result.counts, "subjects_without_consent": subjects.len() - users.len()}
        counts |= {name: cap for name, cap in caps.items() if cap is not None}
        commit = lake.commit(MASKED_CHUNKS, kept, partition, wanted, counts)
    chunks = lake.read("masked_chunks", partition)
    checks = [
        *expectation_results("masked_chunks", chunks),
        check_result(exactly_one_subject(chunks), "masked_chunks"),
    ]
    return table_result(MASKED_CHUNKS, commit, reused=reused, lineage=LINEAGE, checks=checks)
