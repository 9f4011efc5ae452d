"""Free-form questions: answers that a decoder writes for users, and what a judge gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from training.llm_inputs import LLMInputs
from training.personalised_model import PersonalisedDecoder
from training.sampling import line_ends, questions_ids, sampled
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.personalisation.judges import Judge, Judged, Similarity, WordOverlap
from user_embeddings_dagster.personalisation.judging import AskedJudge
from user_embeddings_dagster.personalisation.prompts import prompt

JUDGES: dict[str, Callable[[Any], Judge]] = {
    "similarity": lambda threads: Similarity(TextEncoder(threads=threads).encode),
    "word_overlap": lambda threads: WordOverlap(),
    "language_model": lambda threads: AskedJudge(),
}
"""By what a setting calls them; the language model is asked by the process that started the job."""
ANSWERS = 128
"""Answers that are drawn at once: a token of few costs as much as one of many."""


@dataclass(frozen=True)
class Drawn:
    """Answers to free-form questions: prompt tokens [B, L] and mask, tokens of the answers [B, n], rewards [B]."""

    ids: torch.Tensor
    mask: torch.Tensor
    answers: torch.Tensor
    texts: list[str]
    rewards: np.ndarray


class FreeForm:
    """Free-form tasks with their judge; an answer has `new_tokens` at most, a question keeps its last
    `longest_question`."""

    def __init__(
        self, inputs: LLMInputs, tasks: pl.DataFrame, judge: Judge, *,
        new_tokens: int, temperature: float, longest_question: int = 48,
    ) -> None:  # fmt: skip
        self.inputs, self.judge = inputs, judge
        self.new_tokens, self.temperature, self.longest_question = new_tokens, temperature, longest_question
        self.ends = line_ends(inputs.tokenizer)
        self.asked = inputs.asked(tasks)
        self._rows = list(tasks.select("user_id", "question", "reference", "kind").iter_rows())

    def __len__(self) -> int:
        return len(self.asked)

    def draw(self, model: PersonalisedDecoder, users: torch.Tensor | None, rows: list[int]) -> Drawn:
        """One answer to each of the tasks `rows`, by the decoder for user tokens [len(rows), …]."""
        tokenizer = self.inputs.tokenizer
        prompts = [prompt(self._rows[row][3], self._rows[row][1]) for row in rows]
        ids, mask = (part.to(self.inputs.device) for part in questions_ids(tokenizer, prompts, self.longest_question))
        answers = sampled(
            model, users, ids, mask, new_tokens=self.new_tokens, temperature=self.temperature, ends=self.ends
        )
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        judged = [
            Judged(owner, question, reference, text.split("\n")[0].strip())
            for text, (owner, question, reference, _) in zip(texts, (self._rows[row] for row in rows), strict=True)
        ]
        return Drawn(ids, mask, answers, texts, self.judge.scores(judged))
