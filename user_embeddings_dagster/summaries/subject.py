"""SummariseSubject: what SUBJECT contributed in a chunk, in one SUBJECT-centric text (C24)."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Annotated

import polars as pl
import pydantic

from user_embeddings_dagster.conversations.rendering import SUBJECT
from user_embeddings_dagster.language_models.program import Program, Rows
from user_embeddings_dagster.privacy.normalise import INVISIBLE
from user_embeddings_dagster.privacy.patterns import HANDLES
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, mark_kinds, render_kinds

MAX_TURNS = 200
MAX_CHARACTERS = 24_000  # of all turns together, about 6,000 tokens
MAX_ANSWER_CHARACTERS = 2_000  # of a text that a model writes; its constraints ask for a fifth of that
_CUT = " …"


def within_bounds(text: str) -> str:
    """`text` as it is. Raises ValueError if it is longer than an answer may be: a model that repeats its prompt.

    No part of the JSON schema, which shapes the prompt: a server's own bound is `max_tokens`.
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise ValueError(f"{len(text)} characters")
    return text


class SubjectSummary(pydantic.BaseModel):
    """The answer of SummariseSubject."""

    model_config = pydantic.ConfigDict(extra="forbid")

    summary: Annotated[
        str,
        pydantic.Field(description="what SUBJECT contributed, or an empty string"),
        pydantic.AfterValidator(within_bounds),
    ]


@lru_cache(maxsize=1)
def summarise_subject() -> Program[SubjectSummary]:
    """The shipped program."""
    text = files("user_embeddings_dagster.summaries").joinpath("programs/summarise_subject.json").read_text("utf-8")
    return Program.from_json(text, SubjectSummary)


def chunk_inputs(speakers: Sequence[str], turns: Sequence[str]) -> dict[str, Rows]:
    """A chunk's input to SummariseSubject and ExtractKOAI: its turns with their 0-based numbers.

    A chunk above MAX_TURNS keeps SUBJECT's turns before others', late before early; one above MAX_CHARACTERS has its
    longest turns cut to equal length.
    """
    places = _kept(speakers)
    limit = _limit([len(turns[place]) for place in places])
    return {"chunk": [{"turn": i, "speaker": speakers[i], "text": _shortened(turns[i], limit)} for i in places]}


def remasked(texts: pl.Series) -> tuple[pl.Series, int]:
    """Texts that a model wrote, with typed placeholders for identifiers in them, and how many were found.

    The patterns of `privacy.pii`; unlike typed text, a model may write SUBJECT and the placeholders.
    """
    plain = texts.str.replace_all(INVISIBLE, "").str.normalize("NFKC").str.replace_all(INVISIBLE, "")
    marked, counts = mark_kinds(plain, (*IDENTIFIERS, *HANDLES))
    return render_kinds(marked), sum(counts.values())


def _kept(speakers: Sequence[str]) -> list[int]:
    places = range(len(speakers))
    if len(places) <= MAX_TURNS:
        return list(places)
    return sorted(sorted(places, key=lambda i: (speakers[i] != SUBJECT, -i))[:MAX_TURNS])


def _limit(lengths: Sequence[int]) -> int:
    """The longest length L for which texts cut at L have MAX_CHARACTERS together."""
    left = MAX_CHARACTERS
    for done, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - done)
        if length > share:
            return share
        left -= length
    return MAX_CHARACTERS


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head, space, _ = text[:limit].rpartition(" ")
    return (head if space else text[:limit]) + _CUT
