"""Agentic retrieval: DSPy's ReAct answers a task with a search over the user's earlier chunks.

Yao et al. 2023, "ReAct" (arXiv:2210.03629), by `dspy.ReAct`. The search is exact: cosines of the frozen text encoder
over the vectors of LanceDB's chunk_embeddings, of the chunks before the task alone.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.language_models.dspy_lm import dspy_lm, own_errors
from user_embeddings_dagster.language_models.program import Program, Rows, adapter
from user_embeddings_dagster.language_models.protocol import LanguageModel

MAX_STEPS = 4
FOUND = 5
FOUND_CHARACTERS = 800
NO_ANSWER = "no_answer"


class Search:
    """The tool: `search(query)` gives the texts of the FOUND nearest chunks, best first, each cut at its end."""

    def __init__(
        self, encode: Callable[[Sequence[str]], np.ndarray], vectors: np.ndarray, texts: Sequence[str]
    ) -> None:
        self._encode, self._vectors, self._texts = encode, unit(vectors), list(texts)
        self.queries = 0

    def search(self, query: str) -> list[str]:
        """Search SUBJECT's earlier conversations; gives the most similar ones."""
        self.queries += 1
        similar = self._vectors @ self._encode([str(query)])[0]
        best = np.argsort(-similar, kind="stable")[:FOUND]
        return [self._texts[place][:FOUND_CHARACTERS] for place in best.tolist()]


def answered_by_search(
    model: LanguageModel, program: Program, inputs: dict[str, Rows], search: Search, owner: str
) -> tuple[Any, str]:
    """The agent's output (of type `program.output`) and "", or None and the reason why there is no valid one.

    Any number of threads may call it. ModelRefused and BudgetSpent come out as they are.
    """
    from user_embeddings_dagster.language_models.dspy_settings import quiet_dspy

    quiet_dspy()
    import dspy
    from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

    logging.getLogger("dspy.predict.react").disabled = True  # it logs answers that it cannot read
    lm = dspy_lm(model, owner=owner, program=f"search_{program.name}/{program.version}", max_tokens=program.max_tokens)
    try:
        with dspy.context(lm=lm, adapter=adapter()), own_errors():
            found = dspy.ReAct(program.signature(), tools=[search.search], max_iters=MAX_STEPS)(**inputs)
        return program.parse({name: found[name] for name in program.output.model_fields}), ""
    except LMError as error:
        return None, getattr(error, "provider_code", None) or NO_ANSWER
    except (AdapterParseError, ContextWindowExceededError, ValueError):  # what was written is no answer
        return None, NO_ANSWER
