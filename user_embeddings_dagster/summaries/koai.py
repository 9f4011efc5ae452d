"""ExtractKOAI: the Knowledge, Opinions, Attributes and Intents that SUBJECT shows in a chunk (C25)."""

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import pydantic

from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.summaries.subject import within_bounds

KINDS = ("knowledge", "opinion", "attribute", "intent")
MAX_KOAIS = 12  # bounds a model that repeats itself
MAX_EVIDENCE = 64  # turns; the same
MAX_TURN = 99_999


class KOAI(pydantic.BaseModel):
    """One Knowledge, Opinion, Attribute or Intent, with the 0-based turns that it rests on."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["knowledge", "opinion", "attribute", "intent"]
    statement: Annotated[str, pydantic.AfterValidator(within_bounds)]
    evidence: Annotated[
        list[Annotated[int, pydantic.Field(ge=0, le=MAX_TURN)]], pydantic.Field(max_length=MAX_EVIDENCE)
    ]


class ChunkKOAIs(pydantic.BaseModel):
    """The answer of ExtractKOAI."""

    model_config = pydantic.ConfigDict(extra="forbid")

    koais: Annotated[
        list[KOAI], pydantic.Field(max_length=MAX_KOAIS, description="what SUBJECT shows, or an empty list")
    ]


@lru_cache(maxsize=1)
def extract_koai() -> Program[ChunkKOAIs]:
    """The shipped program; its input is `subject.chunk_inputs`."""
    text = files("user_embeddings_dagster.summaries").joinpath("programs/extract_koai.json").read_text("utf-8")
    return Program.from_json(text, ChunkKOAIs)
