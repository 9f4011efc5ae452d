"""Evaluation: what the personalised decoder answers to held-out users' insight tasks, told different things of them.

    python -P -m training.personalised_answers --inputs DIR --output DIR

Inputs: training.llm_inputs; in `config.json` the folders `personalised` and `supervised`; `texts.parquet` (chunk_id,
text): what the users of the tasks said in each chunk. Output: `choices.parquet` and `answers.parquet`, one row per task
and condition (task_id, condition, score), `job.json`, `manifest.json`. An option's score is what the condition adds to
its mean log-likelihood; "nobody" has nothing to add and goes by the likelihood itself. A free-form task's score is the
judge's mean over sampled answers.

    nobody          the bare decoder                         mean_vector     all items' mean in the place of the states
    user_embedding  the user's states                        supervised      the same, before the reward stage
    other_user      another user's states (*)                text            recent words, as many tokens as user tokens
    embedding_text  user_embedding and text                  recent          recent words, `recent_tokens`
    embedding_recent                                         stuffed         the whole history, `stuffed_tokens` at most

(*) of choices the mean of OTHERS of them, so that it does not hang on who the other is.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from training import versions
from training.free_form import ANSWERS, JUDGES, FreeForm
from training.job import Job, run
from training.job_config import JobConfig
from training.llm_inputs import Choices, LLMInputs, Moment, batches, tokens_of
from training.personalised_inference import TrainedLLM
from training.personalised_model import PersonalisedDecoder
from training.reading import reading
from training.user_states import StateHistories
from user_embeddings_dagster.keys import content_id, file_sha256
from user_embeddings_dagster.personalisation.guards import Guards
from user_embeddings_dagster.personalisation.judges import Guarded
from user_embeddings_dagster.personalisation.prompts import SPEAKER

BATCH = 16
"""Tasks of one pass."""
TOKENS = 4096
"""Tokens of the prompts of one pass with words in them."""
TIED = 1e-5
"""Nats: options nearer than this are equally good. Of whom nothing is known, nothing is added to any of them."""
OTHERS = 2
"""Other users whose embedding is tried on a choice."""
NO_ANSWERS = pl.DataFrame(schema={"task_id": pl.String, "condition": pl.String, "score": pl.Float64})


@dataclass(frozen=True)
class Config(JobConfig):
    """`text_tasks` of the choices, evenly, are also asked with recent words in the prompt, `stuffed_tasks` with the
    whole history; `samples` answers are drawn to each free-form task."""

    seed: int
    judge: str = "similarity"
    recent_tokens: int = 128
    stuffed_tokens: int = 1024
    text_tasks: int = 600
    stuffed_tasks: int = 100
    longest: int = 40
    new_tokens: int = 24
    temperature: float = 0.8
    samples: int = 1
    cache_mb: int = 2048


class Asking:
    """The test tasks, and what answers them."""

    def __init__(self, job: Job, config: Config, inputs: LLMInputs) -> None:
        self.config, self.inputs, self.log = config, inputs, job.log
        self.llm = TrainedLLM.load(Path(job.config["personalised"]), inputs.decoder_folder, inputs.device)
        self.supervised = TrainedLLM.load(Path(job.config["supervised"]), inputs.decoder_folder, inputs.device)
        self.states = self.llm.user_states(inputs.encoder, inputs.sequences)
        texts = dict(pl.read_parquet(job.inputs / "texts.parquet").select("chunk_id", "text").iter_rows())
        self._past: dict[Any, list[str]] = {}
        for chunk, (user, _) in sorted(inputs.moments.items(), key=lambda item: (item[1][0], item[1][1])):
            self._past.setdefault(user, []).append(texts.get(chunk, ""))

    @property
    def alone(self) -> bool:
        """Nobody else has states than one user at most."""
        return len(self.states.users) < 2

    def others(self, moments: Sequence[Moment], which: int = 0) -> list[Moment]:
        """For each moment, one of somebody else in the DataDAO, after all of their chunks; the same for a user always,
        and somebody else for another `which`, where there are more.

        Of a DataDAO with one user, somebody of another. Raises ValueError where there is nobody else (`alone`).
        """
        if self.alone:
            raise ValueError("one user alone has states: there is nobody else")
        everybody = self.states.users
        found = []
        for user, _ in moments:
            rest = [u for u in everybody if u != user and u[0] == user[0]] or [u for u in everybody if u != user]
            other = rest[(int(content_id("other", *user)[:8], 16) + which) % len(rest)]
            found.append((other, self.states.length(other)))
        return found

    def past(self, moment: Moment, tokens: int) -> list[int]:
        """The last `tokens` tokens of what the user said before."""
        user, seen = moment
        said = "".join(f"{SPEAKER} {text}\n" for text in self._past.get(user, [])[max(0, seen - 400) : seen] if text)
        ids = self.inputs.tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids[-tokens:] if tokens else []

    def by_states(
        self, choices: Choices, model: PersonalisedDecoder, states: StateHistories, moments: Sequence[Moment]
    ) -> torch.Tensor:
        """Gains [tasks, options] for the users at `moments` [tasks]."""
        parts = batches(len(choices), BATCH)
        return torch.cat([choices.gains(model, states, [moments[row] for row in rows], rows) for rows in parts])

    @torch.no_grad()
    def by_text(self, choices: Choices, tokens: int, embedding: bool, rows: Sequence[int]) -> torch.Tensor:
        """Gains [len(rows), options] with the user's last words in the prompt, with or without the user's tokens."""
        options = choices.options[list(rows)]
        told = [self.past(choices.asked[row], tokens) for row in rows]
        begins = choices.texts.counted[options[:, 0]].int().argmax(1).tolist()  # options have one prompt
        found = torch.zeros(options.shape)
        alike: dict[tuple[int, int], list[int]] = {}
        for place, begin in enumerate(begins):
            alike.setdefault((len(told[place]), begin), []).append(place)
        for (n_told, begin), places in alike.items():
            for part in batches(len(places), max(1, TOKENS // (n_told + begin + 1))):
                those = [places[i] for i in part]
                words = torch.tensor([told[place] for place in those], dtype=torch.long).view(len(those), n_told)
                moments = [choices.asked[rows[place]] for place in those]
                users = tokens_of(self.llm.model, self.states, moments, self.inputs.device) if embedding else None
                found[those] = self._told(choices, options[those], words, begin, users)
        return found - choices.texts.bare[options]

    def _told(
        self, choices: Choices, options: torch.Tensor, words: torch.Tensor, begin: int, users: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean log-likelihood [B, k] of `options` [B, k] after `words` [B, n] and prompts of `begin` tokens.

        What precedes the options is read once for all k.
        """
        k, device = options.shape[1], self.inputs.device
        ids, counted = choices.texts.ids[options], choices.texts.counted[options]
        shared = torch.cat([ids[:, 0, :1], words, ids[:, 0, 1 : begin + 1]], dim=1)
        longest = int((counted * torch.arange(1, counted.shape[2] + 1)).amax())
        rest = ids[:, :, begin + 1 : longest + 1].flatten(0, 1).to(device)
        counted = counted[:, :, begin:longest].flatten(0, 1).to(device)
        with reading(self.llm.model, users) as reader:
            first, cache = reader.prompt(shared.to(device))
        cache.batch_repeat_interleave(k)
        found = first.log_softmax(-1).repeat_interleave(k, 0).gather(1, rest[:, :1])
        if rest.shape[1] > 1:
            repeated = None if users is None else users.repeat_interleave(k, 0)
            with reading(self.llm.model, repeated) as reader:
                after = reader.following(rest[:, :-1], cache).log_softmax(-1)
            found = torch.cat([found, after.gather(2, rest[:, 1:, None]).squeeze(2)], dim=1)
        return ((found * counted).sum(1) / counted.sum(1)).view(options.shape).cpu()


def chosen_share(scores: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """How often [B] the answer (a column of scores [B, k]) is chosen, where the choice among equals is by chance."""
    best = scores >= scores.max(1, keepdim=True).values - TIED
    return best.gather(1, answers[:, None]).squeeze(1).double() / best.sum(1)


def choices_table(asking: Asking) -> pl.DataFrame:
    """task_id, condition, score: 1 where the chosen option is SUBJECT's, its share where several are equally good."""
    config, inputs = asking.config, asking.inputs
    tasks = inputs.choices("test")
    if tasks.is_empty():
        return NO_ANSWERS
    model, size = asking.llm.model, asking.llm.model.shape.tokens
    late = {"longest": config.longest, "cache_mb": config.cache_mb}
    choices = Choices(inputs, model, tasks, **late)
    every = list(range(len(choices)))
    some, few = (_evenly(len(every), most) for most in (config.text_tasks, config.stuffed_tasks))
    pooled, own = StateHistories.pooled(inputs.encoder, inputs.sequences), choices.asked

    def by_states(model: PersonalisedDecoder, states: StateHistories, *moments: Sequence[Moment]) -> list[torch.Tensor]:
        return [asking.by_states(choices, model, states, each) for each in moments]

    def by_text(tokens: int, embedding: bool, rows: Sequence[int]) -> list[torch.Tensor]:
        return [asking.by_text(choices, tokens, embedding, rows)]

    others = [] if asking.alone else [asking.others(own, which) for which in range(OTHERS)]
    recent = config.recent_tokens
    conditions: dict[str, tuple[list[int], Callable[[], list[torch.Tensor]]]] = {
        "nobody": (every, lambda: [choices.texts.bare[choices.options]]),
        "user_embedding": (every, lambda: by_states(model, asking.states, own)),
        "supervised": (every, lambda: by_states(asking.supervised.model, asking.states, own)),
        "other_user": (every, lambda: by_states(model, asking.states, *others)),
        "mean_vector": (every, lambda: by_states(model, pooled, own)),
        "text": (some, lambda: by_text(size, False, some)),
        "embedding_text": (some, lambda: by_text(size, True, some)),
        "recent": (some, lambda: by_text(recent, False, some)),
        "embedding_recent": (some, lambda: by_text(recent, True, some)),
        "stuffed": (few, lambda: by_text(config.stuffed_tokens, False, few)),
    }
    if not others:
        del conditions["other_user"]
    rows = []
    for condition, (asked, scores) in conditions.items():
        right = torch.stack([chosen_share(part, choices.answers[asked]) for part in scores()]).mean(0)
        ids = tasks["task_id"].gather(asked)
        rows.append(pl.DataFrame({"task_id": ids, "condition": condition, "score": right.numpy()}))
        asking.log(f"{condition}: {len(asked)} choices answered")
    return pl.concat(rows)


def _evenly(n: int, most: int) -> list[int]:
    """At most `most` of n rows, evenly."""
    return torch.linspace(0, n - 1, min(most, n)).round().long().tolist()


def answers_table(asking: Asking, threads: int) -> pl.DataFrame:
    """task_id, condition, score: the judge's mean over the answers drawn to each free-form task."""
    config, inputs = asking.config, asking.inputs
    tasks = inputs.free("test")
    judge = Guarded(JUDGES[config.judge](threads), Guards(max_tokens=config.new_tokens))
    questions = FreeForm(inputs, tasks, judge, new_tokens=config.new_tokens, temperature=config.temperature)
    model, before = asking.llm.model, asking.supervised.model
    conditions: dict[str, tuple[PersonalisedDecoder, list[Moment] | None]] = {
        "nobody": (model, None),
        "user_embedding": (model, questions.asked),
        "supervised": (before, questions.asked),
    }
    if not asking.alone:
        conditions["other_user"] = (model, asking.others(questions.asked))
    rows = []
    for condition, (writer, moments) in conditions.items():
        torch.manual_seed(config.seed)
        for part in batches(len(questions), max(1, ANSWERS // config.samples)):
            asked = [row for row in part for _ in range(config.samples)]
            users = None
            if moments is not None:
                users = tokens_of(writer, asking.states, [moments[row] for row in asked], inputs.device)
            scores = questions.draw(writer, users, asked).rewards.reshape(len(part), config.samples).mean(1)
            ids = tasks["task_id"].gather(part)
            rows.append(pl.DataFrame({"task_id": ids, "condition": condition, "score": scores}))
        asking.log(f"{condition}: {len(questions)} questions answered")
    return pl.concat([NO_ANSWERS, *rows])


@torch.no_grad()
def evaluate(job: Job) -> None:
    """Answer everything, write both tables, report how many."""
    config = Config.of(job.config)
    inputs = LLMInputs(job, job.seed())
    asking = Asking(job, config, inputs)
    tables = {"choices": choices_table(asking), "answers": answers_table(asking, job.threads)}
    for name, table in tables.items():
        table.sort("task_id", "condition").write_parquet(job.result / f"{name}.parquet")
    version = content_id(*(file_sha256(job.result / f"{name}.parquet") for name in tables))
    counted = {f"n_{name}": table["task_id"].n_unique() for name, table in tables.items()}
    job.finish({**counted, "judge": config.judge, "version": version}, data_version=version, device=inputs.device)


if __name__ == "__main__":
    sys.exit(run("personalised_answers", evaluate, versions.PERSONALISED_ANSWERS))
