"""One question per chunk: a program asks a language model about every chunk, and every chunk gets its answer."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pydantic

from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import TRANSIENT, Answer, Failure, LanguageModel, Request, Usage
from user_embeddings_dagster.schema import Table
from user_embeddings_dagster.summaries.subject import chunk_inputs

NEEDED = ("chunk_id", "user_id", "speakers", "turns")
COST = {"attempts": pl.Int64, "prompt_tokens": pl.Int64, "completion_tokens": pl.Int64, "usd": pl.Float64}
MAX_FAILED_SHARE = 0.1


class TooManyFailures(Exception):
    """The model gave no valid answer about too many chunks: what there is must not be replaced by so little.

    `passing`: all of it for reasons that may pass with time.
    """

    def __init__(self, message: str, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Asked:
    """What became of one chunk: the parsed `output`, or None with the reason. `usage` is 0 for a repeated request."""

    chunk_id: str
    output: pydantic.BaseModel | None
    reason: str
    detail: str
    attempts: int
    usage: Usage

    @property
    def cost(self) -> tuple[int, int, int, float]:
        """Values of the columns COST."""
        return self.attempts, self.usage.prompt_tokens, self.usage.completion_tokens, self.usage.usd


@dataclass
class Spending:
    """What a stage's answers cost: all of them, and those that this run paid for (the rest came from the cache)."""

    total: Usage = field(default_factory=Usage)
    this_run: Usage = field(default_factory=Usage)
    answers: int = 0
    from_cache: int = 0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.total += answer.usage
        self.answers += 1
        if getattr(answer, "cached", False):
            self.from_cache += 1
        else:
            self.this_run += answer.usage

    @property
    def stats(self) -> dict[str, float]:
        """The figures, for metadata."""
        return {
            "usd_this_run": self.this_run.usd,
            "calls_this_run": self.this_run.calls,
            "prompt_tokens_this_run": self.this_run.prompt_tokens,
            "cached_prompt_tokens_this_run": self.this_run.cached_prompt_tokens,
            "completion_tokens_this_run": self.this_run.completion_tokens,
            "cache_hit_rate": self.from_cache / max(1, self.answers),
        }


def ask(
    model: LanguageModel,
    program: Program,
    chunks: pl.DataFrame,
    spending: Spending,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Asked]:
    """One `Asked` for each of `chunks` (MASKED_CHUNKS), as answers come.

    Chunks that make the same request (one person's equal texts) are asked about once; all but the first get its
    answer at no cost. Each prompt holds one chunk of one contributor (C26).
    """
    waiting: dict[str, list[str]] = {}

    def requests() -> Iterator[Request]:
        for chunk_id, user_id, speakers, turns in chunks.select(NEEDED).iter_rows():
            request = program.request(chunk_inputs(speakers, turns), owner=user_id)
            waiting.setdefault(request.id, []).append(chunk_id)
            yield request

    done = 0
    known: dict[str, Asked] = {}
    for answer in model.complete(requests()):
        spending.add(answer)
        first, *others = waiting.pop(answer.request_id)
        asked = _asked(first, program, answer)
        known[answer.request_id] = again = replace(asked, usage=Usage(), attempts=0)
        yield asked
        yield from (replace(again, chunk_id=chunk_id) for chunk_id in others)
        done += 1 + len(others)
        if progress:
            progress(done, chunks.height)
    for request_id, late in waiting.items():  # read from `chunks` after the answer had come
        yield from (replace(known[request_id], chunk_id=chunk_id) for chunk_id in late)


def _asked(chunk_id: str, program: Program, answer: Answer) -> Asked:
    if isinstance(answer, Failure):
        return Asked(chunk_id, None, answer.reason, answer.detail, answer.attempts, answer.usage)
    try:
        output = program.parse(answer.value)
    except ValueError as error:  # names fields and types, nothing of the answer
        return Asked(chunk_id, None, "schema_violation", str(error), answer.attempts, answer.usage)
    return Asked(chunk_id, output, "", "", answer.attempts, answer.usage)


def held_rows(
    table: Table, rows: pl.DataFrame, chunks: pl.DataFrame, maker: str, model: str, version: str
) -> pl.DataFrame:
    """`rows` of an earlier run about chunks that are still there, by the same model (column `maker`) and version."""
    if rows.schema != table.schema:  # written by earlier code
        return table.empty()
    holds = (pl.col(maker) == model) & (pl.col("program_version") == version)
    return rows.filter(holds).join(chunks.select("chunk_id"), on="chunk_id", how="semi")


def require_answers(failures: Mapping[str, int], n_chunks: int, max_failed_share: float) -> None:
    """Raises TooManyFailures if more than that share of the chunks has no valid answer; `failures` by reason."""
    failed = sum(failures.values())
    if failed > max_failed_share * n_chunks:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(failures.items()))
        raise TooManyFailures(
            f"{failed} of {n_chunks} chunks got no valid answer ({reasons}), more than max_failed_share "
            f"{max_failed_share:.0%}: nothing is written, and answers so far are in the private cache",
            all(reason in TRANSIENT for reason in failures),
        )


def failure_counts(reasons: pl.Series, none: str) -> dict[str, int]:
    """How many chunks failed for each reason; '' and `none` (the answer that there is nothing) are no failures."""
    return dict(sorted(Counter(reason for reason in reasons if reason not in ("", none)).items()))


def with_earlier_cost(rows: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """`rows` with what `earlier` rows of the same chunks cost on top: a failure that is asked again was paid for."""
    paid = earlier.group_by("chunk_id").agg(pl.col(*COST).sum().name.suffix("_paid"))
    total: Any = {name: pl.col(name) + pl.col(f"{name}_paid").fill_null(0) for name in COST if name in rows.columns}
    return rows.join(paid, on="chunk_id", how="left", maintain_order="left").with_columns(**total).select(rows.columns)
