"""Texts for the benchmarks of the encoders: chunk-like, 5 to 200 tokens long, words of the sample exports."""

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import user_embeddings_dagster.samples as samples

TOKENS_PER_WORD = 1.25  # of MiniLM's tokenizer on these words


def words() -> list[str]:
    """Words of the English topics, in their order."""
    topics = sorted((Path(samples.__file__).parent / "content" / "topics").glob("*.txt"))
    return [word for path in topics for word in re.findall(r"[A-Za-z']+[,.?]?", path.read_text())]


def pairs(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """`n` chunks of 5 to 200 tokens (mean about 145, two in three over it, as in real chat) and their summaries."""
    rng, vocabulary = random.Random(seed), words()
    chunks, summaries = [], []
    for _ in range(n):
        size = round((5 + 190 * rng.betavariate(1.2, 0.4)) / TOKENS_PER_WORD)
        start = rng.randrange(len(vocabulary) - size - 1)
        said = vocabulary[start : start + max(2, size - 3)]
        chunks.append("SUBJECT: " + " ".join(said))
        summaries.append(" ".join(said[-20:]))
    return chunks, summaries


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU seconds of this process, wall seconds, result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def best(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    """Least CPU and least wall seconds of the rounds."""
    return min(cpu for cpu, _ in rounds), min(wall for _, wall in rounds)
