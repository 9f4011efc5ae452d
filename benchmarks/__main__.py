"""Every benchmark of ingestion, both sides of each ratio in one run: `python -m benchmarks`."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("ingestion_reddit.py", "ingestion_json.py")


def main() -> int:
    """Run each script in a process of its own, so that peak memory is its own; returns 1 if one failed."""
    folder = Path(__file__).parent
    failed = 0
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        failed += subprocess.run([sys.executable, str(folder / script)], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
