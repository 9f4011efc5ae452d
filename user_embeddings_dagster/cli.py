"""Command line: `user-embeddings demo | real | samples | scores | trace | consent | erase | purge | access | seal |
backup | restore | export-model | seal-model | dev`."""

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from user_embeddings_dagster import purging, run_settings, unwritable
from user_embeddings_dagster.quality.escaping import line
from user_embeddings_dagster.settings import PREFIX, Layout, check_settings, data_root, prepare_environment
from user_embeddings_dagster.storage.durability import Damaged, keep_alone, make_folder
from user_embeddings_dagster.storage.manifest import CorruptArtifact, finalise, refuse_code

NEW_ROOT = ("demo", "samples", "real", "dev", "restore", "seal-model")  # begin one, or need none


def run() -> None:
    """Entry point of the console script.

    LanceDB's background thread outlives the interpreter's shutdown and makes DuckDB's bindings report leaks for
    every type they have; leaving without that shutdown, with everything closed and flushed, keeps stderr readable.
    """
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run the command; returns the exit status."""
    prepare_environment()
    from user_embeddings_dagster.exports import cli as exports_cli
    from user_embeddings_dagster.model_export import cli as model_export_cli
    from user_embeddings_dagster.privacy.access import cli as access_cli
    from user_embeddings_dagster.privacy.backup import cli as backup_cli
    from user_embeddings_dagster.privacy.consent import cli as consent_cli
    from user_embeddings_dagster.storage.score_table import ScoreTableBusy

    parser = argparse.ArgumentParser(prog="user-embeddings", description=__doc__)
    parser.add_argument("--data", type=Path, help=f"data root (default: {PREFIX}DATA or ./data)")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="sample exports through the whole graph, then a table of results")
    samples = commands.add_parser("samples", help="write sample exports into the landing folder")
    for generating in (demo, samples):
        generating.add_argument("--seed", type=int, default=7)
        generating.add_argument("--contributors", type=int, default=128)
    real = exports_cli.add_parser(commands)
    for running, usual in ((demo, {}), (real, run_settings.REAL)):
        running.add_argument(
            "--dimensions", type=run_settings.dimension, nargs="+", default=run_settings.DIMENSIONS,
            help="of the user state",
        )  # fmt: skip
        running.add_argument(
            "--config", type=run_settings.of_file, default=usual, metavar="FILE",
            help='JSON, settings by "asset" or "asset:partition", in place of the default ones',
        )  # fmt: skip

    scoring = commands.add_parser("scores", help="print the scores table")
    scoring.add_argument("--csv", action="store_true", help="as CSV")
    trace = commands.add_parser("trace", help="where one raw record went: its message, its chunks, the scores")
    trace.add_argument("datadao")
    trace.add_argument("sha256", help="of the raw file (column raw_sha256)")
    trace.add_argument("location", type=int, help="line or index in the file (column raw_location)")
    trace.add_argument("--member", default="", help="archive member")
    consent_cli.add_parser(commands)
    erasing = commands.add_parser("erase", help="erase a contributor from everything, and scan for what is left")
    person = erasing.add_mutually_exclusive_group(required=True)
    person.add_argument("user_id", nargs="?", help="as the tables have it")
    person.add_argument("--account", help="PLATFORM:NAME, e.g. reddit:somebody or telegram:user123456789")
    person.add_argument("--resume", action="store_true", help="finish the erasures that were killed half way")
    for removing in (erasing, purging.add_parser(commands)):
        removing.add_argument("--force", action="store_true", help="also while runs of the platform are under way")
    access_cli.add_parser(commands)
    backup_cli.add_parsers(commands)
    model_export_cli.add_parser(commands)
    sealing = commands.add_parser("seal-model", help="write the manifest by which a model's folder is checked from now")
    sealing.add_argument("folder", type=Path)
    dev = commands.add_parser("dev", help="open the Dagster UI on the same data")
    dev.add_argument("--port", type=int, default=3000)

    options = parser.parse_args(arguments)
    if options.data:
        os.environ[f"{PREFIX}DATA"] = str(options.data.absolute())
    layout = Layout(data_root())
    try:
        check_settings()  # a run would tell of them after minutes, or at its end
        purging.check_setting()
        if layout.root.exists() and not layout.root.is_dir():
            raise ValueError(f"{layout.root}: a data root is a folder")
        if options.command not in NEW_ROOT:
            layout.check()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    handlers = {
        "demo": _demo,
        "samples": _samples,
        "real": _real,
        "scores": _scores,
        "trace": _trace,
        "consent": consent_cli.run,
        "erase": _erase,
        "purge": _purge,
        "access": access_cli.run,
        "seal": backup_cli.run,
        "backup": backup_cli.run,
        "restore": backup_cli.run,
        "export-model": model_export_cli.run,
        "seal-model": _seal_model,
        "dev": _dev,
    }
    try:
        return handlers[options.command](options, layout)
    except (CorruptArtifact, Damaged, ScoreTableBusy) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        if (told := unwritable.as_line(error, layout.root)) is None:
            raise
        print(line(told), file=sys.stderr)
        return 2


def _samples(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.samples import generate

    try:
        manifest = generate(layout.landing, options.seed, options.contributors)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    messages = ", ".join(f"{name} {count:,}" for name, count in manifest.messages.items())
    _say(f"sample exports of {manifest.people} people in {layout.landing}: {messages} messages")
    return 0


def _demo(options: argparse.Namespace, layout: Layout) -> int:
    return _samples(options, layout) or _run(layout, options.dimensions, options.config)


def _real(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.exports import cli as exports_cli

    return exports_cli.link_exports(options, layout, _say) or _run(layout, options.dimensions, options.config)


def _run(layout: Layout, dimensions, ops) -> int:
    from assets.partitions import SERVED_DIMENSION
    from user_embeddings_dagster.evaluation.report import results_table
    from user_embeddings_dagster.runner import open_instance, run_lineage
    from user_embeddings_dagster.storage.inventory import inventory
    from user_embeddings_dagster.storage.score_table import ScoreTable

    if SERVED_DIMENSION not in dimensions:
        _say(f"dimension {SERVED_DIMENSION} is trained too: its states are the user embeddings")
        dimensions = [*dimensions, SERVED_DIMENSION]
    started, before = time.monotonic(), inventory(layout)
    with open_instance(layout.root / "dagster_home") as instance:
        runs = run_lineage(instance, layout, dimensions, ops, _say)
    print(results_table(ScoreTable(layout.scores).read()))
    for run in runs:
        print(f"{'ok  ' if run.success else 'FAIL'} {run.seconds:7.1f} s  {run.job} {run.partition or ''}")
    changed = [name for name, stored in inventory(layout).items() if before.get(name) != stored]
    failed = sum(not run.success for run in runs)
    print(
        f"{len(runs)} runs in {time.monotonic() - started:.0f} s, {failed} failed;"
        f" {len(changed)} tables and models changed{': ' if 0 < len(changed) <= 5 else ''}"
        + ", ".join(changed if len(changed) <= 5 else [])
    )
    print(f"data: {layout.root}")
    print(f"Next: {_opens(layout)} opens the Dagster UI on this data (lineage, checks, plots).")
    return 1 if failed or not runs else 0


def _opens(layout: Layout) -> str:
    """The command that opens the Dagster UI on this data root: `make dev` knows of ./data alone."""
    default = Path("data").absolute()
    return "`make dev`" if layout.root == default else f"`user-embeddings --data {shlex.quote(str(layout.root))} dev`"


def _scores(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.evaluation.report import as_csv, results_table
    from user_embeddings_dagster.storage.score_table import ScoreTable

    scores = ScoreTable(layout.scores).read()
    print(as_csv(scores) if options.csv else results_table(scores, full=True))
    return 0


def _trace(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.evaluation.trace import chunks_of_record, scores_of_chunks
    from user_embeddings_dagster.schema import TRAINING_SNAPSHOT
    from user_embeddings_dagster.storage.lake import Lake
    from user_embeddings_dagster.storage.score_table import ScoreTable

    lake = Lake(layout.root)
    place = {"raw_sha256": options.sha256, "raw_member": options.member, "raw_location": options.location}
    try:
        messages = lake.scan("messages", options.datadao)
        read = messages.filter(**place).select("message_id").collect()["message_id"]
        found = chunks_of_record(messages, lake.scan("masked_chunks", options.datadao), **place)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if read.is_empty():
        print("no message was read there: sha256, line or --member are of none, or it was dropped", file=sys.stderr)
        return 1
    for message in sorted({*read} - {*found["message_id"]}):
        print(f"message {message} in no chunk")
    trained = lake.current(TRAINING_SNAPSHOT.name)
    snapshot = lake.read(TRAINING_SNAPSHOT.name) if trained else TRAINING_SNAPSHOT.empty()
    for message, chunk in found.iter_rows():
        split = snapshot.filter(chunk_id=chunk)["split"].to_list()
        print(f"message {message} in chunk {chunk}: {split[0] if split else 'not in the training snapshot'}")
    scores = scores_of_chunks(found["chunk_id"], snapshot, ScoreTable(layout.scores).read())
    for role, asset, datadao, n in scores.group_by("role", "asset", "datadao").len().sort("role", "asset").iter_rows():
        print(f"{role}: {n} scores of {asset}, {datadao}")
    return 0 if found.height else 1


def _purge(options: argparse.Namespace, layout: Layout) -> int:
    status, told = purging.run(options, layout, _say)
    print(told, file=sys.stderr if status else sys.stdout)
    return status


def _erase(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.keys import load_or_create_key
    from user_embeddings_dagster.privacy.erasure import erase, identity, report

    if reason := purging.beside_runs(options, layout):
        print(reason, file=sys.stderr)
        return 2
    try:
        key = load_or_create_key(layout.key)
        if options.resume:
            people = erase.pending(layout)
            if not people:
                _say("no erasure was left half way")
        elif options.account:
            people = [identity.of_account(layout.landing, key, options.account)]
        else:
            people = [identity.of_user(layout.landing, key, options.user_id)]
        executing = "beside" if options.force else "refuse"
        receipts = [erase.erase(layout, users, _say, executing) for users in people]
    except (ValueError, erase.ErasureRunning, erase.AssetsExecuting) as error:
        print(error, file=sys.stderr)
        return 2
    for receipt in receipts:
        print(report.as_text(receipt))
    return 0 if all(receipt.clean for receipt in receipts) else 1


def _seal_model(options: argparse.Namespace, _: Layout) -> int:
    try:
        if not any(options.folder.glob("*.safetensors")):
            raise CorruptArtifact(f"{options.folder}: no folder of a model: no *.safetensors there")
        refuse_code(options.folder)
    except CorruptArtifact as error:
        print(error, file=sys.stderr)
        return 2
    _say(f"{options.folder}: sealed as {finalise(options.folder)}")
    return 0


def _dev(options: argparse.Namespace, layout: Layout) -> int:
    from user_embeddings_dagster.runner import open_instance

    home = layout.root / "dagster_home"
    make_folder(home)
    try:
        keep_alone(home)  # two daemons would both start what is due; Dagster only warns
    except BlockingIOError:
        print(f"{layout.root}: `user-embeddings dev` is running on this data root already", file=sys.stderr)
        return 2
    open_instance(home).dispose()
    dagster = shutil.which("dagster", path=str(Path(sys.executable).parent)) or "dagster"
    workspace = Path(__file__).parent.parent / "workspace.yaml"
    os.execv(dagster, [dagster, "dev", "-w", str(workspace), "--port", str(options.port)])


def _say(message: str) -> None:
    print(f"== {line(message)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run()
