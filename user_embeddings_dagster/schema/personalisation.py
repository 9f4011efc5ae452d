"""Tables of the personalised LLM: what it is asked."""

import polars as pl

from user_embeddings_dagster.schema.table import COUNT, TEXT, Column, Table

INSIGHT_TASKS = Table(
    "insight_tasks",
    "One row per question about a chunk of a user's future, with the answer that the chunk gives.",
    (
        Column("task_id", TEXT, "hash of kind and chunk (32 hex)"),
        Column("datadao", TEXT, "DataDAO slug"),
        Column("user_id", TEXT, "the SUBJECT"),
        Column("split", TEXT, "train, valid or test: the user's"),
        Column("kind", TEXT, "next_contribution, next_thread, stance, knowledge or answer_as_subject"),
        Column("chunk_id", TEXT, "the future chunk that the task is about"),
        Column("n_history", COUNT, "chunks of the user before it: what an embedding may have seen"),
        Column("question", TEXT, "what is asked, masked", personal=True),
        Column("options", pl.List(pl.String), "four answers, one of them SUBJECT's; none if free-form", personal=True),
        Column("option_chunk_ids", pl.List(pl.String), "the chunk of each option; none if free-form"),
        Column("answer", COUNT, "0-based place of SUBJECT's option; -1 if free-form"),
        Column("reference", TEXT, "what SUBJECT said, masked", personal=True),
        Column("status", TEXT, "kept, or why it is dropped: context_disagrees, search_disagrees, both_disagree, …"),
        Column("context_answer", COUNT, "option chosen by who reads the history before it; null: none", nullable=True),
        Column("search_answer", COUNT, "option chosen by who searches that history; null: none", nullable=True),
        Column("validator", TEXT, "who validated: similarity, or the language model's name"),
    ),
    ("task_id",),
)
