"""What each way of personalising a decoder is worth: variants trained on an existing data root, compared pairwise.

    python -m benchmarks.preset_ablations --data DIR [--steps 48] [--max-tasks N] [--max-asked N] [--only NAME ...]

Every variant is the supervised stage with its `config.json` changed, by the job's own entry point, on the root's tasks,
histories, decoder and sequence encoder; it then answers the choices of test users. In brackets the paired difference
to the default, or to other users' embeddings, with its 95% interval over users. "random encoder" reads the states of a
sequence encoder of no training step that does not start at the pooled history.

Nothing below the data root is written; trainings are kept in `--work`, where a second run finds them.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from assets.encoders import SequenceEncoderConfig
from assets.partitions import SERVED_DIMENSION
from assets.personalised_decoder import SUPERVISED, SupervisedDecoderConfig, training_tasks
from benchmarks.ablations import DEFAULT, finished
from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_means, paired_difference
from user_embeddings_dagster.mining.pairs import sequences
from user_embeddings_dagster.model_export.export import decoder_folder
from user_embeddings_dagster.personalisation.inputs import consented_tasks
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import ModelFolder, Models

RANDOM = "random encoder"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "another seed": {"seed": 1},
    "no discriminant": {"discriminant": False},
    RANDOM: {},
    "soft prompt": {"injection": "soft_prompt"},
    "proj": {"preset": "proj"},
    "enc": {"preset": "enc"},
    "lora": {"preset": "lora"},
    "full": {"preset": "full"},
}
SETTINGS = SupervisedDecoderConfig().model_dump(exclude={"kept_only", "max_tasks"})
UNTRAINED = {"dimension": int(SERVED_DIMENSION), "steps": 0, "pooled": False}


class Root:
    """What the jobs read of a data root, `most` training tasks and `most_asked` choices of it (random ones)."""

    def __init__(self, data: Path, most: int, most_asked: int) -> None:
        layout = Layout(data)
        lake, lance, models = Lake(layout.root), LanceTables(layout.lancedb), Models(layout.models)
        snapshot = consented_snapshot(lake)
        seen = snapshot.filter(pl.col("split") != "test")
        self.tasks = training_tasks(lake, seen, kept_only=False, most=most)
        asked = consented_tasks(lake, snapshot, "test").filter(pl.col("answer") >= 0).sort("task_id")
        self.asked = asked.sample(min(most_asked, asked.height), seed=0).sort("task_id")
        self.histories, self.held_out = sequences(seen, lance), sequences(snapshot, lance, ("test",))
        self.decoder = str(decoder_folder(models))
        self.encoder = str(models.current(f"sequence_encoder/{SERVED_DIMENSION}").output)


@dataclass(frozen=True)
class Trained:
    """A variant: how many weights it trained, and by task and condition the share of right answers."""

    weights: int
    answers: pl.DataFrame

    def right(self, tasks: pl.DataFrame, condition: str) -> pl.Series:
        """In the order of `tasks`."""
        rows = self.answers.filter(condition=condition).select("task_id", "score")
        return tasks.join(rows, on="task_id", how="left", maintain_order="left")["score"]


def main() -> int:
    """Train, answer, print; returns 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data root of a finished lineage (only read)")
    parser.add_argument("--steps", type=int, help="of every training, in place of the default's")
    parser.add_argument("--max-tasks", type=int, default=20_000, help="training tasks")
    parser.add_argument("--max-asked", type=int, default=20_000, help="choices of test users")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="variants, besides the default")
    parser.add_argument("--work", type=Path, help="folder of the trainings (a temporary one, removed at the end)")
    arguments = parser.parse_args()
    root, notes = Root(arguments.data, arguments.max_tasks, arguments.max_asked), {}
    settings = SETTINGS if arguments.steps is None else SETTINGS | {"steps": arguments.steps}
    found: dict[str, Trained] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        for name, changed in VARIANTS.items():
            if arguments.only is None or name in (DEFAULT, *arguments.only):
                trained = answered(root, work, name, settings | changed, notes)
                found |= {name: trained} if trained else {}
    if DEFAULT not in found:
        raise RuntimeError(f"nothing to compare with: {notes[DEFAULT]}")
    report(root.asked, found, notes)
    return 1 if notes else 0


def answered(root: Root, work: Path, name: str, settings: dict[str, Any], notes: dict[str, str]) -> Trained | None:
    """Train a variant and have it answer test users' choices; None, and a note, if a job failed."""
    encoder = root.encoder
    folder = work / "".join(c if c.isalnum() else "_" for c in name)
    states, model, asked = (ModelFolder(folder / part) for part in ("encoder", "model", "answers"))
    if name == RANDOM:
        untrained = SequenceEncoderConfig().model_dump() | UNTRAINED
        if not finished("sequence_encoder", states, untrained, notes, name, sequences=root.histories):
            return None
        encoder = str(states.output)
    read = {"decoder": root.decoder, "sequence_encoder": encoder}
    tables = {"tasks": root.tasks, "sequences": root.histories}
    if not finished(SUPERVISED, model, {**settings, **read}, notes, name, **tables):
        return None
    tables = {"tasks": root.asked, "sequences": root.held_out, "texts": pl.DataFrame(schema=["chunk_id", "text"])}
    answering = {"personalised": str(model.output), "supervised": str(model.output), "seed": 0}
    answering |= {"text_tasks": 0, "stuffed_tasks": 0, **read}
    if not finished("personalised_answers", asked, answering, notes, name, **tables):
        return None
    weights = model.record()["metadata"]["trained_weights"]
    return Trained(weights, pl.read_parquet(asked.output / "choices.parquet"))


def report(asked: pl.DataFrame, found: dict[str, Trained], notes: dict[str, str]) -> None:
    """Print the table."""
    every = asked.select("task_id", "kind", user=pl.concat_str("datadao", "user_id", separator="/"))
    tables = (every.filter(kind=CONTRIBUTION), every)
    print(f"\n{tables[0].height} and {every.height} choices of {every['user'].n_unique()} held-out people\n")
    print("| variant | trained weights | what SUBJECT writes next | over others' embeddings | all choices |")
    print("|---" * 5 + "|")
    nobody = " | ".join(_cell(tasks, found[DEFAULT], "nobody") for tasks in tables)
    print(f"| nobody | 0 | {nobody.replace(' | ', ' | | ')} |")
    for name, trained in found.items():
        default = None if name == DEFAULT else found[DEFAULT]
        next_, all_ = (_cell(tasks, trained, "user_embedding", default) for tasks in tables)
        over = _difference(tables[0], (trained, "user_embedding"), (trained, "other_user"))
        print(f"| {name} | {trained.weights:,} | {next_} | {over} | {all_} |")
    for name, note in notes.items():
        print(f"| {name} | {note} | | | |")


def _cell(tasks: pl.DataFrame, trained: Trained, condition: str, default: Trained | None = None) -> str:
    (value,) = bootstrap_means(trained.right(tasks, condition).to_numpy()[:, None], tasks["user"].to_numpy(), seed=0)
    text = f"{value.value:.3f} {_interval(value)}"
    return text if default is None else f"{text} ({_difference(tasks, (trained, condition), (default, condition))})"


def _difference(tasks: pl.DataFrame, one: tuple[Trained, str], other: tuple[Trained, str]) -> str:
    a, b = (trained.right(tasks, condition).to_numpy()[:, None] for trained, condition in (one, other))
    (value,) = paired_difference(a, b, tasks["user"].to_numpy(), seed=0)
    return f"{value.value:+.3f} {_interval(value, '+')}"


def _interval(value: Estimate, sign: str = "") -> str:
    return "" if value.low is None or value.high is None else f"[{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


if __name__ == "__main__":
    sys.exit(main())
