"""The whole graph on what is below ROOT/data/landing, in a process of its own that writes below ROOT alone.

python -P -m benchmarks.leaks.lineage ROOT extractive|echo|obey [--unmasked] [--prepare-only] [--jobs]
"""

import argparse
import json
import os
import subprocess
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.small_settings import PERSONALISED

# Variable: folder below ROOT. What a library writes somewhere else by default lands here.
PLACES = {"HOME": "home", "TMPDIR": "tmp", "DAGSTER_HOME": "dagster", "DSPY_CACHEDIR": "home/dspy"} | {
    f"XDG_{kind}_HOME": f"home/xdg/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA", "STATE")
}
TINY: dict[str, dict[str, object]] = {
    "training_snapshot": {"min_chunks_per_user": 1},
    "item_encoder": {"steps": 2, "batch_size": 8},
    "sequence_encoder": {"steps": 4},
    **PERSONALISED,
    "summary_program": {"max_calls": 150, "examples": 12, "chunks_per_user": 1},
}
WITH_MODEL: dict[str, dict[str, object]] = {
    "relabelled_pairs": {"ranker": "language_model", "candidates": 6, "negative_rank": 6},
    "item_encoder": {"steps": 2, "batch_size": 8, "pairs": "relabelled"},
    "chunk_summaries": {"max_failed_share": 1.0},
    "koais": {"max_failed_share": 1.0},
}


def run(root: Path, mode: str, *options: str) -> list[str]:
    """The graph in a process of its own; the jobs that failed. Raises RuntimeError if it did not come to its end."""
    for place in PLACES.values():
        (root / place).mkdir(parents=True, exist_ok=True)
    environment = os.environ | {name: str(root / place) for name, place in PLACES.items()}
    environment |= {"USER_EMBEDDINGS_DATA": str(root / "data"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-P", "-m", "benchmarks.leaks.lineage", str(root), mode, *options]
    output = root / "output"
    output.mkdir(exist_ok=True)
    with (output / f"{mode}.txt").open("ab") as said:
        done = subprocess.run(command, env=environment, cwd=root, stdout=said, stderr=said)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mode} run ended with {done.returncode}, see {output}")
    return [line for line in (output / f"{mode}.txt").read_text().splitlines() if line.startswith("FAIL ")]


def main() -> int:
    """Run it; returns 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("mode", choices=("extractive", "echo", "obey"))
    parser.add_argument("--unmasked", action="store_true", help="masking off: the control that must leak")
    parser.add_argument("--prepare-only", action="store_true", help="no training")
    parser.add_argument("--compute-logs", action="store_true", help="one job more, with captured output")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.mode != "extractive":
            _ask(stack, options.root, options.mode)
        return _run(options)


def _ask(stack: ExitStack, root: Path, mode: str) -> None:
    from benchmarks.leaks.echo_server import MODEL, EchoServer

    server = stack.enter_context(EchoServer(root / "prompts", mode))
    settings = {"KIND": "openai_compatible", "NAME": f"{MODEL}", "BASE_URL": server.url, "CONCURRENCY": "8",
                "EXTRA": json.dumps({"mode": mode})}  # fmt: skip
    os.environ |= {f"USER_EMBEDDINGS_LANGUAGE_MODEL_{name}": value for name, value in settings.items()}


def _run(options: argparse.Namespace) -> int:
    if options.unmasked:
        unmask()
    from user_embeddings_dagster import runner
    from user_embeddings_dagster.settings import Layout, data_root

    layout, home = Layout(data_root()), Path(os.environ["DAGSTER_HOME"])
    ops = TINY | (WITH_MODEL if options.mode != "extractive" else {})
    with runner.open_instance(home) as instance:
        if options.prepare_only:
            runs = _prepared(instance, layout, ops)
        else:
            runs = [(run.job, run.partition, run.success, run.seconds)
                    for run in runner.run_lineage(instance, layout, ["1024"], ops, print)]  # fmt: skip
    for job, partition, success, seconds in runs:
        print(f"{'ok  ' if success else 'FAIL'} {seconds:6.1f} s {job} {partition or ''}")
    if options.compute_logs:
        _captured(layout)
    return 0 if runs and all(success for _, _, success, _ in runs) else 1


def _prepared(
    instance: Any, layout: Any, ops_of: dict[str, dict[str, object]]
) -> list[tuple[str, str | None, bool, float]]:
    """Raw exports to summaries and KOAIs, for every DataDAO, without vectors."""
    import dagster as dg

    from user_embeddings_dagster.definitions import defs
    from user_embeddings_dagster.runner import register_drops

    runs: list[tuple[str, str | None, bool, float]] = []

    def execute(job: str, partition: str | None, assets: list[str] | None = None) -> None:
        definition = defs.resolve_job_def(job)
        nodes = {node.name for node in definition.all_node_defs} & {*(assets or TINY)}
        ops = {name: {"config": ops_of[name]} for name in nodes & ops_of.keys()}
        selection = [dg.AssetKey(name) for name in assets] if assets else None
        result = definition.execute_in_process(
            instance=instance, partition_key=partition, asset_selection=selection, raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "INFO"}}}, "ops": ops},
        )  # fmt: skip
        runs.append((job, partition, result.success, 0.0))

    names = register_drops(instance, layout)
    for name in names:
        execute("mask_datadao", name)
    execute("refine_summary_program", None)
    for name in names:
        execute("summarise_datadao", name, ["chunk_summaries", "koais"])
    return runs


def _captured(layout: Any) -> None:
    """One partition once more, in processes of its own: Dagster keeps what they print in compute logs."""
    from user_embeddings_dagster.exports.landing import scan

    drops, *_ = scan(layout.landing)
    name = drops[-1].datadao
    tags = json.dumps({"dagster/partition": name})
    dagster = Path(sys.executable).with_name("dagster")
    command = [
        dagster,
        "job",
        "execute",
        "-m",
        "user_embeddings_dagster.definitions",
        "-j",
        "mask_datadao",
        "--tags",
        tags,
    ]
    subprocess.run([str(part) for part in command], check=True)


def unmask() -> None:
    """Masking off, for the control: texts go through as they are, and nobody looks at what is left."""
    from user_embeddings_dagster.conversations import chunks
    from user_embeddings_dagster.privacy.masking import MaskedTexts

    chunks.mask_messages = lambda messages, *_, **__: MaskedTexts(messages["text"], {}, {})
    chunks.check_residual_names = lambda *_: None


if __name__ == "__main__":
    try:
        status = main()
    except Exception:  # noqa: BLE001 said, and then the same exit
        traceback.print_exc()
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without the shutdown in which DuckDB's bindings report leaks for every type they have
