"""`user-embeddings export-model`: the trained models as folders that load with torch and transformers alone."""

import argparse
import sys
from pathlib import Path

from user_embeddings_dagster.model_export.export import ARTIFACTS, export_models
from user_embeddings_dagster.model_export.source import NotStandalone
from user_embeddings_dagster.privacy.access.log import LogDamaged
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.manifest import CorruptArtifact
from user_embeddings_dagster.storage.models import StaleEncoder, TaintedModel

REFUSED = (TaintedModel, StaleEncoder, CorruptArtifact, LogDamaged, NotStandalone)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command."""
    export = commands.add_parser("export-model", help="write the user encoder and the personalised LLM as folders that "
                                 "load without this package")  # fmt: skip
    export.add_argument("--to", type=Path, required=True, help="folder that they are written below")
    export.add_argument("--dimension", default="1024", help="of the user state (default: 1024, the served one)")
    export.add_argument("--only", choices=ARTIFACTS, help="one of the two")


def run(options: argparse.Namespace, layout: Layout) -> int:
    """Export; 0, 1 if it may not be exported or does not fit together, 2 if it was asked wrongly."""
    artifacts = [options.only] if options.only else list(ARTIFACTS)
    try:
        for folder in export_models(layout, options.to, options.dimension, artifacts):
            sys.stdout.write(f"{folder}\n")
    except REFUSED as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
