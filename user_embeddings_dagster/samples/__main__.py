"""Command line: `python -m user_embeddings_dagster.samples LANDING [--seed 7] [--contributors 128]`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from user_embeddings_dagster.samples.generator import generate


def main(arguments: list[str] | None = None) -> int:
    """Write the sample exports and print the manifest as JSON."""
    parser = argparse.ArgumentParser(prog="python -m user_embeddings_dagster.samples", description=main.__doc__)
    parser.add_argument("landing", type=Path, help="landing folder; one folder per DataDAO is written below it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--contributors", type=int, default=128)
    options = parser.parse_args(arguments)

    def show(name: str, done: int, total: int) -> None:
        print(f"{done}/{total} {name}", file=sys.stderr)  # noqa: T201

    try:
        manifest = generate(options.landing, options.seed, options.contributors, show)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    summary = asdict(manifest) | {"files": len(manifest.files)}
    print(json.dumps(summary, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
