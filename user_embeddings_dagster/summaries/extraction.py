"""KOAIs of a DataDAO's chunks: by cue phrases, or by a language model, with the constraints that each violates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.language_models.protocol import LanguageModel
from user_embeddings_dagster.schema import KOAI_EXTRACTIONS, KOAIS, Table
from user_embeddings_dagster.summaries import cues
from user_embeddings_dagster.summaries.asking import (
    COST,
    MAX_FAILED_SHARE,
    Spending,
    ask,
    failure_counts,
    held_rows,
    require_answers,
    with_earlier_cost,
)
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.constraints import KOAI_RULES, count, koai_violations, withheld
from user_embeddings_dagster.summaries.koai import KOAI, ChunkKOAIs
from user_embeddings_dagster.summaries.subject import remasked

NOTHING_SHOWN = "nothing_shown"


@dataclass(frozen=True)
class Extraction:
    """KOAIS, KOAI_EXTRACTIONS (every chunk once), and figures for metadata."""

    koais: pl.DataFrame
    extractions: pl.DataFrame
    stats: dict[str, Any]

    def frame(self, table: Table) -> pl.DataFrame:
        """The rows of one of the two tables."""
        return {KOAIS.name: self.koais, KOAI_EXTRACTIONS.name: self.extractions}[table.name]


def extract_by_cues(chunks: pl.DataFrame, progress: Callable[[int, int], None] | None = None) -> Extraction:
    """SUBJECT's own sentences with a cue phrase: no model is asked anything."""
    koais = cues.extract(chunks, progress=progress)
    rows = [(chunk_id, NOTHING_SHOWN, "", 0, 0, 0, 0.0) for chunk_id in chunks["chunk_id"]]
    extractions = _extractions(rows, koais, chunks, cues.EXTRACTOR, cues.PROGRAM_VERSION)
    named = {"extractor": cues.EXTRACTOR, "program_version": cues.PROGRAM_VERSION}
    return Extraction(koais, extractions, {**named, **_figures(koais, extractions)})


def extract_with(
    model: LanguageModel,
    program: Program[ChunkKOAIs],
    chunks: pl.DataFrame,
    previous: Sequence[pl.DataFrame] = (),
    progress: Callable[[int, int], None] | None = None,
    max_failed_share: float = MAX_FAILED_SHARE,
) -> Extraction:
    """KOAIs of `chunks` (MASKED_CHUNKS) by `program` on `model`; an answer's statements are masked once more.

    `previous` as in `build.summarise_with`: koais and koai_extractions. A statement said twice in a chunk is one row.
    Raises TooManyFailures.
    """
    found = previous or (KOAIS.empty(), KOAI_EXTRACTIONS.empty())
    held = held_rows(KOAI_EXTRACTIONS, found[1], chunks, "extractor", model.name, program.version)
    answered = pl.col("reason").is_in(["", NOTHING_SHOWN])
    kept, failed = held.filter(answered), held.filter(~answered)
    kept_koais = found[0].join(kept.select("chunk_id"), on="chunk_id", how="semi")
    asked = chunks.join(kept.select("chunk_id"), on="chunk_id", how="anti")
    said, rows, spending = [], [], Spending()
    for each in ask(model, program, asked, spending, progress):
        if isinstance(each.output, ChunkKOAIs):
            said += [(each.chunk_id, koai.kind, koai.statement, koai.evidence) for koai in each.output.koais]
        rows.append((each.chunk_id, each.reason or NOTHING_SHOWN, each.detail, *each.cost))
    koais, n_remasked = _koais(said, asked, model.name, program.version)
    made = with_earlier_cost(_extractions(rows, koais, asked, model.name, program.version), failed)
    require_answers(failure_counts(made["reason"], NOTHING_SHOWN), chunks.height, max_failed_share)
    all_koais, extractions = pl.concat([kept_koais, koais]), pl.concat([kept, made])
    silent = asked.join(made.filter(pl.col("reason") == NOTHING_SHOWN), on="chunk_id", how="semi")
    stats = {
        "extractor": model.name,
        "program_version": program.version,
        "asked": asked.height,
        "kept": kept.height,
        "remasked": n_remasked,
        **spending.stats,
        **_figures(all_koais, extractions),
        "violations_K9": _withheld(silent),
    }
    return Extraction(all_koais, extractions, stats)


def _extractions(
    rows: list[tuple], koais: pl.DataFrame, chunks: pl.DataFrame, model: str, version: str
) -> pl.DataFrame:
    schema = {"chunk_id": pl.String, "reason": pl.String, "detail": pl.String, **COST}
    counts = koais.group_by("chunk_id").agg(n_koais=pl.len().cast(pl.Int64))
    listed = (
        pl.DataFrame(rows, schema, orient="row")
        .join(counts, on="chunk_id", how="left")
        .join(chunks.select("chunk_id", "datadao", "user_id"), on="chunk_id", validate="1:1")
        .with_columns(n_koais=pl.col("n_koais").fill_null(0), extractor=pl.lit(model), program_version=pl.lit(version))
    )
    shows = pl.when(pl.col("n_koais") > 0).then(pl.lit("")).otherwise("reason")
    return KOAI_EXTRACTIONS.conform(listed.with_columns(reason=shows))


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
        fields = zip(kinds, statements, evidence, strict=True)
        # Checked when they were answered; masked again, a statement may be longer than an answer may be.
        koais = [KOAI.model_construct(kind=k, statement=s, evidence=e) for k, s, e in fields]
        for place, broken in zip(places, koai_violations(koais, chunk_words(speakers, turns)), strict=True):
            found[place] = [violation.number for violation in broken]
    return pl.Series(found, dtype=pl.List(pl.Int64))


def _withheld(chunks: pl.DataFrame) -> int:
    """Chunks without a statement although SUBJECT speaks of themselves: K9, which is of a chunk, not of a row."""
    words = (chunk_words(*texts) for texts in chunks.select("speakers", "turns").iter_rows())
    return sum(bool(withheld((), chunk)) for chunk in words)


def _figures(koais: pl.DataFrame, extractions: pl.DataFrame) -> dict[str, Any]:
    """Cost of all rows, KOAIs by kind, chunks without by reason, violations by constraint."""
    cost = extractions.select(name for name in COST if name != "attempts").sum().row(0, named=True)
    kinds = koais["kind"].value_counts().sort("kind")
    reasons = extractions.filter(pl.col("reason") != "")["reason"].value_counts().sort("reason")
    broken = count(koais["violations"].to_list(), {n: rule for n, rule in KOAI_RULES.items() if n != 9})
    return {
        **cost,
        "to_ask_again": sum(failure_counts(extractions["reason"], NOTHING_SHOWN).values()),
        "chunks_with_koais": koais["chunk_id"].n_unique(),
        **{f"chunks_{reason}": n for reason, n in reasons.iter_rows()},
        **{f"kind_{kind}": n for kind, n in kinds.iter_rows()},
        **{f"violations_K{number}": n for number, n in broken.items()},
    }
