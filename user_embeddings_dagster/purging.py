"""`user-embeddings purge`, and why not to remove anything now."""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime

from user_embeddings_dagster.settings import Layout, retention_setting


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """The command's options."""
    purging = commands.add_parser("purge", help="remove what is past its retention window, from every stage")
    purging.add_argument("--dry-run", action="store_true", help="only say what would go")
    return purging


def check_setting() -> None:
    """Raises ValueError on a retention setting that cannot be meant."""
    from user_embeddings_dagster.privacy.retention.windows import windows

    windows(retention_setting())


def beside_runs(options: argparse.Namespace, layout: Layout) -> str | None:
    """Why not to remove anything now; None if there is no reason, or the operator insists."""
    from assets.live_runs import RunsUnderWay, homes, open_home, refuse_beside_runs

    for home in [] if options.force else homes(layout):
        with open_home(home) or nullcontext() as instance:
            try:
                if instance is not None:
                    refuse_beside_runs(instance)
            except RunsUnderWay as error:
                return str(error)
    return None


def run(options: argparse.Namespace, layout: Layout, announce: Callable[[str], None]) -> tuple[int, str]:
    """Purge what is past its window: exit status (2 if that is refused) and what to tell."""
    from assets import retention
    from assets.live_runs import open_home
    from user_embeddings_dagster.privacy.erasure.erase import AssetsExecuting, ErasureRunning
    from user_embeddings_dagster.privacy.retention.purge import as_text, purge
    from user_embeddings_dagster.privacy.retention.windows import windows

    if not options.dry_run and (reason := beside_runs(options, layout)):
        return 2, reason
    try:
        limits = windows(retention_setting())
        with open_home(layout.root / "dagster_home") or nullcontext() as instance:
            stages = retention.stages(instance) if instance else []
            found = purge(
                layout, limits, datetime.now(UTC), stages, dry_run=options.dry_run, announce=announce,
                executing="beside" if options.force else "refuse",
            )  # fmt: skip
    except (ValueError, ErasureRunning, AssetsExecuting) as error:
        return 2, str(error)
    told = as_text(found)
    if options.dry_run:
        told += "\nNothing was removed: this is what a purge would remove."
    elif any(row.n_purged for row in found.values()):
        told += "\nNext: materialise the DataDAOs again; what was made of purged messages is then made of what is left."
    return 0, told
