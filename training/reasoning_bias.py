"""Reasoning bias: how far a user's embedding, or an adapter trained on the user, changes answers to neutral questions.

    python -P -m training.reasoning_bias --inputs DIR --output DIR

Inputs: `sequences.parquet` (histories of the users; user_id, datadao, position, vector, context, …), `texts.parquet`
(user_id, datadao, position, text: what those said whose adapters are trained), `config.json` (decoder, personalised,
sequence_encoder: folders; and see Config). Output: `answers.parquet` (model, user, kind, question, right, changed, kl)
and `gains.parquet` (model, user, gain), users numbered and not named.

What a user said last is nobody's input: what embedding and adapter gain on it, in nats a token against the bare
decoder, is what they are for; the rest of this job is what they cost. Adapters live for the length of the job.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from training import versions
from training.base_decoder import packed
from training.decoder import load_decoder, mean_log_likelihoods, token_log_likelihoods
from training.job import Job, run
from training.job_config import JobConfig
from training.option_answers import Question, divergence, late_scores, option_scores, tokenised
from training.option_texts import padded
from training.personalised_inference import TrainedLLM
from training.reading import Reader, reading
from training.sequence_inference import SequenceEncoder
from training.user_adapters import UserAdapters
from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.personalisation.neutral import neutral_questions
from user_embeddings_dagster.personalisation.prompts import SPEAKER, answer, prompt
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION, QUESTIONS

BARE, EMBEDDING, ADAPTER = "bare_decoder", "user_embedding", "user_adapter"
VOICED = "user_embedding (in the user's voice)"
ANSWERS, GAINS = "answers.parquet", "gains.parquet"
GAINED = {"model": pl.String, "user": pl.Int64, "person": pl.Int64, "gain": pl.Float64}
FROZEN_DECODER = ("proj", "perceiver", "enc")
"""Presets that leave the decoder as it was."""


@dataclass(frozen=True)
class Config(JobConfig):
    """`questions` of each kind; an adapter of `rank` sees `steps` times `rows` rows of `length` tokens of its user."""

    seed: int
    questions: int = 20
    adapter_users: int = 16
    rank: int = 8
    steps: int = 12
    rows: int = 2
    length: int = 48
    learning_rate: float = 2e-3


class Subjects:
    """The users that a measurement is about, numbered in order; the words of those whose adapters are trained."""

    def __init__(self, job: Job, config: Config, tokenizer: Any) -> None:
        self.sequences = pl.read_parquet(job.inputs / "sequences.parquet")
        lengths = self.sequences.group_by("datadao", "user_id").len().sort("datadao", "user_id")
        self.users = list(lengths.select("datadao", "user_id").iter_rows())
        people = sorted({user for _, user in self.users})
        self.persons = [people.index(user) for _, user in self.users]  # who is in two DataDAOs is one person
        self.seen = (lengths["len"] - 1).to_list()
        texts = pl.read_parquet(job.inputs / "texts.parquet").filter(pl.col("text") != "")
        said = texts.sort("datadao", "user_id", "position").group_by("datadao", "user_id", maintain_order=True)
        past: dict[int, torch.Tensor] = {}
        last: dict[int, str] = {}
        for datadao, user, positions, words in said.agg("position", "text").iter_rows():
            number = self.users.index((datadao, user))
            rows = packed(tokenizer, [f"{SPEAKER} {text}" for text in words[:-1]], config.length)
            # Who has not said enough for one row gets no adapter.
            if len(rows) and positions[-1] == self.seen[number]:
                past[number], last[number] = rows, words[-1]
        self.adapted = sorted(past)[: config.adapter_users]
        self.past = [past[user] for user in self.adapted]
        asked = prompt(CONTRIBUTION, QUESTIONS[CONTRIBUTION])
        said_last = [answer(CONTRIBUTION, last[user]) for user in self.adapted]
        self.last = padded(tokenizer, [asked] * len(said_last), said_last, config.length)

    def likelihood(self, log_likelihoods: torch.Tensor) -> torch.Tensor:
        """Mean log-likelihood [adapted] of what each said last, of those [adapted, L] of `last`'s tokens."""
        return mean_log_likelihoods(log_likelihoods, self.last[1].to(log_likelihoods.device))


class Measurement:
    """Answers and gains of one model after another, beside the bare decoder's."""

    def __init__(self, questions: pl.DataFrame, bare: torch.Tensor, persons: list[int]) -> None:
        """bare [1, questions, options]; `persons`: which person each user is."""
        self._questions, self._bare, self._persons = questions, bare, persons
        self._gold = torch.tensor(questions["answer"].to_list())
        self.answers = [self._rows(BARE, [0], bare)]
        self.gains = [pl.DataFrame(schema=GAINED)]

    def add(self, model: str, users: list[int], scores: torch.Tensor) -> None:
        """A model's option scores [users, questions, options]."""
        self.answers.append(self._rows(model, users, scores))

    def gain(self, model: str, users: list[int], gains: torch.Tensor) -> None:
        """A model's gains [users] on each user's last chunk."""
        persons = [self._persons[user] for user in users]
        columns = {"model": [model] * len(users), "user": users, "person": persons, "gain": gains.tolist()}
        self.gains.append(pl.DataFrame(columns, GAINED))

    def _rows(self, model: str, users: list[int], scores: torch.Tensor) -> pl.DataFrame:
        chosen, asked = scores.argmax(-1), self._questions.height
        columns = {
            "right": chosen == self._gold,
            "changed": chosen != self._bare.argmax(-1),
            "kl": divergence(scores.double(), self._bare.double()),
        }
        return pl.DataFrame(
            {
                "model": [model] * (len(users) * asked),
                "user": [user for user in users for _ in range(asked)],
                "person": [self._persons[user] for user in users for _ in range(asked)],
                "question": list(range(asked)) * len(users),
                "kind": self._questions["kind"].to_list() * len(users),
                **{name: column.flatten().tolist() for name, column in columns.items()},
            }
        )


def measure(job: Job) -> None:
    """Ask every model, write its answers, report of how many users."""
    config, device = Config.of(job.config), job.seed()
    folders = {name: Path(job.config[name]) for name in ("decoder", "personalised", "sequence_encoder")}
    llm = TrainedLLM.load(folders["personalised"], folders["decoder"], device)
    shared = llm.described["preset"] in FROZEN_DECODER
    bare = llm.model.decoder if shared else load_decoder(folders["decoder"], device)[0]
    questions = neutral_questions(config.questions, config.seed)
    tokens = tokenised(llm.tokenizer, questions["question"].to_list(), questions["options"].to_list())
    subjects = Subjects(job, config, llm.tokenizer)
    found = Measurement(
        questions, option_scores(lambda _: nullcontext(Reader(bare)), 1, tokens, device), subjects.persons
    )
    _embeddings(llm, SequenceEncoder.load(folders["sequence_encoder"], device), bare, subjects, tokens, device, found)
    job.log(f"{len(subjects.users)} users' embeddings answered {questions.height} questions")
    if subjects.adapted:
        _adapters(bare, config, subjects, tokens, device, found)
        job.log(f"{len(subjects.adapted)} users' adapters answered them")
    pl.concat(found.answers).write_parquet(job.result / ANSWERS)
    pl.concat(found.gains).write_parquet(job.result / GAINS)
    metadata = {
        "questions": questions.height,
        "users": len(subjects.users),
        "users_with_an_adapter": len(subjects.adapted),
        "tokens_an_adapter_saw": config.steps * config.rows * config.length,
        "options_of_several_tokens": sum(len(option) > 1 for each in tokens for option in each.options),
    }
    job.finish(metadata, data_version=file_sha256(job.result / ANSWERS)[:32], device=device)


@torch.no_grad()
def _embeddings(
    llm: TrainedLLM,
    encoder: SequenceEncoder,
    bare: Any,
    subjects: Subjects,
    tokens: list[Question],
    device: str,
    found: Measurement,
) -> None:
    model = llm.model
    states = llm.user_states(encoder, subjects.sequences)
    batch = states.batch(subjects.users, subjects.seen, model.shape.max_states)
    users = model.user_tokens(*(part.to(device) for part in batch))

    def scored(those: torch.Tensor, speaking: bool = False) -> torch.Tensor:
        if model.is_late and not model.is_adapted:
            return late_scores(model, those, tokens, device, speaking)
        return option_scores(lambda rows: reading(model, those[rows], speaking), len(those), tokens, device)

    found.add(EMBEDDING, list(range(len(users))), scored(users))
    if subjects.adapted:
        found.add(VOICED, subjects.adapted, scored(users[subjects.adapted], speaking=True))
        ids = subjects.last[0].to(device)
        base = subjects.likelihood(token_log_likelihoods(bare, ids))
        written = subjects.likelihood(model.log_likelihoods(users[subjects.adapted], ids))
        found.gain(EMBEDDING, subjects.adapted, written - base)


def _adapters(
    bare: Any, config: Config, subjects: Subjects, tokens: list[Question], device: str, found: Measurement
) -> None:
    adapters = UserAdapters(bare, len(subjects.adapted), config.rank, config.seed)
    adapters.fit(subjects.past, config.steps, config.rows, config.learning_rate, config.seed)

    @contextmanager
    def bind(rows: torch.Tensor) -> Iterator[Reader]:
        with adapters.bound(rows) as decoder:
            yield Reader(decoder)

    found.add(ADAPTER, subjects.adapted, option_scores(bind, adapters.users, tokens, device))
    ids = subjects.last[0].to(device)
    with torch.no_grad():
        base = subjects.likelihood(token_log_likelihoods(bare, ids))
        with adapters.bound(torch.arange(adapters.users)) as decoder:
            found.gain(ADAPTER, subjects.adapted, subjects.likelihood(token_log_likelihoods(decoder, ids)) - base)


if __name__ == "__main__":
    sys.exit(run("reasoning_bias", measure, versions.REASONING_BIAS))
