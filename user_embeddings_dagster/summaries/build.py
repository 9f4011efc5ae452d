"""Summaries of a DataDAO's chunks: every chunk ends with one, or with the reason why it has none (C22, C23)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import LanguageModel
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS, Table
from user_embeddings_dagster.summaries.asking import (
    COST,
    MAX_FAILED_SHARE,
    Spending,
    ask,
    failure_counts,
    held_rows,
    require_answers,
    with_earlier_cost,
)
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.constraints import SUMMARY_RULES, count, summary_violations
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION, SUMMARISER, summarise
from user_embeddings_dagster.summaries.subject import SubjectSummary, remasked

NOTHING_CONTRIBUTED = "nothing_contributed"


@dataclass(frozen=True)
class Summaries:
    """CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS, and figures for metadata. Every chunk is in exactly one of the two."""

    summaries: pl.DataFrame
    unsummarised: pl.DataFrame
    stats: dict[str, Any]

    def frame(self, table: Table) -> pl.DataFrame:
        """The rows of one of the two tables."""
        return {CHUNK_SUMMARIES.name: self.summaries, UNSUMMARISED_CHUNKS.name: self.unsummarised}[table.name]


def extractive_summaries(chunks: pl.DataFrame, progress: Callable[[int, int], None] | None = None) -> Summaries:
    """SUBJECT's own sentences: no model is asked anything. Chunks without a word of SUBJECT are listed."""
    summaries = summarise(chunks, progress=progress)
    rest = chunks.join(summaries.select("chunk_id"), on="chunk_id", how="anti")
    rows = [(chunk_id, NOTHING_CONTRIBUTED, "", 0, 0, 0, 0.0) for chunk_id in rest["chunk_id"]]
    listed = _unsummarised(rows, chunks, SUMMARISER, PROGRAM_VERSION)
    stats = {"summarizer": SUMMARISER, "program_version": PROGRAM_VERSION}
    return Summaries(summaries, listed, {**stats, **_totals(summaries, listed)})


def summarise_with(
    model: LanguageModel,
    program: Program[SubjectSummary],
    chunks: pl.DataFrame,
    previous: Sequence[pl.DataFrame] = (),
    progress: Callable[[int, int], None] | None = None,
    max_failed_share: float = MAX_FAILED_SHARE,
) -> Summaries:
    """Summaries of `chunks` (MASKED_CHUNKS) by `program` on `model`.

    `previous` are the two tables of an earlier run, if there was one: answers about chunks that are still there, by the
    same model and program version, are kept; what failed is asked again, and its cost stays with the chunk. The
    text of an answer goes through the patterns of `privacy.pii` once more. Raises TooManyFailures.
    """
    tables = (CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS)
    found = previous or [table.empty() for table in tables]
    same = (chunks, "summarizer", model.name, program.version)
    held = [held_rows(*pair, *same) for pair in zip(tables, found, strict=True)]
    answered = pl.col("reason") == NOTHING_CONTRIBUTED
    kept = held[0], held[1].filter(answered)
    asked = chunks.join(pl.concat(frame.select("chunk_id") for frame in kept), on="chunk_id", how="anti")
    summaries, rest, spending = [], [], Spending()
    for each in ask(model, program, asked, spending, progress):
        text = each.output.summary.strip() if isinstance(each.output, SubjectSummary) else ""
        if text:
            summaries.append((each.chunk_id, text, *each.cost))
        else:
            rest.append((each.chunk_id, each.reason or NOTHING_CONTRIBUTED, each.detail, *each.cost))
    failed = held[1].filter(~answered)
    made, n_remasked = _summaries(summaries, asked, failed, model.name, program.version)
    listed = with_earlier_cost(_unsummarised(rest, asked, model.name, program.version), failed)
    require_answers(failure_counts(listed["reason"], NOTHING_CONTRIBUTED), chunks.height, max_failed_share)
    all_made, all_listed = pl.concat([kept[0], made]), pl.concat([kept[1], listed])
    stats = {
        "summarizer": model.name,
        "program_version": program.version,
        "asked": asked.height,
        "kept": chunks.height - asked.height,
        "remasked": n_remasked,
        **spending.stats,
        **_violations(made, asked),
        **_totals(all_made, all_listed),
    }
    return Summaries(all_made, all_listed, stats)


def _violations(summaries: pl.DataFrame, chunks: pl.DataFrame) -> dict[str, int]:
    """Summaries of this run that violate each numbered constraint (C24)."""
    texts = summaries.select("chunk_id", "text").join(chunks.select("chunk_id", "speakers", "turns"), on="chunk_id")
    found = (
        [violation.number for violation in summary_violations(text, chunk_words(speakers, turns))]
        for _, text, speakers, turns in texts.iter_rows()
    )
    return {f"violations_S{number}": n for number, n in count(found, SUMMARY_RULES).items()}


def _totals(summaries: pl.DataFrame, unsummarised: pl.DataFrame) -> dict[str, Any]:
    """Cost of all rows, whenever they were made, and how many chunks have none for which reason."""
    names = [name for name in COST if name != "attempts"]
    cost = pl.concat([summaries.select(names), unsummarised.select(names)]).sum().row(0, named=True)
    reasons = unsummarised["reason"].value_counts().sort("reason")
    failures = sum(failure_counts(unsummarised["reason"], NOTHING_CONTRIBUTED).values())
    return {**cost, "to_ask_again": failures, **{f"unsummarised_{reason}": n for reason, n in reasons.iter_rows()}}


def _summaries(
    rows: list[tuple], chunks: pl.DataFrame, failed: pl.DataFrame, model: str, version: str
) -> tuple[pl.DataFrame, int]:
    answered = pl.DataFrame(rows, {"chunk_id": pl.String, "text": pl.String, **COST}, orient="row")
    texts, n_remasked = remasked(answered["text"])
    answered = with_earlier_cost(answered, failed).with_columns(
        text=texts, summarizer=pl.lit(model), program_version=pl.lit(version)
    )
    ids = answered.select("chunk_id", "summarizer", "program_version", "text").iter_rows()
    answered = answered.with_columns(summary_id=pl.Series([content_id(*parts) for parts in ids], dtype=pl.String))
    whose = chunks.select("chunk_id", "datadao", "user_id", "ended_at")
    return CHUNK_SUMMARIES.conform(answered.join(whose, on="chunk_id", validate="1:1")), n_remasked


def _unsummarised(rows: list[tuple], chunks: pl.DataFrame, model: str, version: str) -> pl.DataFrame:
    schema = {"chunk_id": pl.String, "reason": pl.String, "detail": pl.String, **COST}
    listed = pl.DataFrame(rows, schema, orient="row").join(
        chunks.select("chunk_id", "datadao", "user_id"), on="chunk_id", validate="1:1"
    )
    return UNSUMMARISED_CHUNKS.conform(listed.with_columns(summarizer=pl.lit(model), program_version=pl.lit(version)))
