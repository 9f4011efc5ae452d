"""Validation of insight tasks by a language model: one program reads the whole history, one agent searches it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.ranking import unit
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import TRANSIENT, Answer, Failure, LanguageModel, Request
from user_embeddings_dagster.personalisation.agent import FOUND, MAX_STEPS, Search, answered_by_search
from user_embeddings_dagster.personalisation.koai_tasks import ANSWER
from user_embeddings_dagster.personalisation.past import Past
from user_embeddings_dagster.personalisation.programs import Choice, Speech, choose, speak, task_inputs
from user_embeddings_dagster.personalisation.validation import Encode, Verdict
from user_embeddings_dagster.storage.lake import fingerprint
from user_embeddings_dagster.summaries.asking import MAX_FAILED_SHARE, Spending, TooManyFailures

THREADS = 8
CLOSE = 0.1
"""A free-form answer is close to its reference if at most this share of other people's references is as close."""
Said = Choice | Speech | None


def programs_version(settings: str) -> str:
    """Hash of all that the two answerers are asked."""
    programs = [make(history=history) for make in (choose, speak) for history in (True, False)]
    return fingerprint([p.with_settings(settings).version for p in programs], MAX_STEPS, FOUND, CLOSE)


class ModelValidator:
    """Both answerers are DSPy programs on `model`; see validation.Validator. After `verdicts`, `stats` says the cost.

    `encode` is the frozen text encoder's; `settings` as of Program. Each prompt is of one user, whose answers are
    cached under their key; it holds the options, three of which are other contributors'.
    """

    def __init__(
        self,
        model: LanguageModel,
        encode: Encode,
        past: Past,
        history_tokens: int,
        settings: str = "",
        progress: Callable[[float, float], None] | None = None,
    ) -> None:
        self._model, self._past, self._tokens = _Counted(model), past, history_tokens
        self._encode, self._settings, self._progress = _alone(encode), settings, progress
        self._failures: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The language model's name."""
        return self._model.name

    @property
    def stats(self) -> Mapping[str, Any]:
        """What the answers cost, and how many there were none of, by reason."""
        spending = self._model.spending
        return {"usd": spending.total.usd, **spending.stats, "model_failures": dict(sorted(self._failures.items()))}

    def verdicts(self, tasks: pl.DataFrame) -> list[Verdict]:
        """Raises TooManyFailures if more than a tenth of the answers are none."""
        rows = list(tasks.select("user_id", "n_history", "question", "options", "kind").iter_rows(named=True))
        read, searched = self._from_context(rows), self._by_search(rows)
        failed = sum(self._failures.values())
        if failed > MAX_FAILED_SHARE * 2 * len(rows):
            told = ", ".join(f"{reason} {count}" for reason, count in sorted(self._failures.items()))
            passing = all(reason in TRANSIENT for reason in self._failures)
            raise TooManyFailures(f"{failed} of {2 * len(rows)} questions got no valid answer ({told})", passing)
        close = [self._close(tasks, said) for said in (read, searched)]
        return [
            Verdict(
                _chosen(read[place]),
                _chosen(searched[place]),
                _agrees(read[place], answer, close[0].get(place)),
                _agrees(searched[place], answer, close[1].get(place)),
            )
            for place, answer in enumerate(tasks["answer"])
        ]

    def _program(self, kind: str, *, history: bool) -> Program[Any]:
        return (speak if kind == ANSWER else choose)(history=history).with_settings(self._settings)

    def _from_context(self, rows: Sequence[Mapping[str, Any]]) -> list[Said]:
        """The whole history in the prompt, as much of it as fits, the most recent last."""
        places: dict[str, list[int]] = {}
        said: list[Said] = [None] * len(rows)

        def requests() -> Iterator[Request]:
            for place, row in enumerate(rows):
                history = self._past.stuffed(row["user_id"], row["n_history"], self._tokens)
                inputs = task_inputs(row["question"], row["options"], history)
                request = self._program(row["kind"], history=True).request(inputs, owner=row["user_id"])
                places.setdefault(request.id, []).append(place)
                yield request

        answers = {answer.request_id: answer for answer in self._model.complete(requests())}
        for name, asked in places.items():
            for place in asked:
                said[place] = self._parsed(answers[name], self._program(rows[place]["kind"], history=True))
        return said

    def _parsed(self, answer: Answer, program: Program[Any]) -> Said:
        if isinstance(answer, Failure):
            self._failures[answer.reason] += 1
            return None
        try:
            return program.parse(answer.value)
        except ValueError:
            self._failures["schema_violation"] += 1
            return None

    def _by_search(self, rows: Sequence[Mapping[str, Any]]) -> list[Said]:
        def ask(row: Mapping[str, Any]) -> tuple[Said, str]:
            user, n_history = row["user_id"], row["n_history"]
            search = Search(self._encode, self._past.before(user, n_history), self._past.told(user, n_history))
            program = self._program(row["kind"], history=False)
            return answered_by_search(
                self._model, program, task_inputs(row["question"], row["options"]), search, owner=user
            )

        said: list[Said] = []
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for output, reason in pool.map(ask, rows):
                    said.append(output)
                    if reason:
                        self._failures[reason] += 1
                    if self._progress:
                        self._progress(len(said), len(rows))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return said

    def _close(self, tasks: pl.DataFrame, said: Sequence[Said]) -> dict[int, bool]:
        """By place of a free-form task with an answer: whether it is close to the reference; see CLOSE.

        Without a place where nobody else has a reference to compare with.
        """
        free = [place for place, kind in enumerate(tasks["kind"]) if kind == ANSWER]
        answered = {place: said[place] for place in free if isinstance(said[place], Speech)}
        if not answered:
            return {}
        references, users = (tasks[name].gather(free).to_list() for name in ("reference", "user_id"))
        known = unit(self._encode(references))
        spoken = unit(self._encode([speech.answer for speech in answered.values() if isinstance(speech, Speech)]))
        own = {place: row for row, place in enumerate(free)}
        close = {}
        for vector, place in zip(spoken, answered, strict=True):
            similar = known @ vector
            others = similar[np.array([user != users[own[place]] for user in users], dtype=bool)]
            if len(others):
                close[place] = bool((others >= similar[own[place]]).sum() <= CLOSE * len(others))
        return close


def _chosen(said: Said) -> int | None:
    return said.option if isinstance(said, Choice) else None


def _agrees(said: Said, answer: int, close: bool | None) -> bool | None:
    return said.option == answer if isinstance(said, Choice) else close


class _Counted:
    """A model whose spending is counted; for any number of threads."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._lock, self.spending = model, threading.Lock(), Spending()

    @property
    def name(self) -> str:
        return self._model.name

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for answer in self._model.complete(requests):
            with self._lock:
                self.spending.add(answer)
            yield answer


def _alone(encode: Encode) -> Encode:
    """The encoder, one thread at a time."""
    lock = threading.Lock()

    def encoded(texts: Sequence[str]) -> np.ndarray:
        with lock:
            return encode(texts)

    return encoded
