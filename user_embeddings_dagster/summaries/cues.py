"""KOAIs by cue phrases, the extractor that runs when no language model is configured (C25).

SUBJECT's own sentences with an English cue ("I think", "I live", …), classified by the cue and quoted as
"SUBJECT: <sentence>". Verbatim sentences violate the constraints against quotes and the first person; that is
recorded with each row as it is.
"""

from collections.abc import Callable

import polars as pl

from user_embeddings_dagster.conversations.rendering import SUBJECT
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.schema import KOAIS
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.constraints import koai_violations
from user_embeddings_dagster.summaries.cue_phrases import CUES, MIN_WORDS
from user_embeddings_dagster.summaries.koai import KOAI, MAX_KOAIS

EXTRACTOR = "cues"
PROGRAM_VERSION = "cues-1"
MAX_WORDS = 60
_SENTENCE_END = r"([.!?…]+[\"')\]»”]*)\s+"
_BATCH = 5_000


def extract(chunks: pl.DataFrame, progress: Callable[[int, int], None] | None = None) -> pl.DataFrame:
    """KOAIS of `chunks` (MASKED_CHUNKS), in the chunks' order, then in the order they were said.

    At most MAX_KOAIS of a chunk, each cut at MAX_WORDS words; a sentence said twice counts once.
    `progress(chunks done, chunks)`.
    """
    frames = [KOAIS.empty()]
    for start in range(0, chunks.height, _BATCH):
        batch = chunks.slice(start, _BATCH)
        frames.append(_koais(batch))
        if progress:
            progress(start + batch.height, chunks.height)
    return pl.concat(frames)


def _koais(chunks: pl.DataFrame) -> pl.DataFrame:
    found = _sentences(chunks).with_columns(statement=pl.lit(f"{SUBJECT}: ") + pl.col("sentence"))
    found = (
        found.group_by("row", "kind", "statement", maintain_order=True)
        .agg(evidence=pl.col("turn").unique(maintain_order=True))
        .group_by("row", maintain_order=True)
        .head(MAX_KOAIS)
        .sort("row", maintain_order=True)
    )
    rows = chunks.with_row_index("row").join(found, on="row", maintain_order="right")
    rows = rows.with_columns(
        violations=pl.Series(_violations(chunks, found), dtype=pl.List(pl.Int64)),
        extractor=pl.lit(EXTRACTOR),
        program_version=pl.lit(PROGRAM_VERSION),
    )
    ids = rows.select("chunk_id", "extractor", "program_version", "kind", "statement").iter_rows()
    return KOAIS.conform(rows.with_columns(koai_id=pl.Series([content_id(*parts) for parts in ids], dtype=pl.String)))


def _sentences(chunks: pl.DataFrame) -> pl.DataFrame:
    """SUBJECT's sentences that hold a cue: columns row, turn, sentence, kind; in order."""
    turns = chunks.select(
        pl.row_index("row"), "speakers", "turns", turn=pl.int_ranges(pl.col("turns").list.len())
    ).explode("speakers", "turns", "turn")
    said = (
        turns.filter(pl.col("speakers") == SUBJECT)
        .with_columns(sentence=pl.col("turns").str.replace_all(_SENTENCE_END, "${1}\n").str.split("\n"))
        .explode("sentence")
        .with_columns(pl.col("sentence").str.strip_chars())
    )
    kind = pl.coalesce(
        pl.when(pl.col("sentence").str.contains(f"(?i){cue}")).then(pl.lit(kind)) for kind, cue in CUES.items()
    )
    words = pl.col("sentence").str.split(" ")
    cut = pl.when(words.list.len() > MAX_WORDS).then(words.list.head(MAX_WORDS).list.join(" ") + " …")
    return (
        said.filter(words.list.len() >= MIN_WORDS)
        .select("row", "turn", kind=kind, sentence=cut.otherwise(pl.col("sentence")))
        .drop_nulls("kind")
    )


def _violations(chunks: pl.DataFrame, found: pl.DataFrame) -> list[list[int]]:
    """Numbers of the violated constraints of each row of `found`, which is sorted by row."""
    numbers: list[list[int]] = []
    per_chunk = found.group_by("row", maintain_order=True).agg("kind", "statement", "evidence")
    texts = chunks.select(pl.row_index("row"), "speakers", "turns")
    for _, kinds, statements, evidence, speakers, turns in per_chunk.join(
        texts, on="row", maintain_order="left"
    ).iter_rows():
        said = zip(kinds, statements, evidence, strict=True)
        koais = [KOAI.model_construct(kind=kind, statement=text, evidence=places) for kind, text, places in said]
        found_in_chunk = koai_violations(koais, chunk_words(speakers, turns))
        numbers += [[violation.number for violation in violations] for violations in found_in_chunk]
    return numbers
