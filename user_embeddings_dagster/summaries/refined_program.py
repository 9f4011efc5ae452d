"""The summarising program as an artifact: what it is refined on, the files that hold it, what they say of it.

program.json    the program, or the name of the extractive summariser. Refined instructions hold no identifier and no
                quotation of what the reflection model read, as `proposed_instructions` checks both
job.json        `metadata` and `data_version`, as of a training job
manifest.json   SHA-256 of both
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS, Estimate
from user_embeddings_dagster.evaluation.plots import grouped_bars
from user_embeddings_dagster.evaluation.splits import build_snapshot
from user_embeddings_dagster.keys import content_id, keyed_id
from user_embeddings_dagster.language_models.program import Program
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.quality.outcome import ERROR, CheckOutcome
from user_embeddings_dagster.storage.lake import Lake, sync, write_json
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import ModelFolder
from user_embeddings_dagster.summaries.adherence import Example
from user_embeddings_dagster.summaries.chunk_words import chunk_words
from user_embeddings_dagster.summaries.extractive import PROGRAM_VERSION, SUMMARISER
from user_embeddings_dagster.summaries.refinement import PROGRAM_FILE, Refinement
from user_embeddings_dagster.summaries.subject import chunk_inputs, summarise_subject

MIN_TRAINING = 2
DEVELOPMENT_SHARE = 3  # every third contributor


@dataclass(frozen=True)
class RefinementData:
    """Chunks of training users who consented to it, to refine on and to measure on; no user is in both.

    `subjects`: those users by DataDAO, as pseudonyms (privacy.lineage).
    """

    train: Sequence[Example]
    development: Sequence[Example]
    chunk_ids: Sequence[str]
    subjects: Mapping[str, Sequence[str]]

    @property
    def lacking(self) -> str | None:
        """Why these are too few to refine on; None if they are not."""
        owners = [len({example.owner for example in part}) for part in (self.train, self.development)]
        if not sum(owners):
            return "there are no masked chunks of training users yet"
        if owners[0] < MIN_TRAINING or owners[1] < MIN_USERS:
            return f"{sum(owners)} training users have chunks: at least {MIN_TRAINING + MIN_USERS} are needed"
        return None


def refinement_data(lake: Lake, key: bytes, examples: int, chunks_per_user: int) -> RefinementData:
    """Up to `examples` chunks of consenting users whose keyed hash says "train", `chunks_per_user` of each.

    Chunks with a message by a test user are left out, as in the training snapshot, which need not exist. Users come
    in the order of another keyed hash, so that the same data and settings give the same examples.
    """
    names = lake.partitions("masked_chunks")
    if not names:
        return RefinementData((), (), (), {})
    authors = pl.concat([lake.scan("messages", name).select("message_id", "author_id") for name in names])
    chunks = Consent.of_all(lake).chunks_of_splits(lake, key).chunks
    snapshot = build_snapshot(chunks, key=key, authors=authors, min_chunks_per_user=1, max_chunks_per_user=None)
    users = snapshot.snapshot.filter(split="train").sort("chunk_id").group_by("user_id", maintain_order=True)
    chosen = {user: ids[:chunks_per_user] for user, ids in users.agg("chunk_id").iter_rows()}
    n_users = -(-examples // chunks_per_user)
    order = sorted(chosen, key=lambda user: keyed_id(key, "summary_program", user))[:n_users]
    measured = set(order[: max(MIN_USERS, len(order) // DEVELOPMENT_SHARE)])
    ids = [chunk_id for user in order for chunk_id in chosen[user]]
    rows = pl.concat([part.filter(pl.col("chunk_id").is_in(ids)) for part in chunks])
    rows = rows.select("chunk_id", "user_id", "speakers", "turns").collect().unique("chunk_id").sort("chunk_id")
    found = [
        Example(chunk_inputs(speakers, turns), user, chunk_words(speakers, turns))
        for _, user, speakers, turns in rows.iter_rows()
    ]
    train = [example for example in found if example.owner not in measured]
    development = [example for example in found if example.owner in measured]
    subjects = subjects_of(key, snapshot.snapshot.filter(pl.col("chunk_id").is_in(ids)))
    return RefinementData(train, development, rows["chunk_id"].to_list(), subjects)


def hold_extractive(folder: ModelFolder) -> None:
    """Write that no model is configured: the extractive summariser is what summarises."""
    program = json.dumps({"name": SUMMARISER, "version": PROGRAM_VERSION}, indent=2) + "\n"
    reason = "no language model is configured"
    _write(folder, program, {"refined": False, "reason": reason, "program": SUMMARISER, "version": PROGRAM_VERSION})


def hold_shipped(folder: ModelFolder, model: str, reason: str) -> None:
    """Write the shipped program, and why it was not refined."""
    program = summarise_subject()
    _write(folder, program.to_json(), {"refined": False, "reason": reason, **_versions(program, model)})


def hold_refined(folder: ModelFolder, model: str, result: Refinement) -> None:
    """Write the program to use after a refinement, with the figures of both."""
    metadata = {"refined": result.adopted, "reason": result.reason, **_versions(result.program, model)}
    _write(folder, result.program.to_json(), metadata | _figures(result))


def violations_plot(metadata: Mapping[str, Any]) -> bytes | None:
    """PNG of how many development summaries violate each constraint, before and after; None unmeasured."""
    before, after = metadata.get("violations_before"), metadata.get("violations_after")
    if not before or not after:
        return None
    rows = [
        {"model": model, "constraint": rule, "metric": "violations", "value": float(count)}
        for model, counts in (("before refinement", before), ("refined", after))
        for rule, count in counts.items()
    ]
    frame = pl.DataFrame(rows).with_columns(
        slice=pl.lit("all"), ci_low=pl.lit(None, pl.Float64), ci_high=pl.lit(None, pl.Float64), n_users=None
    )
    return grouped_bars(frame, metric="violations", by="constraint", title="Development summaries by violated rule")


def not_worse_than_shipped(metadata: Mapping[str, Any]) -> CheckOutcome:
    """The program to use is the shipped one, or better on the development users by its paired interval."""
    names = ("score_before", "score_after", "difference", "difference_low")
    metrics = {name: metadata[name] for name in names if metadata.get(name) is not None}
    passed = not metadata["refined"] or metrics.get("difference_low", 0.0) > 0
    return CheckOutcome("not_worse_than_shipped", passed, ERROR, metrics)


def _versions(program: Program, model: str) -> dict[str, str]:
    shipped = summarise_subject().version
    return {"program": program.name, "version": program.version, "shipped_version": shipped, "model": model}


def _figures(result: Refinement) -> dict[str, Any]:
    found, usage = result.search, result.usage
    return {
        **_estimate("score_before", result.before),
        **_estimate("score_after", result.after),
        **_estimate("difference", result.difference),
        "development_chunks": result.before.n,
        "development_users": result.before.n_users,
        "adopted": result.adopted,
        "stopped_by": result.stopped_by,
        "cut_short": result.cut_short,
        "proposals": found.proposed,
        "candidates": found.candidates,
        **{f"proposals_{why}": n for why, n in sorted(found.thrown_away.items())},
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "usd": usage.usd,
        "violations_before": {f"S{number}": n for number, n in result.violations_before.items()},
        "violations_after": {f"S{number}": n for number, n in result.violations_after.items()},
    }


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    """What is known of it, under names that metadata shows: no value, no entry."""
    parts = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: value for key, value in parts.items() if value is not None}


def _write(folder: ModelFolder, program: str, metadata: Mapping[str, Any]) -> None:
    """The output folder, whole or absent."""
    work = folder.output.with_name(f"{folder.output.name}.work")
    for leftover in (work, folder.output):
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir(parents=True)
    (work / PROGRAM_FILE).write_text(program, encoding="utf-8")
    write_json(work / "job.json", {"metadata": metadata, "data_version": content_id(program)})
    finalise(work)
    work.replace(folder.output)
    sync(folder.root)
