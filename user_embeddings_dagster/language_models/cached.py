"""A language model that is asked only what the private cache does not know."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from user_embeddings_dagster.language_models.cache import Cache
from user_embeddings_dagster.language_models.protocol import (
    Answer,
    BudgetSpent,
    Completion,
    LanguageModel,
    ModelRefused,
    Request,
)

LOOKED_UP = 32  # requests of one look-up
WAITING = 1024


class Cached:
    """`model` behind `cache`: hits come without asking, completions are kept before they are handed out.

    Failures are not kept, so that a later run asks again. Requests are read as the model reads them; memory is
    bounded by what the model has in flight, but for 16 bytes for each distinct id. `waiting` hits are held back beside
    a question to the model before it is let go idle to hand them out; None for a model that is costly to ask twice.
    """

    def __init__(self, model: LanguageModel, cache: Cache, waiting: int | None = WAITING) -> None:
        self._model, self._cache, self._waiting = model, cache, waiting

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer for each distinct request id; see LanguageModel. Closing it closes the model's iterator."""
        looked_up = self._looked_up(requests)
        try:
            for request, known in looked_up:
                if known is not None:
                    yield known
                else:
                    yield from self._asked(request, looked_up)
        finally:
            self._cache.flush()

    def _looked_up(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion | None]]:
        seen: set[bytes] = set()
        source = iter(requests)
        while batch := list(islice(source, LOOKED_UP)):
            fresh = list({request.id: request for request in batch if bytes.fromhex(request.id) not in seen}.values())
            seen.update(bytes.fromhex(request.id) for request in fresh)
            yield from zip(fresh, self._cache.get(self.name, fresh), strict=True)

    def _asked(self, first: Request, looked_up: Iterator[tuple[Request, Completion | None]]) -> Iterator[Answer]:
        """Ask the model for `first` and the misses after it, until too many hits have piled up beside them."""
        hits: deque[Completion] = deque()
        asked: dict[str, Request] = {}

        def misses() -> Iterator[Request]:
            for request, known in chain([(first, None)], looked_up):
                if known is None:
                    asked[request.id] = request
                    yield request
                    continue
                hits.append(known)
                if self._waiting is not None and len(hits) >= self._waiting:
                    return

        answers = self._model.complete(misses())
        try:
            for answer in answers:
                request = asked.pop(answer.request_id)
                if isinstance(answer, Completion):
                    self._cache.put(self.name, request, answer)
                yield from _drained(hits)
                yield answer
        except (BudgetSpent, ModelRefused):
            yield from _drained(hits)
            raise
        finally:
            if close := getattr(answers, "close", None):
                close()
        yield from _drained(hits)


def _drained(hits: deque[Completion]) -> Iterator[Completion]:
    while hits:
        yield hits.popleft()
