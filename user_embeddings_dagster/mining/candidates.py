"""RankCandidates: a language model ranks candidate summaries for a chunk, twice (C29).

Gecko (Lee et al. 2024, arXiv:2403.20327, section 3.2) ranks the passages near a query by query likelihood
(Sachan et al. 2022: how likely is the query, given the passage) and by relevance classification, each by the
probabilities of the model's tokens, and fuses both rankings. Here the model gives both rankings outright, as two
permutations of the candidates' numbers. Candidates are other people's summaries, so that nothing but integers may
come back.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Annotated

import pydantic
from pydantic.config import JsonDict

from user_embeddings_dagster.language_models.program import Program, Rows
from user_embeddings_dagster.summaries.subject import chunk_inputs


class Rankings(pydantic.BaseModel):
    """The answer of RankCandidates: numbers of the candidates (1 to N), best first, by each criterion."""

    model_config = pydantic.ConfigDict(extra="forbid")

    query_likelihood: list[int]
    relevance: list[int]

    @pydantic.model_validator(mode="after")
    def _permutations(self) -> "Rankings":
        for ranking in (self.query_likelihood, self.relevance):
            if sorted(ranking) != list(range(1, len(self.query_likelihood) + 1)):
                raise ValueError("not a permutation")
        return self


@lru_cache(maxsize=64)
def rank_candidates(n: int) -> Program[Rankings]:
    """The shipped program for `n` candidates: the answer's schema bounds both rankings to n numbers from 1 to n."""
    items: JsonDict = {"items": {"type": "integer", "minimum": 1, "maximum": n}}
    query_likelihood, relevance = (
        Annotated[list[int], pydantic.Field(min_length=n, max_length=n, description=order, json_schema_extra=items)]
        for order in ("all candidates' numbers, by query likelihood", "all candidates' numbers, by relevance")
    )
    output = pydantic.create_model(
        "Rankings", __base__=Rankings, query_likelihood=query_likelihood, relevance=relevance
    )
    text = files("user_embeddings_dagster.mining").joinpath("programs/rank_candidates.json").read_text("utf-8")
    return Program.from_json(text, output)


def ranking_inputs(speakers: Sequence[str], turns: Sequence[str], summaries: Sequence[str]) -> dict[str, Rows]:
    """The chunk and its candidate summaries, numbered from 1, as RankCandidates takes them."""
    candidates = [{"candidate": i, "summary": text} for i, text in enumerate(summaries, start=1)]
    return {**chunk_inputs(speakers, turns), "candidates": candidates}
