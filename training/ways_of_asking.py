"""The ways to ask a question about a user: their history in the prompt, or their user embedding. What each costs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
import torch

from training.cost import Cost, counted
from training.injection import SoftPrompt
from training.personalised_inference import TrainedLLM
from training.personalised_model import PersonalisedDecoder
from training.reading import Reader, cache_bytes, reading
from training.sequence_inference import SequenceEncoder

STUFFED, EMBEDDED, ADVANCED = "context_stuffing", "user_embedding", "user_embedding_advanced"
OWNER = ("all", "history")


class History:
    """One history of all items: tokens of each, the states after each, and what the encoder goes on from."""

    def __init__(self, items: pl.DataFrame, longest: int, llm: TrainedLLM, encoder: SequenceEncoder) -> None:
        datadao, user = OWNER
        ordered = items.sort("ended_at", "chunk_id")
        again = np.arange(max(longest, ordered.height)) % ordered.height
        self.different = ordered.height
        # Where the items go round again, times do not go back.
        times = ordered["ended_at"].gather(again).sort()
        read = [name for name in ("vector", "context") if name in ordered.columns]
        self._frame = ordered.select(read)[again].with_columns(
            datadao=pl.lit(datadao), user_id=pl.lit(user), position=pl.int_range(len(again)), ended_at=times
        )
        self.tokens = [llm.tokenizer(text + "\n", add_special_tokens=False)["input_ids"] for text in ordered["text"]]
        self._encoder, self._states = llm.encoder(encoder), llm.user_states(encoder, self._frame)

    def prompt(self, items: int, at_most: int | None) -> list[int]:
        """Tokens of the first so many items, of each at most so many."""
        return [token for n in range(items) for token in self.tokens[n % self.different][:at_most]]

    def states(self, items: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States [1, T, dimension] after the first so many items, and mask [1, T]."""
        return self._states.batch([OWNER], [items], longest)

    def advance(self, items: int) -> Callable[[], np.ndarray]:
        """What gives the projected state [1, dimension] after item number `items` from the memory of those before."""
        before = self._encoder.encode_users(self._frame[: items - 1]).memory
        row = self._frame[items - 1 : items]
        found = {
            name: np.stack(row[name].to_list()).astype(np.float32)
            for name in ("vector", "context")
            if name in row.columns
        }
        ended = row["ended_at"].dt.epoch("s").to_numpy()
        return lambda: self._encoder.advance(before, found["vector"], found.get("context"), ended)[2]


class Ways:
    """The ways to ask one question about a user with so many items. Each gives a reader and the prompt for it."""

    def __init__(self, model: PersonalisedDecoder, history: History, items: int, item_tokens: int, question: list[int]):
        device = next(model.parameters()).device
        states, mask = (part.to(device) for part in history.states(items, model.shape.max_states))
        advance = history.advance(items)
        stuffed = torch.tensor([history.prompt(items, item_tokens) + question], device=device)
        asked = torch.tensor([question], device=device)

        @contextmanager
        def stuffing() -> Iterator[tuple[Reader, torch.Tensor]]:
            with reading(model, None) as reader:
                yield reader, stuffed

        @contextmanager
        def embedded(anew: bool) -> Iterator[tuple[Reader, torch.Tensor]]:
            if anew:
                states[:, -1] = torch.from_numpy(advance()).to(states)
            with reading(model, model.user_tokens(states, mask)) as reader:
                yield reader, asked

        self.ways = {STUFFED: stuffing, EMBEDDED: lambda: embedded(False), ADVANCED: lambda: embedded(True)}
        self.tokens = {STUFFED: stuffed.shape[1]} | dict.fromkeys(
            (EMBEDDED, ADVANCED), model.shape.tokens + len(question)
        )
        # What cross-attention reads again for every token; a soft prompt's are in the cache.
        kept = 0 if isinstance(model.injection, SoftPrompt) else model.shape.tokens * model.shape.width
        kept *= next(model.parameters()).element_size()
        self._beside = {STUFFED: 0, EMBEDDED: kept, ADVANCED: kept}
        self.states = states.shape[1]

    @torch.inference_mode()
    def counted(self, way: str) -> tuple[Cost, int]:
        """FLOPs and most bytes of tensors up to the first token; bytes of keys and values (and user tokens) kept."""
        with counted() as cost, self.ways[way]() as (reader, ids):
            _, cache = reader.prompt(ids)
            kept = cache_bytes(cache) + self._beside[way]
        return cost, kept

    @torch.inference_mode()
    def timed(self, way: str, new_tokens: int, device: str) -> tuple[float, float]:
        """Seconds to the first token, and for each of `new_tokens` after it."""
        _synchronise(device)
        begun = time.perf_counter()
        with self.ways[way]() as (reader, ids):
            logits, cache = reader.prompt(ids)
            token = logits.argmax(-1, keepdim=True)
            _synchronise(device)
            first = time.perf_counter()
            for _ in range(new_tokens):
                token = reader.following(token, cache)[:, -1].argmax(-1, keepdim=True)
            _synchronise(device)
        return first - begun, (time.perf_counter() - first) / max(1, new_tokens)


def _synchronise(device: str) -> None:
    """Wait for what has been launched: a GPU's time is not the time to launch it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
