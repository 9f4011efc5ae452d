"""One question per chunk: a program asks a language model about every chunk, and every chunk gets its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
import polars as pl

from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import Answer, LanguageModel, Request, Usage
from user_embeddings_dagster.summaries.subject import chunk_inputs

NEEDED = ("chunk_id", "user_id", "speakers", "turns")


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
            "usd": self.total.usd,
            "usd_this_run": self.this_run.usd,
            "calls_this_run": self.this_run.calls,
            "prompt_tokens": self.total.prompt_tokens,
            "cached_prompt_tokens": self.total.cached_prompt_tokens,
            "completion_tokens": self.total.completion_tokens,
            "cache_hit_rate": self.from_cache / max(1, self.answers),
        }


def ask(
    model: LanguageModel,
    program: Program,
    chunks: pl.DataFrame,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, Answer]]:
    """`(chunk_id, answer)` of each of `chunks` (MASKED_CHUNKS), as answers come.

    Chunks that make the same request (one person's equal texts) are asked once; all but the first get its answer
    at no cost. Each prompt holds the text of one chunk of one contributor (C26).
    """
    waiting: dict[str, list[str]] = {}

    def requests() -> Iterator[Request]:
        for chunk_id, user_id, speakers, turns in chunks.select(NEEDED).iter_rows():
            request = program.request(chunk_inputs(speakers, turns), owner=user_id)
            waiting.setdefault(request.id, []).append(chunk_id)
            yield request

    done = 0
    answered: dict[str, Answer] = {}
    for answer in model.complete(requests()):
        # A later chunk of the same request is read only after its answer came.
        answered[answer.request_id] = msgspec.structs.replace(answer, usage=Usage())
        for place, chunk_id in enumerate(waiting.pop(answer.request_id)):
            yield chunk_id, answer if place == 0 else answered[answer.request_id]
            done += 1
        if progress:
            progress(done, chunks.height)
    for request_id, late in waiting.items():
        yield from ((chunk_id, answered[request_id]) for chunk_id in late)
