"""Extractive, SUBJECT-centric summaries: SUBJECT's own sentences, chosen by maximal marginal relevance (C22).

Carbonell and Goldstein (SIGIR 1998): the next sentence maximises
lambda · sim(sentence, chunk) - (1 - lambda) · max sim(sentence, chosen). Similarity is the cosine of word
counts in which words of grammar weigh little; it depends on the chunk alone, so that a new chunk changes no
old summary. The sentences are verbatim, with a full stop between those that end without one.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.names import FUNCTION_WORDS
from user_embeddings_dagster.schema import CHUNK_SUMMARIES

SUMMARISER = "extractive"
PROGRAM_VERSION = "extractive-mmr-1"
RELEVANCE = 0.5  # lambda of MMR
SUBJECT_SHARE = 0.75  # weight of SUBJECT's own words in what the chunk is about
_GRAMMAR_WEIGHT = 0.1
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = r"([.!?…]+[\"')\]»”]*)\s+|([。！？]+[」』”]*)"
_BATCH = 5_000

Vector = dict[str, float]


def summarise(
    chunks: pl.DataFrame,
    *,
    max_sentences: int = 3,
    max_words: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """CHUNK_SUMMARIES of `chunks` (MASKED_CHUNKS), in the chunks' order.

    At most `max_sentences` sentences of SUBJECT in the order they were said, each cut at `max_words` words.
    Chunks without a word of SUBJECT get no row. `progress(chunks done, chunks)`.
    """
    frames = []
    for start in range(0, chunks.height, _BATCH):
        batch = chunks.slice(start, _BATCH)
        frames.append(_summaries(batch, max_sentences, max_words))
        if progress:
            progress(start + batch.height, chunks.height)
    return pl.concat(frames) if frames else CHUNK_SUMMARIES.empty()


def _summaries(chunks: pl.DataFrame, max_sentences: int, max_words: int) -> pl.DataFrame:
    turns = chunks.select(pl.row_index("row"), "speakers", "turns").explode("speakers", "turns")
    own = pl.col("speakers") == "SUBJECT"
    sentences = (
        turns.filter(own)
        .with_columns(pl.col("turns").str.replace_all(_SENTENCE_END, "${1}${2}\n").str.split("\n"))
        .group_by("row", maintain_order=True)
        .agg(pl.col("turns").explode().str.strip_chars())
    )
    context = (
        turns.filter(~own).group_by("row", maintain_order=True).agg(pl.col("turns").str.join(" ").alias("context"))
    )
    rows = sentences.join(context, on="row", how="left").sort("row")
    texts = [
        _summary([s for s in candidates if s], context or "", max_sentences, max_words)
        for _, candidates, context in rows.iter_rows()
    ]
    summarised = chunks[rows["row"]].select("chunk_id", "datadao", "user_id", "ended_at")
    summarised = summarised.with_columns(
        text=pl.Series(texts, dtype=pl.String),
        summarizer=pl.lit(SUMMARISER),
        program_version=pl.lit(PROGRAM_VERSION),
        prompt_tokens=0,
        completion_tokens=0,
        usd=0.0,
    ).filter(pl.col("text") != "")
    ids = summarised.select("chunk_id", "summarizer", "program_version", "text").iter_rows()
    summarised = summarised.with_columns(summary_id=pl.Series([content_id(*parts) for parts in ids], dtype=pl.String))
    return CHUNK_SUMMARIES.conform(summarised)


def _summary(sentences: Sequence[str], context: str, max_sentences: int, max_words: int) -> str:
    if not sentences:
        return ""
    chosen = range(len(sentences)) if len(sentences) <= max_sentences else _chosen(sentences, context, max_sentences)
    *before, last = (_cut(sentences[place], max_words) for place in sorted(chosen))
    return " ".join(["SUBJECT:", *(s + "." if s[-1].isalnum() else s for s in before), last])


def _cut(sentence: str, max_words: int) -> str:
    words = sentence.split()
    return sentence if len(words) <= max_words else " ".join(words[:max_words]) + " …"


def _chosen(sentences: Sequence[str], context: str, size: int) -> list[int]:
    """Places of `size` sentences by MMR; ties go to the earlier sentence."""
    weighed = [_weighed(sentence) for sentence in sentences]
    topic = _topic(weighed, _weighed(context))
    vectors = [_unit(vector) for vector in weighed]
    relevance = [_cosine(vector, topic) for vector in vectors]
    left = list(range(len(sentences)))
    redundancy = [0.0] * len(sentences)
    chosen: list[int] = []
    while left and len(chosen) < size:
        best = max(left, key=lambda i: (RELEVANCE * relevance[i] - (1 - RELEVANCE) * redundancy[i], -i))
        chosen.append(best)
        left.remove(best)
        for place in left:
            redundancy[place] = max(redundancy[place], _cosine(vectors[place], vectors[best]))
    return chosen


def _weighed(text: str) -> Vector:
    counts = Counter(_WORD.findall(text.lower()))
    return {
        word: math.log1p(count) * (_GRAMMAR_WEIGHT if word in FUNCTION_WORDS else min(len(word), 8) / 8)
        for word, count in counts.items()
    }


def _topic(own: Iterable[Vector], context: Vector) -> Vector:
    summed: Vector = {}
    for vector in own:
        for word, weight in vector.items():
            summed[word] = summed.get(word, 0.0) + weight
    topic = {word: SUBJECT_SHARE * weight for word, weight in _unit(summed).items()}
    for word, weight in _unit(context).items():
        topic[word] = topic.get(word, 0.0) + (1 - SUBJECT_SHARE) * weight
    return _unit(topic)


def _unit(vector: Vector) -> Vector:
    norm = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {word: weight / norm for word, weight in vector.items()} if norm else vector


def _cosine(left: Vector, right: Vector) -> float:
    if len(left) > len(right):
        left, right = right, left
    return sum(weight * right[word] for word, weight in left.items() if word in right)
