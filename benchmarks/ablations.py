"""What each part of the encoders is worth: variants trained on an existing data root, compared pairwise.

    python -m benchmarks.ablations --data DIR [--only item|sequence] [--test]

Every variant is trained by the job's own entry point with its `config.json` (or its negatives) changed, then scored
beside the default on the same queries: value, and paired difference to the default with its 95% interval over users.
Validation users are scored; they also stopped the trainings early, so all values are a little flattered, all alike.
`--test` scores the test users instead: once, for a record, never to choose. "another seed" is the noise floor.

Random initial weights: of the sequence encoder, a training of no steps; because it starts at the pooled history (see
`training.sequence_model`), also without that. Of the item encoder there is no such
ablation: its targets are vectors of the same frozen base, which a random base could only learn to imitate; its own
zero is "untuned", the LoRA's initial weights.

A variant whose training fails, or whose settings the encoder does not have, gets a line that says so. Nothing below
the data root is written; trainings are kept in `--work`, where a second run finds them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assets.encoders import ItemEncoderConfig, SequenceEncoderConfig
from assets.partitions import SERVED_DIMENSION
from resources.text_encoder import TextEncoderResource
from user_embeddings_dagster.evaluation.baselines import baselines, user_pools
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.measure import IN_CONTEXT, REFERENCE, SequenceModel
from user_embeddings_dagster.evaluation.suites import ItemModel, item_encoder_scores, sequence_encoder_scores
from user_embeddings_dagster.evaluation.user_suites import temporal_halves, user_matching_scores, user_models
from user_embeddings_dagster.mining.pairs import sequences, training_pairs, with_negatives
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked
from user_embeddings_dagster.storage.models import ModelFolder

DEFAULT = "default"
# Settings by variant, as they stand in config.json; "*negatives" is a kind of `negatives_of_kind` instead, "*pairs"
# says where positives come from, "*contexts" False leaves the contexts out of the sequences. Several seeds of each kind
# of positives and negatives are compared by the asset negative_ablation_scores.
ITEM: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "another seed": {"seed": 1},
    "no hard negatives": {"negatives": 0},
    "random negatives": {"*negatives": "random"},
    "negatives of the same window": {"*negatives": "window"},
    "relabelled pairs": {"*pairs": "relabelled"},
    "LoRA in the top three layers": {"top_layers": 3},
}
SEQUENCE: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "another seed": {"seed": 1},
    "random initial weights, without the pooled history": {"steps": 0, "pooled": False},
    "initial weights": {"steps": 0},
    "without the pooled history": {"pooled": False},
    "without contexts": {"*contexts": False},
    "attention over a window": {"mixer": "attention"},
    "attention over everything": {"mixer": "attention", "window": 256},
    "plain InfoNCE": {"truncation": 0.0},
    "gated recurrence": {"mixer": "recurrence"},
    "no projector": {"projector": False},
    "no time features": {"time_features": False},
    "same-user negatives: none": {"same_user_negatives": "none"},
    "same-user negatives: future": {"same_user_negatives": "future"},
    "same-user negatives: all": {"same_user_negatives": "all"},
    "negatives of every DataDAO": {"negatives_across_datadaos": True},
    "no negatives of the same time": {"matched_share": 0.0},
    "half the loss on negatives of the same time": {"matched_share": 0.5},
}
# (suite, slice, metric) of each column of the two tables.
ITEM_COLUMNS = (("items", "all", "recall@1"), ("items", "all", "mrr"), ("items", "same_window", "recall@1"))
SEQUENCE_COLUMNS = (
    ("next_chunk", "all", "mrr"),
    ("next_chunk", "±30d", "mrr"),
    ("next_chunk", "gap>7d ±30d", "mrr"),
    ("same_user", "all", "recall@1"),
    ("same_user", "all", "mrr"),
)
REFERENCES = ("untuned", REFERENCE, IN_CONTEXT, "whitened_mean")
NEGATIVES_PER_CHUNK = 4


def main() -> int:
    """Train, score, print; returns 1 if a variant failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data root of a finished lineage (only read)")
    parser.add_argument("--only", choices=("item", "sequence"), help="one of the two encoders")
    parser.add_argument("--test", action="store_true", help="score test users: once, for a record")
    parser.add_argument("--dimension", type=int, default=int(SERVED_DIMENSION), help="of the user state")
    parser.add_argument("--steps", type=int, help="of every training, in place of the default's")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--work", type=Path, help="folder of the trainings (a temporary one, removed at the end)")
    arguments = parser.parse_args()
    split = "test" if arguments.test else "valid"
    layout, failures = Layout(arguments.data), 0
    lake, lance = Lake(layout.root), LanceTables(layout.lancedb)
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        if arguments.only in (None, "item"):
            notes, scores = item_ablations(lake, lance, work, steps, split, arguments.seed)
            failures += report("Item encoder", ITEM, ITEM_COLUMNS, notes, scores, split)
        if arguments.only in (None, "sequence"):
            base = {**steps, "dimension": arguments.dimension}
            notes, scores = sequence_ablations(lake, lance, work, base, split, arguments.seed)
            failures += report(
                f"Sequence encoder {arguments.dimension}", SEQUENCE, SEQUENCE_COLUMNS, notes, scores, split
            )
    return 1 if failures else 0


def item_ablations(
    lake: Lake, lance: LanceTables, work: Path, base: Mapping[str, Any], split: str, seed: int
) -> tuple[dict[str, str], dict[str, pl.DataFrame]]:
    """What went wrong by variant, and the scores by suite."""
    encoder = TextEncoderResource()
    snapshot = consented_snapshot(lake)
    pairs = training_pairs(snapshot, lake, lance)
    mined = with_negatives(pairs, lake.read("hard_negatives"))
    configured = ItemEncoderConfig().model_dump(exclude={"pairs"})
    settings = {**configured, "base": encoder.base, "max_tokens": encoder.max_tokens, **base}
    asked = pairs.filter(pl.col("window_id").is_in(pairs.filter(split=split)["window_id"].unique().to_list()))
    texts, summaries = asked["text"].to_list(), stacked(asked["summary_vector"])
    models = {"untuned": ItemModel(stacked(asked["chunk_vector"]), summaries, "base")}
    notes: dict[str, str] = {}

    def tables(changed: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
        if changed.get("*pairs"):
            return {"pairs": with_negatives(pairs, lake.read("hard_negatives"), lake.read("relabelled_pairs"))}
        kind = changed.get("*negatives")
        return {"pairs": mined if kind is None else negatives_of_kind(mined, kind, settings["seed"])}

    variants = ITEM
    if lake.current("relabelled_pairs") is None:
        absent = [name for name, changed in ITEM.items() if "*pairs" in changed]
        notes |= dict.fromkeys(absent, "relabelled_pairs has not been materialised")
        variants = {name: changed for name, changed in ITEM.items() if name not in absent}
    for name, output in trained("item_encoder", work, settings, variants, tables, notes):
        models[name] = ItemModel(encoder.load(output).encode(texts), summaries, name)
    scope = EvaluationInputs(snapshot, pairs["chunk_id"], np.zeros((0, 0)), seed).scope("ablations")
    return notes, {"items": item_encoder_scores(scope, asked, models, base=DEFAULT, split=split)}


def sequence_ablations(
    lake: Lake, lance: LanceTables, work: Path, base: Mapping[str, Any], split: str, seed: int
) -> tuple[dict[str, str], dict[str, pl.DataFrame]]:
    """What went wrong by variant, and the scores by suite."""
    from training.sequence_inference import SequenceEncoder

    inputs = EvaluationInputs.of_users(lake, lance, seed)
    fitted, histories = inputs.fitted(), inputs.histories(split)
    halves = temporal_halves(histories)
    table = sequences(inputs.snapshot, lance)
    settings = {**SequenceEncoderConfig().model_dump(), **base}
    functions = baselines(fitted, seed)
    predictions = {name: functions[name](histories) for name in (REFERENCE, IN_CONTEXT)}
    users = user_models(halves, {"whitened_mean": user_pools(fitted.statistics)["whitened_mean"]})
    notes: dict[str, str] = {}

    def tables(changed: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
        return {"sequences": table if changed.get("*contexts", True) else table.drop("context")}

    for name, output in trained("sequence_encoder", work, settings, SEQUENCE, tables, notes):
        model = SequenceModel(SequenceEncoder.load(output))
        predictions[name] = model(histories)
        users |= user_models(halves, {name: model.states}, name)
    scope = inputs.scope("ablations")
    return notes, {
        "next_chunk": sequence_encoder_scores(scope, histories, predictions, references=[DEFAULT]),
        "same_user": user_matching_scores(scope, halves, users, reference=DEFAULT),
    }


def trained(
    job: str,
    work: Path,
    settings: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    tables: Any,
    notes: dict[str, str],
) -> Iterator[tuple[str, Path]]:
    """Variants with their output folders, one training after another; what gives none is put into `notes`.

    Only the default's failure ends it, with RuntimeError: there is nothing to compare with.
    """
    known: Mapping[str, Any] = {}
    for name, changed in variants.items():
        own = {key: value for key, value in changed.items() if not key.startswith("*")}
        if known and (missing := sorted(own.keys() - known.keys())):
            notes[name] = f"the encoder has no setting {', '.join(missing)}"
            continue
        if (
            name != DEFAULT
            and len(own) == len(changed)
            and all(settings.get(k, known.get(k)) == v for k, v in own.items())
        ):
            notes[name] = "is the default"
            continue
        folder = ModelFolder(work / job / "".join(c if c.isalnum() else "_" for c in name))
        if not finished(job, folder, {**settings, **own}, notes, name, **tables(changed)):
            if name == DEFAULT:
                raise RuntimeError(f"training.{job}: the default's training failed")
            continue
        if name == DEFAULT:
            known = json.loads((folder.output / "encoder.json").read_bytes()).get("settings", {})
        yield name, folder.output


def finished(
    job: str, folder: ModelFolder, settings: dict[str, Any], notes: dict[str, str], name: str, **tables: pl.DataFrame
) -> bool:
    """Run the job's entry point in a process of its own; whether it ended well, and what is wrong in `notes`."""
    print(f"{job}: {name}", file=sys.stderr, flush=True)
    folder.write_inputs(settings, **tables)
    command = [sys.executable, "-P", "-m", f"training.{job}", "--inputs", folder.inputs, "--output", folder.output]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    complete = done.returncode == 0 and folder.complete
    folder.remove_leftovers()
    if not complete:
        notes[name] = f"{job} failed with exit status {done.returncode}"
        print(done.stderr[-2_000:], file=sys.stderr)
    return complete


def negatives_of_kind(pairs: pl.DataFrame, kind: str, seed: int) -> pl.DataFrame:
    """`pairs` with up to `NEGATIVES_PER_CHUNK` other negatives for each training chunk.

    `random`: training chunks of other windows, drawn uniformly; `window`: those of other people in the same window.
    """
    train = pairs.filter(split="train").select("chunk_id", "window_id", "user_id")
    other = {"chunk_id": "negative", "window_id": "its_window", "user_id": "its_user"}
    if kind == "random":
        rows = np.random.default_rng(seed).integers(train.height, size=(train.height, NEGATIVES_PER_CHUNK))
        drawn = train.with_columns(row=pl.Series(rows)).with_columns(pl.col("row").arr.to_list()).explode("row")
        found = drawn.join(train.rename(other).with_row_index("row").cast({"row": pl.Int64}), on="row")
        found = found.filter(pl.col("window_id") != pl.col("its_window"))
    elif kind == "window":
        found = train.join(train.rename(other).with_columns(window_id="its_window"), on="window_id")
        found = found.filter(pl.col("user_id") != pl.col("its_user"))
    else:
        raise ValueError(f"unknown kind of negatives: {kind}")
    chosen = found.sort("chunk_id", "negative").group_by("chunk_id", maintain_order=True)
    lists = chosen.agg(pl.col("negative").unique(maintain_order=True).head(NEGATIVES_PER_CHUNK).alias("negatives"))
    return pairs.drop("negatives").join(lists, on="chunk_id", how="left").with_columns(
        pl.col("negatives").fill_null([])
    ).sort("chunk_id")  # fmt: skip


def report(
    title: str,
    variants: Mapping[str, Mapping[str, Any]],
    columns: tuple[tuple[str, str, str], ...],
    notes: Mapping[str, str],
    scores: Mapping[str, pl.DataFrame],
    split: str,
) -> int:
    """Print the table; returns how many trainings failed."""
    sizes = {suite: frame.filter(slice="all")["n_users"].max() for suite, frame in scores.items()}
    people = ", ".join(f"{suite}: {n} users" for suite, n in sizes.items())
    print(f"\n## {title}, {split} users ({people})\n")
    print("| variant | " + " | ".join(f"{suite} {slice_} {metric}" for suite, slice_, metric in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in (*REFERENCES, *variants):
        cells = [_cell(scores[suite], name, slice_, metric) for suite, slice_, metric in columns]
        if name in notes:
            print(f"| {name} | {notes[name]} |" + " |" * (len(columns) - 1))
        elif any(cells):
            print(f"| {name} | " + " | ".join(cells) + " |")
    return sum(" failed with " in note for note in notes.values())


def _cell(scores: pl.DataFrame, model: str, slice_: str, metric: str) -> str:
    """Value and paired difference to the default, with its interval."""
    rows = scores.filter(model=model, slice=slice_, metric=metric).drop_nulls("value")
    if rows.is_empty():
        return ""
    pair = scores.filter(model=f"{model} - {DEFAULT}", slice=slice_, metric=f"{metric}_difference").drop_nulls("ci_low")
    text = f"{rows['value'].item():.3f}"
    for row in pair.iter_rows(named=True):
        text += f" ({row['value']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}])"
    return text


if __name__ == "__main__":
    sys.exit(main())
