"""KOAIs of a DataDAO's chunks: by cue phrases, or by a language model, with the constraints that each violates."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import TRANSIENT, Failure, LanguageModel
from user_embeddings_dagster.schema import KOAIS
from user_embeddings_dagster.summaries import cues
from user_embeddings_dagster.summaries.asking import Spending, ask
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.constraints import KOAI_RULES, count, koai_violations, withheld
from user_embeddings_dagster.summaries.koai import KOAI, ChunkKOAIs
from user_embeddings_dagster.summaries.subject import remasked


@dataclass(frozen=True)
class Extraction:
    """KOAIS and figures for metadata."""

    koais: pl.DataFrame
    stats: dict[str, Any]


def extract_by_cues(chunks: pl.DataFrame, progress: Callable[[int, int], None] | None = None) -> Extraction:
    """SUBJECT's own sentences with a cue phrase: no model is asked anything."""
    koais = cues.extract(chunks, progress=progress)
    named = {"extractor": cues.EXTRACTOR, "program_version": cues.PROGRAM_VERSION, "to_ask_again": 0}
    return Extraction(koais, {**named, **_figures(koais)})


def extract_with(
    model: LanguageModel,
    program: Program[ChunkKOAIs],
    chunks: pl.DataFrame,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """KOAIs of `chunks` (MASKED_CHUNKS) by `program` on `model`; an answer's statements are masked once more.

    Chunks whose answer failed have none and are counted by reason. A statement said twice in a chunk is one row.
    """
    rows, silent, spending, failures = [], [], Spending(), Counter()
    for chunk_id, answer in ask(model, program, chunks, progress):
        spending.add(answer)
        if isinstance(answer, Failure):
            failures[answer.reason] += 1
        elif found := program.parse(answer.value).koais:
            rows += [(chunk_id, koai.kind, koai.statement, koai.evidence) for koai in found]
        else:
            silent.append(chunk_id)
    koais, n_remasked = _koais(rows, chunks, model.name, program.version)
    stats = {
        "extractor": model.name,
        "program_version": program.version,
        "asked": chunks.height,
        "to_ask_again": sum(failures[reason] for reason in TRANSIENT),
        "remasked": n_remasked,
        **spending.stats,
        **{f"failed_{reason}": n for reason, n in sorted(failures.items())},
        **_figures(koais),
        "violations_K9": _withheld(chunks.filter(pl.col("chunk_id").is_in(silent))),
    }
    return Extraction(koais, stats)


def _koais(rows: list[tuple], chunks: pl.DataFrame, model: str, version: str) -> tuple[pl.DataFrame, int]:
    schema = {"chunk_id": pl.String, "kind": pl.String, "statement": pl.String, "evidence": pl.List(pl.Int64)}
    said = pl.DataFrame(rows, schema, orient="row")
    statements, n_remasked = remasked(said["statement"])
    said = said.with_columns(statement=statements.str.strip_chars()).filter(pl.col("statement") != "")
    said = said.unique(("chunk_id", "kind", "statement"), keep="first", maintain_order=True)
    ids = said.select("chunk_id", pl.lit(model), pl.lit(version).alias("version"), "kind", "statement").iter_rows()
    said = said.with_columns(
        koai_id=pl.Series([content_id(*parts) for parts in ids], dtype=pl.String),
        violations=_violations(said, chunks),
        extractor=pl.lit(model),
        program_version=pl.lit(version),
    )
    whose = chunks.select("chunk_id", "datadao", "user_id", "ended_at")
    return KOAIS.conform(said.join(whose, on="chunk_id", validate="m:1")), n_remasked


def _violations(said: pl.DataFrame, chunks: pl.DataFrame) -> pl.Series:
    """Numbers of the violated constraints, row by row; a chunk's statements are checked together."""
    texts = chunks.select("chunk_id", "speakers", "turns")
    grouped = (
        said.with_row_index("row")
        .group_by("chunk_id", maintain_order=True)
        .agg("row", "kind", "statement", "evidence")
        .join(texts, on="chunk_id", maintain_order="left")
    )
    found: list[list[int]] = [[] for _ in range(said.height)]
    for _, places, kinds, statements, evidence, speakers, turns in grouped.iter_rows():
        koais = [KOAI(kind=k, statement=s, evidence=e) for k, s, e in zip(kinds, statements, evidence, strict=True)]
        for place, broken in zip(places, koai_violations(koais, chunk_words(speakers, turns)), strict=True):
            found[place] = [violation.number for violation in broken]
    return pl.Series(found, dtype=pl.List(pl.Int64))


def _withheld(chunks: pl.DataFrame) -> int:
    """Chunks without a statement although SUBJECT speaks of themselves: K9, which is of a chunk, not of a row."""
    words = (chunk_words(*texts) for texts in chunks.select("speakers", "turns").iter_rows())
    return sum(bool(withheld((), chunk)) for chunk in words)


def _figures(koais: pl.DataFrame) -> dict[str, Any]:
    kinds = koais["kind"].value_counts().sort("kind")
    broken = count(koais["violations"].to_list(), {n: rule for n, rule in KOAI_RULES.items() if n != 9})
    return {
        "chunks_with_koais": koais["chunk_id"].n_unique(),
        **{f"kind_{kind}": n for kind, n in kinds.iter_rows()},
        **{f"violations_K{number}": n for number, n in broken.items()},
    }
