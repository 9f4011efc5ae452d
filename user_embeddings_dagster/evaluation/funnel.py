"""The data funnel: how many samples, tokens and users reach each stage, what is lost where, and what it costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import polars as pl

from user_embeddings_dagster.schema import DATA_FUNNEL

TOKENS_PER_CHARACTER = 0.25
"""Estimate for English text and byte-pair vocabularies, used where a table has no token count."""

STAGES = (
    "records_read", "rejected", "exact_duplicate", "near_duplicate", "bot", "deleted_author", "empty",
    "not_in_contributor_thread", "other_branch", "erased", "past_retention", "messages",
    "subject_messages", "consented_messages", "chunks", "summaries",
    "embedded", "snapshot", "snapshot_train", "snapshot_valid", "snapshot_test",
    "training_pairs", "hard_negatives", "sequences",
    "insight_tasks", "insight_tasks_kept", "supervised_tasks", "reward_tasks",
)  # fmt: skip
EVERYWHERE = "all"
"""In place of a DataDAO: of all together."""
MODEL_STAGES = {"supervised_decoder": "supervised_tasks", "personalised_decoder": "reward_tasks"}
"""Stage that counts what a model was trained on, of every DataDAO together."""
KEPT = "kept"
LOSSES = STAGES[1:11]
CHAINS = (
    ("records_read", "messages", "subject_messages", "consented_messages"),
    ("chunks", "summaries", "snapshot", "snapshot_train", "training_pairs"),
    ("chunks", "embedded", "snapshot", "sequences"),
    ("insight_tasks", "insight_tasks_kept"),
)
"""Stages in which each holds a part of the one before it: neither samples nor users can grow."""

CAPS = {
    "chunks": ("masked_chunks", {"max_chunks_per_user": "capped_chunks", "max_users": "unsampled_user_chunks"}),
    "snapshot": ("training_snapshot", {"max_chunks_per_user": None}),
    "insight_tasks": ("insight_tasks", {"per_user": "over_cap"}),
}
"""By stage: the table whose commit's stats have `cap_<name>`, and which of them counts what each cap left out."""
CHUNK_LOSSES = (
    "too_little_said", "duplicate_chunks", "capped_chunks", "rare_user_chunks", "unsampled_user_chunks",
)  # fmt: skip
Stats = Mapping[str, Mapping[str, Any]]
Frame = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; the embedded defaults (local models) cost nothing."""

    summary_input: float = 0.0
    summary_output: float = 0.0
    embedding: float = 0.0
    training: float = 0.0


@dataclass(frozen=True)
class FunnelTables:
    """The tables of one DataDAO, eager or lazy; missing stages are None.

    `embedded` holds `chunk_id`, `consenting` the `user_id` of who has consented to anything. `stats`: by table, what
    the current commit counted.
    """

    raw_files: Frame
    rejected_records: Frame
    dropped_messages: Frame
    messages: Frame
    consenting: Frame | None = None
    masked_chunks: Frame | None = None
    chunk_summaries: Frame | None = None
    embedded: Frame | None = None
    snapshot: Frame | None = None
    hard_negatives: Frame | None = None
    insight_tasks: Frame | None = None
    stats: Stats = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One stage's counts; None where it cannot be known. `caps`: (cap, left out) by name; `reasons`: losses by name."""

    n: int
    n_tokens: int | None = None
    n_users: int | None = None
    usd: float | None = None
    caps: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    reasons: Mapping[str, int] | None = None

    def row(self, datadao: str, name: str) -> tuple[object, ...]:
        """A row of DATA_FUNNEL."""
        caps = {cap: {"cap": at, "left_out": left_out} for cap, (at, left_out) in sorted(self.caps.items())}
        told = json.dumps(dict(sorted(self.reasons.items()))) if self.reasons is not None else None
        return (
            datadao, STAGES.index(name), name, self.n, self.n_tokens, self.n_users, self.usd,
            json.dumps(caps) if caps else None, None if self.reasons is None else sum(self.reasons.values()), told,
        )  # fmt: skip


def data_funnel(datadao: str, tables: FunnelTables, prices: Prices | None = None) -> pl.DataFrame:
    """DATA_FUNNEL rows of one DataDAO, in the order of `STAGES`; stages without a table are left out.

    Losses are counted in records, by reason. Costs: summaries pay for their chunks' tokens in and their own out,
    embedded chunks and training pairs for their chunks' tokens, insight tasks what their validation was paid.
    """
    prices = prices or Prices()
    stages = _message_stages(tables) | _chunk_stages(datadao, tables, prices) | _task_stages(tables)
    return _frame(datadao, stages)


def model_stages(
    tasks: Sequence[Frame], trained: Mapping[str, Mapping[str, Any]], prices: Prices | None = None
) -> pl.DataFrame:
    """DATA_FUNNEL rows of EVERYWHERE for the tasks that models were trained on; none of a model that is not there.

    `tasks`: INSIGHT_TASKS of each DataDAO; `trained`: by model, the metadata its job reported: `train_tasks`, and
    `train_users`, `cap_tasks`, `over_cap` where it has them. Tokens are estimated from the kept training tasks' mean.
    """
    prices, stages = prices or Prices(), dict[str, Stage]()
    kept = pl.concat([_tasks(frame) for frame in tasks]) if tasks else None
    mean = None if kept is None else kept.filter(pl.col("status") == KEPT, pl.col("split") == "train")["tokens"].mean()
    for model, metadata in trained.items():
        n, cap = int(metadata["train_tasks"]), metadata.get("cap_tasks")
        tokens = None if mean is None else round(n * float(str(mean)))
        usd = None if tokens is None else _usd(tokens, prices.training)
        caps = {} if cap is None else {"tasks": (int(cap), metadata.get("over_cap"))}
        stages[MODEL_STAGES[model]] = Stage(n, tokens, metadata.get("train_users"), usd, caps)
    return _frame(EVERYWHERE, stages)


def _frame(datadao: str, stages: Mapping[str, Stage]) -> pl.DataFrame:
    rows = [stages[name].row(datadao, name) for name in STAGES if name in stages]
    return DATA_FUNNEL.conform(pl.DataFrame(rows, schema=DATA_FUNNEL.schema, orient="row"))


def funnel_violations(funnel: pl.DataFrame) -> list[str]:
    """Where a funnel is not one: a stage holds more samples or users than the one it is a part of, or records
    between reading and `messages` are neither kept nor counted as lost. Empty if all is right.
    """
    violations = []
    for datadao, rows in sorted(funnel.group_by("datadao"), key=lambda group: str(group[0][0])):
        by_stage = {row["stage"]: row for row in rows.iter_rows(named=True)}
        for chain in CHAINS:
            present = [by_stage[stage] for stage in chain if stage in by_stage]
            for before, after in pairwise(present):
                for count in ("n", "n_users"):
                    if before[count] is not None and after[count] is not None and after[count] > before[count]:
                        place = f"{datadao[0]}: {after['stage']} after {before['stage']}"
                        violations.append(f"{place}: {count} grows from {before[count]} to {after[count]}")
        if gap := _unaccounted({stage: row["n"] for stage, row in by_stage.items()}):
            violations.append(f"{datadao[0]}: {gap} records read are neither messages nor counted as lost")
    return violations + _trained_on_more(funnel)


def _trained_on_more(funnel: pl.DataFrame) -> list[str]:
    """Models trained on more tasks than were asked in all DataDAOs: those alone that were kept is a setting."""
    asked = funnel.filter(pl.col("stage") == "insight_tasks")["n"].sum()
    trained = funnel.filter(pl.col("stage").is_in(list(MODEL_STAGES.values()))).sort("stage_order")
    return [
        f"{EVERYWHERE}: {stage} after insight_tasks: n grows from {asked} to {n}"
        for stage, n in trained.select("stage", "n").iter_rows()
        if n > asked
    ]


def cap_violations(snapshot: pl.DataFrame, max_chunks_per_user: int | None) -> int:
    """Histories (user and DataDAO) of a TRAINING_SNAPSHOT with more chunks than the cap."""
    if max_chunks_per_user is None:
        return 0
    return snapshot.group_by("datadao", "user_id").len().filter(pl.col("len") > max_chunks_per_user).height


def _unaccounted(n: Mapping[str, int]) -> int:
    if "records_read" not in n or "messages" not in n:
        return 0
    return n["records_read"] - n["messages"] - sum(n.get(loss, 0) for loss in LOSSES)


def _message_stages(tables: FunnelTables) -> dict[str, Stage]:
    files = tables.raw_files.lazy().select(pl.col("n_messages", "n_rejected").sum()).collect().row(0)
    dropped = tables.dropped_messages.lazy().group_by("reason").agg(pl.col("n").sum()).sort("reason").collect()
    if unknown := set(dropped["reason"]) - set(LOSSES):
        raise ValueError(f"dropped_messages holds reasons that the funnel does not know: {sorted(unknown)}")
    messages = tables.messages.lazy()
    stages = {
        "records_read": Stage(files[0] + files[1]),
        "rejected": Stage(tables.rejected_records.lazy().select(pl.len()).collect().item()),
        "messages": _messages(messages),
        "subject_messages": _messages(messages.filter("is_subject")),
    }
    if tables.consenting is not None:
        consenting = tables.consenting.lazy().select(author_id="user_id")
        mine = messages.filter("is_subject").join(consenting, on="author_id", how="semi")
        stages["consented_messages"] = _messages(mine)
    return stages | {reason: Stage(n) for reason, n in dropped.iter_rows()}


def _messages(messages: pl.LazyFrame) -> Stage:
    n, characters, users = (
        messages.select(
            pl.len(),
            pl.col("text").str.len_chars().sum().fill_null(0).alias("characters"),
            pl.col("author_id").n_unique() - (pl.col("author_id").null_count() > 0),
        )
        .collect()
        .row(0)
    )
    return Stage(n, round(characters * TOKENS_PER_CHARACTER), users)


def _chunk_stages(datadao: str, tables: FunnelTables, prices: Prices) -> dict[str, Stage]:
    if tables.masked_chunks is None:
        return {}
    chunks = tables.masked_chunks.lazy().select("chunk_id", "user_id", "n_tokens").collect()
    counted = tables.stats.get("masked_chunks", {})
    reasons = {name: int(counted[name]) for name in CHUNK_LOSSES if name in counted}
    stages = {"chunks": replace(_of_chunks(chunks), caps=_caps("chunks", tables.stats), reasons=reasons or None)}
    if tables.chunk_summaries is not None:
        summaries = tables.chunk_summaries.lazy().select("user_id", pl.col("text").str.len_chars()).collect()
        tokens = round(int(summaries["text"].sum()) * TOKENS_PER_CHARACTER)
        usd = _usd(stages["chunks"].n_tokens, prices.summary_input) + _usd(tokens, prices.summary_output)
        stages["summaries"] = Stage(summaries.height, tokens, summaries["user_id"].n_unique(), usd)
    if tables.embedded is not None:
        stages["embedded"] = _of_chunks(_part(chunks, tables.embedded), prices.embedding)
    if tables.snapshot is None:
        return stages
    snapshot = tables.snapshot.lazy().filter(datadao=datadao).select("chunk_id", "split").collect()
    stages["snapshot"] = replace(_of_chunks(_part(chunks, snapshot)), caps=_caps("snapshot", tables.stats))
    for split in ("train", "valid", "test"):
        stages[f"snapshot_{split}"] = _of_chunks(_part(chunks, snapshot.filter(split=split)))
    train = _part(chunks, snapshot.filter(split="train"))
    if tables.chunk_summaries is not None:
        stages["training_pairs"] = _of_chunks(_part(train, tables.chunk_summaries), prices.training)
    if tables.hard_negatives is not None:
        mine = tables.hard_negatives.lazy().join(train.lazy(), on="chunk_id", how="semi")
        stages["hard_negatives"] = Stage(mine.select(pl.len()).collect().item())
    n_sequences = train.group_by("user_id").len().filter(pl.col("len") > 1).height
    return stages | {"sequences": Stage(n_sequences, n_users=n_sequences)}


def _task_stages(tables: FunnelTables) -> dict[str, Stage]:
    if tables.insight_tasks is None:
        return {}
    tasks, stats = _tasks(tables.insight_tasks), tables.stats.get("insight_tasks", {})
    kept = tasks.filter(pl.col("status") == KEPT)
    lost = tasks.filter(pl.col("status") != KEPT)["status"].value_counts()
    usd = float(stats["usd"]) if "usd" in stats else 0.0  # what validated without a language model cost nothing
    return {
        "insight_tasks": replace(_of_tasks(tasks), usd=usd, caps=_caps("insight_tasks", tables.stats)),
        "insight_tasks_kept": replace(_of_tasks(kept), reasons=dict(lost.iter_rows())),
    }


def _tasks(tasks: Frame) -> pl.DataFrame:
    """`user_id`, `split`, `status`, and estimated `tokens` of question, options and reference."""
    characters = pl.sum_horizontal(
        pl.col("question").str.len_chars(),
        pl.col("reference").str.len_chars(),
        pl.col("options").list.eval(pl.element().str.len_chars()).list.sum().fill_null(0),
    )
    return tasks.lazy().select("user_id", "split", "status", tokens=characters * TOKENS_PER_CHARACTER).collect()


def _of_tasks(tasks: pl.DataFrame) -> Stage:
    return Stage(tasks.height, round(float(tasks["tokens"].sum())), tasks["user_id"].n_unique())


def _caps(stage: str, stats: Stats) -> dict[str, tuple[int, int | None]]:
    """The caps that were configured for a stage, and what each left out, as its table's commit counted."""
    table, left_out = CAPS[stage]
    counted = stats.get(table, {})
    return {
        name: (int(counted[f"cap_{name}"]), int(counted[reason]) if reason in counted else None)
        for name, reason in left_out.items()
        if f"cap_{name}" in counted
    }


def _part(chunks: pl.DataFrame, of: Frame) -> pl.DataFrame:
    return chunks.join(of.lazy().select("chunk_id").collect(), on="chunk_id", how="semi")


def _of_chunks(chunks: pl.DataFrame, price: float | None = None) -> Stage:
    tokens = int(chunks["n_tokens"].sum())
    usd = None if price is None else _usd(tokens, price)
    return Stage(chunks.height, tokens, chunks["user_id"].n_unique(), usd)


def _usd(tokens: int | None, price: float) -> float:
    return (tokens or 0) / 1e6 * price
