"""What the jobs of the personalised LLM read: tasks, histories, the decoder, the sequence encoder.

`config.json`: `decoder`, `sequence_encoder` (folders), the job's own settings. `sequences.parquet`: histories
(mining.pairs.sequences). `tasks.parquet`: INSIGHT_TASKS.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from training.decoder import load_decoder
from training.job import Job
from training.option_texts import OptionTexts
from training.personalised_model import PersonalisedDecoder
from training.sequence_inference import SequenceEncoder
from training.user_states import StateHistories, User
from user_embeddings_dagster.personalisation.prompts import answer, prompt

Moment = tuple[User, int]
"""A user after so many chunks."""


class LLMInputs:
    """Loaded inputs. `tasks` are sorted by task_id; `moments` is by chunk whose it is, and how many come before it."""

    def __init__(self, job: Job, device: str) -> None:
        self.device, self.decoder_folder = device, Path(job.config["decoder"])
        self.decoder, self.tokenizer = load_decoder(self.decoder_folder, device)
        self.encoder = SequenceEncoder.load(Path(job.config["sequence_encoder"]), device)
        self.sequences = pl.read_parquet(job.inputs / "sequences.parquet")
        self.tasks = pl.read_parquet(job.inputs / "tasks.parquet").sort("task_id")
        rows = self.sequences.select("chunk_id", "datadao", "user_id", "position", "split").iter_rows()
        self.moments: dict[str, Moment] = {}
        self._splits: dict[User, str] = {}
        for chunk, datadao, user, position, split in rows:
            self.moments[chunk] = ((datadao, user), position)
            self._splits[datadao, user] = split

    def users(self, split: str) -> list[User]:
        """Users of a split, in order."""
        return sorted(user for user, of in self._splits.items() if of == split)

    def choices(self, split: str) -> pl.DataFrame:
        """Tasks with options, of a split."""
        return self.tasks.filter(pl.col("split") == split, pl.col("answer") >= 0)

    def free(self, split: str) -> pl.DataFrame:
        """Free-form tasks of a split."""
        return self.tasks.filter(pl.col("split") == split, pl.col("answer") < 0)

    def asked(self, tasks: pl.DataFrame) -> list[Moment]:
        """Of whom, and after how many chunks, each task asks."""
        rows = tasks.select("datadao", "user_id", "n_history").iter_rows()
        return [((datadao, user), seen) for datadao, user, seen in rows]


class Choices:
    """Choice tasks as rows of texts: `options` [n, k] are rows of `texts`, `answers` [n], `owners[row]` whose it is."""

    def __init__(self, inputs: LLMInputs, model: PersonalisedDecoder, tasks: pl.DataFrame, **options: Any) -> None:
        self.tasks, self._inputs = tasks, inputs
        rows: dict[tuple[str, str], int] = {}
        prompts: list[str] = []
        texts: list[str] = []
        places: list[list[int]] = []
        for kind, question, said, chunks in tasks.select("kind", "question", "options", "option_chunk_ids").iter_rows():
            places.append([])
            for text, chunk in zip(said, chunks, strict=True):
                row = rows.setdefault((kind, f"{chunk}\n{question}\n{text}"), len(texts))
                if row == len(texts):
                    prompts.append(prompt(kind, question))
                    texts.append(answer(kind, text))
                places[-1].append(row)
        self.options = torch.tensor(places, dtype=torch.long).view(len(places), len(places[0]) if places else 0)
        self.answers = torch.tensor(tasks["answer"].to_list(), dtype=torch.long)
        self.asked = inputs.asked(tasks)
        self.owners = [[inputs.moments[chunk] for chunk in chunks] for chunks in tasks["option_chunk_ids"]]
        self.texts = OptionTexts(model, inputs.tokenizer, prompts, texts, device=inputs.device, **options)

    def __len__(self) -> int:
        return len(self.answers)

    @torch.no_grad()
    def gains(
        self, model: PersonalisedDecoder, states: StateHistories, moments: Sequence[Moment], rows: Sequence[int]
    ) -> torch.Tensor:
        """Gain [len(rows), k] of each option of the tasks `rows` for the users at `moments`."""
        tokens = tokens_of(model, states, moments, self._inputs.device)
        options = self.options[list(rows)]
        repeated = tokens.repeat_interleave(options.shape[1], 0)
        return self.texts.gains(model, repeated, options.flatten()).view(options.shape).cpu()


def batches(n: int, size: int) -> Iterator[list[int]]:
    """The numbers below `n` in order, `size` at a time; nothing for none."""
    return (list(range(begin, min(begin + size, n))) for begin in range(0, n, size))


def tokens_of(
    model: PersonalisedDecoder, states: StateHistories, moments: Sequence[Moment], device: str
) -> torch.Tensor:
    """User tokens [B, n, width] at these moments."""
    read, mask = states.batch([user for user, _ in moments], [n for _, n in moments], model.shape.max_states)
    return model.user_tokens(read.to(device), mask.to(device))
